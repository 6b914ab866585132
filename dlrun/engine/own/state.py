"""The state of a run's parts beside the model's state dict: what is saved of it, and what cannot be.

    own = OwnState({"model": model, "loss": loss})
    before = own.now()                    # before a first pass
    …                                     # some passes, which count, draw and cache
    own.learn(before, forward)            # what has changed, and does it depend on what was before?
    content = own.state_dict()            # for a checkpoint
    own.load_state_dict(content)

A checkpoint holds the state dicts of parts that have one, the weights of modules in parts, and the attributes that
change and are numbers, text, tensors, containers of these, or generators. `lost` names the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isclose, isnan
from typing import Any

from torch import nn

from dlrun.engine.own.admission import Admission, refuse
from dlrun.engine.own.attributes import MISSING, Attribute, attributes, keeps_state, owners
from dlrun.engine.own.encoding import Unsaveable, copy_plain, decode, encode, is_iterator, mark
from dlrun.engine.own.modules import module_of
from dlrun.engine.own.rules import OptimizerState
from dlrun.engine.own.source import read_source
from dlrun.errors import ConfigError
from dlrun.randomness import changed_libraries, library_states, seed_library
from dlrun.terminal import output


@dataclass
class Snapshot:
    """The attributes and generators at one moment."""

    marks: dict[str, Hashable]
    values: dict[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, Hashable] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)


class OwnState:
    """The state of the parts of a run, by name: `model`, `loss`, `metrics.f1`, `schedule`, `augment`.

    `saved` are the names of attributes that change and are saved, `lost` those that change and cannot be. `drawn` are
    the libraries whose generators the parts draw from: each step seeds these too. Of the names in `trusted`,
    `state.loss.phase` has a checkpoint set that attribute to anything (`admission`).
    """

    def __init__(self, parts: Mapping[str, Any], trusted: Collection[str] = ()) -> None:
        self.parts = dict(parts)
        self.saved: list[str] = []
        self.lost: list[str] = []
        self.drawn: list[str] = []
        self._harmless: set[str] = set()
        self._asked: set[str] = set()
        self._trusted = trusted
        self._admission = Admission(lambda: read_source(each for _, each in owners(self.parts)), trusted)
        # attributes that the first pass makes are taken away again: they are set by these
        self._made: dict[str, Attribute] = {}
        self._settled: Snapshot | None = None
        self.optimizer: OptimizerState | None = None

    def now(self) -> Snapshot:
        """The attributes as they are, to compare and to put back.

        Raises `ConfigError` for a part whose state dict holds more than a checkpoint may.
        """
        found, values = attributes(self.parts), {}
        for name, attribute in found.items():
            try:
                values[name] = encode(attribute.read())
            except Unsaveable:
                continue
        return Snapshot(self._marks(found), values, library_states(), self._checked_parts())

    def learn(self, before: Snapshot, forward: Callable[[int], float]) -> None:
        """Find the state among what has changed since `before`, and put it back.

        `forward(0)` and `forward(1)` are the loss of two batches, with equal draws at each call.
        """
        found = attributes(self.parts)
        marks = self._marks(found)
        self._admission.begin(before.marks, before.values, before.parts)
        changed = _differing(before.marks, marks)
        iterators = [name for name, each in found.items() if is_iterator(each.read()) and not _counts(each)]
        if changed or iterators:
            # a cache, and the output of the last call, depend on the batch alone: what was before them makes no odds
            forward(1)
            other = self._marks(attributes(self.parts))
            one, first = forward(0), self._marks(attributes(self.parts))
            two, second = forward(0), self._marks(attributes(self.parts))
            state = _differing(first, second)
            if not state and not _equal(one, two):
                state = changed
            # by these passes alone: a resumed run sees them too, and takes no steps
            seen = [*_differing(marks, other), *_differing(other, first), *_differing(first, second)]
            self._harmless |= {*changed} - {*state}
            self._made = {name: each for name, each in attributes(self.parts).items() if name not in before.marks}
            self._admission.see(seen)
            self._add([*state, *iterators])
        self._put_back(before, [*changed, *self.saved])

    @contextmanager
    def noting_draws(self) -> Iterator[None]:
        """Note the libraries that the parts draw from within the context."""
        before = library_states()
        yield
        self.drawn += [name for name in changed_libraries(before) if name not in self.drawn]

    def seed(self, value: int) -> None:
        """Seed the generators of libraries that the parts draw from."""
        for library in self.drawn:
            seed_library(library, value)

    def watch(self) -> None:
        """Take the attributes of now as the first ones; `look_again` finds those that change."""
        before = self.now()
        self._admission.begin(before.marks, before.values, before.parts)
        # whoever else draws from the libraries' generators is no part of these
        self._settled = Snapshot(before.marks)

    def settle(self) -> None:
        """Take the attributes of now, after some steps, to compare later ones with."""
        self._settled = self.now()

    def look_again(self) -> list[str]:
        """A line for each further state: attributes changed since `settle`, generators that were drawn from."""
        if self._settled is None:
            return []
        found = attributes(self.parts)
        known = {*self.saved, *self.lost, *self._harmless}
        late = [name for name in _differing(self._settled.marks, self._marks(found)) if name not in known]
        self._add(late)
        drawn = [name for name in changed_libraries(self._settled.libraries) if name not in self.drawn]
        self.drawn += drawn
        return [*describe([n for n in late if n in self.saved], [n for n in late if n in self.lost], drawn)]

    def why_not_one_program(self) -> str | None:
        """Why steps of these parts cannot be compiled, recorded or stacked."""
        if self.drawn:
            return f"its parts draw from {' and '.join(self.drawn)}, by a key of each step that a program does not know"
        if changing := [*self.saved, *self.lost]:
            return f"{', '.join(changing)} changes in each step, which a program does not know"
        return None

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        parts, kept = self._of_parts(), {}
        found = attributes(self.parts) if self.saved else {}
        for name in [name for name in self.saved if name in found and _is_there(found[name])]:
            try:
                kept[name] = self._encode(name, found[name].read())
            except Unsaveable:  # it has become something else by now
                self.saved.remove(name)
                self.lost.append(name)
                output.warn(*describe([], [name], []))
        for name in self._admission.not_to_load(parts):
            if name not in self._asked:
                self._asked.add(name)
                output.warn(
                    f"A resume will ask for `'trusted=[state.{name}]'`: its state has text that is not in your code."
                )
        content = {"parts": parts, "attributes": kept, "drawn": list(self.drawn)}
        return content if any(content.values()) else {}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises `KeyError` for parts that it lacks, and `UserError` for what a checkpoint may not set.
        """
        reasons = self._admission.not_to_load(content["parts"])
        settable = self._made | attributes(self.parts)
        given = {name: value for name, value in content.get("attributes", {}).items() if name in settable}
        refuse(reasons | self._admission.not_to_set(given))
        for name, part in self.parts.items():
            if (own := _stateful(name, part)) is None:
                continue
            kept = content["parts"][name]
            for key, each in own.items():
                each.load_state_dict(kept[key])
        for name, value in given.items():
            settable[name].write(decode(value, settable[name].read()))
            # known from before: it need not be found again
            self.saved += [] if name in self.saved else [name]
        self.drawn += [name for name in content.get("drawn", []) if name not in self.drawn]

    def know_optimizer(self, optimizer: Any) -> None:
        """Take the state of the optimizer as its first one; `optimizer` tells which others it may have."""
        self.optimizer = OptimizerState(optimizer, self._trusted)

    def _of_parts(self) -> dict[str, Any]:
        kept = {name: _stateful(name, part) for name, part in self.parts.items()}
        return {name: {key: each.state_dict() for key, each in own.items()} for name, own in kept.items() if own}

    def _checked_parts(self) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, part in self.parts.items():
            for key, each in (_stateful(name, part) or {}).items():
                try:
                    kept.setdefault(name, {})[key] = copy_plain(each.state_dict())
                except Unsaveable as error:
                    raise ConfigError(
                        f"{name}: its state_dict() has a {error}; a checkpoint holds tensors, numbers, text, and lists "
                        f"and dicts of these."
                    ) from None
                except Exception as error:
                    raise ConfigError(f"{name}: its state_dict() failed: {type(error).__name__}: {error}") from error
        return kept

    def _marks(self, found: Mapping[str, Attribute]) -> dict[str, Hashable]:
        return {name: mark(value) for name, each in found.items() if (value := each.read()) is not MISSING}

    def _add(self, names: list[str]) -> None:
        found = attributes(self.parts)
        for name in dict.fromkeys(names):
            try:
                self._encode(name, found[name].read())
                self.saved.append(name)
            except (Unsaveable, KeyError):
                self.lost.append(name)

    def _encode(self, name: str, value: Any) -> Any:
        """A value for a checkpoint, if a resumed run would take it; else raises `Unsaveable`."""
        content = encode(value)
        if reason := self._admission.why_not(name, content):
            raise Unsaveable(reason)
        return content

    def _put_back(self, before: Snapshot, names: list[str]) -> None:
        found = attributes(self.parts)
        for name, own in before.parts.items():
            for key, each in (_stateful(name, self.parts[name]) or {}).items():
                each.load_state_dict(own[key])
        for name in dict.fromkeys(names):
            if name in before.values:
                found[name].write(decode(before.values[name], found[name].read()))
            elif name not in before.marks and name in found:
                found[name].write(MISSING)


def describe(saved: Sequence[str], lost: Sequence[str], drawn: Sequence[str]) -> Iterator[str]:
    """What a person has to know of the state, a line each."""
    if drawn:
        yield f"The parts draw from {_listed(drawn)}, seeded for each step by the run's seed; steps are not compiled."
    if saved:
        yield f"{_listed(saved)} changes while training: saved with the checkpoints; steps are not compiled."
    if lost:
        yield (
            f"Resume will not be exact because {_listed(lost)} changes while training and cannot be saved. Keep it in "
            f"a number, a tensor or a buffer, or give its class state_dict() and load_state_dict()."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _stateful(name: str, part: Any) -> dict[str, Any] | None:
    """What of a part has a state dict: itself, or the modules in it. The model is saved by itself."""
    if name == "model":
        return None
    own: dict[str, Any] = {}
    module = module_of(part)
    if module is not None and module.state_dict():
        own["modules"] = module
    if not isinstance(part, nn.Module) and not isinstance(part, type) and keeps_state(part):
        own["state"] = part
    return own or None


def _differing(one: Mapping[str, Hashable], other: Mapping[str, Hashable]) -> list[str]:
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]


def _equal(one: float, two: float) -> bool:
    # on a GPU the same operations may round differently
    return isclose(one, two, rel_tol=1e-5) or (isnan(one) and isnan(two))


def _is_there(attribute: Attribute) -> bool:
    return attribute.read() is not MISSING


def _counts(attribute: Attribute) -> bool:
    # where it stands can be told
    return isinstance(attribute.read(), itertools.count)
