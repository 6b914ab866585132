"""`dlrun predict` of long inputs: chunk by chunk, in order, into files that are whole or not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dlrun as package
from dlrun.datasets.files.given import samples
from dlrun.runs.reload.predictor import Predictor
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.types import RawInputs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
DIGITS = RawInputs((1, 8, 8), "uint8", (0.0,), (16.0,), (0.0, 16.0))


@pytest.fixture
def run(call: Call) -> RunDir:
    """A short run on digits that is asked with ten samples at once."""
    quick = ("trainer.steps=5", "tracking.enabled=false", "trainer.figures=false", "evaluation.batch_size=10")
    assert call("train", "model=linear", *quick).code == 0
    return all_runs()[-1]


@pytest.fixture
def pixels(here: Path) -> np.ndarray:
    found = np.random.default_rng(0).integers(0, 17, (25, 64), dtype=np.uint8)
    np.save(here / "many.npy", found)
    np.savetxt(here / "many.csv", found, delimiter=",", fmt="%d")
    return found


def load(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)


def test_all_formats_have_the_model_s_answers_in_order(run: RunDir, pixels: np.ndarray, here: Path, call: Call) -> None:
    own = package.load(run.id)
    outputs = own.model(own.prepare(torch.from_numpy(pixels).float())).detach()
    wanted, chosen = outputs.softmax(1).numpy(), outputs.argmax(1).tolist()
    for given in ("many.npy", "many.csv"):
        for name in ("a.csv", "a.jsonl", "a.npz"):
            done = call("predict", run.id, given, "--output", name)
            assert done.code == 0, done.err
            says(done.out, f"25 samples: {name}")
        rows = list(csv.DictReader((here / "a.csv").read_text().splitlines()))
        assert [int(row.pop("prediction")) for row in rows] == chosen
        assert np.allclose([[float(p) for p in row.values()] for row in rows], wanted, atol=1e-6)
        objects = [json.loads(line) for line in (here / "a.jsonl").read_text().splitlines()]
        assert [int(each.pop("prediction")) for each in objects] == chosen
        assert [*objects[0]] == [f"p({c})" for c in range(10)]
        assert np.allclose([[*each.values()] for each in objects], wanted, rtol=1e-6)
        arrays = load(here / "a.npz")
        assert np.allclose(arrays["outputs"], outputs.numpy(), rtol=1e-5, atol=1e-6)
        assert np.allclose(arrays["probabilities"], wanted, rtol=1e-5)
        assert arrays["prediction"].tolist() == chosen
        assert arrays["class_names"].tolist() == [str(c) for c in range(10)]
    assert not [path for path in here.iterdir() if path.name.startswith(".a")]


def test_several_files_are_told_apart_in_each_format(run: RunDir, pixels: np.ndarray, here: Path, call: Call) -> None:
    (here / "pictures").mkdir()
    for i in range(2):
        shade = np.rint(pixels[i].reshape(8, 8) / 16 * 255).astype(np.uint8)
        Image.fromarray(shade).save(here / f"pictures/{i}.png")
    for name in ("a.jsonl", "a.npz", "b.npz"):
        files = ("pictures",) if name == "b.npz" else ("many.npy", "pictures")
        assert call("predict", run.id, *files, "--output", name).code == 0
    objects = [json.loads(line) for line in (here / "a.jsonl").read_text().splitlines()]
    assert [each["file"] for each in objects] == ["many.npy"] * 25 + ["pictures/0.png", "pictures/1.png"]
    arrays = load(here / "a.npz")
    assert arrays["files"].tolist() == ["many.npy", "pictures/0.png", "pictures/1.png"]
    assert arrays["file"].tolist() == [0] * 25 + [1, 2]
    assert load(here / "b.npz")["outputs"].shape == (2, 10)


def test_a_file_larger_than_the_memory_is_read_in_part(tmp_path: Path) -> None:
    # a terabyte, of which nothing is on the disk
    huge = np.lib.format.open_memmap(tmp_path / "huge.npy", mode="w+", dtype=np.uint8, shape=(1 << 34, 64))
    huge[3] = 7
    found = samples.chunks(tmp_path / "huge.npy", DIGITS, size=10)
    assert [int(next(found).sum()) for _ in range(2)] == [7 * 64, 0]
    found.close()


@pytest.mark.parametrize("name", ["many.npy", "many.csv"])
def test_chunks_join_to_the_whole_and_warn_once(
    name: str, pixels: np.ndarray, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels[[4, 20], 3] = 200
    np.save(here / "many.npy", pixels)
    np.savetxt(here / "many.csv", pixels, delimiter=",", fmt="%d")
    parts = list(samples.chunks(here / name, DIGITS, size=10))
    assert [len(part) for part in parts] == [10, 10, 5]
    assert torch.cat(parts).view(25, 64).tolist() == pixels.tolist()
    said = capsys.readouterr().err
    says(said, "2 of 1,600 values, in 2 of 25 samples", "0 to 200")
    assert said.count("dlrun:") == 1


def test_an_error_leaves_what_was_there(run: RunDir, pixels: np.ndarray, here: Path, call: Call) -> None:
    bad = pixels.astype(float)
    bad[22, 0] = np.nan
    np.save(here / "bad.npy", bad)
    for name in ("a.csv", "a.jsonl", "a.npz"):
        (here / name).write_text("before")
        refuses(call("predict", run.id, "many.npy", "bad.npy", "--output", name), "bad.npy", "sample 22")
        assert (here / name).read_text() == "before"
    refused = call("predict", run.id, "bad.npy")
    refuses(refused, "bad.npy", "sample 22")
    assert not refused.out
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_an_interrupt_leaves_nothing(
    name: str, run: RunDir, pixels: np.ndarray, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = [0], Predictor.__call__

    def interrupted(self: Predictor, raw: torch.Tensor) -> torch.Tensor:
        asked[0] += 1
        if asked[0] == 2:
            raise KeyboardInterrupt
        return answer(self, raw)

    monkeypatch.setattr(Predictor, "__call__", interrupted)
    before = {*here.iterdir()}
    assert call("predict", run.id, "many.npy", "--output", name).code == 130
    assert asked == [2]
    assert {*here.iterdir()} == before


def test_an_output_of_another_kind_is_refused_and_a_device_is_written_to(
    run: RunDir, pixels: np.ndarray, call: Call
) -> None:
    refuses(call("predict", run.id, "many.npy", "--output", "a.parquet"), "a.parquet", ".csv, .jsonl or .npz")
    assert call("predict", run.id, "many.npy", "--output", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()
