"""Weights that know samples which would judge them: counted before the first step, refused, marked with consent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from dlrun.datasets.digits import digits
from dlrun.datasets.splitting.cut import cut
from dlrun.runs.weights import learned, overlap
from dlrun.runs.weights.learned import Learned
from dlrun.storage import checkpoint
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.tracking.content import description, metadata
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "trainer.steps=2", "model.hidden=[4]")


def train(call: Call, *overrides: str) -> RunDir:
    known = all_runs()
    done = call("train", *QUICK, *overrides)
    assert done.code == 0, done.err
    return next(run for run in all_runs() if run not in known)


def parts(seed: int) -> tuple[set[int], set[int], set[int]]:
    """Training, validation and test samples of digits, by their numbers: no two of its images are equal."""
    train, validation, test = cut(1797, seed=seed, validation_size=200, test_size=300)
    return {*train.tolist()}, {*validation.tolist()}, {*test.tolist()}


def on_own_data(name: str, code: str) -> tuple[str, ...]:
    """Write the file of a data set's function; returns the words that train on it."""
    Path(f"{name}.py").write_text(code)
    Path("conf/dataset").mkdir(parents=True)
    Path(f"conf/dataset/{name}.yaml").write_text(f"_target_: {name}.{name}\n")
    return (f"dataset={name}", "model=linear", "trainer.batch_size=10", "trainer.steps=2", *QUICK[:2])


def test_weights_of_another_split_are_refused_with_the_counts_and_the_words_to_type(call: Call) -> None:
    base = train(call)
    (trained, chosen, _), (_, validation, test) = parts(0), parts(1)
    counts = len(validation & trained), len(test & trained), len(test & chosen)
    assert min(counts) > 0
    facts = (
        f"{counts[0]} of 200 validation samples were trained on",
        f"{counts[1]} of 300 test samples were trained on, {counts[2]} chose the weights",
        "init_from_overlap=allow",
        "dataset.split_seed=0 (here 1)",
    )
    for command in ("train", "check"):
        for source in (base.id, str(base.best), str(base.path)):
            refuses(call(command, *QUICK, f"init_from={source}", "dataset.split_seed=1"), *facts)
    assert all_runs() == [base]
    # the same split is no overlap: validation samples choose again
    says(call("check", *QUICK, f"init_from={base.id}").out, "no sample of validation or test")


def test_consent_is_marked_wherever_the_numbers_are_shown(call: Call) -> None:
    base = train(call)
    done = call("train", *QUICK, f"init_from={base.id}", "dataset.split_seed=1", "init_from_overlap=allow")
    run = next(each for each in all_runs() if each != base)
    (trained, chosen, _), (_, validation, test) = parts(0), parts(1)
    known = run.summary().origin["known"]
    assert known["test"]["trained"] == len(test & trained) and known["test"]["chosen"] == len(test & chosen)
    assert known["validation"]["trained"] == len(validation & trained)
    told = f"{len(test & trained)} of 300 test samples were trained on"
    says(done.out, told, "too good")
    says(call("test", run.id).out, told)
    other = train(call, "dataset.split_seed=1", "seed=0")
    says(call("compare", other.id, run.id).out, told)
    config = {"name": "mine"}
    says(description.describe(run, config, run.summary()), told)
    assert told in metadata.tags(run, config, run.summary())["dlrun.init_from.known"]
    says(call("runs").out, f"{run.id}: init_from={base.id}", told)
    says(call("runs", "--json").out, '"known"')
    assert "too good" not in call("runs", other.id, base.id).out


def test_a_chain_of_runs_carries_what_all_of_them_have_learned_from(call: Call) -> None:
    first = train(call)
    # the second run has no validation or test samples of the first split, and none that the first has seen
    second = train(call, f"init_from={first.id}", "dataset.validation_size=0", "dataset.test_size=0")
    third = train(call, f"init_from={second.id}", "dataset.validation_size=0", "dataset.test_size=0", "seed=2")
    shutil.rmtree(first.path)
    shutil.rmtree(second.path)
    refuses(call("train", *QUICK, f"init_from={third.id}"), "300 of 300 test samples were trained on")
    # what the consent of one run allowed, the next one is asked for again
    allowed = train(call, f"init_from={third.id}", "init_from_overlap=allow")
    refuses(call("train", *QUICK, f"init_from={allowed.id}"), "300 of 300 test samples were trained on")
    keys = learned.from_weights(allowed.id)
    assert keys.trained.total == 1797 and keys.chosen.total == 200 + 200 - len(parts(0)[1] & parts(0)[1])


def test_a_chain_over_two_splits_knows_the_training_samples_of_both(call: Call) -> None:
    first = train(call)
    second = train(call, f"init_from={first.id}", "dataset.split_seed=1", "init_from_overlap=allow")
    (one, chose, _), (two, chose_too, _), (own, validation, test) = parts(0), parts(1), parts(2)
    trained = one | two
    assert learned.from_weights(second.id).trained.total == len(trained)
    told = call("train", *QUICK, f"init_from={second.id}", "dataset.split_seed=2").err
    says(told, f"{len(validation & trained - own)} of 200 validation samples were trained on")
    says(told, f"{len(test & trained)} of 300 test samples were trained on")
    says(told, f"{len(test & (chose | chose_too) - trained)} chose the weights")


def test_weights_of_unknown_origin_are_said_to_be_unknown_and_stay_so(here: Path, call: Call) -> None:
    base = train(call)
    shutil.copy(base.best, here / "weights.pt")
    done = call("train", *QUICK, "init_from=weights.pt", "dataset.split_seed=1")
    assert done.code == 0, done.err
    says(done.out, "weights.pt", "unknown origin")
    child = next(run for run in all_runs() if run != base)
    assert child.summary().origin["unknown"]
    # what is known counts all the same
    says(call("check", *QUICK, f"init_from={child.id}", "dataset.split_seed=1").out, "weights.pt", "unknown origin")
    refuses(call("check", *QUICK, f"init_from={child.id}", "dataset.split_seed=2"), "samples were trained on")
    # a run of an older dlrun
    base.learned.unlink()
    said = call("check", *QUICK, f"init_from={base.id}", "dataset.split_seed=1")
    assert said.code == 0
    says(said.out, "learned.pt", "unknown origin")
    assert not any("Traceback" in text for text in (done.err, said.err))


def test_a_run_keeps_its_keys_when_it_is_resumed_and_gets_those_that_it_lacks(call: Call) -> None:
    base = train(call)
    child = train(call, f"init_from={base.id}", "dataset.train_size=100")
    before = child.learned.read_bytes()
    assert call("resume", child.id, "trainer.steps=4").code == 0
    assert child.learned.read_bytes() == before
    for run, known in ((base, True), (child, False)):
        run.learned.unlink()
        assert call("resume", run.id, "trainer.steps=6").code == 0
        found = checkpoint.load_learned(run.learned)
        assert bool(found.unknown) is not known
    assert len(found.trained) == 100


def test_damaged_keys_are_named(call: Call) -> None:
    base = train(call)
    content = base.learned.read_bytes()
    for damaged in (b"", content[:-100], content.replace(b"\x01\x02", b"\x02\x01")[: len(content) // 2]):
        base.learned.write_bytes(damaged)
        refuses(call("train", *QUICK, f"init_from={base.id}"), "learned.pt")
    torch.save({"format": 1, "trained": torch.zeros(2, 2), "trained_one_in": 1}, base.learned)
    refuses(call("train", *QUICK, f"init_from={base.id}"), "learned.pt")


def test_the_training_samples_of_a_source_that_are_trained_on_anyway_are_no_leak(here: Path, call: Call) -> None:
    # half of the test samples are in the training split itself: a matter of the data, not of the weights
    base = on_own_data(
        "twice",
        "import torch\nfrom dlrun.datasets import from_tensors\n"
        "def twice():\n"
        "    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)); y = torch.arange(60) % 2\n"
        "    return from_tensors('twice', (x[:40], y[:40]), None, (x[30:50], y[30:50]), task='classification')\n",
    )
    done = call("train", *base)
    assert done.code == 0, done.err
    told = "10 of 20 test samples have the input of one in training"
    says(done.out, told)
    says(call("check", *base).out, told)
    (first,) = all_runs()
    assert json.loads((first.path / "summary.json").read_text())["data"]["shared"]["test in training"]["count"] == 10
    assert call("train", f"init_from={first.id}", *base).code == 0


def test_resume_recommends_no_weights_for_another_split(call: Call) -> None:
    base = train(call)
    for change in ("dataset.split_seed=1", "dataset.validation_size=0", "dataset=moons"):
        done = call("resume", base.id, change)
        refuses(done, "first step")
        assert "init_from" not in done.err
    refuses(call("resume", base.id, "optimizer.lr=1"), "init_from")


def test_each_job_of_a_sweep_is_checked_before_the_first_one_starts(call: Call) -> None:
    base = train(call)
    sweep = ("-m", *QUICK, f"init_from={base.id}", "dataset.split_seed=0,1")
    for command in ("train", "check"):
        refuses(call(command, *sweep), "1 of 2 jobs", "dataset.split_seed=1", "init_from_overlap=allow")
    assert all_runs() == [base]
    done = call("train", *sweep, "init_from_overlap=allow")
    assert done.code == 0, done.err
    says(done.out, "1 of 2 runs", "test samples were trained on")


def test_keys_are_united_without_repetition() -> None:
    one = learned.from_data(digits())
    assert (one | one).trained.total == 1297 and one.chosen.total == 200
    assert (one | Learned(unknown=("x",))).unknown == ("x",)


def test_weights_that_a_model_of_a_library_brings_are_of_unknown_origin() -> None:
    def begun(**model) -> tuple[Learned | None, dict]:
        return overlap.begin({"init_from": None, "model": model}, digits())

    found, origin = begun(_target_="torchvision.models.resnet18", weights="DEFAULT")
    assert found and found.unknown and "model.weights=DEFAULT" in origin["unknown"][0] and not origin["known"]
    assert begun(_target_="timm.create_model", pretrained=True)[0]
    for model in ({"weights": None}, {"weights": "DEFAULT", "_target_": "mine.Model"}, {}):
        assert begun(**{"_target_": "torchvision.models.resnet18"} | model) == (None, {})


def test_a_text_that_is_cut_anew_or_tokenised_anew_is_recognised(here: Path, call: Call) -> None:
    lines = [f"{n} bottles of beer on the wall, {n * n} in the cellar and {n**3 % 97} gone\n" for n in range(900)]
    Path("whole.txt").write_text("".join(lines))
    Path("part.txt").write_text("another beginning\n" + "".join(lines[300:600]))
    text = ("dataset=text", "model=lstm", "model.width=4", "dataset.context=16", "trainer.batch_size=4", *QUICK[:3])
    assert call("train", "dataset.path=whole.txt", *text).code == 0
    (base,) = all_runs()
    same = ("dataset.path=whole.txt", f"init_from={base.id}")
    says(call("check", *text, *same).out, "no sample of validation or test")
    for other in (
        ("dataset.path=whole.txt", "dataset.test_size=0.3"),
        ("dataset.path=whole.txt", "dataset.test_size=0.3", "dataset.tokenizer=character"),
        ("dataset.path=part.txt",),
    ):
        refuses(
            call("check", *text, *other, f"init_from={base.id}"),
            "characters were trained on",
            "init_from_overlap=allow",
        )


def test_a_data_set_made_by_hand_gives_no_keys_and_that_is_said(here: Path, call: Call) -> None:
    base = on_own_data(
        "hand",
        "import torch\nfrom dlrun.datasets.tensors.split import TensorSplit\nfrom dlrun.types import Data, Spec\n"
        "def hand():\n"
        "    x, y = torch.randn(90, 2, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 2\n"
        "    splits = (TensorSplit(x[i:i + 30], y[i:i + 30]) for i in (0, 30, 60))\n"
        "    return Data('hand', Spec('classification', (2,), 2, classes=2), *splits, fingerprint='x' * 64)\n",
    )
    assert call("train", *base).code == 0
    (run,) = all_runs()
    says(call("check", *base, f"init_from={run.id}").out, "unknown origin", "gives no keys")
