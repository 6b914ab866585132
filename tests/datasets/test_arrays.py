"""Arrays in files and the tables of scikit-learn, compared with numpy and scikit-learn."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets as theirs
from sklearn.preprocessing import StandardScaler

from dlrun.datasets.arrays import arrays
from dlrun.datasets.bundled import COLUMNS, breast_cancer, diabetes, wine
from dlrun.datasets.files.given import samples
from dlrun.datasets.tensors.spec import TargetScale
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError, DataError
from dlrun.runs.export.graph import Scale
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

N = 120
DRAW = np.random.default_rng(0)
X = DRAW.normal(3, 2, (N, 4)).astype("float32")
Y = DRAW.integers(0, 3, N)
WHOLE = {"validation_size": 0, "test_size": 0}


def write(path: Path, named: dict[str, np.ndarray]) -> Path:
    """A file of arrays, by its ending."""
    if path.suffix == ".npz":
        np.savez(path, **named)
    elif path.suffix == ".safetensors":
        spans, content = {}, b""
        for name, values in named.items():
            kind = {"float32": "F32", "int64": "I64"}[str(values.dtype)]
            data = {"dtype": kind, "shape": values.shape, "data_offsets": [len(content), len(content) + values.nbytes]}
            spans[name], content = data, content + values.tobytes()
        head = json.dumps(spans).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + content)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            for name, values in named.items():
                file[f"group/{name}" if name == "x" else name] = values
    return path


@pytest.mark.parametrize("ending", ["npz", "safetensors", "h5"])
def test_named_arrays_are_read_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    if ending == "h5" and importlib.util.find_spec("h5py") is None:
        pytest.skip("needs h5py: pip install h5py")
    path = write(tmp_path / f"a.{ending}", {"x": X, "y": Y})
    data = arrays(path=str(path), inputs="group/x" if ending == "h5" else "x", targets="y", **WHOLE)
    scaled = StandardScaler().fit_transform(X.astype("float64"))
    assert np.allclose(data.train.x, scaled, atol=1e-5) and np.array_equal(data.train.y, Y)
    assert (data.spec.task, data.spec.classes, data.spec.class_names) == ("classification", 3, ())
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    two = arrays(path=str(tmp_path / "x.npy"), targets_path=str(tmp_path / "y.npy"), **WHOLE)
    assert two.fingerprint == data.fingerprint and torch.equal(two.train.x, data.train.x)


def test_hdf5_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(DataError, match="pip install h5py"):
        arrays(path=str(tmp_path / "a.h5"), inputs="x", targets="y")


def test_splits_may_have_arrays_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", {"x_train": X, "y_train": Y, "x_test": X[:20] + 1, "y_test": Y[:20]})
    names = {"inputs": "x_train", "targets": "y_train", "test_inputs": "x_test", "test_targets": "y_test"}
    data = arrays(path=str(path), **names)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [102, 18, 20]
    with pytest.raises(ConfigError, match="test_targets: both"):
        arrays(path=str(path), **names | {"test_targets": None})


def test_targets_are_classes_by_name_or_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = {"x": X, "text": np.array(["b", "c", "a"])[Y], "bytes": np.array([b"b", b"c", b"a"])[Y], "from_one": Y + 1}
    named |= {"bits": Y == 1, "hot": np.eye(3)[Y], "real": X[:, :2] * 2, "column": Y[:, None]}
    path = str(write(tmp_path / "a.npz", named))

    def read(targets: str, **more):
        return arrays(path=path, inputs="x", targets=targets, **WHOLE, **more)

    for targets in ("text", "bytes"):
        data = read(targets)
        assert data.spec.class_names == ("a", "b", "c")
        assert [data.spec.class_names[i] for i in data.train.y] == named["text"].tolist()
    assert read("from_one").spec.class_names == ("1", "2", "3")
    says(capsys.readouterr().out, "3 different whole numbers", "dataset.task=regression")
    assert read("bits").spec.classes == 2
    assert torch.equal(read("column").train.y, torch.from_numpy(Y))
    assert torch.equal(read("hot", task="classification").train.y, torch.from_numpy(Y))
    assert np.allclose(read("real").train.y, X[:, :2] * 2) and read("real").spec.outputs == 2
    assert read("from_one", task="regression").train.y.shape == (N, 1)
    with pytest.raises(ConfigError, match="one 1 in each row"):
        read("hot")
    with pytest.raises(DataError, match="classes are whole numbers"):
        read("real", task="classification")


def test_splits_follow_an_array(tmp_path: Path) -> None:
    patients = np.array([f"p{i}" for i in DRAW.integers(0, 20, N)])
    day = DRAW.permutation(N).astype("datetime64[D]")
    place = np.arange(N, dtype="float32")[:, None]
    path = str(write(tmp_path / "a.npz", {"x": place, "y": Y, "patient": patients, "day": day}))
    data = arrays(path=path, inputs="x", targets="y", group="patient", normalise=False)
    held = [{*patients[part.x[:, 0].long()]} for part in (data.train, data.validation, data.test)]
    assert sum(map(len, held)) == len(set().union(*held))
    data = arrays(path=path, inputs="x", targets="y", time="day", normalise=False)
    times = [day[part.x[:, 0].long()] for part in (data.train, data.validation, data.test)]
    assert times[0].max() < times[1].min() and times[1].max() < times[2].min()
    even = arrays(path=path, inputs="x", targets="y", stratify=True, test_size=30, validation_size=0)
    assert np.abs(np.bincount(even.test.y) - np.bincount(Y) / 4).max() <= 1


def test_channels_are_brought_to_the_front(tmp_path: Path) -> None:
    pictures = DRAW.integers(0, 256, (N, 6, 7, 3), dtype=np.uint8)
    path = str(write(tmp_path / "a.npz", {"x": pictures, "grey": pictures[..., 0], "y": Y}))
    colours = arrays(path=path, inputs="x", targets="y", channels="last", **WHOLE)
    assert colours.spec.input_shape == (3, 6, 7)
    assert np.allclose(colours.train.x.mean((0, 2, 3)), 0, atol=1e-5)
    grey = arrays(path=path, inputs="grey", targets="y", channels="none", pixels=(0, 255), **WHOLE)
    assert grey.spec.input_shape == (1, 6, 7) and grey.inputs.pixels == (0, 255)
    with pytest.raises(DataError, match="channels=last"):
        arrays(path=path, inputs="y", targets="y", channels="last")


@pytest.mark.parametrize(
    ("wrong", "facts"),
    [
        ({"path": None}, ["dataset.path=data.npz"]),
        ({"path": "b.npz"}, ["b.npz", "does not exist", "`a.npz`"]),
        ({"path": "a.mat"}, [".mat", ".npz"]),
        ({"inputs": None}, ["dataset.inputs and dataset.targets", "x, y, objects"]),
        ({"inputs": "z"}, ["dataset.inputs=z", "It has: x, y"]),
        ({"group": "patient"}, ["dataset.group=patient", "no such array"]),
        ({"targets": "objects"}, ["Python objects"]),
        ({"inputs": "gaps"}, ["Sample 3", "nan"]),
        ({"group": "short"}, ["groups", "[5]"]),
        ({"path": "x.npy"}, ["dataset.targets_path"]),
        ({"path": "damaged.npz"}, ["damaged.npz", "cannot be read"]),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, wrong: dict, facts: list[str]) -> None:
    gaps = X.copy()
    gaps[3, 1] = np.nan
    objects = np.array([{}] * N, dtype=object)
    write(tmp_path / "a.npz", {"x": X, "y": Y, "objects": objects, "gaps": gaps, "short": Y[:5]})
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "a.mat").write_text("")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    given = {"path": "a.npz", "inputs": "x", "targets": "y"} | wrong
    given["path"] = given["path"] and str(tmp_path / given["path"])
    with pytest.raises((ConfigError, DataError)) as error:
        arrays(**given)
    says(str(error.value), *facts)


def test_arrays_train_resume_and_predict(here: Path, call: Callable[..., Called]) -> None:
    write(here / "a.npz", {"x": X, "y": Y})
    given = ("dataset=numpy", "dataset.path=a.npz", "dataset.inputs=x", "dataset.targets=y", "trainer.batch_size=16")
    quick = ("trainer.epochs=2", "tracking.enabled=false", "trainer.figures=false")
    refuses(call("check", "dataset=numpy"), "dataset.path")
    assert call("train", *given, *quick).code == 0
    np.save(here / "new.npy", X[:5])
    run = all_runs()[-1]
    answers = call("predict", run.id, "new.npy")
    assert answers.code == 0 and len(answers.out.splitlines()) == 6
    done = call("resume", run.id, "trainer.epochs=3")
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "wine"])
def test_bundled_tables_are_those_of_scikit_learn(name: str) -> None:
    make = {"diabetes": diabetes, "breast_cancer": breast_cancer, "wine": wine}[name]
    more = {} if name != "diabetes" else {"scaled": False}
    known = getattr(theirs, f"load_{name}")(**more)
    data = make(**WHOLE)
    assert [*COLUMNS[name]] == [*known.feature_names] == [*data.inputs.columns]
    assert np.allclose(data.train.x, StandardScaler().fit_transform(known.data), atol=1e-4)
    y = data.train.y if name != "diabetes" else data.train.y[:, 0]
    assert np.array_equal(y, known.target)
    if name != "diabetes":
        assert [*data.spec.class_names] == [*known.target_names]
        parts = [np.bincount(part.y) / len(part) for part in (make().train, make().validation, make().test)]
        assert np.ptp(parts, 0).max() < 0.05
    sizes = {len(make(folds=5, fold=k).validation) for k in range(5)}
    assert max(sizes) - min(sizes) <= 1


def test_targets_can_be_scaled(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", {"x": X, "y": X[:, 0] * 50 + 1000})
    for data in (arrays(path=str(path), inputs="x", targets="y", scale_targets=True), diabetes(scale_targets=True)):
        y = data.train.y.double()
        assert abs(float(y.mean())) < 1e-5 and float(y.std(correction=0)) == pytest.approx(1, abs=1e-5)
        assert data.spec.target_scale


@pytest.mark.parametrize("kind", ["f8", "i8"])
def test_inputs_far_from_0_keep_their_digits(tmp_path: Path, kind: str) -> None:
    x = (1.7e9 + 1000 * X).astype(kind)
    data = arrays(
        path=str(write(tmp_path / "t.npz", {"x": x, "y": Y})), inputs="x", targets="y", task="classification", **WHOLE
    )
    expected = torch.from_numpy(StandardScaler().fit_transform(x))
    torch.testing.assert_close(data.train.x.double(), expected, atol=1e-5, rtol=0)
    # files of new samples too
    np.save(tmp_path / "new.npy", x)
    np.savetxt(tmp_path / "new.csv", x, delimiter=",", fmt="%.3f")
    assert data.inputs is not None
    for name in ("new.npy", "new.csv"):
        raw = samples.read(tmp_path / name, data.inputs)
        torch.testing.assert_close(data.prepare(raw), data.train.x, atol=1e-5, rtol=0)
    assert isinstance(data.prepare, Standardise)
    raw = torch.from_numpy(x)
    torch.testing.assert_close(Scale(data.prepare)(raw), data.train.x)
    torch.testing.assert_close(data.prepare.undo(data.train.x), raw.double(), atol=1e-2, rtol=0)


def test_targets_far_from_0_are_scaled_back_to_their_digits() -> None:
    scale = TargetScale(torch.tensor([1e9], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64))
    assert scale.undo(torch.tensor([[0.5], [-0.25]])).tolist() == [[1e9 + 1], [1e9 - 0.5]]


@pytest.mark.parametrize(
    ("y", "other", "facts"),
    [
        (Y, Y + 0.5, ["targets are float64", "dataset.task=regression"]),
        (Y, Y.astype(str), ["targets of the validation split are <U", "int64"]),
        (np.eye(3)[Y], np.eye(4)[Y], ["[120, 4]", "[120, 3]"]),
        (np.array([b"\xe9", b"b"])[Y % 2], None, ["no UTF-8"]),
    ],
)
def test_targets_of_another_kind_than_the_training_s_are_refused(
    tmp_path: Path, y: np.ndarray, other: np.ndarray | None, facts: list[str]
) -> None:
    path = write(tmp_path / "t.npz", {"x": X, "y": y, "v": y if other is None else other})
    named = {"validation_inputs": "x", "validation_targets": "v"}
    with pytest.raises(DataError) as error:
        arrays(path=str(path), inputs="x", targets="y", task="classification", **named)
    says(str(error.value), *facts)
