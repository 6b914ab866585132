"""The attributes of a part that is asked and not trained, as a checkpoint has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dlrun.engine.own.admission import Admission, refuse
from dlrun.engine.own.attributes import attributes, owners
from dlrun.engine.own.encoding import Unsaveable, decode, encode
from dlrun.engine.own.source import read_source


def restore_attributes(parts: Mapping[str, Any], content: Mapping[str, Any], trusted: Collection[str] = ()) -> None:
    """Set the attributes of new parts to what `OwnState.state_dict` returned.

    No passes were seen to change them, so the user's source has to. Raises `UserError` for what a checkpoint may not
    set.
    """
    known, first = attributes(parts), dict[str, Any]()
    for name, attribute in known.items():
        try:
            first[name] = encode(attribute.read())
        except Unsaveable:
            continue
    admission = Admission(lambda: read_source(each for _, each in owners(parts)), trusted)
    admission.begin(known, first, {})
    given = {name: value for name, value in content.get("attributes", {}).items() if name in known}
    refuse(admission.not_to_set(given))
    for name, value in given.items():
        known[name].write(decode(value, known[name].read()))
