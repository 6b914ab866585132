"""Mistakes: one message that says what was given, what is valid and what to type; exit code 2; nothing left behind."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false")
POLYNOMIAL = "dataset=polynomial model=polynomial trainer.batch_size=null"
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
REAL = Path(os.environ.get("DLRUN_DATA", "/nowhere")).absolute() / "mnist"
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "ftp")}

MISTAKES = {
    # misspelt
    "modle=mlp": ["`modle`", "Did you mean `model`?", "The groups are: dataset"],
    "model=mpl": ["`mpl`", "Did you mean `mlp`?", "The choices are: airbench", "dlrun list model"],
    "model=3": ["`3`", "The choices are: airbench"],
    "optimizer=null": ["`null`", "The choices are: adam"],
    "optimizer.lrr=0.1": ["`lrr`", "Did you mean `optimizer.lr`?", "weight_decay"],
    "lr=0.1": ["`lr`", "Did you mean `optimizer.lr`"],
    "epochs=3": ["Did you mean `trainer.epochs`?"],
    "experiment=digits": ["`experiment=digits`", "`+experiment=digits`"],
    "+experiment=digit": ["`digit`", "Did you mean `digits`?"],
    "metric=nll": ["`metric=nll`", "`+metric=nll`"],
    "optimizer.lr": ["`optimizer.lr`", "KEY=VALUE"],
    "optimizer.lr=0.1,0.2": ["`optimizer.lr=0.1,0.2`", "-m", "`optimizer.lr=[0.1,0.2]`"],
    "model._target_=dlrun.models.mlp.MPL": ["`MPL`", "Did you mean `MLP`?"],
    "model._target_=os.system": ["`os.system`", "torch.nn", "trusted=[os.system]"],
    "+hydra.callbacks.x._target_=os.system": ["`hydra.callbacks.x._target_=os.system`", "trusted=[os.system]"],
    "+hydra.job_logging.handlers.x={class: os.system}": ["`hydra.job_logging.handlers.x.class=os.system`", "logging"],
    "name=a/b": ["`name=a/b`", "letters, digits"],
    "--epochs 3": ["no option `--epochs`", "KEY=VALUE without dashes"],
    # an abbreviation of --experimental-rerun to argparse
    "--experiment=digits": ["no option `--experiment=digits`", "`+experiment=digits`"],
    "dataset=moons +metric=top_k": ["k=5", "1 to 2", "`metrics.top_k.k=1`"],
    # unknown or deleted keys
    "+foo=3": ["There is no key `foo`", "init_from"],
    "model.foo=3": ["`model.foo=3`", "Nor has dlrun.models.mlp.MLP an argument `foo`"],
    "model.outputs=3": ["`model.outputs=3`", "`+model.outputs=…`"],
    "+model.foo=3": ["`model.foo`", "dlrun.models.mlp.MLP", "width"],
    "+trainer.epoch=3": ["`trainer.epoch`", "Did you mean `trainer.epochs`?"],
    "+metrics.foo=3": ["`metrics.foo._target_`"],
    "~seed": ["`seed` must be given", "a whole number", "`seed=1`"],
    "~loss": ["`loss`", "dlrun list loss"],
    # wrong types and values
    "trainer.epochs=abc": ["`trainer.epochs=abc`", "expected a number", "`trainer.epochs=10`"],
    "trainer.epochs=0": ["`trainer.epochs=0`", "greater than 0", "`trainer.epochs=1`"],
    "trainer.epochs=null": ["`trainer.epochs`", "`trainer.steps`", "`trainer.minutes`"],
    "trainer.epochs=inf": ["trainer.epochs=inf", "finite"],
    "trainer.epochs=nan": ["trainer.epochs=nan", "finite"],
    "trainer.minutes=inf": ["trainer.minutes=inf", "finite"],
    "trainer.minutes=nan": ["trainer.minutes=nan", "finite"],
    "trainer.threads=100000": ["trainer.threads=100000", "at most"],
    "optimizer=sgd optimizer.momentum=2": ["momentum is 2", "momentum < 1"],
    "init_from=/etc/passwd": ["/etc/passwd cannot be read as a checkpoint"],
    "+metrics.loss._target_=dlrun.metrics.nll": ["`loss` is computed anyway", "metrics.my_loss"],
    # MLflow would have one curve for both
    "+metrics.Error._target_=dlrun.metrics.nll": ["metrics.Error", "`error`"],
    "optimizer.lr=${nowhere.to_be_found}": ["`optimizer.lr`", "nowhere.to_be_found"],
    "name=${oc.env:DLRUN_NOT_SET}": ["`name`", "DLRUN_NOT_SET", "${oc.env:NAME,DEFAULT}"],
    "trainer.steps=${oc.env:DLRUN_NOT_SET}": ["`trainer.steps`", "DLRUN_NOT_SET"],
    # the value of an environment variable is text
    "optimizer.lr='0.1'": ["is text", "${oc.decode:${oc.env:NAME}}"],
    "trainer.figures='true'": ["is text", "${oc.decode:${oc.env:NAME}}"],
    "+metrics.error._target_=dlrun.metrics.nll": ["`error` is computed anyway"],
    "trainer.threads=0": ["trainer.threads=0", "greater than 0"],
    f"name={'x' * 300}": ["300 bytes", "at most 200"],
    "trainer.workers=-1": ["`trainer.workers=-1`", "Type `trainer.workers=2`"],
    "trainer.precision=fp16": ["expected one of `auto`, `fp32`, `tf32`, `bf16`"],
    "trainer.fast=maybe": ["expected true or false"],
    "trainer.ema=2": ["between 0 and 1", "trainer.ema=0.999"],
    "optimizer.lr=abc": ["`optimizer.lr=abc`", "expected a number", "`optimizer.lr=0.1`"],
    "optimizer.lr=-1": ["optimizer.lr is -1", "lr ≥ 0", "optimizer.lr=0.1"],
    "model.width=1.5": ["`model.width=1.5`", "a whole number", "model.width=128"],
    "model.hidden=64": ["a list of whole numbers", "model.hidden=["],
    "model.activation=rely": ["Did you mean `relu`?"],
    "seed=-1": ["`seed=-1`", "negative", "`seed=1`"],
    "seed=abc": ["`seed=abc`", "a whole number", "`seed=1`"],
    "metrics=3": ["`metrics=3`", "a mapping"],
    "trusted=os": ["`trusted=os`", "a list"],
    "init_from=3": ["`init_from=3`", "text"],
    "tracking.tags={a: 1}": ["one by one", "+tracking.tags."],
    "+tracking.tags.a=[1]": ["`tracking.tags={a:[1]}`", "a mapping {key: text"],
    "dataset.augment={shif: 2}": ["`shif`", "Did you mean `shift`?"],
    "dataset.augment=flip": ["`dataset.augment=flip`", "a mapping"],
    # intervals, devices, the monitor
    "trainer.evaluate_every=often": ["`often`", "'2 epochs'"],
    "trainer.evaluate_every=0": ["`0`", "above 0"],
    "trainer.evaluate_every='5 min'": ["`5 min` is a time", "'2 epochs'"],
    "trainer.checkpoint_every='5 hours'": ["`5 hours`", "'30 s'"],
    "trainer.device=gpu": ["`gpu` is no device", "cuda"],
    "trainer.device=cuda:99": ["this machine has", "trainer.device=auto"],
    "evaluation.monitor=test/error": ["test/error", "val/error", "sealed"],
    "evaluation.monitor=val/eror": ["Did you mean `val/error`", "There are: val/loss"],
    "evaluation.monitor=val/perplexity": ["is not computed", "val/loss"],
    "evaluation.monitor=val/loss dataset.validation_size=0": ["needs a validation split", "dataset.validation_size"],
    "trainer.patience=3 dataset.validation_size=0": ["needs a validation split"],
    "evaluation.test=always": ["`final`, `every`, `never`"],
    # parts that do not fit
    "loss=mse": ["loss=mse", "int64", "type loss=cross_entropy"],
    f"{POLYNOMIAL} loss=cross_entropy": ["loss=cross_entropy", "float32", "type loss=mse"],
    "dataset=polynomial trainer.batch_size=8": ["type loss=mse"],
    "model=polynomial": ["model=polynomial", "one variable", "dataset=polynomial"],
    "model=convnet": ["model=convnet needs images", "[1, 8, 8]"],
    "optimizer=least_squares trainer.batch_size=null trainer.steps=1": ["MLP", "features(x)", "model=polynomial"],
    "dataset=polynomial model=polynomial loss=mse optimizer=least_squares trainer.batch_size=8": [
        *("LeastSquares", "30 samples", "trainer.batch_size=8", "trainer.batch_size=null trainer.steps=1")
    ],
    f"{POLYNOMIAL} loss=mse optimizer=least_squares trainer.epochs=3": ["trainer.epochs=3", "trainer.steps=1"],
    "dataset=moons optimizer=lbfgs trainer.overfit_batches=2": ["LBFGS", "trainer.batch_size=null"],
    "dataset=moons optimizer=lbfgs": ["LBFGS", "800 samples", "trainer.batch_size=null"],
    "optimizer=lbfgs trainer.batch_size=null +dataset.augment.shift=1": ["augmentation", "dataset.augment=null"],
    "optimizer=least_squares trainer.clip=1 model=linear": ["trainer.clip has no meaning"],
    "optimizer=lbfgs trainer.log_gradients=true": ["trainer.log_gradients has no meaning"],
    "trainer.log_gradients=some": ["trainer.log_gradients"],
    "+model.outputs=7": ["model.outputs=7 contradicts the data set digits, where it is 10", "Leave model.outputs out"],
    "+model.input_shape=[3]": ["contradicts", "(1, 8, 8)"],
    "trainer.batch_size=2000": ["trainer.batch_size=2000", "1297 samples", "trainer.batch_size=null"],
    "dataset.test_size=1797": ["dataset.test_size=1797 leaves nothing", "below 1797"],
    "dataset.validation_size=5000": ["leaves nothing to train on", "1497"],
    "hydra.run.dir=${nope}": ["`hydra.run.dir`", "'nope'"],
    "init_from=nothing": ["No run `nothing`", "dlrun train"],
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_a_mistake_is_one_message_and_leaves_nothing(overrides: str, here: Path, call: Call) -> None:
    # blanks part overrides, but for a quoted interval and a mapping
    argv = overrides.split(" ") if "'" not in overrides and "{" not in overrides else [overrides]
    refuses(call("train", *QUICK, *argv), *MISTAKES[overrides])
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("trian", ["`trian`", "Did you mean `train`?", "The commands are: train, resume"]),
        ("model=mlp", ["dlrun train model=mlp"]),
        ("list modle", ["`modle`", "Did you mean `model`?"]),
        ("data mnis", ["`mnis`", "Did you mean `mnist`"]),
        ("check modle=mlp", ["Did you mean `model`?"]),
        ("verify-resume modle=mlp", ["Did you mean `model`?"]),
        ("verify-resume -m seed=1,2", ["one configuration", "-m"]),
        ("train --config-dir nowhere", ["nowhere", "no such folder"]),
        ("resume nope", ["No run or sweep `nope`", "dlrun train", "--sweeps"]),
        ("test nope", ["No run or sweep `nope`"]),
        ("predict nope nope.csv", ["There is no file nope.csv"]),
        ("sync nope", ["No run or sweep `nope`"]),
        ("runs nope", ["No run or sweep `nope`"]),
        ("runs --delete --last 0 --yes", ["--last 0", "at least 1"]),
        ("runs --last -1", ["--last -1", "at least 1"]),
        ("runs --where foo", ["`foo` is no condition", "--where status=finished"]),
        ("train -m hydra/sweeper=search --block model=mlp", ["blocks are grids", "leave out `--block`"]),
        ("runs --where status<>failed", ["`status<>failed` is no condition"]),
    ],
)
def test_a_mistake_in_a_command(argv: str, words: list[str], here: Path, call: Call) -> None:
    refuses(call(*argv.split()), *words)
    assert not list(here.iterdir())


def test_a_data_set_without_files_or_network(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    # urllib keeps the opener that it makes first, with the proxies of that moment: it must not outlive this test
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("DLRUN_DATA", str(here / "data"))
    done = call("train", "dataset=mnist", "model=convnet", *QUICK)
    refuses(done, str(here / "data" / "mnist"), *MNIST, "DLRUN_DATA", "need no download: digits,", "polynomial, moons")
    assert not all_runs()


@pytest.mark.skipif(
    not all((REAL / f"{name}.gz").exists() for name in MNIST),
    reason="no mnist: set DLRUN_DATA to a folder that holds mnist/",
)
@pytest.mark.parametrize("spoil", ["truncated", "altered"])
def test_a_spoilt_file_of_real_data_is_named(
    spoil: str, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = here / "data" / "mnist"
    data.mkdir(parents=True)
    for name in MNIST:
        (data / f"{name}.gz").symlink_to(REAL / f"{name}.gz")
    spoilt = data / f"{MNIST[3]}.gz"
    content = spoilt.read_bytes()
    spoilt.unlink()
    plain = bytearray(gzip.decompress(content))
    plain[100] ^= 1
    spoilt.write_bytes(content[:1000] if spoil == "truncated" else gzip.compress(bytes(plain)))
    monkeypatch.setenv("DLRUN_DATA", str(here / "data"))
    done = call("train", "dataset=mnist", "model=convnet", *QUICK)
    refuses(done, str(spoilt), "truncated or altered", "SHA-256", "dlrun data")
    assert not all_runs()


def test_an_error_page_saved_in_the_place_of_a_file_is_named(
    here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = here / "data" / "mnist"
    data.mkdir(parents=True)
    for name in MNIST:
        (data / f"{name}.gz").write_bytes(b"<html>404</html>")
    monkeypatch.setenv("DLRUN_DATA", str(here / "data"))
    done = call("train", "dataset=mnist", "model=convnet", *QUICK)
    refuses(done, str(data), "truncated or altered", "SHA-256", "dlrun data")
    assert not all_runs()


def test_an_outputs_folder_that_cannot_be_written(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("in the place of a folder")
    monkeypatch.setenv("DLRUN_OUTPUTS", str(here / "file"))
    refuses(call("train", *QUICK), str(here / "file"), "DLRUN_OUTPUTS")
    monkeypatch.delenv("DLRUN_OUTPUTS")
    (here / "outputs").write_text("in the place of a folder")
    refuses(call("train", *QUICK), str(here / "outputs"), "DLRUN_OUTPUTS")


def test_a_tracking_uri_that_is_a_folder(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("file:./mlruns", "./mlruns"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        refuses(call("train"), uri, "sqlite:///")
    assert not list(here.iterdir())


@pytest.fixture
def run(call: Call) -> RunDir:
    """A short run on moons."""
    assert call("train", "dataset=moons", "model.width=4", "trainer.steps=1", *QUICK).code == 0
    return all_runs()[-1]


def test_weights_of_another_model(run: RunDir, call: Call) -> None:
    shapes = ("of another model", "shape here", "(8, 2)", "shape there", "(4, 2)")
    refuses(call("train", "dataset=moons", "model.width=8", f"init_from={run.id}", *QUICK), *shapes)
    refuses(call("train", "dataset=moons", "model.width=8", f"init_from={run.last}", *QUICK), *shapes)
    other = run.last.with_name("other.pt")
    other.write_text("no checkpoint")
    refuses(call("train", "dataset=moons", f"init_from={other}", *QUICK), str(other))
    torch.save({"weights": 3}, other)
    refuses(call("train", "dataset=moons", f"init_from={other}", *QUICK), str(other))
    torch.save({"format": 1, "state": {}}, other)
    refuses(call("train", "dataset=moons", f"init_from={other}", *QUICK), str(other), "without weights")
    torch.save({"format": 1, "model": {"a": 3}}, other)
    refuses(call("train", "dataset=moons", f"init_from={other}", *QUICK), "of another model")
    assert len(all_runs()) == 1


def test_a_run_id_that_fits_several(run: RunDir, call: Call) -> None:
    twin = run.path.with_name(f"{run.path.name}x")
    shutil.copytree(run.path, twin)
    for command in (["resume", run.id[:3]], ["test", run.id[:3]]):
        refuses(call(*command), "fits 2 runs", str(run.path), str(twin), "more of the id")


def test_what_is_asked_of_a_run_that_cannot_be(run: RunDir, here: Path, call: Call) -> None:
    refuses(call("resume", run.id, "model.width=5"), "`model.width=5` cannot be changed", "trainer.epochs")
    refuses(call("resume", run.id, "trainer.step=5"), "Did you mean `trainer.steps`")
    refuses(call("resume", run.id, "trainer.steps=many"), "`trainer.steps=many` is text", "a whole number")
    refuses(call("test", run.id, "--batch-size", "0"), "--batch-size 0", "at least 1")
    refuses(call("runs", "--sort", "data"), "--sort data", "val/loss")
    for name, content in (("words.csv", "a,b\nc,d\n"), ("three.csv", "1,2,3\n"), ("empty.csv", ""), ("x.doc", "1,2")):
        (here / name).write_text(content)
        refuses(call("predict", run.id, name), name)
    assert run.status() == "finished"
