"""The same code on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from tests.conftest import Called

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device: run `pytest -m gpu` on a machine with one"
    ),
]


@pytest.mark.parametrize("experiment", ["digits", "moons", "polynomial"])
def test_a_run_on_the_gpu_is_the_run_on_the_cpu(experiment: str, call: Call) -> None:
    for device in ("cpu", "cuda"):
        done = call("train", f"+experiment={experiment}", f"trainer.device={device}", "trainer.precision=fp32", *QUICK)
        assert done.code == 0, done.err
    cpu, gpu = (run.summary() for run in all_runs())
    assert (cpu.device, gpu.device) == ("cpu", "cuda")
    assert gpu.metrics["test/loss"] == pytest.approx(cpu.metrics["test/loss"], rel=0.2)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precisions_learn(precision: str, call: Call) -> None:
    assert call("train", "+experiment=digits", f"trainer.precision={precision}", *QUICK).code == 0
    assert all_runs()[-1].summary().metrics["test/error"] < 0.06


def test_a_killed_run_resumes_bit_equal(call: Call) -> None:
    done = call("verify-resume", "+experiment=digits", "trainer.device=cuda", "trainer.deterministic=true")
    assert done.code == 0, done.out


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_captured_run_is_the_run_and_resumes_bit_equal(optimizer: str, call: Call) -> None:
    argv = ("+experiment=digits", f"optimizer={optimizer}", "trainer.precision=fp32", "trainer.deterministic=true")
    for compiled in ("true", "false"):
        done = call("train", *argv, f"trainer.compile={compiled}", *QUICK)
        assert done.code == 0, done.err
        assert "one by one" not in done.err
    graphs, steps = (run.summary().metrics for run in all_runs())
    assert graphs["train/loss"] == pytest.approx(steps["train/loss"], rel=0.05)
    done = call("verify-resume", *argv, "trainer.compile=true")
    assert done.code == 0, done.out


def test_a_captured_run_has_the_gradients_of_its_steps(call: Call) -> None:
    argv = ("+experiment=digits", "trainer.log_gradients=true", "trainer.clip=0.5", "trainer.precision=fp32", *QUICK)
    for compiled in ("true", "false"):
        done = call("train", *argv, f"trainer.compile={compiled}")
        assert done.code == 0, done.err
        assert "one by one" not in done.err
    graphs, steps = (curves(run.journal) for run in all_runs())
    for name in ("grad_norm", "grad_norm_clipped", "grad_norm/layers.0", "grad_norm/layers.2"):
        assert graphs[name][0] == (steps[name][0][0], pytest.approx(steps[name][0][1], rel=0.01)), name
        assert [step for step, _ in graphs[name]] == [step for step, _ in steps[name]], name


def test_a_captured_sweep_is_the_runs(call: Call) -> None:
    argv = ("+experiment=digits", "optimizer=adamw", "trainer.precision=fp32", "trainer.compile=true", *QUICK)
    done = call("train", "-m", *argv, "seed=0,1,2", "hydra/launcher=batched")
    assert done.code == 0, done.err
    assert "one by one" not in done.err
    together = {run.summary().seed: run.summary().metrics["val/loss"] for run in all_runs()}
    for seed in range(3):
        assert call("train", *argv, f"seed={seed}").code == 0
        assert all_runs()[-1].summary().metrics["val/loss"] == pytest.approx(together[seed], rel=0.05)


def test_a_recorded_validation_finds_what_the_plain_one_does(call: Call) -> None:
    argv = ("+experiment=digits", "trainer.precision=fp32", "evaluation.batch_size=16", *QUICK)
    done = call("train", *argv, "trainer.compile=true")
    assert "by calls" not in done.err
    assert call("train", *argv, "trainer.compile=false").code == 0
    recorded, plain = (run.summary().metrics["val/loss"] for run in all_runs())
    assert recorded == pytest.approx(plain, rel=0.05)


def test_checkpoints_written_beside_training_resume_bit_equal(call: Call) -> None:
    argv = ("+experiment=digits", "trainer.deterministic=true", "trainer.checkpoint_every=7")
    done = call("verify-resume", *argv, "trainer.device=cuda")
    assert done.code == 0, done.out
