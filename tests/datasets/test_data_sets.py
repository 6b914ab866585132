"""The data sets that need no download, and what all of them share: splits, preparation, fingerprints."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dlrun.datasets import from_tensors
from dlrun.datasets.digits import digits
from dlrun.datasets.moons import moons
from dlrun.datasets.polynomial import polynomial, smooth
from dlrun.datasets.spirals import spirals
from dlrun.datasets.splitting.cut import cut
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.tensors.standardise import Standardise, mean_and_deviation
from dlrun.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))


def images(n: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (n, 2, 4, 5), generator=generator, dtype=torch.uint8)
    return x, torch.arange(n) % 3


@pytest.mark.parametrize("make", [digits, polynomial, moons, spirals])
def test_a_data_set_is_the_same_every_time_whatever_the_global_seed(make) -> None:
    torch.manual_seed(1)
    one = make()
    torch.manual_seed(2)
    two = make()
    assert one.fingerprint == two.fingerprint
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).x, getattr(two, part).x)
        assert torch.equal(getattr(one, part).y, getattr(two, part).y)


def test_a_data_set_is_one_line_in_a_notebook() -> None:
    assert repr(digits()) == "Data('digits', classification: 1297 train, 200 validation, 300 test)"
    assert repr(moons(n=20, validation_size=0, test_size=0)) == "Data('moons', classification: 20 train)"


@pytest.mark.parametrize("make", [digits, polynomial, moons, spirals])
def test_parts_share_no_sample_and_split_seed_changes_them(make) -> None:
    data = make()
    rows = [{r.numpy().tobytes() for r in getattr(data, p).x} for p in ("train", "validation", "test")]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    assert make(split_seed=1).fingerprint != data.fingerprint
    without = make(validation_size=0)
    assert without.validation is None
    assert len(without.train) == len(data.train) + len(data.validation)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = digits(validation_size=0, test_size=0, normalise=False)
    x, y = load_digits(return_X_y=True)
    assert np.array_equal(data.train.x.numpy().reshape(-1, 64) * 16, x)
    assert np.array_equal(data.train.y.numpy(), y)
    assert (data.spec.input_shape, data.spec.classes, len(digits().test)) == ((1, 8, 8), 10, 300)


def test_digits_do_not_import_scikit_learn_and_decode_once(tmp_path: Path) -> None:
    first = digits()
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1
    assert torch.equal(digits().train.x, first.train.x)
    code = "import sys; from dlrun.datasets.digits import digits; digits(); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_spoilt_cache_is_made_again(tmp_path: Path) -> None:
    first = digits()
    for file in (tmp_path / "cache" / "decoded").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    for file in (tmp_path / "cache" / "verified").iterdir():
        file.write_text("[")
    assert digits().fingerprint == first.fingerprint
    for file in (tmp_path / "cache" / "decoded").iterdir():
        file.write_bytes(b"")
    assert torch.equal(digits().train.x, first.train.x)
    for file in (tmp_path / "cache" / "decoded").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    assert torch.equal(digits().train.x, first.train.x)


def test_an_unwritable_cache_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "file" / "cache"))
    assert len(digits().train) == 1297


def test_polynomial_samples_scatter_around_the_truth() -> None:
    data = polynomial(n=4000, noise=0.1, validation_size=0)
    assert data.truth is smooth and data.spec.outputs == 1 and data.spec.task == "regression"
    residual = data.train.y - smooth(data.train.x)
    assert abs(float(residual.std()) - 0.1) < 0.005 and abs(float(residual.mean())) < 0.01
    assert float(data.train.x.min()) >= 0 and float(data.train.x.max()) <= 1
    assert float(data.train.y.min()) > -0.8 and float(data.train.y.max()) < 1.8
    assert torch.allclose(polynomial(noise=0).train.y, smooth(polynomial(noise=0).train.x))


@pytest.mark.parametrize("make", [polynomial, moons, spirals])
def test_the_data_seed_draws_other_samples_and_leaves_the_test_split(make) -> None:
    options = {} if make is polynomial else {"normalise": False}
    one, two = make(data_seed=0, **options), make(data_seed=1, **options)
    assert not torch.equal(one.train.x, two.train.x)
    assert torch.equal(one.test.x, two.test.x) and torch.equal(one.test.y, two.test.y)


def test_moons_and_spirals_lie_on_their_curves() -> None:
    moon = moons(noise=0, normalise=False, validation_size=0).train
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[moon.y]
    assert torch.allclose((moon.x - centre).norm(dim=1), torch.ones(1000), atol=1e-6)
    spiral = spirals(noise=0, normalise=False, validation_size=0, turns=1.0).train
    radius = spiral.x.norm(dim=1)
    angle = 2 * torch.pi * radius + torch.pi * spiral.y
    assert torch.allclose(torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None], spiral.x, atol=1e-5)
    assert spiral.y.bincount().tolist() == [500, 500]


def test_so_many_of_each_class_are_kept_and_more_add_to_them() -> None:
    few, more, whole = (digits(per_class=count) for count in (3, 50, None))
    for data, count in ((few, 3), (more, 50)):
        y = data.train.gather(torch.arange(len(data.train))).y
        assert torch.bincount(y).tolist() == [count] * 10
        assert data.split_fingerprints["test"] == whole.split_fingerprints["test"]
    inner, outer, every = ({*data.sample_keys["train"].values.tolist()} for data in (few, more, whole))
    assert len(inner) == 30 and inner < outer < every
    for wrong, facts in (
        ({"per_class": 200}, ["per_class=200", "1 to"]),
        ({"per_class": 0}, ["per_class=0"]),
        ({"per_class": 2, "train_size": 20}, ["per_class=2", "train_size=20"]),
    ):
        with pytest.raises(ConfigError) as error:
            digits(**wrong)
        assert all(fact in str(error.value) for fact in facts)
    with pytest.raises(ConfigError, match="has no classes"):
        from_tensors("mine", (torch.randn(9, 2), torch.randn(9)), task="regression", per_class=2)
    with pytest.raises(ConfigError, match=r"from_nested\(…\)"):
        from_tensors("mine", (torch.randn(9, 2), torch.ones(9, 2).long()), task="dense", classes=2)


def test_cut_gives_every_sample_to_one_part() -> None:
    parts = cut(100, seed=0, validation_size=0.25, test_size=10)
    assert torch.cat(parts).sort().values.tolist() == list(range(100))
    assert [len(p) for p in parts] == [65, 25, 10]
    assert torch.equal(cut(100, seed=0, validation_size=50, test_size=10).test, parts.test)
    small, large = cut(100, seed=0, train_size=5).train, cut(100, seed=0, train_size=50).train
    assert set(small.tolist()) < set(large.tolist())


@pytest.mark.parametrize(
    ("sizes", "key"),
    [
        ({"validation_size": 10}, "validation_size"),
        ({"test_size": 10}, "test_size"),
        ({"test_size": 12, "validation_size": 3}, "test_size"),
        ({"test_size": 4, "validation_size": 0.6}, "validation_size"),
        ({"validation_size": -1}, "validation_size"),
        ({"validation_size": 2.5}, "validation_size"),
        ({"train_size": 0}, "train_size"),
        ({"train_size": 11}, "train_size"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, key) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{key}="):
        cut(10, seed=0, **sizes)


def test_normalisation_is_by_what_is_left_for_training() -> None:
    x, y = images()
    data = from_tensors("mine", (x, y), task="classification", validation_size=7, test_size=5, normalise=True)
    kept = cut(30, seed=0, validation_size=7, test_size=5)
    train = x[kept.train].numpy().astype(np.float64)
    mean, deviation = train.mean((0, 2, 3)), train.std((0, 2, 3))
    assert np.allclose(data.prepare.mean, mean, rtol=1e-12) and np.allclose(data.prepare.deviation, deviation)
    for part in ("train", "validation", "test"):
        raw = x[getattr(kept, part)].numpy()
        expected = (raw - mean[:, None, None]) / deviation[:, None, None]
        assert np.allclose(getattr(data, part).x.numpy(), expected, atol=1e-6)


def test_statistics_do_not_cancel_and_survive_constants() -> None:
    x = 1e6 + torch.randn(5000, 1, dtype=torch.float64)
    mean, deviation = mean_and_deviation(torch.cat([x, torch.full_like(x, 7.0)], 1), chunk=64)
    assert np.allclose(mean, [x.mean(), 7]) and np.allclose(deviation, [x.numpy().std(), 1])


def test_preparation_takes_raw_inputs_in_any_of_their_shapes() -> None:
    x, y = images()
    data = from_tensors("mine", (x[:, :1], y), task="classification", normalise=True)
    expected = data.train.x
    raw = x[:, :1]
    for shape in ([30, 20], [30, 4, 5], [30, 1, 4, 5]):
        assert torch.equal(data.prepare(raw.reshape(shape)), expected)
    again = pickle.loads(pickle.dumps(data.prepare))
    floats = raw.float()
    assert torch.equal(again(floats), expected) and torch.equal(floats, raw.float())
    with pytest.raises(DataError, match=r"\[30, 19\].*\[N, 1, 4, 5\] or \[N, 20\]"):
        data.prepare(raw.reshape(30, 20)[:, :19])


def test_inputs_that_are_not_normalised() -> None:
    x, y = images()
    assert torch.equal(from_tensors("a", (x, y), task="classification", scale=255.0).train.x, x / 255)
    assert torch.equal(from_tensors("a", (x, y), task="classification").train.x, x.float())
    tokens = torch.arange(12).view(4, 3)
    assert from_tensors("a", (tokens, tokens), task="language").train.x.dtype == torch.int64


def test_a_split_gathers_in_order_and_gives_itself_whole() -> None:
    split = TensorSplit(torch.arange(10.0).view(5, 2), torch.arange(5))
    batch = split.gather(torch.tensor([3, 0, 3]))
    assert batch.x.tolist() == [[6, 7], [0, 1], [6, 7]] and batch.y.tolist() == [3, 0, 3]
    assert split.gather(torch.arange(5)).x is split.x
    assert split.gather(torch.arange(5).flip(0)).y.tolist() == [4, 3, 2, 1, 0]
    assert len(split.to(torch.device("cpu"))) == 5


def test_a_fingerprint_is_of_samples_split_and_normalisation() -> None:
    x, y = images()
    base = from_tensors("mine", (x, y), task="classification", validation_size=5)
    other = x.clone()
    other[29, 1, 3, 4] ^= 1
    changed = [
        from_tensors("mine", (other, y), task="classification", validation_size=5),
        from_tensors("mine", (x, (y + 1) % 3), task="classification", validation_size=5),
        from_tensors("mine", (x, y), task="classification", validation_size=6),
        from_tensors("mine", (x, y), task="classification", validation_size=5, split_seed=1),
        from_tensors("mine", (x, y), task="classification", validation_size=5, normalise=True),
    ]
    assert len({base.fingerprint, *(data.fingerprint for data in changed)}) == 6
    assert from_tensors("mine", (x, y), task="classification", validation_size=5).fingerprint == base.fingerprint
    assert fingerprint("ab", "c") != fingerprint("a", "bc") and fingerprint(torch.zeros(0)) != fingerprint()


def test_from_tensors_infers_the_spec() -> None:
    x, y = images()
    spec = from_tensors("mine", (x, y), task="classification").spec
    assert (spec.input_shape, spec.outputs, spec.classes) == ((2, 4, 5), 3, 3)
    data = from_tensors("mine", (torch.rand(8), torch.rand(8)), None, (torch.rand(3), torch.rand(3)), task="regression")
    assert data.spec.input_shape == (1,) and data.train.y.shape == (8, 1) and len(data.test) == 3
    assert from_tensors("mine", (torch.rand(8, 2), torch.rand(8, 3)), task="regression").spec.outputs == 3


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ((torch.rand(3, 2), torch.arange(4)), {}, "same N"),
        ((torch.rand(0, 2), torch.arange(0)), {}, "at least 1"),
        ((torch.rand(3, 2), torch.rand(3)), {}, "whole numbers"),
        ((torch.rand(3, 2), torch.arange(3)), {"classes": 2}, "run from 0 to 2; expected 0 to 1"),
        ((torch.rand(3, 2), torch.arange(3)), {"class_names": ["a"], "classes": 3}, "3 classes and 1 class names"),
        ((torch.rand(3, 2) / 0, torch.arange(3)), {}, "Sample 0 of the training split .* finite"),
        ((torch.rand(3, 2), torch.rand(3)), {"task": "regression", "classes": 2}, "no classes"),
        ((torch.rand(3, 2), torch.tensor([1.0, torch.nan, 0])), {"task": "regression"}, "finite"),
        ((torch.rand(3, 2), torch.arange(3)), {"augment": {"flip": True}}, "is for images"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(train, options, message) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        from_tensors("mine", train, **{"task": "classification", **options})


def test_a_size_and_a_split_contradict() -> None:
    x, y = images()
    with pytest.raises(ConfigError, match="own validation split"):
        from_tensors("mine", (x, y), (x, y), task="classification", validation_size=5)


def test_the_package_costs_nothing_to_import() -> None:
    code = "import dlrun.datasets, dlrun.datasets.files.sources, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_constant_preparation_leaves_floats_alone() -> None:
    x = torch.rand(3, 2)
    assert torch.equal(Standardise((2,))(x), x)


def test_label_noise_touches_the_training_labels_alone() -> None:
    clean, noisy, again = digits(), digits(label_noise=0.2), digits(label_noise=0.2)
    wrong = noisy.train.y != clean.train.y
    assert int(wrong.sum()) == round(0.2 * len(clean.train))
    assert torch.equal(noisy.train.y, again.train.y) and noisy.fingerprint == again.fingerprint
    assert torch.equal(noisy.train.x, clean.train.x)
    assert torch.equal(noisy.validation.y, clean.validation.y) and torch.equal(noisy.test.y, clean.test.y)
    assert len({clean.fingerprint, noisy.fingerprint, digits(label_noise=0.3).fingerprint}) == 3
    # by any of the other classes alike: nine shifts, of about 29 each
    shifts = torch.bincount((noisy.train.y - clean.train.y)[wrong] % 10, minlength=10)
    assert shifts[0] == 0 and shifts[1:].min() >= 12


@pytest.mark.parametrize(("arguments", "told"), [({"label_noise": 1.5}, "0 to 1"), ({"label_noise": -0.1}, "0 to 1")])
def test_label_noise_is_a_share(arguments: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        digits(**arguments)
    with pytest.raises(ConfigError, match="no classes"):
        from_tensors("mine", (torch.rand(9, 1), torch.rand(9)), task="regression", label_noise=0.5)


def test_the_fingerprints_of_finished_runs_stay_valid() -> None:
    assert repr(Standardise((1, 2))) == "Standardise(shape=(1, 2), mean=(0.0,), deviation=(1.0,), indices=False)"
    data = from_tensors("mine", (torch.arange(6.0).view(3, 2), torch.arange(3)), task="classification", scale=2.0)
    assert data.fingerprint[:16] == "acbcb9326f09fe0b"
