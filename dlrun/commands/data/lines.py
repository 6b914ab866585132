"""What a data set holds, in lines: sizes, classes, targets, missing values, samples that occur twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.commands.data import columns, of_pairs
from dlrun.datasets.columns.encode import EncodeColumns
from dlrun.datasets.tensors.spec import restore, target_names
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.engine.reading.streams import StreamSplit
from dlrun.nests.shapes import describe_shapes
from dlrun.runs.weights.overlap import find_shared
from dlrun.storage.overlap import describe_shared
from dlrun.terminal.format import counted, ends, table
from dlrun.types import Data, SampleKeys, Spec, Split

READ = 2000
"""Samples of a split that are looked at, where each has to be read; evenly spaced."""

CLASSES = 30
"""That are listed one by one."""

UNEVEN = 3
"""Times that the largest class has the samples of the smallest, from which on a line says so."""


@dataclass(frozen=True)
class Seen:
    """The samples of a split that are looked at, of all `total`: raw inputs and targets, None for nests of tensors."""

    x: Tensor | None
    y: Tensor | None
    total: int


def see(data: Data) -> dict[str, Seen]:
    """The raw samples of each split; of one that reads its samples, some."""
    found = {}
    for name, split in splits_of(data).items():
        n = len(split)
        whole = isinstance(split, TensorSplit)
        index = torch.arange(n) if whole or n <= READ else torch.linspace(0, n - 1, READ, dtype=torch.float64).long()
        x, y = split.gather(index)
        y = restore(data.spec, y) if isinstance(y, Tensor) else None
        found[name] = Seen(_raw(data, x) if isinstance(x, Tensor) else None, y, n)
    return found


def _raw(data: Data, x: Tensor) -> Tensor:
    prepare = data.prepare
    if isinstance(prepare, EncodeColumns):
        return columns.undo(prepare, x)
    return prepare.undo(x) if isinstance(prepare, Standardise) and not prepare.indices else x


def splits_of(data: Data) -> dict[str, Split]:
    """The splits that there are, by their names in messages."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    return {name: split for name, split in splits.items() if split is not None}


def lines(data: Data, seen: Mapping[str, Seen]) -> Iterator[str]:
    """The lines of a look."""
    spec = data.spec
    kind = f"{spec.task}, {spec.classes} classes" if spec.task == "classification" else spec.task
    yield f"{data.name}  {kind}"
    yield _row(
        "splits", ", ".join(f"{len(split):,} {name}{_of_stream(split)}" for name, split in splits_of(data).items())
    )
    if spec.task == "language":
        yield from _text_lines(data)
    else:
        yield from _sample_lines(data, seen)
    yield from _repeated_lines(data, seen)
    shared = describe_shared(find_shared(data))
    lacking = [name for name in ("train", "validation", "test") if getattr(data, name) and name not in data.sample_keys]
    if lacking:
        yield _row("shared", f"not known: the data set gives no keys of its {' and '.join(lacking)} samples")
    else:
        yield _row("shared", "; ".join(shared) or "no sample is in two splits")


def _of_stream(split: Split) -> str:
    return ", the first of a stream" if isinstance(split, StreamSplit) else ""


def column_names(data: Data, x: Tensor) -> Sequence[str]:
    """The names of the columns [N, C]."""
    known = data.inputs.columns if data.inputs else ()
    return known if len(known) == x.shape[1] else [f"x{i}" for i in range(x.shape[1])]


def _text_lines(data: Data) -> Iterator[str]:
    yield _row("inputs", f"windows of {data.spec.input_shape[0]} tokens, vocabulary {data.spec.vocabulary:,}")
    counts = [
        f"{value:,} {key.removesuffix('_tokens')}" for key, value in data.notes.items() if key.endswith("_tokens")
    ]
    if counts:
        yield _row("tokens", ", ".join(counts))
    tokens = getattr(data.train, "tokens", None)
    if data.tokenizer and isinstance(tokens, Tensor):
        yield _row("begins", repr(data.tokenizer.decode(tokens[:80].tolist())[:100]))


def _sample_lines(data: Data, seen: Mapping[str, Seen]) -> Iterator[str]:
    spec, y = data.spec, seen["training"].y
    if of_pairs.is_of_pairs(data):
        yield from (_row(name, text) for name, text in of_pairs.rows(data))
        return
    if some := [name for name, each in seen.items() if each.total > READ and not _is_whole(data, name)]:
        yield _row("looked at", f"{READ:,} samples each of {' and '.join(some)}, evenly spaced")
    x = seen["training"].x
    if x is None:
        yield _row("inputs", describe_shapes(spec.input_shape))
    elif data.tokenizer:
        yield from _token_lines(data, x)
    else:
        yield from _input_lines(data, x)
        yield from _missing_lines(data, seen)
    if spec.classes is not None and y is not None and not y.is_floating_point():
        yield from _class_lines(spec, seen)
    elif spec.task == "regression" and y is not None:
        yield from columns.describe("targets", target_names(spec), y.reshape(len(y), -1))
    if x is not None and not data.tokenizer:
        yield from _column_lines(data, x)


def _is_whole(data: Data, name: str) -> bool:
    return isinstance(splits_of(data)[name], TensorSplit)


def _token_lines(data: Data, x: Tensor) -> Iterator[str]:
    """Of texts with classes, as tokens: 0 follows their end."""
    longest, counts = x.shape[1], (x != 0).sum(1)
    full = int((counts == longest).sum())
    yield _row("inputs", f"texts of at most {longest} tokens, vocabulary {data.spec.vocabulary:,} with the padding")
    yield _row(
        "lengths",
        f"{int(counts.min())} to {int(counts.max())} tokens in training, {float(counts.double().mean()):.3g} on "
        f"average; {full / len(x):.1%} have {longest} or were cut",
    )
    if data.tokenizer:
        first = [int(token) - 1 for token in x[0, : int(counts[0])]]
        yield _row("begins", repr(data.tokenizer.decode(first)[:100]))


def _input_lines(data: Data, x: Tensor) -> Iterator[str]:
    shape = describe_shapes(data.spec.input_shape)
    if data.inputs and data.inputs.kinds:
        yield _row("inputs", f"{len(data.inputs.columns)} columns, encoded as {shape}")
        return
    finite = x[x.isfinite()]
    low, high = torch.aminmax(finite) if len(finite) else (0, 0)
    dtype = data.inputs.dtype if data.inputs else str(x.dtype).removeprefix("torch.")
    yield _row("inputs", f"{dtype} {shape}, {ends(float(low), float(high))} in training")


def _column_lines(data: Data, x: Tensor) -> Iterator[str]:
    # sequences of any length are padded here, and have no columns
    if x.ndim == 2 and None not in data.spec.input_shape:
        yield from columns.describe("columns", column_names(data, x), x, data.inputs)
    constant = int((x == x[:1]).all(0).sum()) if len(x) > 1 else 0
    if constant:
        yield _row("constant", f"{constant:,} of {x[0].numel():,} inputs have one value in all of training")


def _missing_lines(data: Data, seen: Mapping[str, Seen]) -> Iterator[str]:
    found = []
    given = {name: each.x for name, each in seen.items() if each.x is not None}
    for name, x in given.items():
        missing = ~x.isfinite()
        if bool(missing.any()):
            samples = int(missing.flatten(1).any(1).sum())
            found.append(f"{counted(int(missing.sum()), 'value', ',')} in {counted(samples, 'sample', ',')} of {name}")
    if data.inputs and data.inputs.kinds and data.inputs.missing == "mean":
        # they look like any other value
        yield _row("missing", "filled by dataset.missing=mean, below too; `columns` counts them")
    else:
        yield _row("missing", f"{'; '.join(found)} are NaN or infinite" if found else "no value is NaN or infinite")
    if notes := data.notes.get("columns"):  # a table, whose gaps may have been filled
        yield _row("columns", str(notes))


def _class_lines(spec: Spec, seen: Mapping[str, Seen]) -> Iterator[str]:
    classes = spec.classes or 1
    targets = {name: each.y.flatten() for name, each in seen.items() if each.y is not None}
    # a negative target is none: padding
    counts = {name: torch.bincount(y[y >= 0], minlength=classes) for name, y in targets.items()}
    what = "elements" if spec.task == "dense" else "samples"
    names = spec.class_names or tuple(map(str, range(classes)))
    rows = [["class", *counts]]
    for place in range(min(classes, CLASSES)):
        shares = [
            f"{int(count[place]):,} ({int(count[place]) / max(1, int(count.sum())):.1%})" for count in counts.values()
        ]
        rows.append([names[place], *shares])
    yield table(rows, indent="    ")
    if classes > CLASSES:
        yield f"    … and {classes - CLASSES:,} more"
    train = counts["training"]
    most, least = int(train.argmax()), int(train.argmin())
    if int(train.min()) * UNEVEN <= int(train.max()):
        yield _row(
            "balance",
            f"in training {names[most]} has {int(train[most]):,} {what}, {names[least]} {int(train[least]):,}; always "
            f"answering {names[most]} is right for {int(train[most]) / int(train.sum()):.1%} of them",
        )
    for name, count in counts.items():
        if absent := [names[place] for place in (count == 0).nonzero().flatten().tolist()]:
            more = f" and {len(absent) - 8:,} more" if len(absent) > 8 else ""
            yield _row("absent", f"{name} has no {what.removesuffix('s')} of {', '.join(absent[:8])}{more}")


def _repeated_lines(data: Data, seen: Mapping[str, Seen]) -> Iterator[str]:
    if data.spec.task == "language":
        return
    found = []
    for name, key in (("training", "train"), ("validation", "validation"), ("test", "test")):
        keys = data.sample_keys.get(key)
        if keys is None or not len(keys.values):
            continue
        count = len(keys.values) - len(torch.unique(keys.values))
        if count:
            about = "about " if keys.one_in > 1 else ""
            differing = _differing(keys, seen[name]) if name in seen and data.spec.classes else ""
            found.append(f"{about}{count * keys.one_in:,} of {keys.total:,} {name} samples{differing}")
    again = "have the input of an earlier one of their split"
    yield _row("repeated", f"{'; '.join(found)} {again}" if found else "no sample is in one split twice")


def _differing(keys: SampleKeys, seen: Seen) -> str:
    """How many repeated inputs have several labels."""
    if seen.y is None or seen.y.ndim != 1 or len(keys.values) != len(seen.y):
        return ""
    _, groups = torch.unique(keys.values, return_inverse=True)
    pairs = torch.unique(torch.stack([groups, seen.y], 1), dim=0)
    count = int((torch.bincount(pairs[:, 0]) > 1).sum())
    return f" ({counted(count, 'input', ',')} with different labels)" if count else ""


def _row(name: str, text: str) -> str:
    return f"  {name:<10}{text}"
