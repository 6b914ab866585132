"""The checkpoints of a run as they come to the disk: the best before the last, and beside training on a GPU.

There all tensors are copied into pinned host memory behind one event; a thread waits for it, serialises and writes,
and training goes on meanwhile. The copies are queued on the stream of the steps, so that no step overwrites what has
not been copied yet. On a CPU a copy takes as long as the writing, which ends in the kernel's memory too: there
training goes on when the checkpoint is written. The tests hand in the copying for a GPU, which has run on none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import fields, replace
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from dlrun.errors import RunError
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.files import wait_until
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.format import duration

PATIENCE = 600.0
"""Seconds for which a run that has ended waits for space to write its weights."""

Snapshot = Callable[[Any], tuple[Any, Callable[[], None]]]
"""Takes a copy that training does not change; returns it, and what waits until it is complete."""


class Saver:
    """Writes the checkpoints of a run; with a `snapshot` in a thread, one at a time.

    On a full disk the last good checkpoint stays and training goes on; `insist` waits at the end. Whoever reads
    the files, or lets go of the folder, calls `insist` or `close` before.
    """

    def __init__(self, run: RunDir, journal: Journal, snapshot: Snapshot | None = None) -> None:
        self._run = run
        self._journal = journal
        self._snapshot = snapshot
        self._best_step: int | None = None
        self._unwritten: tuple[Checkpoint, BestWeights | None] | None = None
        self._thread: Thread | None = None
        self._error: Exception | None = None

    def save(self, content: Checkpoint, best: BestWeights | None) -> None:
        """Write a checkpoint, or begin to once the one before it is written; warn of one that found no room."""
        self.wait()
        new = best if best and best.step != self._best_step else None
        if self._snapshot is None:
            self._unwritten = content, new
            self._attempt()
            self.wait()
        else:
            self._unwritten, complete = self._snapshot((content, new))
            self._thread = Thread(target=self._attempt, args=(complete,), name="checkpoint")
            self._thread.start()

    def wait(self) -> None:
        """Wait for the checkpoint under way; warn if the disk had no room for it, raise what else became of it."""
        if self._thread:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, OSError) and self._unwritten:
            step = self._unwritten[0].step
            output.warn(f"No checkpoint at step {step} ({error}); the one before it stays.")
        elif error:
            raise error

    def insist(self) -> None:
        """Wait until the last checkpoint can be written; raise `RunError` if the disk stays full."""
        self.wait()
        if self._unwritten is None:
            return
        output.warn("The trained weights are in memory only. Waiting for space on the disk (Ctrl-C gives them up) …")
        if not wait_until(self._tried, PATIENCE, poll=1.0):
            raise RunError(f"The disk stayed full for {duration(PATIENCE)}: the last weights are not saved.")

    def close(self) -> None:
        """Wait for the checkpoint under way; that it fails is told, and does not hide why the run ends."""
        try:
            self.wait()
        except Exception as error:
            output.warn(f"The last checkpoint could not be written: {type(error).__name__}: {error}")

    def _attempt(self, complete: Callable[[], None] = lambda: None) -> None:
        try:
            complete()
            self._write()
        except Exception as error:  # for `wait`: in a thread nobody would hear of it
            self._error = error

    def _tried(self) -> bool:
        try:
            self._write()
        except OSError:
            return False
        return True

    def _write(self) -> None:
        if self._unwritten is None:
            return
        content, best = self._unwritten
        # the best and the curves first: a `last` finds the weights that it names, and lacks no point before it
        if best:
            checkpoint.save(self._run.best, best)
            self._best_step = best.step
            self._unwritten = content, None
        self._journal.sync()
        checkpoint.save(self._run.last, content)
        self._unwritten = None


def beside(device: torch.device) -> Snapshot | None:
    """Return how checkpoints are copied that are written while training goes on; None where they are not."""
    if device.type != "cuda":
        return None

    def snapshot(content: Any) -> tuple[Any, Callable[[], None]]:
        copies = on_host(content)
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # who waits for it sleeps
        copied.record(torch.cuda.current_stream(device))
        return copies, copied.synchronize

    return snapshot


def on_host(content: Any) -> Any:
    """Return `content` with a copy of each of its tensors in host memory, in pinned memory if it comes from a GPU.

    The copies from a GPU are queued, not waited for. Tensors that are one in memory, as tied weights are, are one
    in the copy.
    """
    copies: dict[Hashable, Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            place = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
            if place not in copies:
                copies[place] = value.detach().to("cpu", non_blocking=True, copy=True)
            return copies[place]
        if isinstance(value, dict):
            whole = copy(value)  # with the versions that a model's state dict has as an attribute
            whole.update({name: copied(each) for name, each in value.items()})
            return whole
        if isinstance(value, Checkpoint | BestWeights):
            return replace(value, **{field.name: copied(getattr(value, field.name)) for field in fields(value)})
        return type(value)(map(copied, value)) if isinstance(value, list | tuple) else value

    return copied(content)
