"""The buffers of modules that are computed twice: the second pass sees what the first saw, and changes nothing.

A batch norm would otherwise count a batch twice in its running mean, and a spectral norm would take another step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn

Table = dict[str, Tensor | None]
"""The buffers of a module, by name."""


class BufferWatch:
    """Has a second pass through modules begin with the buffers of the first.

    Only those of modules that change one are copied: a mask may be as large as the activations.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._tables: list[Table] | None = None
        self._changing: list[Table] = []

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """A context for the first pass, and one for the second."""
        kept: list[tuple[Table, Table]] = []
        return self._first(kept), self._second(kept)

    @contextmanager
    def _first(self, kept: list[tuple[Table, Table]]) -> Iterator[None]:
        # in the very first pass any may change
        first = self._tables is None
        if self._tables is None:
            self._tables = [m._buffers for each in self._modules for m in each.modules() if m._buffers]
        copied = self._tables if first else self._changing
        copies = [(table, _copy(table)) for table in copied]
        before = [(table, dict(table), _versions(table)) for table in self._tables]
        yield
        # a batch norm's kernel changes its means without a new version, and its count with one
        changed = [table for table, held, versions in before if _versions(table) != versions or _replaced(table, held)]
        kept += [(table, copy) for table, copy in copies if _among(table, changed)]
        # one that changes later, such as that of a norm that was frozen, is copied from the next pass on
        self._changing += [table for table in changed if not _among(table, self._changing)]

    @contextmanager
    def _second(self, kept: list[tuple[Table, Table]]) -> Iterator[None]:
        found = {id(table): copy for table, copy in kept}
        now = [(table, dict(table)) for table in self._changing]
        # replaced, not overwritten: the graph may hold them
        for table, held in now:
            table.update(_copy(found.get(id(table), held)))
        try:
            yield
        finally:
            for table, held in now:
                table.update(held)


def _copy(table: Mapping[str, Tensor | None]) -> Table:
    return {name: None if buffer is None else buffer.detach().clone() for name, buffer in table.items()}


def _versions(table: Table) -> list[int]:
    return [0 if buffer is None else buffer._version for buffer in table.values()]


def _replaced(table: Table, held: Table) -> bool:
    return any(table.get(name) is not buffer for name, buffer in held.items())


def _among(table: Table, tables: Sequence[Table]) -> bool:
    # by identity: tensors do not compare to a bool
    return any(table is each for each in tables)
