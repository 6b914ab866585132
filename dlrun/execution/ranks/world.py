"""The processes of a run, as torchrun starts them, and what they tell each other."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from dlrun.errors import ConfigError
from dlrun.execution.ranks import messages

T = TypeVar("T")

FOLDER = "folder"
"""The name under which the first process keeps the run's folder."""
GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited", "NCCL")
"""Words of gloo and NCCL about a process that is gone."""
LOST = (
    "Another process of this run has ended without a word: it was killed, had no memory left, or lost its connection."
)
DAY = timedelta(days=1)
"""How long a process waits for the others: the first may have to download a data set."""


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them.

    `rank` counts them from 0, `local_rank` those of one machine, of which there are `local_size`.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    restarts: int
    _store: Any
    _control: Any

    @property
    def first(self) -> bool:
        """Is this the process that composes, writes and shows?"""
        return self.rank == 0

    def broadcast(self, content: T | None = None) -> T:
        """The first process's `content`, in all of them."""
        found: T = messages.broadcast(content, first=self.first, group=self._control)
        return found

    def gather(self, content: T) -> list[T]:
        """The contents of all processes, in their order, in all of them."""
        return messages.gather(content, number=self.size, group=self._control)

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """The largest of each number among the processes."""
        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._control)
        values: list[float] = tensor.tolist()
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor`, in place the sum of those of all processes, on their device."""
        dist.all_reduce(tensor)
        return tensor

    def send_first(self, tensors: Sequence[Tensor]) -> None:
        """Set the tensors of all processes to those of the first."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def note_failure(self, text: str) -> None:
        """Leave the others word why this process ends."""
        self._store.set(f"failure/{self.restarts}/{self.rank}", text)

    def explain(self, error: BaseException) -> str | None:
        """Why another process has ended, if `error` comes from that."""
        try:
            for rank in range(self.size):
                name = f"failure/{self.restarts}/{rank}"
                if rank != self.rank and self._store.check([name]):
                    return f"Process {rank} of {self.size}: {self._store.get(name).decode()}"
        # the process that held the store is the one that has ended
        except dist.DistError:
            return LOST
        gone = any(word in str(each) for each in _causes(error) for word in GONE)
        return LOST if gone else None

    def keep(self, name: str, text: str) -> None:
        """Keep a text for the processes of a restart."""
        self._store.set(name, text)

    def kept(self, name: str) -> str | None:
        """The text that processes before a restart have kept."""
        return self._store.get(name).decode() if self._store.check([name]) else None


def _end_with(parent: int) -> None:
    """Stop this process once its launcher has ended: one that is killed ends none of its processes."""
    while os.getppid() == parent:
        time.sleep(1.0)
    # once: the signal that the kernel sends for a parent (PR_SET_PDEATHSIG) comes again for each new one
    os.kill(os.getpid(), signal.SIGTERM)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def begun() -> str | None:
    """The folder that processes of this run had begun, before torchrun started it again."""
    found = world()
    return found.kept(FOLDER) if found else None


def size() -> int:
    """The number of processes that torchrun has started; 1 without it.

    Raises `ConfigError` for variables that are no numbers.
    """
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(
            f"WORLD_SIZE={given}: expected a number of processes, as torchrun sets it. Type `unset WORLD_SIZE`."
        )
    return int(given)


def rank() -> int:
    """This process's place among them."""
    given = os.environ.get("RANK") or "0"
    return int(given) if given.isdecimal() else 0


@cache
def world() -> World | None:
    """The processes of this run, which this one joins; None if it has one.

    Raises `ConfigError` if torchrun's variables are incomplete.
    """
    count = size()
    if count == 1:
        return None
    try:
        place, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
        host, local = os.environ["MASTER_ADDR"], int(os.environ.get("LOCAL_RANK", 0))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"WORLD_SIZE={count}, and {error.args[0]} is missing or no number: torchrun sets both. Type "
            "`dlrun train trainer.devices=2`, or `unset WORLD_SIZE RANK` if another program has set it."
        ) from error
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_end_with, args=[os.getppid()], name="launcher", daemon=True).start()
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    # torchrun's own process holds the store: what is kept there outlives these processes
    held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=not held and place == 0, wait_for_workers=False, timeout=DAY
    )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    group = PrefixStore(f"dlrun/{restarts}", store)
    dist.init_process_group(backend, store=group, rank=place, world_size=count, timeout=DAY)
    # threads of gloo that outlive the interpreter end it with an abort
    atexit.register(dist.destroy_process_group)
    control = dist.new_group(backend="gloo", timeout=DAY)
    kept = PrefixStore("dlrun", store)
    return World(place, count, local, int(os.environ.get("LOCAL_WORLD_SIZE", count)), restarts, kept, control)
