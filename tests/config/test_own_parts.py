"""A user's own parts, as the guide shows them: from an empty folder, one file and one yaml each."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import dlrun as package
from dlrun.config import paths
from dlrun.storage import manifest
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

GUIDE = Path(__file__).parents[2] / "docs" / "own_parts.md"
NESTED = GUIDE.with_name("nested_data.md")
SHOWN = re.compile(r"```(?:python|yaml)\n# (?P<file>\S+)\n(?P<text>.*?)```", re.DOTALL)

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false")


def write(folder: Path, **files: str) -> None:
    """Write files by name: `bad_py` is bad.py, `conf_model_bad_yaml` is conf/model/bad.yaml."""
    for name, text in files.items():
        *parts, suffix = name.split("_")
        path = folder.joinpath(*parts).with_suffix(f".{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def empty(here: Path) -> Iterator[Path]:
    """An empty folder, whose modules are forgotten afterwards: another test has others of their names."""
    yield here
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(here)):
            del sys.modules[name]


@pytest.fixture
def lab(empty: Path) -> Path:
    """A folder with every file that the guide shows, and its page on data of several tensors."""
    for found in SHOWN.finditer(GUIDE.read_text(encoding="utf-8") + NESTED.read_text(encoding="utf-8")):
        path = empty / found["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found["text"], encoding="utf-8")
    return empty


def newest() -> RunDir:
    return all_runs()[-1]


def test_the_guide_has_a_part_of_each_kind(lab: Path) -> None:
    kinds = {file.parent.name for file in (lab / "conf").rglob("*.yaml")}
    assert kinds == {"dataset", "model", "loss", "optimizer", "schedule", "metric", "observer", "experiment"}


def test_a_stream_of_the_guide_is_trained(lab: Path, call: Call) -> None:
    done = call("train", "dataset=walks", "trainer.epochs=3", "trainer.workers=0", *QUICK)
    assert done.code == 0, done.err
    assert newest().summary().metrics["test/accuracy"] > 0.85


def test_own_parts_are_trained_tested_and_predicted_with(lab: Path, call: Call) -> None:
    done = call("train", "+experiment=rings", *QUICK)
    assert done.code == 0, done.err
    says(done.out, "rings: 300 train", "Bumps", "Lion", "inverse_root", "confidence")
    run = newest()
    summary = run.summary()
    assert summary.name == "rings"
    assert summary.metrics["test/error"] < 0.05
    rates = [rate for _, rate in curves(run.journal)["lr"]]
    assert max(rates) == pytest.approx(0.003)
    assert rates[-1] == pytest.approx(0.003 * (20 / 100) ** 0.5)
    assert call("test", run.id).code == 0
    (lab / "points.csv").write_text("0,1\n-1,0\n0,-2\n2,0\n")
    answers = call("predict", run.id, "points.csv").out.splitlines()[1:]
    assert [line[0] for line in answers] == ["0", "0", "1", "1"]


def test_an_own_observer_logs_what_it_says(lab: Path, call: Call) -> None:
    done = call("train", "+experiment=rings", "+observer=[margin,predictions]", *QUICK)
    assert done.code == 0, done.err
    says(done.out, "observers margin, predictions")
    assert "observers." not in done.err
    margins = [value for _, value in curves(newest().journal)["margin/mean"]]
    assert len(margins) == 20
    assert margins[0] < margins[-1] < 1


@pytest.mark.usefixtures("lab")
def test_data_of_several_inputs_are_trained_on(call: Call) -> None:
    done = call("train", "dataset=patients", "model=scan_and_age", "optimizer.lr=0.1", "trainer.epochs=20", *QUICK)
    assert done.code == 0, done.err
    assert newest().summary().metrics["test/error"] < 0.15


def test_an_own_metric_is_the_mean_that_it_says(lab: Path, call: Call) -> None:
    call("train", "+experiment=rings", *QUICK)
    run = package.load(newest().id)
    assert run.data.test is not None
    x, _ = run.data.test.gather(torch.arange(len(run.data.test)))
    with torch.no_grad():
        expected = run.model(x).softmax(1).amax(1).double().mean()
    assert run.summary["metrics"]["test/confidence"] == pytest.approx(float(expected))


def test_an_own_metric_of_a_whole_split_is_that_of_scikit_learn(lab: Path, call: Call) -> None:
    from sklearn.metrics import f1_score

    done = call("train", "+experiment=rings", "metric=macro_f1", "evaluation.batch_size=7", *QUICK)
    assert done.code == 0, done.err
    run = package.load(newest().id)
    assert run.data.test is not None
    x, y = run.data.test.gather(torch.arange(len(run.data.test)))
    with torch.no_grad():
        expected = f1_score(y.numpy(), run.model(x).argmax(1).numpy(), average="macro")
    assert run.summary["metrics"]["test/macro_f1"] == pytest.approx(expected)
    assert {"train/macro_f1", "val/macro_f1"} <= run.summary["metrics"].keys()


@pytest.mark.parametrize(("better", "choose"), [("True", max), ("False", min)])
def test_weights_are_chosen_by_an_own_metric_in_its_direction(
    better: str, choose: Callable[..., int], lab: Path, call: Call
) -> None:
    source = lab / "confidence.py"
    source.write_text(source.read_text().replace("higher_is_better = True", f"higher_is_better = {better}"))
    done = call("train", "+experiment=rings", "evaluation.monitor=val/confidence", "trainer.epochs=6", *QUICK)
    assert done.code == 0, done.err
    curve = dict(curves(newest().journal)["val/confidence"])
    assert newest().summary().best_step == choose(curve, key=lambda step: curve[step])


@pytest.mark.parametrize(
    "changes",
    [(), ("optimizer=radam",), ("dataset=stripes", "model=mlp", "optimizer=radam", "trainer.workers=1")],
    ids=["rule", "torch.optim", "streamed"],
)
def test_own_parts_resume_to_the_same_bits(changes: tuple[str, ...], lab: Path, call: Call) -> None:
    whole, half = ("trainer.epochs=4",), ("trainer.epochs=2",)
    for epochs in (whole, half):
        done = call("train", "+experiment=rings", *changes, *epochs, *QUICK)
        assert done.code == 0, done.err
    through, stopped = all_runs()
    assert call("resume", stopped.id, *whole).code == 0
    a, b = (torch.load(run.last, weights_only=True) for run in (through, stopped))
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert through.summary().metrics == stopped.summary().metrics
    assert through.summary().identity == stopped.summary().identity


def test_a_streamed_data_set_is_learned_tested_and_predicted_with(lab: Path, call: Call) -> None:
    import numpy as np

    done = call("train", "+experiment=rings", "dataset=stripes", "model=mlp", "trainer.epochs=5", *QUICK)
    assert done.code == 0, done.err
    run = newest()
    assert run.summary().metrics["test/error"] < 0.1
    assert call("test", run.id, "--batch-size", "7").code == 0
    wave = np.sin(np.arange(8.0))
    np.save(lab / "images.npy", np.stack([np.tile(wave, (8, 1)).T, np.tile(wave, (8, 1))])[:, None])
    answers = call("predict", run.id, "images.npy").out.splitlines()[1:]
    assert [line[0] for line in answers] == ["0", "1"]


def test_a_text_is_learned(lab: Path, call: Call) -> None:
    small = ("model=lstm", "model.width=16", "trainer.steps=60", "optimizer.lr=0.03")
    done = call("train", "dataset=sums", *small, *QUICK)
    assert done.code == 0, done.err
    metrics = newest().summary().metrics
    assert 1 < metrics["test/perplexity"] < 8  # of 13 characters
    assert metrics["test/bits_per_byte"] == pytest.approx(math.log2(metrics["test/perplexity"]))


def test_a_process_of_its_own_finds_the_folder(lab: Path, dlrun: Callable[..., Called]) -> None:
    done = dlrun("train", "+experiment=rings", "dataset=stripes", "trainer.fast=true", *QUICK)
    assert done.code == 0, done.err
    says(done.out, "stripes: 400 train")


def test_list_shows_and_describes_them(lab: Path, call: Call) -> None:
    listed = call("list").out
    says(listed, "rings*", "bumps*", "focal*", "lion*", "radam*", "inverse_root*", "confidence*")
    says(call("list", "model").out, "A linear combination of Gaussian bumps")
    says(call("list", "experiment").out, "Two rings")


def test_a_foreign_configuration_is_ignored_and_a_line_says_so(lab: Path, call: Call) -> None:
    (lab / "conf" / "config.yaml").write_text("defaults: [nothing: here]\nmodel: 3\n")
    done = call("check", "+experiment=rings", *QUICK)
    assert done.code == 0, done.err
    says(done.err, "conf/config.yaml is ignored")


def test_the_folder_is_at_the_end_of_the_path(empty: Path, call: Call) -> None:
    write(empty, yaml_py="raise SystemExit('a file of the folder stood in for a library')")
    paths.enable_user_modules()
    assert sys.path[-1] == str(empty)
    assert call("check").code == 0


def test_the_users_own_wins_and_a_line_says_so(lab: Path, call: Call) -> None:
    write(lab, conf_model_mlp_yaml="_target_: bumps.Bumps\nnumber: 7\n")
    done = call("check", "+experiment=rings", "model=mlp", *QUICK)
    assert done.code == 0, done.err
    says(done.err, "conf/model/mlp.yaml", "dlrun's own")
    says(done.out, "Bumps")


def test_an_added_key_is_known_if_the_signature_has_it(lab: Path, call: Call) -> None:
    assert call("check", "+experiment=rings", "+optimizer.beta1=0.8", *QUICK).code == 0
    refused = call("check", "+experiment=rings", "+optimizer.beta3=0.8", *QUICK)
    refuses(refused, "`optimizer.beta3`", "lion.Lion", "`optimizer.beta1`", "lr, beta1, beta2")
    wrong = call("check", "+experiment=rings", "+optimizer.beta1=much", *QUICK)
    refuses(wrong, "expected a number")


MISTAKES = {
    "dataset": {
        "def part():\n    return {}['x']": ["bad.part failed", "KeyError: 'x'", "(bad.py, line 2)"],
        "def part():\n    return 3": ["returned a int", "from_tensors"],
    },
    "model": {
        "class part:\n    pass": ["a model is a torch.nn.Module"],
        "def part():\n    import torch\n    return torch.nn.Linear(3, 3)": ["do not fit together", "[2, 1, 8, 8]"],
    },
    "loss": {
        "def part(model, batch):\n    return 'small'": ["the loss is a str", "loss=bad.part"],
        "def part(model, batch):\n    return model(batch.x).mean().detach()": ["does not depend on the model's"],
        "def part(model, batch):\n    return model.log_prob(batch.x)": ["no attribute 'log_prob'", "(bad.py, line 2)"],
        "def part(model, batch):\n    return model(batch.x)[:1]": ["expected one value a sample"],
    },
    "optimizer": {
        "class part:\n    lr = 0.1\n    def update(self, params, grads, lr): ...": ["no `init`", "dlrun.types.Rule"],
    },
    "schedule": {
        "def part(step):\n    return 1.0": ["bad.part(0, 210) failed", "(step, steps)"],
        "def part(step, steps):\n    return None": ["returned None", "finite number"],
    },
    "metric": {
        "def part(model, batch):\n    return 0.5": ["returned a float", "expected a sum", "metrics.mine=bad.part"],
    },
}


@pytest.mark.parametrize(
    ("group", "source", "words"),
    [(group, source, words) for group, cases in MISTAKES.items() for source, words in cases.items()],
)
def test_a_mistake_in_an_own_part_is_told_before_anything_is_trained(
    group: str, source: str, words: list[str], empty: Path, call: Call
) -> None:
    head = "# @package metrics.mine\n" if group == "metric" else ""
    write(empty, bad_py=source, **{f"conf_{group}_mine_yaml": f"{head}_target_: bad.part\n"})
    done = call("train", f"{'+' if group == 'metric' else ''}{group}=mine", *QUICK)
    refuses(done, *words)
    assert not all_runs()


def test_a_metric_with_a_slash_in_its_name_is_refused(empty: Path, call: Call) -> None:
    write(empty, conf_metric_mine_yaml="# @package metrics\n'a/b':\n  _target_: dlrun.metrics.nll\n")
    done = call("train", "+metric=mine", *QUICK)
    refuses(done, "metrics.a/b: a metric's name has no `/`", "metrics.a_b")


def test_a_failure_while_training_names_the_line_of_the_users_file(empty: Path, call: Call) -> None:
    write(
        empty,
        bad_py="def part(step, steps):\n    return 1 / (step - 3)",
        conf_schedule_mine_yaml="_target_: bad.part\n",
    )
    done = call("train", "schedule=mine", *QUICK)
    assert done.code == 1
    says(done.err, "ZeroDivisionError: division by zero (bad.py, line 2)")
    assert newest().status() == "failed"


LETTERS = """
class Letters:
    size = 27

    def encode(self, text):
        return [ord(c) - 96 if c.isalpha() else 0 for c in text.lower()]

    def decode(self, tokens):
        return "".join(chr(t + 96) if t else " " for t in tokens)

    def content(self):
        return {}
"""
LOADED = """
    @classmethod
    def load(cls, content):
        return cls()
"""
OTHER = """

class B(Letters):
    size = 3
"""
TEXT = (*QUICK, "dataset=text", "dataset.path=a.txt", "dataset.context=8", "model=gpt", "model.size=1")
STEPS = ("trainer.steps=2", "trainer.batch_size=4", "evaluation.test=never")


def test_a_tokenizer_is_made_again_to_sample(empty: Path, call: Call) -> None:
    write(empty, letters_py=LETTERS + LOADED, a_txt="to be or not to be " * 40)
    done = call("train", *TEXT, *STEPS, "dataset.tokenizer={_target_: letters.Letters}")
    assert done.code == 0, done.err
    written = call("sample", newest().id, "--prompt", "to be", "--tokens", "20")
    assert re.fullmatch("to be[a-z ]{20}\n", written.out), written.err
    write(empty, letters_py=LETTERS)
    sys.modules.pop("letters")
    says(call("sample", newest().id).err, "load(content)")


@pytest.mark.parametrize(
    ("code", "chosen", "told"),
    [
        (LETTERS, "{_target_: letters.Letters}", r"letters\.Letters cannot be made again .* `load\(content\)`"),
        (LETTERS + LOADED.replace("cls()", "1 / 0"), "{_target_: letters.Letters}", r"ZeroDivisionError"),
        (LETTERS.replace("{}", "{1, 2}") + LOADED, "{_target_: letters.Letters}", r"not what JSON can hold"),
        (
            f"{LETTERS}{LOADED.replace('cls()', 'B()')}\nclass B(Letters):\n    size = 3\n",
            "{_target_: letters.Letters}",
            "of 3",
        ),
        (LETTERS.replace("size", "siz") + LOADED, "{_target_: letters.Letters}", r"has no `size`"),
        (LETTERS, "3", r"dataset\.tokenizer=3: expected character, byte, word, bpe"),
    ],
)
def test_a_tokenizer_that_cannot_be_made_again_is_refused_at_the_start(
    empty: Path, call: Call, code: str, chosen: str, told: str
) -> None:
    write(empty, letters_py=code, a_txt="to be or not to be " * 40)
    done = call("train", *TEXT, *STEPS, f"dataset.tokenizer={chosen}")
    assert done.code == 2 and re.search(told, done.err), done.err
    assert not all_runs()


def test_values_of_batches_keep_the_batch_size_in_their_unit(empty: Path, call: Call) -> None:
    source = "def part(model, batch):\n    out = model(batch.x)\n    return (out - out.mean(0)).square().mean()\n"
    write(empty, bad_py=source, conf_loss_mine_yaml="_target_: bad.part\n")
    refuses(call("train", "loss=mine", *QUICK), "evaluation.batch_size", "of_batch = True")
    write(empty, bad_py=f"{source}part.of_batch = True\n")
    sys.modules.pop("bad", None)
    assert call("train", "loss=mine", "trainer.steps=2", "evaluation.batch_size=100", *QUICK).code == 0
    assert newest().summary().quantities["loss"]["unit"].endswith("over batches of 100")
    refuses(call("test", newest().id, "--batch-size", "7"), "--batch-size 7", "loss", "Leave --batch-size out")
    assert call("test", newest().id, "--batch-size", "100").code == 0

    # a job evaluated in batches of another size is another job, and no continued sweep
    sweep = ("train", "-m", "loss=mine", "trainer.steps=2", "seed=0,1", *QUICK)
    identities: set[str] = set()
    for size in (100, 50, 50):
        assert call(*sweep, f"evaluation.batch_size={size}").code == 0
    for each in all_sweeps():
        identities |= {job.identity for job in manifest.read(each).jobs}
    assert len(all_sweeps()) == 2 and len(identities) == 4
    both = call(*sweep, "evaluation.batch_size=100,50", "evaluation.monitor=val/loss")
    refuses(both, "val/loss is not one quantity", "over batches of 50")


def test_the_batch_size_of_an_evaluation_is_no_part_of_an_identity_otherwise(empty: Path, call: Call) -> None:
    sweep = ("train", "-m", "model=linear", "trainer.steps=2", "seed=0,1", *QUICK)
    for size in (100, 50):
        assert call(*sweep, f"evaluation.batch_size={size}").code == 0
    assert len(all_sweeps()) == 1
