"""`dlrun predict` of models whose outputs are anything: probabilities are printed of logits alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dlrun as package
from dlrun.commands.trained.answers.masks import MaskWriter
from dlrun.commands.trained.answers.meaning import Meaning
from dlrun.commands.trained.answers.writers import writing
from dlrun.errors import UserError
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.types import Spec, Task
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]

PARTS = """
import torch
class Net(torch.nn.Module):
    def __init__(self, returns):
        super().__init__()
        self.returns, self.linear = returns, torch.nn.Linear(64, 64)
    def forward(self, x):
        y = self.linear(x.flatten(1))
        parts = {"a": y, "b": y[:, :3]}
        return eval(self.returns)
def loss(model, batch):
    out = model(batch.x)
    out = out["a"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
    return out.square().flatten(1).mean(1)
"""


@pytest.fixture
def train_own(here: Path, call: Call) -> Callable[[str], RunDir]:
    """Train a model of the user's own on digits; it gives the 64 values `y` as the expression says."""
    (here / "own_parts.py").write_text(PARTS)
    for group, target in (("model", "Net\nreturns: ???"), ("loss", "loss")):
        (here / "conf" / group).mkdir(parents=True)
        (here / "conf" / group / "own.yaml").write_text(f"_target_: own_parts.{target}\n")
    np.save(here / "two.npy", np.random.default_rng(0).integers(0, 17, (2, 64)))
    quick = ("trainer.steps=2", "tracking.enabled=false", "trainer.figures=false")

    def train(returns: str) -> RunDir:
        done = call("train", "model=own", "loss=own", f"model.returns='{returns}'", *quick)
        assert done.code == 0, done.err
        return all_runs()[-1]

    return train


@pytest.mark.parametrize(
    ("returns", "shape"),
    [("y[:, :4]", [4]), ("y", [64]), ("y.reshape(-1, 1, 8, 8)", [1, 8, 8]), ("y[:, :10, None]", [10, 1])],
)
def test_outputs_that_are_no_logits_are_printed_as_they_are(
    train_own: Callable[[str], RunDir], call: Call, here: Path, returns: str, shape: list[int]
) -> None:
    run = train_own(returns)
    done = call("predict", run.id, "two.npy")
    assert done.code == 0, done.err
    says(done.err, str(shape), "[10]", "output_0")
    header, *rows = [line.split(",") for line in done.out.splitlines()]
    assert header == [f"output_{i}" for i in range(int(np.prod(shape)))]
    whole = package.load(run.id)
    expected = whole.model(whole.prepare(torch.from_numpy(np.load(here / "two.npy")).float().view(2, 1, 8, 8)))
    assert list(expected.shape[1:]) == shape
    assert np.allclose(np.array(rows, float), expected.flatten(1).tolist(), rtol=1e-4)


@pytest.mark.parametrize(
    ("returns", "said"), [("y[:, :10]", "softmax"), ("y[:, :10].softmax(1)", "outputs are probabilities")]
)
def test_only_logits_of_the_classes_become_probabilities(
    train_own: Callable[[str], RunDir], call: Call, here: Path, returns: str, said: str
) -> None:
    run = train_own(returns)
    done = call("predict", run.id, "two.npy")
    says(done.err, said)
    header, *rows = [line.split(",") for line in done.out.splitlines()]
    assert header == ["prediction", *(f"p({c})" for c in range(10))]
    whole = package.load(run.id)
    outputs = whole.model(whole.prepare(torch.from_numpy(np.load(here / "two.npy")).float().view(2, 1, 8, 8)))
    expected = outputs if said == "outputs are probabilities" else outputs.softmax(1)
    assert np.allclose([[float(p) for p in row[1:]] for row in rows], expected.tolist(), atol=1e-5)
    assert [row[0] for row in rows] == [str(c) for c in expected.argmax(1).tolist()]


@pytest.mark.parametrize(
    ("returns", "facts"),
    [
        ("parts", ["a dict", "a: float32 [2, 64]", "b: float32 [2, 3]"]),
        ("(y, y[:, :3])", ["a tuple", "float32 [2, 64]", "float32 [2, 3]"]),
    ],
)
def test_a_model_that_returns_no_tensor_is_told(
    train_own: Callable[[str], RunDir], call: Call, returns: str, facts: list[str]
) -> None:
    done = call("predict", train_own(returns).id, "two.npy")
    refuses(done, "`Net`", *facts, "dlrun.load")
    assert not done.out


def test_outputs_that_are_no_numbers_predict_no_class(train_own: Callable[[str], RunDir], call: Call) -> None:
    run = train_own("y[:, :10] if self.training or torch.is_grad_enabled() or len(x) > 2 else y[:, :10] * torch.nan")
    done = call("predict", run.id, "two.npy")
    says(done.err, "2 of 2 samples", "not finite")
    assert [line.split(",")[0] for line in done.out.splitlines()] == ["prediction", "", ""]


def test_inputs_of_several_tensors_are_asked_in_python(here: Path, call: Call) -> None:
    (here / "pair.py").write_text(
        "import torch\nfrom torch import nn\nfrom dlrun.datasets import from_nested\n"
        "def pair(n=60):\n"
        "    x = {'a': torch.randn(n, 2, generator=torch.Generator().manual_seed(0)), 'b': torch.ones(n, 3)}\n"
        "    return from_nested('pair', (x, torch.arange(n) % 2), task='classification', validation_size=9)\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, outputs):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(5, outputs)\n"
        "    def forward(self, x):\n"
        "        return self.linear(torch.cat([x['a'], x['b']], 1))\n"
    )
    quick = ("trainer.steps=2", "trainer.batch_size=8", "tracking.enabled=false", "trainer.figures=false")
    done = call("train", "dataset._target_=pair.pair", "model._target_=pair.Net", *quick)
    assert done.code == 0, done.err
    (run,) = all_runs()
    np.save(here / "x.npy", np.zeros((3, 2)))
    refuses(call("predict", run.id, "x.npy"), "a", "b", "dlrun.load", run.id)
    for file in ("w.safetensors", "w.pt2", "w.ts"):
        done = call("export", run.id, file)
        assert done.code == 0, done.err
        says(done.out, "a        float32 [batch, 2]", "b        float32 [batch, 3]")
    assert [each["name"] for each in json.loads((here / "w.json").read_text())["inputs"]] == ["a", "b"]
    inputs = {"a": torch.randn(5, 2), "b": torch.randn(5, 3)}
    expected = package.load(run.id).model(inputs)
    assert torch.allclose(torch.export.load(here / "w.pt2").module()(inputs), expected, atol=1e-6)


@pytest.mark.parametrize(("task", "words"), [("dense", "a class for each element"), ("other", "loss and metrics")])
def test_outputs_of_elements_are_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: Task, words: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "summary.json").write_text('{"metrics": {}}')
    predictor: Any = SimpleNamespace(
        spec=Spec(task, (3, 4, 4), outputs=3), config={"metrics": {}}, model=torch.nn.Identity()
    )
    meaning = Meaning(RunDir(folder), predictor)
    outputs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    answers = meaning(outputs)
    assert len(meaning.names) == 48
    masks, arrays = MaskWriter(tmp_path / "masks"), tmp_path / "a.npz"
    with writing(arrays, meaning, with_files=False) as writer:
        writer.add(answers, "a.npy")
    if task == "other":
        with pytest.raises(UserError, match="classes of pixels"):
            masks.add(answers, "a.npy")
    else:
        masks.add(answers, "some/a.npy")
        for place, name in enumerate(("a", "a_1")):
            found = np.array(Image.open(tmp_path / "masks" / f"{name}.png"))
            assert np.array_equal(found, outputs.argmax(1)[place].numpy())
        assert np.array_equal(np.load(arrays)["classes"], outputs.argmax(1).numpy())
    says(capsys.readouterr().err, words, "[3, 4, 4]", ".npz")
