"""The first samples of a stream, read some times: are they the same, and does its state bring them back?"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice
from typing import Any

from dlrun.datasets.samples.first_samples import read
from dlrun.datasets.samples.on_demand import MapStyleSamples
from dlrun.datasets.samples.source import Stream, begin, counts_by_stage, has_state, is_plain, prepare
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.errors import DataError
from dlrun.randomness import preserve_generators, seed_libraries

BEFORE = 3
"""Samples before the state that is tried."""


def why_no_state(stream: Stream) -> str:
    """Why the stream's own state does not bring a reader back to its place; empty if it does."""
    source, number = stream.source, len(stream.rows.samples)
    if not has_state(source):
        return "it has no state_dict"
    before = min(BEFORE, number - 1)
    try:
        with preserve_generators():
            seed_libraries(0)
            reader = prepare(source, 0)
            samples = iter(reader)
            for _ in islice(samples, before):
                pass
            state = copy.deepcopy(reader.state_dict())
            # as a batch seeds them, in a run that goes on and in one that is resumed
            seed_libraries(1)
            expected = list(islice(samples, number - before))
            seed_libraries(1)
            found = list(islice(begin(source, 0, state), number - before))
    except Exception as error:  # of somebody else's code
        return f"its state_dict failed: {type(error).__name__}: {error}"
    if not is_plain(state):
        return "its state_dict has more than numbers, text and tensors"
    if not same(stream.rows, found, expected):
        return "its state_dict does not bring back the same samples (a buffer that shuffles?)"
    return ""


def check_repeated(name: str, stream: Stream) -> str:
    """Read the first samples again; returns a warning if they are others.

    Raises `DataError` for a stream that can be read once.
    """
    first = stream.rows.samples
    again = stream.first(len(first))
    if not again:
        raise DataError(
            f"The stream of `{name}`, a {stream.name}, can be read once: the second time it has no sample. Give an "
            "object whose __iter__ begins anew, such as a torch.utils.data.IterableDataset."
        )
    if same(stream.rows, again, list(first)):  # type: ignore[call-overload]
        return _alike(name, stream)
    return (
        f"The stream of `{name}` gives other samples each time it is read: no run can be repeated, and a resumed one "
        "sees others. Have it shuffle by a seed, and by set_epoch(epoch) if it has that method."
    )


def _alike(name: str, stream: Stream) -> str:
    """A warning about passes that are all alike, because the stream would count them in itself."""
    if (
        callable(getattr(stream.source, "set_epoch", None))
        or has_state(stream.source)
        or counts_by_stage(stream.source)
    ):
        return ""
    reader, number = prepare(stream.source, 0), len(stream.rows.samples)
    passes = []
    with preserve_generators():
        for _ in range(2):
            seed_libraries(0)
            passes.append(list(islice(iter(reader), number)))
    if same(stream.rows, *passes):
        return ""
    return (
        f"The stream of `{name}` counts its passes in itself. A resumed run could not know that number, so each pass "
        "begins with a copy of the stream as it was at first, and all passes are alike. To have them differ give it a "
        "method set_epoch(self, epoch)."
    )


def same(rows: MapStyleSamples, one: Iterable[Any], other: Iterable[Any]) -> bool:
    """Are these the same samples, as tensors?"""
    return sketch(rows, one) == sketch(rows, other)


def sketch(rows: MapStyleSamples, samples: Iterable[Any]) -> str:
    """A hash of samples of a stream."""
    listed = list(samples)
    of = MapStyleSamples(listed, range(len(listed)), rows.task, **_ways(rows))
    return fingerprint(str(len(listed)), *read(of, range(len(listed))))


def _ways(rows: MapStyleSamples) -> dict[str, Any]:
    return {"inputs": rows.inputs, "targets": rows.targets, "collate": rows.collate}
