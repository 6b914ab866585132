"""A text's windows and rows: every token but the first is predicted exactly once, from the tokens before it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from dlrun.datasets.language.windows import Streams, Windows
from dlrun.errors import ConfigError, DataError
from dlrun.types import IGNORE_INDEX, Batch

LENGTHS = (2, 3, 5, 16, 17, 18, 61)
SHAPES = [
    (context, stride)
    for context in (1, 2, 5, 16)
    for stride in sorted({1, 2, context // 2, context})
    if 1 <= stride <= context
]


def text(n: int, context: int, stride: int) -> Windows:
    # a token is its own place: what is predicted, and from what, can be read off
    return Windows(torch.arange(100, 100 + n), context, stride)


def predictions(batch: Batch) -> list[tuple[int, list[int]]]:
    """Each predicted token of a batch, with the tokens of its row up to it."""
    return [
        (int(batch.y[b, t]), batch.x[b, : t + 1].tolist()) for b, t in torch.nonzero(batch.y != IGNORE_INDEX).tolist()
    ]


@pytest.mark.parametrize(("context", "stride"), SHAPES)
def test_every_token_but_the_first_is_predicted_once_from_those_before(context: int, stride: int) -> None:
    for n, size in product(LENGTHS, (1, 7, 1000)):
        windows = text(n, context, stride)
        portions = torch.split(torch.arange(len(windows)), size)
        found = [token for index in portions for token in predictions(windows.gather(index))]
        assert sorted(token for token, _ in found) == list(range(101, 100 + n))
        for token, before in found:
            assert before == list(range(token - len(before), token))
            # as far back as the text goes, or as the stride promises
            assert len(before) >= min(token - 100, context - stride + 1)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_token_but_the_first_is_predicted_once_along_the_rows(count: int) -> None:
    for n, context in product(LENGTHS, (1, 2, 5, 16)):
        ways = [walked(Streams(text(n, context, context), count), rows) for rows in (1, 2, 100)]
        assert [token for token, _ in ways[0]] == list(range(101, 100 + n))
        assert ways[0] == ways[1] == ways[2]


def walked(streams: Streams, rows: int) -> list[tuple[int, int]]:
    """Each predicted token, in order, with the number of tokens read before it in its row."""
    memory: list[list[int]] = []
    found: list[tuple[int, int]] = []
    for fresh, (x, y) in streams.walk(rows):
        memory = [[] for _ in x] if fresh else memory
        for row, (xs, ys) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
            for token, target in zip(xs, ys, strict=True):
                memory[row].append(token)
                if target != IGNORE_INDEX:
                    assert memory[row] == list(range(target - len(memory[row]), target))
                    found.append((target, len(memory[row])))
    return sorted(found)


@pytest.mark.parametrize(("context", "stride"), SHAPES)
def test_a_drawn_window_is_full_and_moved_by_less_than_a_stride(context: int, stride: int) -> None:
    for n in LENGTHS:
        windows = text(n, context, stride)
        index = torch.arange(len(windows)).repeat(5)
        x, y = windows.draw(index, torch.Generator().manual_seed(0))
        assert x.shape == y.shape == (len(index), context) and x.dtype == y.dtype == torch.int64
        if n <= context:
            assert torch.equal(y, windows.gather(index).y)
            continue
        assert torch.equal(y, x + 1)
        moved = x[:, 0] - 100 - index * stride
        at_end = x[:, 0] == 100 + n - 1 - context
        assert bool(((moved < stride) & ((moved >= 0) | at_end)).all())
        assert torch.equal(x, windows.draw(index, torch.Generator().manual_seed(0)).x)


def test_every_drawn_place_is_reached() -> None:
    windows = text(13, 4, 4)
    draw = torch.Generator().manual_seed(1)
    starts = windows.starts(torch.zeros(400, dtype=torch.int64), draw)
    assert sorted(set(starts.tolist())) == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_and_a_mapped_file_give_the_same(dtype: torch.dtype, tmp_path: object) -> None:
    tokens = torch.randint(0, 256, (1001,), generator=torch.Generator().manual_seed(0))
    plain = Windows(tokens, 16, 8)
    file = f"{tmp_path}/tokens"
    tokens.to(dtype).numpy().tofile(file)
    kind = {torch.uint16: np.uint16}.get(dtype) or tokens.to(dtype).numpy().dtype
    mapped = Windows(torch.from_numpy(np.memmap(file, dtype=kind, mode="r+")), 16, 8)
    for split in (Windows(tokens.to(dtype), 16, 8), mapped, mapped.to(torch.device("cpu"))):
        for way in ("gather", "at"):
            index = torch.tensor([5, 0, 40, 11])
            assert all(
                torch.equal(a, b) and a.dtype == torch.int64
                for a, b in zip(getattr(split, way)(index), getattr(plain, way)(index), strict=True)
            )


def test_bytes_are_known_of_a_part_on_average() -> None:
    windows = Windows(torch.arange(101), 10, 10, bytes=250)
    assert windows.bytes_per_token == 2.5
    part = windows.take_first(3)
    assert len(part) == 3 and part.predicted == 30 and part.bytes == 75
    assert windows.take_first(1000) is windows
    assert Windows(torch.arange(101), 10, 10).bytes_per_token is None
    assert Streams(windows, 4).bytes_per_token == 2.5


def test_the_first_windows_are_those_of_the_whole() -> None:
    windows = text(61, 5, 2)
    index = torch.arange(7)
    assert all(
        torch.equal(a, b) for a, b in zip(windows.gather(index), windows.take_first(7).gather(index), strict=True)
    )


def test_portions_of_rows_are_their_beginnings() -> None:
    streams = Streams(text(101, 5, 5), 4)
    targets = [y for _, (_, y) in streams.take_spaced(8).walk(4)]
    assert torch.cat(targets, 1)[:, 0].tolist() == [101, 126, 151, 176]
    assert sum(t.numel() for t in targets) == 4 * 2 * 5
    assert sum(y.shape[1] for _, (_, y) in streams.take_spaced(1).walk(4)) == 5


@pytest.mark.parametrize(("context", "stride"), [(0, 0), (4, 0), (4, 5)])
def test_lengths_that_make_no_windows_are_refused(context: int, stride: int) -> None:
    with pytest.raises(ConfigError, match=f"dataset.stride={stride}"):
        Windows(torch.arange(9), context, stride)


@pytest.mark.parametrize("tokens", [torch.arange(1), torch.zeros(3, 3).long(), torch.zeros(9)])
def test_what_is_no_text_is_refused(tokens: Tensor) -> None:
    with pytest.raises(DataError, match="at least 2 whole"):
        Windows(tokens, 4, 4)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="streams=0"):
        Streams(text(9, 4, 4), 0)
