"""Pictures of your own: a folder a class, or a table of names and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dlrun.datasets.files.framing import Framing
from dlrun.datasets.files.missing import no_such
from dlrun.datasets.images import catalogue as pictures
from dlrun.datasets.images.catalogue import Catalogue
from dlrun.datasets.images.decoded import Decoded, decode, fits_memory
from dlrun.datasets.images.heads import Heads, read_heads
from dlrun.datasets.images.labels import from_table
from dlrun.datasets.images.streamed import Pictures
from dlrun.datasets.images.transforms import make_augmentation
from dlrun.datasets.samples.map_style import from_datasets
from dlrun.datasets.splitting.by_label import DRAWN, split_by_label
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.cut import SplitOptions, drawn_size
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.label_noise import with_label_noise
from dlrun.datasets.tensors.raw_inputs import observe
from dlrun.datasets.tensors.sample_keys import thin
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError, DataError
from dlrun.types import Data, Split

__all__ = ["images"]

LISTED = 6
"""Sizes that a message lists."""


def images(
    *,
    path: str | None = None,
    labels: str | None = None,
    columns: dict[str, str] | None = None,
    splits_by_name: bool = True,
    size: int | list[int] | None = None,
    resize: Literal["crop", "stretch"] = "crop",
    channels: Literal[1, 3] | None = None,
    background: Literal["black", "white"] | None = None,
    in_memory: bool | None = None,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
    stratify: bool = True,
    folds: int | None = None,
    fold: int | None = None,
    train_size: int | None = None,
    per_class: int | None = None,
    label_noise: float = 0.0,
    split_seed: int = 0,
    normalise: bool = True,
    augment: dict[str, Any] | list[Any] | None = None,
    held_out_classes: list[int] | None = None,
) -> Data:
    """The pictures of a folder, float32 [N, C, H, W], with their classes.

    Each class is a folder; folders called train, val and test hold the classes of a split. Or `labels` is a table of
    names and labels, whose `columns` are found or named.

    All pictures get one `size`, a number or [height, width], and `channels`; without them, those that all have.
    `resize` says how: the middle of a picture that covers the size, or both sides stretched. EXIF turns a picture;
    transparent ones need a `background`; 16 bits a pixel become 8.

    `split_seed` draws the splits that the folder does not name, each with every class's share (`stratify`); with
    `folds`, validation is the part `fold` of so many. `augment` are dlrun's own options, or transforms of torchvision.

    The pictures lie in memory, or with `in_memory=False` (and where they do not fit) are read in each epoch by
    `trainer.workers`: the numbers are the same.

    Raises `DataError` that names all damaged files, `ConfigError` for what has to be decided.
    """
    found = _find(path, labels, columns, splits_by_name=splits_by_name)
    heads = read_heads(found)
    framing = _decide_framing(found, heads, size, channels)
    framing = replace(framing, resize=resize, background=background)
    options = SplitOptions(
        validation_size=drawn_size(validation_size, DRAWN, own="validation" in found.splits or folds is not None),
        # a test split is drawn only if no split is given
        test_size=drawn_size(test_size, DRAWN, own=len(found.splits) > 1),
        train_size=train_size,
        per_class=per_class,
        split_seed=split_seed,
        splitting=Splitting(stratify, folds=folds, fold=fold),
    )
    places = split_by_label("images", found.labels, found.splits, options, held_out_classes)
    keep = fits_memory(len(found.paths), framing) if in_memory is None else in_memory
    decoded = decode(found, heads, framing, keep=keep)
    shape = (framing.channels, framing.height, framing.width)
    area = framing.height * framing.width
    scale = decoded.mean_and_deviation(places["train"], area) if normalise else ((0.0,), (255.0,))
    prepare = Standardise(shape, *scale)
    targets = {split: found.labels[some] for split, some in places.items()}
    if label_noise:
        classes = len(found.class_names)
        targets["train"] = with_label_noise(targets["train"], label_noise, classes=classes, seed=split_seed)
    data = _assemble(found, places, targets, framing, prepare, decoded)
    content = fingerprint("images", heads.digests, found.labels, *found.class_names, repr(framing))
    noise = (targets["train"],) if label_noise else ()
    return replace(
        data,
        spec=replace(data.spec, levels=None if normalise else 256),
        fingerprint=fingerprint(content, *(p for s in places for p in (s, places[s])), repr(prepare), *noise),
        augment=make_augmentation(augment, shape, prepare),
        split_fingerprints={split: fingerprint(decoded.keys[places[split]], targets[split]) for split in places},
        sample_keys={split: thin(decoded.keys[some]) for split, some in places.items()},
        notes={"path": str(found.root), "mean": list(prepare.mean), "deviation": list(prepare.deviation)},
    )


def _find(
    path: str | None, labels: str | None, columns: Mapping[str, str] | None, *, splits_by_name: bool
) -> Catalogue:
    if path is None and labels is None:
        raise ConfigError(
            "dataset=images needs a folder. Type for example dataset.path=photos, with a folder a class in it, or "
            "dataset.labels=photos/labels.csv, a table of names and labels."
        )
    root = None if path is None else Path(path).expanduser().absolute()
    if root is not None and root.suffix.lower() in (".csv", ".tsv") and root.is_file() and labels is None:
        root, labels = root.parent, str(root)
    if root is not None and not root.is_dir():
        raise DataError(no_such("dataset.path", root, "a folder of pictures"))
    if labels is None:
        assert root is not None
        if columns:
            raise ConfigError("dataset.columns are those of a table. Type dataset.labels=labels.csv for one.")
        return pictures.from_folder(root, splits_by_name=splits_by_name)
    given = Path(labels).expanduser()
    # seen from the current folder, as all paths, or from that of the pictures
    places = [given.absolute(), *([] if root is None else [root / given])]
    table = next((place for place in places if place.is_file()), None)
    if table is None:
        raise DataError(f"dataset.labels: there is no file {' or '.join(dict.fromkeys(map(str, places)))}.")
    return from_table(table, table.parent if root is None else root, columns)


def _decide_framing(found: Catalogue, heads: Heads, size: int | list[int] | None, channels: int | None) -> Framing:
    sizes = Counter(map(tuple, heads.sizes.tolist()))
    if isinstance(size, list) and len(size) != 2:
        raise ConfigError(f"dataset.size={size}: expected one number, or [height, width].")
    if size is None and len(sizes) > 1:
        raise ConfigError(_sizes_message(found, sizes))
    height, width = next(iter(sizes)) if size is None else (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ConfigError(f"dataset.size={size}: expected a number of pixels of at least 1.")
    kinds = Counter(heads.channels.tolist())
    if channels is None and len(kinds) > 1:
        grey = next(place for place, kind in enumerate(heads.channels.tolist()) if kind == 1)
        raise ConfigError(
            f"Of the pictures in {found.root}, {kinds[3]:,} are of colours and {kinds[1]:,} grey, as "
            f"{found.name(grey)}. Type dataset.channels=3 (grey becomes three equal colours) or dataset.channels=1."
        )
    return Framing(channels or next(iter(kinds)), height, width)


def _sizes_message(found: Catalogue, sizes: Counter[tuple[int, ...]]) -> str:
    listed = ", ".join(f"{h}×{w} ({count:,})" for (h, w), count in sizes.most_common(LISTED))
    more = f" and {len(sizes) - LISTED:,} more" if len(sizes) > LISTED else ""
    sides = [side for size in sizes for side in size]
    return (
        f"The pictures in {found.root} have {len(sizes):,} sizes, height × width: {listed}{more}; sides of "
        f"{min(sides)} to {max(sides)}.\nType a size for all, such as dataset.size={min(64, min(sides))} or "
        "'dataset.size=[48,64]': the shorter side is scaled to it and the middle cut out, or with "
        "dataset.resize=stretch both sides are scaled."
    )


def _assemble(
    found: Catalogue,
    places: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    framing: Framing,
    prepare: Standardise,
    decoded: Decoded,
) -> Data:
    """The data set, in memory or read on demand."""
    read = {split: Pictures(found, some, targets[split], framing, prepare) for split, some in places.items()}
    # both have the checks of a data set that is read: its shapes, its classes
    data = from_datasets(
        "images",
        read["train"],
        read.get("validation"),
        read.get("test"),
        task="classification",
        class_names=found.class_names,
        content="images",
        prepare=prepare,
        pixels=(0.0, 255.0),
    )
    assert data.inputs is not None
    inputs = replace(data.inputs, dtype="uint8", resize=framing.resize, background=framing.background)
    if decoded.pixels is None:
        return replace(data, inputs=inputs)
    raw = {split: decoded.pixels[some] for split, some in places.items()}
    splits: dict[str, Split] = {split: TensorSplit(prepare(x), targets[split]) for split, x in raw.items()}
    border = observe(raw["train"], pixels=(0.0, 255.0)).border
    return replace(
        data,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        inputs=replace(inputs, border=border),
    )
