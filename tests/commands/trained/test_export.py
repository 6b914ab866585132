"""`dlrun export`: files that torch, ONNX or nobody's code reads, with the run's own answers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import dlrun as package
from dlrun.runs.export import formats
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
TEXT = ("dataset=text", "dataset.path=book.txt", "dataset.context=8", "evaluation.train_samples=8")
MODELS = {
    "mlp": ("model=mlp",),
    "text_classifier": ("dataset=text_classification", "dataset.path=reviews.csv", "model=text_classifier"),
    "resnet18": ("model=resnet18", "model.width=2"),
    "convnet": ("dataset=squares", "model=convnet"),
    "gpt": (*TEXT, "model=gpt", "model.layers=1", "model.heads=2", "model.width=8", "model.positions=rotary"),
    "lstm": (*TEXT, "model=lstm", "model.width=4", "model.layers=1"),
}
OWN = """
import torch
from dlrun.datasets import from_tensors


def squares(n: int = 40):
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 1, 28, 28), generator=draw, dtype=torch.uint8)
    return from_tensors(
        "squares", (x, torch.arange(n) % 3), task="classification", validation_size=8, test_size=8, normalise=True
    )


class Net(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer, self.linear = answer, torch.nn.Linear(64, 10)

    def forward(self, x):
        y = self.linear(x.flatten(1))
        return eval(self.answer)


def loss(model, batch):
    out = model(batch.x)
    return (out["a"] if isinstance(out, dict) else out).square().flatten(1).mean(1)
"""


@pytest.fixture
def train(here: Path, call: Call) -> Callable[..., RunDir]:
    """Train for two steps."""
    (here / "own.py").write_text(OWN)
    for group, lines in (("dataset", "squares"), ("model", "Net\nanswer: y"), ("loss", "loss")):
        (here / "conf" / group).mkdir(parents=True)
        name = "squares" if group == "dataset" else "own"
        (here / "conf" / group / f"{name}.yaml").write_text(f"_target_: own.{lines}\n")
    reviews = [f"{['good', 'bad', 'fine', 'poor'][i % 4]} film,{i % 2}" for i in range(40)]
    (here / "reviews.csv").write_text("\n".join(["text,label", *reviews]))
    (here / "book.txt").write_text("".join(f"{a}+{a}={2 * a}\n" for a in range(200)))

    def train(*overrides: str) -> RunDir:
        quick = ("trainer.steps=2", "trainer.batch_size=8", "tracking.enabled=false", "trainer.figures=false")
        done = call("train", *quick, *overrides)
        assert done.code == 0, done.err
        return max(all_runs(), key=lambda run: run.summary().started or 0)

    return train


def inputs(run: RunDir, n: int, seed: int = 0) -> torch.Tensor:
    spec, draw = package.load(run.id).spec, torch.Generator().manual_seed(seed)
    if spec.vocabulary:
        return torch.randint(spec.vocabulary, (n, *spec.input_shape), generator=draw)
    return torch.randn(n, *spec.input_shape, generator=draw)


def agree(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("model", MODELS)
def test_the_files_answer_as_the_run_without_dlrun(
    model: str, train: Callable[..., RunDir], call: Call, here: Path
) -> None:
    run = train(*MODELS[model])
    done = call("export", run.id, "a.pt2")
    assert done.code == 0, done.err
    says(done.out, "a.pt2", "torch.export", "step 2", "validation samples its outputs are the run's")
    assert call("export", run.id, "a.ts").code == 0
    extra = {"card.json": ""}
    program, traced, own = (
        torch.export.load("a.pt2", extra_files=extra).module(),
        torch.jit.load("a.ts"),
        package.load(run.id).model,
    )
    with torch.no_grad():
        for n in (1, 5):
            x = inputs(run, n, seed=n)
            agree(program(x), own(x))
            agree(traced(x), own(x))
        assert ("tokenizer" in json.loads(extra["card.json"])) is (model in ("gpt", "lstm", "text_classifier"))
        if model == "gpt":
            says(done.out, "[batch, tokens ≤ 8]")
            agree(program(x[:, :3]), own(x[:, :3]))


def test_safetensors_are_read_by_their_format_alone(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    run = train("model=mlp", "name=small")
    assert call("export", run.id, "w.safetensors").code == 0
    content = (here / "w.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    assert head.pop("__metadata__")["format"] == "pt"
    assert (8 + length) % 8 == 0
    state = package.load(run.id).model.state_dict()
    assert {*head} == {*state}
    for name, entry in head.items():
        first, last = entry["data_offsets"]
        found = np.frombuffer(body[first:last], dtype="<f4").reshape(entry["shape"])
        assert entry["dtype"] == "F32"
        assert np.array_equal(found, state[name].numpy())
    card = json.loads((here / "w.json").read_text())
    assert (card["task"], card["classes"], card["class_names"][3]) == ("classification", 10, "3")
    assert card["inputs"][0]["shape"] == ["batch", 1, 8, 8]
    assert card["raw_inputs"]["prepare"]["mean"]
    assert card["run"] == {"id": run.id, "name": "small", "started": run.summary().started}
    assert card["metrics"] == run.summary().metrics
    assert card["configuration"]["model"]["_target_"] == "dlrun.models.mlp.MLP"
    assert torch.__version__.startswith(card["versions"]["exported"]["torch"])
    # another run begins with them
    assert call("check", "model=mlp", "init_from=w.safetensors").code == 0


def test_safetensors_of_the_library_are_the_same(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    library = pytest.importorskip("safetensors.torch", reason="needs safetensors: pip install safetensors")
    run = train(*MODELS["gpt"])
    assert call("export", run.id, "w.safetensors").code == 0
    found, state = library.load_file(here / "w.safetensors"), package.load(run.id).model.state_dict()
    assert {*found} == {*state}
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert json.loads((here / "w.json").read_text())["tokenizer"]


def test_onnx_answers_as_the_run(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"needs {name}: pip install onnx onnxscript onnxruntime")
    import onnx
    import onnxruntime

    run = train("model=mlp")
    done = call("export", run.id, "a.onnx", "--prepare")
    assert done.code == 0, done.err
    session = onnxruntime.InferenceSession("a.onnx")
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("input", ["batch", 1, 8, 8])]
    own, raw = package.load(run.id), torch.randint(17, (5, 1, 8, 8)).float()
    (found,) = session.run(["output"], {"input": raw.numpy()})
    agree(torch.from_numpy(found), own.model(own.prepare(raw)).detach())
    card = {each.key: each.value for each in onnx.load("a.onnx").metadata_props}["dlrun"]
    assert json.loads(card)["run"]["id"] == run.id


def test_without_onnx_it_says_what_to_install(
    train: Callable[..., RunDir], call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        formats.importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name)
    )
    run = train("model=linear")
    refuses(call("export", run.id, "a.onnx"), "pip install onnx onnxscript onnxruntime", ".pt2")
    assert not [*here.glob("*a.onnx")]


def test_the_preparation_goes_inside_when_asked(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    run = train("dataset=squares", "model=mlp")
    own, raw = package.load(run.id), torch.randint(256, (5, 1, 28, 28)).float()
    assert call("export", run.id, "raw.pt2", "--prepare").code == 0
    assert call("export", run.id, "prepared.pt2").code == 0
    extra = {"card.json": ""}
    with torch.no_grad():
        wanted = own.model(own.prepare(raw))
        agree(torch.export.load("raw.pt2", extra_files=extra).module()(raw), wanted)
        agree(torch.export.load("prepared.pt2").module()(own.prepare(raw)), wanted)
    assert json.loads(extra["card.json"])["prepares"] is True
    refuses(call("export", run.id, "w.safetensors", "--prepare"), "--prepare", "card")


def test_the_columns_of_a_table_are_encoded_inside(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    rows = [
        f"{(i * 37) % 83},{'red' if i % 3 else 'blue'},{'' if i % 7 == 0 else i / 8},{'old' if i % 5 else 'new'}"
        for i in range(80)
    ]
    (here / "t.csv").write_text("age,colour,size,class\n" + "\n".join(rows))
    table = ("dataset=table", "dataset.path=t.csv", "dataset.target=class", "dataset.missing=indicator")
    run = train(*table, "model=linear")
    assert call("export", run.id, "a.pt2", "--prepare").code == 0
    # a missing size and an unknown colour
    own, raw = package.load(run.id), torch.tensor([[30.0, 1.0, 2.5], [70.0, -1.0, float("nan")]], dtype=torch.float64)
    with torch.no_grad():
        agree(torch.export.load("a.pt2").module()(raw), own.model(own.prepare(raw)))
    # of a regression, scaled targets are scaled back inside
    run = train(*table, "model=linear", "dataset.target=age", "dataset.scale_targets=true", "loss=mse")
    assert call("export", run.id, "b.pt2", "--prepare").code == 0
    assert call("export", run.id, "b.safetensors").code == 0
    own, raw = package.load(run.id), torch.tensor([[1.0, 2.5, 0.0], [-1.0, float("nan"), 1.0]], dtype=torch.float64)
    with torch.no_grad():
        wanted = own.restore(own.model(own.prepare(raw)))
        agree(torch.export.load("b.pt2").module()(raw), wanted)
    card = json.loads((here / "b.json").read_text())
    assert card["target_names"] == ["age"] and card["target_scale"]["mean"] == [pytest.approx(40, abs=10)]
    assert call("predict", run.id, "t.csv").out.splitlines()[0] == "age"


def test_the_weights_are_the_selected_or_the_last_of_the_average(
    train: Callable[..., RunDir], call: Call, here: Path
) -> None:
    run = train("model=mlp", "trainer.steps=6", "trainer.ema=0.5", "trainer.evaluate_every=1", "optimizer.lr=10")
    summary = run.summary()
    assert summary.best_step != 6
    assert call("export", run.id, "best.pt2").code == 0
    done = call("export", run.id, "last.pt2", "--weights", "last")
    says(done.out, "last weights (step 6)")
    split = package.load(run.id).data.validation
    assert split is not None
    x, y = split.gather(torch.arange(len(split)))
    for name, metrics in (("best", summary.metrics), ("last", summary.last)):
        loss = torch.nn.functional.cross_entropy(torch.export.load(f"{name}.pt2").module()(x), y)
        assert float(loss) == pytest.approx(metrics["val/loss"], rel=1e-5)


def test_adapters_are_merged(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    base = train("model=mlp")
    run = train("model=mlp", f"init_from={base.id}", "finetune.lora.rank=2", "optimizer.lr=1")
    assert call("export", run.id, "w.safetensors").code == 0
    from dlrun.storage.files.safetensors import read_safetensors

    found, before = read_safetensors(here / "w.safetensors"), package.load(base.id).model.state_dict()
    assert {*found} == {*before}
    assert any(not torch.equal(found[name], before[name]) for name in before)


def test_a_file_is_not_lost(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    run = train("model=linear")
    (here / "w.json").write_text("mine")
    refuses(call("export", run.id, "w.safetensors"), "w.json exists", "--force")
    assert not (here / "w.safetensors").exists()
    assert call("export", run.id, "w.safetensors", "--force").code == 0
    assert (here / "w.json").read_text() != "mine"


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("m.foo",), (".foo", ".pt2", "--format pt2")),
        (("m.onnx", "--format", "pt2"), ("m.onnx", "onnx", "pt2")),
        (("nowhere/m.pt2",), ("no folder nowhere",)),
        (("conf",), ("--format pt2",)),
        (("conf", "--format", "pt2"), ("conf is a folder",)),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything(
    words: tuple[str, ...], facts: tuple[str, ...], train: Callable[..., RunDir], call: Call
) -> None:
    refuses(call("export", train("model=linear").id, *words), *facts)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_file_that_differs_is_not_left(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    # a tracer writes the size of its own batch into the file
    run = train("model=own", "loss=own", "model.answer='y + float(\"%d\" % len(x)) - x.new_ones(x.shape[0]).sum()'")
    refuses(call("export", run.id, "a.ts"), "one sample", "differ from the run's")
    refuses(call("export", run.id, "a.pt2"), "cannot be exported", "write x.shape[0]", "--format safetensors")
    assert not [path for path in here.iterdir() if path.name.startswith((".", "a."))]
    assert call("export", run.id, "a.safetensors").code == 0


def test_several_outputs_have_their_names(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    run = train("model=own", "loss=own", 'model.answer=\'{"a": y, "b": y[:, :3]}\'')
    done = call("export", run.id, "a.pt2")
    assert done.code == 0, done.err
    says(done.out, "a float32 [batch, 10]", "b float32 [batch, 3]")
    x = inputs(run, 4)
    a, b = torch.export.load("a.pt2").module()(x)
    wanted = package.load(run.id).model(x)
    agree(a, wanted["a"])
    agree(b, wanted["b"])


def test_without_the_data_drawn_inputs_are_compared(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    run = train(*MODELS["lstm"])
    (here / "book.txt").unlink()
    done = call("export", run.id)
    assert done.code == 0, done.err
    says(done.out, f"model-{run.id}.pt2", "drawn inputs", "book.txt")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_lines_of_the_docs_run(train: Callable[..., RunDir], call: Call, here: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    run = train("model=linear")
    seen = 0
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if any(
            not importlib.util.find_spec(name) for name in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
        ):
            continue
        (file,) = {*re.findall(r'"(model\.(?!json)\w+)"', code)}
        assert call("export", run.id, file).code == 0
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        if said := re.search(r"# (.*10\S*)$", code, re.MULTILINE):
            assert said[1] in printed.getvalue()
        seen += 1
    assert seen >= 2
