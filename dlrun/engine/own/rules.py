"""The state of an optimizer whose update is a user's own, as a checkpoint may have it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dlrun.engine.own.admission import PREFIX, Admission, refuse
from dlrun.engine.own.attributes import is_own
from dlrun.engine.own.source import read_source
from dlrun.terminal import output

NAME = "optimizer"


class OptimizerState:
    """Decides by an optimizer's first state which further ones it may take, if a user wrote its update.

    States of dlrun's and torch's optimizers are taken as they are.
    """

    def __init__(self, optimizer: Any, trusted: Collection[str] = ()) -> None:
        own = [kind for kind in _kinds(optimizer) if is_own(kind)]
        self._admission = Admission(lambda: read_source(own), trusted) if own else None
        self._asked = False
        if self._admission:
            self._admission.begin([], {}, {NAME: optimizer.state_dict()})

    def check(self, content: Mapping[str, Any]) -> None:
        """Raise `UserError` for a state that it may not load."""
        if self._admission:
            refuse(self._admission.not_to_load({NAME: content}))

    def look(self, content: Mapping[str, Any]) -> None:
        """Say, once, that a resume would not load a state that is saved."""
        if self._admission and not self._asked and (found := self._admission.not_to_load({NAME: content})):
            self._asked = True
            output.warn(f"A resume will ask for `'trusted=[{PREFIX}{NAME}]'`: in the optimizer's state {found[NAME]}.")


def _kinds(optimizer: Any) -> Iterator[type]:
    """The classes of an optimizer's update: its rule's, each group's, and the one of torch's kind in it."""
    rule = getattr(optimizer, "rule", optimizer)
    for each in (rule, *getattr(rule, "rules", ())):
        yield getattr(each, "cls", type(each))
