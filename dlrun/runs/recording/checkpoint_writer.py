"""The writing of checkpoints: the best before the last, and on a GPU in a thread, while training goes on.

On a GPU all tensors are copied into pinned host memory, queued on the stream of the steps: no step overwrites a
tensor before its copy. A thread waits for one event behind the copies, serialises and writes. On a CPU a copy would
take as long as writing, which ends in the kernel's memory too: training waits for it.
"""

from __future__ import annotations

import errno
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
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir
from dlrun.terminal import output
from dlrun.terminal.format import duration

PATIENCE = 600.0
"""Seconds that a trained run waits for space to write its weights."""

Snapshot = Callable[[Any], tuple[Any, Callable[[], None]]]
"""Copies tensors; returns the copy, and a function that waits until it is complete."""


class Saver:
    """Writes a run's checkpoints, one at a time.

    With a `snapshot` it writes in a thread. On a full disk, or in a folder that may not be written, the last good
    checkpoint stays, and training goes on. `saved_step` is that of the checkpoint on the disk. Call `insist` or `close`
    before the files are read, and before the folder's lock is freed.
    """

    def __init__(self, run: RunDir, journal: Journal, snapshot: Snapshot | None = None) -> None:
        self._run = run
        self._journal = journal
        self._snapshot = snapshot
        self.saved_step: int | None = None
        self._best_step: int | None = None
        self._unwritten: tuple[Checkpoint, BestWeights | None] | None = None
        self._thread: Thread | None = None
        self._error: Exception | None = None
        # why `_unwritten` is not written
        self._refused: OSError | None = None

    def save(self, content: Checkpoint, best: BestWeights | None) -> None:
        """Write a checkpoint, or begin to.

        The previous one is complete by then, or a warning was shown.
        """
        # one at a time: two threads would write the same files
        self.wait()
        # the best weights change rarely, and their file is as large as the model
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
        """Wait for the thread to end.

        A full disk is a warning; the thread's other errors are raised.
        """
        if self._thread:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, OSError) and self._unwritten:
            self._refused, step = error, self._unwritten[0].step
            output.warn(f"No checkpoint at step {step} ({error}); the one before it stays.")
        elif error:
            raise error

    def insist(self) -> None:
        """Wait until the last checkpoint is written.

        Raises `RunError` if it cannot be for `PATIENCE` seconds.
        """
        self.wait()
        if self._unwritten is None:
            return
        output.warn(
            f"The trained weights are in memory only: {_reason(self._refused)}. Trying again for {duration(PATIENCE)} "
            f"(Ctrl-C gives them up) …"
        )
        if not wait_until(self._tried, PATIENCE, poll=1.0):
            raise RunError(f"The last weights are not saved after {duration(PATIENCE)}: {_reason(self._refused)}.")

    def close(self) -> None:
        """Wait for the thread; its error is a warning."""
        try:
            self.wait()
        except Exception as error:
            # an error raised here would hide why the run ends
            output.warn(f"The last checkpoint could not be written: {type(error).__name__}: {error}")

    def _attempt(self, complete: Callable[[], None] = lambda: None) -> None:
        try:
            complete()
            self._write()
        except Exception as error:  # `wait` raises it: in a thread it would be lost
            self._error = error

    def _tried(self) -> bool:
        try:
            self._write()
        except OSError as error:
            self._refused = error
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
        self.saved_step = content.step
        self._unwritten = None


def _reason(error: OSError | None) -> str:
    if error is None or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return str(error)


def make_snapshot(device: torch.device) -> Snapshot | None:
    """Make the snapshot function of a CUDA device; None on others."""
    if device.type != "cuda":
        return None

    def snapshot(content: Any) -> tuple[Any, Callable[[], None]]:
        copies = on_host(content)
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # who waits for it sleeps
        copied.record(torch.cuda.current_stream(device))
        return copies, copied.synchronize

    return snapshot


def on_host(content: Any) -> Any:
    """Copy all tensors of `content` to host memory.

    The copies from a GPU go to pinned memory and are queued. Tensors that share their memory, as tied weights do, share
    it in the copy.
    """
    copies: dict[Hashable, Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            place = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
            # tied weights are one tensor under two names
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
