"""A strategy game: a policy network of perfect play at noughts and crosses."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from dlrun.datasets import from_nested
from dlrun.nests.batch import Batch
from dlrun.types import Data

Board = tuple[int, ...]
"""Nine fields, row by row: 1 where the player to move has a mark, -1 where the other has one, else 0."""

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
TURNED = (6, 3, 0, 7, 4, 1, 8, 5, 2)
MIRRORED = (2, 1, 0, 5, 4, 3, 8, 7, 6)


def play(board: Board, field: int) -> Board:
    """The board after a move, as the other player sees it."""
    return tuple(-1 if i == field else -mark for i, mark in enumerate(board))


@cache
def value(board: Board) -> int:
    """Of perfect play, for the player to move: 1 a win, 0 a draw, -1 a loss."""
    if any(all(board[i] == -1 for i in line) for line in LINES):
        return -1
    return max((-value(play(board, field)) for field in moves(board)), default=0)


def moves(board: Board) -> list[int]:
    return [field for field, mark in enumerate(board) if mark == 0]


def over(board: Board) -> bool:
    return 0 not in board or any(all(board[i] == -1 for i in line) for line in LINES)


def same_boards(board: Board) -> set[Board]:
    """The board turned and mirrored, in all eight ways."""
    found = set()
    for _ in range(4):
        board = tuple(board[i] for i in TURNED)
        found |= {board, tuple(board[i] for i in MIRRORED)}
    return found


def positions() -> list[Board]:
    """All boards that play can reach and that are not over, one of each eight equal ones, in a fixed order."""
    seen: dict[Board, Board] = {}
    left = [(0,) * 9]
    while left:
        board = left.pop()
        if over(board) or board in seen:
            continue
        seen |= dict.fromkeys(same_boards(board), board)
        left += [play(board, field) for field in moves(board)]
    return sorted({*seen.values()})


def tictactoe(validation_size: float = 0.15, test_size: float = 0.25) -> Data:
    """Boards [2, 3, 3] of the own and the other's marks, and the best moves [9], which may be several.

    A board and its turned and mirrored forms are in one split: only new positions are in the test.
    """
    boards = positions()
    order = torch.randperm(len(boards), generator=torch.Generator().manual_seed(0)).tolist()
    cut = [0, int(test_size * len(boards)), int((test_size + validation_size) * len(boards)), len(boards)]
    test, validation, train = ([boards[i] for i in order[a:b]] for a, b in pairwise(cut))
    return from_nested("tictactoe", _samples(train), _samples(validation), _samples(test))


def _samples(boards: list[Board]) -> tuple[Tensor, Tensor]:
    boards = sorted({each for board in boards for each in same_boards(board)})
    marks = torch.tensor(boards)
    best = torch.zeros(len(boards), 9)
    for row, board in enumerate(boards):
        best[row, [field for field in moves(board) if -value(play(board, field)) == value(board)]] = 1.0
    return torch.stack([marks == 1, marks == -1], dim=1).float().view(-1, 2, 3, 3), best


class Policy(nn.Module):
    """Logits of the nine fields, -inf where a mark is: x [B, 2, 3, 3] ↦ [B, 9]."""

    def __init__(self, input_shape: tuple[int, ...], width: int = 256, depth: int = 3) -> None:
        super().__init__()
        sizes = [torch.Size(input_shape).numel(), *[width] * depth]
        hidden = [each for a, b in pairwise(sizes) for each in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).masked_fill(x.sum(1).flatten(1) > 0, -torch.inf)


def best_moves_loss(model: nn.Module, batch: Batch) -> Tensor:
    """-log of the probability of any best move, [B]."""
    log_p = model(batch.x).log_softmax(1)
    return -log_p.masked_fill(batch.y == 0, -torch.inf).logsumexp(1)


def right_moves(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """The share of boards whose likeliest move is a best one: (their number, all)."""
    chosen = model(batch.x).argmax(1, keepdim=True)
    return batch.y.gather(1, chosen).sum().double(), len(batch.y)


right_moves.higher_is_better = True
