"""FLOP of a step, against PyTorch's own counter below autograd, and by hand where that one errs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlrun.engine.objective import Objective
from dlrun.execution.device import Execution
from dlrun.execution.flops import StepCost, count_flops
from dlrun.execution.peak_flops import peak_flops
from dlrun.models.convnet import ConvNet
from dlrun.models.lenet5 import LeNet5
from dlrun.models.linear import Linear
from dlrun.models.mlp import MLP
from dlrun.models.polynomial import Polynomial
from dlrun.storage import lookup
from dlrun.storage.journal import curves as run_curves
from dlrun.types import Batch
from tests.conftest import Called


class Attention(nn.Module):
    """A block of self-attention, its products written out or PyTorch's module."""

    def __init__(self, module: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.qkv = nn.Linear(16, 48)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True) if module else None
        self.out = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        if self.attention:
            return self.out(self.attention(h, h, h, need_weights=True)[0])
        q, k, v = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in self.qkv(h).chunk(3, dim=-1))
        mixed = (q @ k.mT / 2).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class Function(nn.Module):
    """A function of the input and of free parameters."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([torch.randn(s) for s in shapes])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


def square(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch.x).flatten(1).pow(2).mean(1)


def both(model: nn.Module, x: Tensor) -> tuple[int, int]:
    objective, batch = Objective(model, square), Batch(x, x)
    with FlopCounterMode(display=False) as counter:
        objective(batch).backward()
    return count_flops(objective, batch), counter.get_total_flops()


IMAGE = (1, 28, 28)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Linear(IMAGE, 10), IMAGE),
        (MLP(IMAGE, 10, width=32, depth=2, dropout=0.5), IMAGE),
        (Polynomial((1,), 1, degree=5), (1,)),
        (ConvNet(IMAGE, 10), IMAGE),
        (LeNet5(IMAGE, 10), IMAGE),
        (nn.Sequential(nn.Conv2d(1, 3, 3, stride=2, padding="valid"), nn.ConvTranspose2d(3, 2, 3, stride=2)), IMAGE),
        (nn.Conv1d(28, 4, 3, padding="same"), (28, 28)),
        (nn.Sequential(nn.Linear(28, 8).requires_grad_(False), nn.Linear(8, 4)), (28,)),
        (Function(lambda x, w: torch.einsum("bchw,wd->bchd", x, w), (28, 5)), IMAGE),
        (Function(lambda x, w: torch.tensordot(x, w, dims=([3], [0])), (28, 5)), IMAGE),
        (Function(lambda x, w, b: torch.baddbmm(b, x[:, 0], w), (3, 28, 5), (3, 28, 5)), IMAGE),
        (Function(lambda x, w: F.linear(input=x, weight=w), (5, 28)), IMAGE),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_equals_pytorchs_counter(model: nn.Module, shape: tuple[int, ...]) -> None:
    ours, theirs = both(model, torch.rand(3, *shape))
    assert ours == theirs > 0


@pytest.mark.parametrize("module", [False, True])
def test_attention_equals_pytorchs_counter(module: bool) -> None:
    ours, theirs = both(Attention(module), torch.randint(11, (2, 7)))
    assert ours == theirs > 0


def test_by_hand() -> None:
    # 784·64 and 64·10 weights: each acts once forward and once for its own gradient, the second for its input's too
    model = MLP(IMAGE, 10, width=64, depth=1)
    assert count_flops(Objective(model, square), Batch(torch.rand(32, *IMAGE), torch.rand(32))) == 2 * 32 * (
        2 * 784 * 64 + 3 * 64 * 10
    )
    # PyTorch's counter forgets the groups in the gradient of the weight
    grouped = nn.Conv2d(4, 6, 3, groups=2)
    assert both(grouped, torch.rand(2, 4, 8, 8))[0] == 2 * (2 * (2 * 6 * 6 * 6) * (2 * 9))


def test_fused_attention_counts_as_its_products() -> None:
    q, k, v = (torch.rand(2, 4, length, 8) for length in (5, 7, 7))
    model = Function(lambda x, w: F.scaled_dot_product_attention(q * w, k, v), (1,))
    plain = Function(lambda x, w: ((q * w) @ k.mT).softmax(-1) @ v, (1,))
    assert both(model, torch.rand(2, 1))[0] == both(plain, torch.rand(2, 1))[0]


def test_a_recurrent_network_counts_each_weight_on_each_token() -> None:
    lstm = nn.LSTM(8, 5)
    model = Function(lambda x, w: lstm(x * w)[0], (1,))
    assert count_flops(Objective(model, square), Batch(torch.rand(6, 3, 8), torch.rand(1))) == 6 * 18 * (
        20 * 8 + 20 * 5
    )


def test_leaves_the_model_and_the_randomness_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    batch = Batch(torch.rand(5, 6), torch.rand(5))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    count_flops(Objective(model, square), batch)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


def test_costs_no_import() -> None:
    program = (
        "import sys, torch\nfrom dlrun.execution.flops import count_flops\n"
        "from dlrun.engine.objective import Objective\n"
        "from dlrun.types import Batch\nmodel = torch.nn.Conv2d(1, 2, 3)\n"
        "count_flops(Objective(model, lambda m, b: m(b.x).sum()), Batch(torch.ones(1, 1, 5, 5), torch.zeros(1)))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def execution(device: str, precision: str, threads: int = 1) -> Execution:
    return Execution(torch.device(device), precision, threads, deterministic=False)


@pytest.mark.parametrize(
    ("name", "precision", "tflop"),
    [
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H200 NVL", "bf16", 835),
        ("NVIDIA B200", "tf32", 1100),
        ("NVIDIA GB200", "tf32", 1250),
        ("NVIDIA H100 80GB HBM3", "tf32", 494),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "fp32", None),
        ("NVIDIA A10G", "tf32", 35),
        ("NVIDIA RTX A4000", "tf32", None),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA GeForce RTX 4090", "tf32", 82.6),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "tf32", None),
        ("NVIDIA GeForce RTX 4090 D", "tf32", None),
        ("NVIDIA GeForce RTX 3090 Ti", "fp32", None),
        ("Tesla V100-SXM2-16GB", "tf32", 15.7),
        ("Tesla T4", "bf16", None),
        ("A card from tomorrow", "fp32", None),
    ],
)
def test_a_gpu_s_peak_is_its_data_sheet_s(
    name: str, precision: str, tflop: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrun.execution.peak_flops.describe", lambda _: name)
    found = peak_flops(execution("cuda", precision), measure=True)
    assert found == (None if tflop is None else pytest.approx(tflop * 1e12))


def test_a_processor_s_peak_is_measured_once_not_by_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))
    assert peak_flops(execution("cpu", "fp32"), measure=False) is None
    threads = torch.get_num_threads()
    found = peak_flops(execution("cpu", "fp32"), measure=True)
    assert torch.get_num_threads() == threads
    assert found is not None
    assert found > 1e8
    assert peak_flops(execution("cpu", "fp32"), measure=True) == found
    assert peak_flops(execution("cpu", "fp32", threads=4), measure=False) == 4 * found
    assert peak_flops(execution("cpu", "bf16"), measure=False) is None
    (tmp_path / "cache" / "peak_flops.json").write_text("torn")
    assert peak_flops(execution("cpu", "fp32"), measure=False) is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "file"))
    assert peak_flops(execution("cpu", "fp32"), measure=True)


def test_a_point_says_what_it_took() -> None:
    values = {"train/loss": 1.0, "throughput/samples_per_second": 50.0}
    assert StepCost(flop=200, samples=10, tokens=3, peak=4000.0).at(7, values) == values | {
        "throughput/tokens_per_second": 150.0,
        "cost/flop": 1400.0,
        "cost/mfu": 0.25,
    }
    assert StepCost(flop=200, samples=10).at(7, values) == values | {"cost/flop": 1400.0}
    assert StepCost(flop=0, samples=10, peak=4000.0).at(7, values) == values
    assert StepCost(flop=200, samples=10, tokens=3).at(7, {"val/loss": 1.0}) == {"val/loss": 1.0}


def count(function: Callable[..., Tensor], x: tuple[int, ...], *shapes: tuple[int, ...]) -> int:
    model, inputs = Function(function, *shapes), torch.randn(x)
    return count_flops(Objective(model, square), Batch(inputs, inputs))


def test_inner_products_bilinear_maps_and_distances_are_counted() -> None:
    # forward, and once more for each factor that needs a gradient: the weights, not the inputs
    assert count(torch.inner, (5, 7), (3, 7)) == 2 * (2 * 5 * 3 * 7)
    assert count(torch.inner, (5, 4, 7), (3, 2, 7)) == 2 * (2 * 5 * 4 * 3 * 2 * 7)
    assert count(lambda x, w: torch.cdist(x, w), (5, 7), (3, 7)) == 2 * (2 * 5 * 3 * 7)
    assert count(lambda x, w: torch.cdist(x, w, p=2.0), (30, 7), (40, 7)) == 2 * (2 * 30 * 40 * 7)
    assert count(lambda x, w: torch.cdist(x, w, p=1), (5, 7), (3, 7)) == 0
    # (x W): forward and for W; then times v: forward, for the product and for v
    bilinear = count(lambda x, v, w: F.bilinear(x, v.expand(5, 6), w), (5, 7), (6,), (2, 7, 6))
    assert bilinear == 2 * (2 * 5 * 2 * 7 * 6) + 3 * (2 * 5 * 2 * 6)


def test_a_small_last_batch_counts_its_own_samples(call: Callable[..., Called]) -> None:
    sizes = ("dataset.n=650", "dataset.validation_size=200", "trainer.batch_size=256", "trainer.log_every=1")
    done = call("train", "dataset=moons", "model=mlp", "trainer.epochs=3", *sizes, "tracking.enabled=false")
    assert done.code == 0, done.err
    run = lookup.all_runs()[-1]
    summary = run.summary()
    assert summary.data["train"] == 450  # batches of 256 and 194
    assert summary.flop_per_step is not None
    each = summary.flop_per_step / 256
    assert (summary.steps, summary.cost["flop"]) == (6, pytest.approx(3 * 450 * each))
    points = [value for _, value in run_curves(run.journal)["cost/flop"]]
    assert points == pytest.approx([n * each for n in (256, 450, 706, 900, 1156, 1350)])


def test_lbfgs_counts_each_evaluation(call: Callable[..., Called]) -> None:
    words = ("dataset=moons", "model=mlp", "optimizer=lbfgs", "trainer.batch_size=null", "tracking.enabled=false")
    assert call("train", *words, "trainer.steps=3").code == 0
    run = lookup.all_runs()[-1]
    summary = run.summary()
    assert summary.flop_per_step is not None
    passes = summary.cost["flop"] / summary.flop_per_step
    # more than one a step; torch counts them in its own state
    saved = torch.load(run.last, weights_only=True)["optimizer"]["state"][0]["func_evals"]
    assert passes == pytest.approx(saved)
    assert saved > 3
    assert call("resume", run.id, "trainer.steps=4").code == 0
    assert run.summary().cost["flop"] > summary.cost["flop"]


def test_least_squares_counts_its_decomposition(call: Callable[..., Called]) -> None:
    words = ("dataset=polynomial", "model=polynomial", "model.degree=3", "optimizer=least_squares", "loss=mse")
    done = call("train", *words, "trainer.batch_size=null", "trainer.steps=1", "tracking.enabled=false")
    assert done.code == 0, done.err
    summary = lookup.all_runs()[-1].summary()
    n = summary.data["train"]
    assert summary.cost["flop"] == 2 * n * 4**2 + 11 * 4**3 + 2 * n * 4
