"""`dataset=images`, against Pillow: pixels, classes, splits, and what is asked or refused."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.datasets.images.folders import images
from dlrun.datasets.tensors.overlap import shared_by
from dlrun.engine.batches import Batches
from dlrun.errors import ConfigError, DataError, RunError, UserError
from dlrun.randomness import SAMPLE, key, seed_libraries
from dlrun.storage.lookup import all_runs
from dlrun.types import Data, Samples, Split
from tests.conftest import Called
from tests.facts import refuses, says

NOISE = np.random.default_rng(0).integers(0, 256, (400, 24, 20, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / ".cache"))


def save(folder: Path, *names: str, size: tuple[int, int] = (20, 24)) -> None:
    """Pictures of noise, each another one."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        place = sum(map(ord, name)) + i
        Image.fromarray(NOISE[place % len(NOISE)]).resize(size).save(folder / name)


def many(folder: Path, **counts: int) -> Path:
    save(folder, *(f"{name}/{i:03}.png" for name, n in counts.items() for i in range(n)))
    return folder


def pixels(split: Split | None) -> torch.Tensor:
    """The bytes of a split that is only scaled to 0 … 1."""
    assert split is not None
    return (split.gather(torch.arange(len(split)))[0] * 255).round().to(torch.uint8)


def labels(split: Split | None) -> list[int]:
    assert split is not None
    found: list[int] = split.gather(torch.arange(len(split)))[1].tolist()
    return found


def whole(path: Path, **options: object) -> Data:
    """All pictures for training, in their order."""
    return images(path=str(path), validation_size=0, test_size=0, normalise=False, **options)  # type: ignore[arg-type]


def test_pictures_are_those_that_pillow_reads(tmp_path: Path) -> None:
    colour = Image.fromarray(NOISE[0])
    deep = (NOISE[1, :, :, 0].astype(np.uint16) << 8) + NOISE[1, :, :, 1]
    veil = NOISE[2, :, :, 0]
    expected = {
        "a.png": colour,
        "b.bmp": colour,
        "c_turned.png": colour.transpose(Image.Transpose.ROTATE_270),
        "d_palette.png": colour.convert("P").convert("RGB"),
        "e_deep.png": Image.fromarray(np.rint(deep / 257).astype(np.uint8)).convert("RGB"),
        "f_clear.png": Image.fromarray(
            np.rint(NOISE[0] * (veil[..., None] / 255) + 255 * (1 - veil[..., None] / 255)).astype(np.uint8)
        ),
        "g.jpg": None,
    }
    folder = tmp_path / "one" / "class"
    folder.mkdir(parents=True)
    colour.save(folder / "a.png")
    colour.save(folder / "b.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6  # seen upright after a quarter, clockwise
    colour.save(folder / "c_turned.png", exif=exif)
    colour.convert("P").save(folder / "d_palette.png")
    Image.fromarray(deep).save(folder / "e_deep.png")
    clear = colour.convert("RGBA")
    clear.putalpha(Image.fromarray(veil))
    clear.save(folder / "f_clear.png")
    colour.save(folder / "g.jpg", quality=95)
    expected["g.jpg"] = Image.open(folder / "g.jpg")
    (folder / ".hidden.png").write_bytes(b"")
    found = pixels(whole(tmp_path / "one", size=[24, 20], channels=3, background="white").train)
    for i, (name, picture) in enumerate(expected.items()):
        assert picture is not None
        if name == "c_turned.png":  # 24 wide and 20 high: scaled to cover, the middle kept
            scale = 24 / 20
            left = (24 - 20 / scale) / 2
            picture = picture.resize((20, 24), Image.Resampling.BILINEAR, box=(left, 0, 24 - left, 20))
        wanted = torch.from_numpy(np.array(picture)).movedim(-1, 0)
        # Pillow composites in whole numbers
        slack = 1 if name == "f_clear.png" else 0
        assert int((found[i].int() - wanted.int()).abs().max()) <= slack, name


@pytest.mark.parametrize(
    ("size", "wanted", "box"),
    [
        ((40, 20), (10, 10), (10, 0, 30, 20)),  # wide: the sides are left out
        ((20, 40), (10, 10), (0, 10, 20, 30)),
        ((40, 20), (5, 20), (0, 5, 40, 15)),  # [height, width]: wider still
        ((8, 8), (16, 16), (0, 0, 8, 8)),  # scaled up
    ],
)
def test_the_size_is_covered_and_the_middle_kept(
    tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    save(tmp_path, "a/one.png", size=size)
    height, width = wanted
    picture = Image.open(tmp_path / "a" / "one.png")
    cropped = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    stretched = picture.resize((width, height), Image.Resampling.BILINEAR)
    for resize, expected in (("crop", cropped), ("stretch", stretched)):
        found = pixels(whole(tmp_path, size=[height, width], resize=resize).train)[0]
        assert torch.equal(found, torch.from_numpy(np.array(expected)).movedim(-1, 0))
    grey = pixels(whole(tmp_path, size=[height, width], channels=1).train)[0, 0]
    luminance = picture.convert("L").resize((width, height), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(grey.numpy(), np.array(luminance))


def test_pictures_in_no_folder_of_a_class_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(many(tmp_path / "all", a=2, b=2), "loose.png")
    assert len(whole(tmp_path / "all").train) == 4
    assert "1 picture in" in capsys.readouterr().err


def test_folders_are_classes_and_folders_above_them_are_splits(tmp_path: Path) -> None:
    many(tmp_path / "plain", dog=30, cat=20, b10=10)
    plain = images(path=str(tmp_path / "plain"))
    assert plain.spec.class_names == ("b10", "cat", "dog")
    assert (len(plain.train), len(plain.validation or ()), len(plain.test or ())) == (48, 6, 6)
    assert np.bincount(labels(plain.test)).tolist() == [1, 2, 3] == np.bincount(labels(plain.validation)).tolist()
    # another validation size leaves the test split
    other = images(path=str(tmp_path / "plain"), validation_size=20)
    assert other.split_fingerprints["test"] == plain.split_fingerprints["test"]
    for split, n in (("train", 9), ("val", 4)):
        many(tmp_path / "given" / split, dog=n, cat=n)
    given = images(path=str(tmp_path / "given"))
    assert (len(given.train), len(given.validation or ()), given.test) == (18, 8, None)
    as_classes = images(path=str(tmp_path / "given"), splits_by_name=False)
    assert as_classes.spec.class_names == ("train", "val")
    with pytest.raises(ConfigError) as refused:
        images(path=str(tmp_path / "given"), validation_size=3)
    says(str(refused.value), "own validation split")


@pytest.mark.parametrize("keep", [True, False])
def test_pictures_in_memory_and_read_are_the_same_numbers(tmp_path: Path, keep: bool) -> None:
    many(tmp_path / "all", a=20, b=20)
    options = {"train_size": 20, "label_noise": 0.2, "size": 12, "split_seed": 3}
    one = images(path=str(tmp_path / "all"), in_memory=keep, **options)  # type: ignore[arg-type]
    x = torch.cat([one.train.gather(torch.arange(20))[0]])
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    other = images(path=str(tmp_path / "all"), in_memory=not keep, **options)  # type: ignore[arg-type]
    assert one.fingerprint == other.fingerprint
    assert one.split_fingerprints == other.split_fingerprints
    for split in ("train", "validation", "test"):
        (x, y), (u, v) = (getattr(d, split).gather(torch.arange(len(getattr(d, split)))) for d in (one, other))
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_an_altered_picture_is_another_data_set(tmp_path: Path) -> None:
    path = many(tmp_path / "all", a=5, b=5)
    before = images(path=str(path)).fingerprint
    assert images(path=str(path)).fingerprint == before
    save(path, "a/000.png", size=(20, 24))
    Image.fromarray(NOISE[399]).save(path / "a" / "000.png")
    assert images(path=str(path)).fingerprint != before


def test_a_picture_in_two_splits_is_counted(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        many(tmp_path / "all" / split, a=4)
        save(tmp_path / "all" / split, f"b/{split}.png", f"b/more_{split}.png")
    data = images(path=str(tmp_path / "all"))
    assert {pair: count for pair, (count, _) in shared_by(data.sample_keys).items()} == {
        "validation in training": 4,
        "test in training": 4,
        "test in validation": 4,
    }


def broken(folder: Path) -> None:
    (folder / "a" / "cut.png").write_bytes((folder / "a" / "000.png").read_bytes()[:300])
    (folder / "b" / "text.jpg").write_text("no picture")


def clear(folder: Path) -> None:
    for name in ("one", "two"):
        picture = Image.fromarray(NOISE[0]).convert("RGBA")
        picture.putalpha(40)
        picture.save(folder / "a" / f"{name}.png")


def films(folder: Path) -> None:
    frames = [Image.fromarray(NOISE[i]) for i in range(3)]
    frames[0].save(folder / "a" / "film.gif", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda f: save(f, "a/big.png", size=(90, 30)), ["2 sizes", "30×90 (1)", "24×20 (8)", "dataset.size="]),
        (
            lambda f: Image.fromarray(NOISE[0, :, :, 0]).save(f / "a" / "grey.png"),
            ["8 are of colours and 1 grey", "a/grey.png", "dataset.channels=3"],
        ),
        (broken, ["2 files of 10", "a/cut.png: image file is truncated", "b/text.jpg: it is damaged, or no picture"]),
        (lambda f: (f / "a" / "link.png").symlink_to("nowhere.png"), ["1 file of 9", "a/link.png"]),
        (clear, ["2 files of 10", "a/one.png", "a/two.png", "dataset.background=white"]),
        (films, ["a/film.gif", "3 pictures, as a film"]),
        (lambda f: (f / "empty").mkdir(), ["1 folder (empty) with no pictures"]),
        (lambda f: many(f / "train", a=2), ["folders of classes in train", "dataset.splits_by_name=false"]),
        (
            lambda f: [many(f / "in" / s, **c) for s, c in (("train", {"a": 2}), ("val", {"z": 2}))],
            ["class z", "classes are a"],
        ),
    ],
    ids=range(9),
)
def test_what_is_to_be_decided_or_mended_is_asked(
    tmp_path: Path, make: Callable[[Path], object], facts: Sequence[str]
) -> None:
    folder = many(tmp_path / "all", a=4, b=4)
    make(folder)
    with pytest.raises(UserError) as refused:
        images(path=str(folder / "in" if (folder / "in").exists() else folder))
    says(str(refused.value), *facts)


def test_all_damaged_pictures_are_named(tmp_path: Path) -> None:
    folder = many(tmp_path / "all", a=4, b=4)
    for name in ("000", "002"):
        file = folder / "b" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError) as refused:
        images(path=str(folder))
    says(str(refused.value), "2 files of 8", "b/000.png: ", "b/002.png: ", "take them out")


def table(path: Path, *rows: Sequence[object]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_table_names_pictures_labels_and_splits(tmp_path: Path) -> None:
    save(tmp_path / "all", *(f"deep/{i}.png" for i in range(12)))
    rows = [
        [f"deep/{i}" + (".png" if i % 2 else ""), i, 10 - i % 2, ["train", "dev", "test"][i % 3]] for i in range(12)
    ]
    table(tmp_path / "all" / "t.csv", ["id", "age", "class", "split"], *rows)
    data = images(path=str(tmp_path / "all"), labels="t.csv", normalise=False)
    assert data.spec.class_names == ("9", "10")
    assert labels(data.train) == [1, 0, 1, 0]
    assert labels(data.validation) == [0, 1, 0, 1]
    for i, file in enumerate((1, 4, 7, 10)):
        wanted = np.array(Image.open(tmp_path / "all" / "deep" / f"{file}.png"))
        assert np.array_equal(pixels(data.validation)[i].movedim(0, -1).numpy(), wanted)
    assert images(labels=str(tmp_path / "all" / "t.csv"), normalise=False).fingerprint == data.fingerprint
    with pytest.raises(DataError, match="no training picture has the label"):
        images(labels=str(tmp_path / "all" / "t.csv"), columns={"label": "age"})


def test_pictures_that_a_table_does_not_name_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, *(f"a/{i}.png" for i in range(14)))
    rows = [[f"a/{i}.png", ["1", "01", "2"][i % 3]] for i in range(12)]
    table(tmp_path / "labels.csv", ["file", "y"], *rows)
    data = images(path=str(tmp_path), labels="labels.csv", normalise=False)
    assert data.spec.class_names == ("1", "2")
    says(capsys.readouterr().err, "2 pictures", "labels.csv does not name", "the first: a/12.png")


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (
            [["file", "y"], ["a/0.png", "cat"], ["a/9.png", "dog"], ["x.png", "dog"]],
            ["line 3: a/9.png", "line 4: x.png"],
        ),
        ([["file", "y"], ["a/0.png", "cat"], ["a/0.png", "dog"]], ["lines 2 and 3", "`cat` and `dog`"]),
        ([["file", "y"], ["a/0.png", "0.5"], ["a/1.png", "1.5"]], ["numbers such as 0.5", "dataset.columns"]),
        ([["file", "u", "v"], ["a/0.png", "0", "1"]], ["file, u, v", "which one is the label", "{label: u}"]),
        ([["file", "y"], ["b/0.png", "cat"]], ["no cell", "dataset.path=FOLDER", "b/0.png, cat"]),
        ([["file", "y"], ["a/0.png", ""]], ["line 2 has no label"]),
    ],
    ids=range(6),
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, rows: list[list[str]], facts: list[str]) -> None:
    save(tmp_path, "a/0.png", "a/1.png")
    table(tmp_path / "labels.csv", *rows)
    with pytest.raises(DataError) as refused:
        images(path=str(tmp_path), labels="labels.csv")
    says(str(refused.value), *facts)


TURN = """
import torch
from torch import Tensor, nn


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.rot90(int(torch.randint(4, ())), (1, 2))
"""


def test_transforms_vary_each_picture_by_its_own_key(tmp_path: Path) -> None:
    class Turn(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == torch.uint8
            return x.rot90(int(torch.randint(4, ())), (1, 2))

    data = images(path=str(many(tmp_path / "all", a=40)), size=8, augment=[Turn()])
    assert data.augment is not None
    index = torch.arange(20)
    x, _ = data.train.gather(index)
    before = torch.get_rng_state()
    vary = [data.augment(x, torch.Generator(), Samples(index, epoch, 0)) for epoch in (0, 0, 1)]  # type: ignore[call-arg]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(vary[0], vary[1])
    turns = [
        [[torch.equal(one, u.rot90(k, (1, 2))) for k in range(4)].index(True) for one, u in zip(v, x, strict=False)]
        for v in vary
    ]
    assert {*turns[0]} == {0, 1, 2, 3}
    assert turns[0] != turns[2]
    # a sample's turn is the same in any batch
    some = torch.tensor([11, 3])
    assert torch.equal(data.augment(x[some], torch.Generator(), Samples(some, 0, 0)), vary[0][some])  # type: ignore[call-arg]


def test_transforms_of_torchvision_get_bytes_and_their_own_seed(tmp_path: Path) -> None:
    reason = "needs torchvision: pip install torchvision"
    v2 = pytest.importorskip("torchvision.transforms.v2", reason=reason, exc_type=ImportError)
    transforms = [v2.RandomRotation(20), v2.ColorJitter(0.5), v2.RandomResizedCrop(8)]
    data = images(path=str(many(tmp_path / "all", a=9)), size=8, augment=transforms)
    assert data.augment is not None
    x, _ = data.train.gather(torch.arange(3))
    varied = data.augment(x, torch.Generator(), Samples(torch.arange(3), 5, 1))  # type: ignore[call-arg]
    seed_libraries(key(key(1, SAMPLE, 5), SAMPLE, 2))
    raw = data.prepare.undo(x[2:])[0].round().to(torch.uint8)  # type: ignore[attr-defined]
    assert torch.equal(data.prepare(v2.Compose(transforms)(raw)[None])[0], varied[2])


class Roll(torch.nn.Module):
    """Moves a picture by a random number of rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.roll(int(torch.randint(24, ())), 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("only", [None, 1])
def test_workers_vary_pictures_as_the_training_does(tmp_path: Path, workers: int, only: int | None) -> None:
    path = str(many(tmp_path / "all", a=10, b=9))
    taken = []
    for keep in (True, False):
        data = images(path=path, validation_size=0, test_size=0, augment=[Roll()], in_memory=keep)
        device = torch.device("cpu")
        batches = Batches(
            data.train, size=8, seed=4, device=device, augment=data.augment, workers=0 if keep else workers, only=only
        )
        with closing(batches.start(2)) as started:
            taken.append(torch.cat([next(started).x for _ in range(1 if only else 4)]))
    assert torch.equal(*taken)
    plain = images(path=path, validation_size=0, test_size=0)
    first = plain.train.gather(Batches(plain.train, size=8, seed=4, device=device).indices(0)[0]).x
    # batches that are to be over-fitted are not varied
    assert torch.equal(taken[0][:8], first) == bool(only)


def test_a_transform_that_makes_something_else_is_refused(tmp_path: Path) -> None:
    path, one = str(many(tmp_path / "all", a=4)), Samples(torch.tensor([0]), 0, 0)

    def normalise(x: torch.Tensor) -> torch.Tensor:
        raise TypeError("Input tensor should be a float tensor.")

    cases = (
        (lambda x: x.float(), "ToDtype and Normalize"),
        (lambda x: x[:, 1:], "[3, 23, 20]"),
        (normalise, "normalise failed for a picture uint8 [3, 24, 20]: Input tensor should be a float tensor. Leave"),
    )
    for transform, fact in cases:
        data = images(path=path, validation_size=0, test_size=0, augment=[transform])
        assert data.augment is not None
        with pytest.raises(RunError) as refused:
            data.augment(data.train.gather(torch.tensor([0]))[0], torch.Generator(), one)  # type: ignore[call-arg]
        says(str(refused.value), fact)


def test_a_run_resumes_exactly_and_predicts_new_pictures(
    here: Path, call: Callable[..., Called], verify_resume: Callable[..., Called]
) -> None:
    many(here / "photos", cat=30, dog=30)
    (here / "turn.py").write_text(TURN)
    arguments = ["dataset=images", "dataset.path=photos", "dataset.size=16", "dataset.augment=[{_target_: turn.Turn}]"]
    arguments += ["model=mlp", "trainer.epochs=2", "trainer.batch_size=16", "trainer.figures=false"]
    done = verify_resume(*arguments)
    assert done.code == 0, done
    assert call("train", *arguments, "tracking.enabled=false").code == 0
    run = all_runs()[-1]
    save(here / "new", "b.png", "deep/a.jpg", size=(50, 30))
    answer = call("predict", run.id, "new")
    assert answer.code == 0, answer
    rows = answer.out.splitlines()
    assert rows[0].startswith("file,prediction,p(cat),p(dog)")
    assert [row.split(",")[0] for row in rows[1:]] == ["new/b.png", "new/deep/a.jpg"]
    framed = Image.open(here / "new" / "b.png").resize((16, 16), Image.Resampling.BILINEAR, box=(10, 0, 40, 30))
    framed.save(here / "framed.png")
    assert call("predict", run.id, "framed.png").out.splitlines()[1] == rows[1].partition(",")[2]
    (here / "a").mkdir()
    clear(here)
    refuses(call("predict", run.id, "a"), "a/one.png", "--background black")
    says(call("predict", run.id, "a", "--background", "white").out, "a/two.png")
