"""Activations that are computed again: every number is that of the plain model, to the bit, and fewer are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint_sequential

from dlrun.engine.forward.checkpointing import Every, apply, remove, requiring_calls
from dlrun.engine.forward.recomputing import keeping_all, recomputing
from dlrun.errors import ConfigError
from dlrun.models.gpt import GPT
from dlrun.models.mlp import MLP
from dlrun.models.resnet import cifar_resnet
from dlrun.storage import checkpoint as stored
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]


def loop_over_list() -> nn.Module:
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(10, 10), nn.Dropout(0.3), nn.Tanh()) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x

    return Looped()


def spectral() -> nn.Module:
    layer = torch.nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        *(nn.Sequential(layer(nn.Linear(10, 10)), nn.BatchNorm1d(10, momentum=None)) for _ in range(5))
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP((10,), 3, depth=7, width=16, dropout=0.2, activation="gelu"),
    "gpt": lambda: GPT((10,), 12, size="nano", layers=5, dropout=0.1, positions="rotary"),
    "resnet": lambda: cifar_resnet((3, 16, 16), 10, depth=20, width=4),
    "list": loop_over_list,
    "buffers that change": spectral,
}


def inputs(name: str) -> Tensor:
    torch.manual_seed(1)
    return {"gpt": torch.randint(12, (4, 10)), "resnet": torch.randn(4, 3, 16, 16)}.get(name, torch.randn(6, 10))


def differentiate(model: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(2)
    loss = model(x).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, [*model.parameters()])]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("every", [True, "sqrt"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_draws_and_buffers_are_those_of_the_plain_model(name: str, every: Every, autocast: bool) -> None:
    if (name, every) == ("list", "sqrt"):
        pytest.skip("it calls its blocks one by one")
    models = []
    for given in (False, every):
        torch.manual_seed(0)
        models.append(MODELS[name]())
        apply(models[-1], given)
    x = inputs(name)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            plain, again = (differentiate(model, x) for model in models)
        assert all(map(torch.equal, plain, again))
    state, other = (model.state_dict() for model in models)
    assert [*state] == [*other]
    assert all(torch.equal(state[key], other[key]) for key in state)


def kept(model: Callable[[Tensor], Tensor], x: Tensor, params: set[int]) -> int:
    """The bytes of the storages that the graph holds after a forward pass, but those of weights."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in params:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    assert y.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize(("every", "segments"), [(True, 16), ("sqrt", 4)])
def test_what_is_kept_is_what_torchs_own_function_keeps(every: Every, segments: int) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Dropout(0.1)) for _ in range(16)))
    params, x = {p.untyped_storage().data_ptr() for p in model.parameters()}, torch.randn(8, 32, requires_grad=True)
    plain = kept(model, x, params)
    # torch's leaves the last segment out
    theirs = kept(lambda x: checkpoint_sequential([*model, nn.Identity()], segments, x, use_reentrant=False), x, params)
    apply(model, every)
    ours = kept(model, x, params)
    assert ours == segments * x.numel() * 4
    assert ours <= plain / 3
    assert every is True or ours <= theirs < plain
    with keeping_all(model):
        assert kept(model, x, params) == plain
        assert not recomputing(model)
    assert len(recomputing(model)) == 1
    remove(model)
    assert kept(model, x, params) == plain
    assert type(model) is nn.Sequential


def test_blocks_begin_at_matrices() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh())
    apply(model, True)
    assert model._ends == [4, 6]


@pytest.mark.parametrize(
    ("model", "every", "facts"),
    [
        (nn.Linear(3, 2), True, ["Linear has no blocks", "nn.Sequential"]),
        (loop_over_list(), "sqrt", ["Looped", "one by one", "trainer.activation_checkpointing=true"]),
    ],
)
def test_a_model_without_blocks_is_refused(model: nn.Module, every: Every, facts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        apply(model, every)
    says(str(refused.value), *facts)


def test_a_chain_that_is_not_called_is_refused(call: Call) -> None:
    # `tanh_layers` reads its layers one by one
    refuses(
        call("check", "dataset=moons", "model=tanh_layers", "trainer.activation_checkpointing=sqrt"),
        *("trainer.activation_checkpointing", "TanhLayers", "`layers`"),
    )
    with requiring_calls(nn.Linear(2, 2)):
        pass  # nothing is required of a plain model


RUN = [
    *("train", "+experiment=digits", "trainer.steps=30", "trainer.evaluate_every=10", "trainer.log_every=1"),
    *("model.depth=4", "model.dropout=0.2", "trainer.ema=0.9", "trainer.accumulate=2", "trainer.clip=1"),
    *("trainer.figures=false", "tracking.enabled=false"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_is_the_plain_run_and_has_its_identity(precision: str, call: Call) -> None:
    for every in ("false", "every block", "sqrt"):
        done = call(*RUN, f"trainer.activation_checkpointing={every}", f"trainer.precision={precision}")
        assert done.code == 0, done.err
    plain, *others = all_runs()
    for run in others:
        assert curves(run.journal)["train/loss"] == curves(plain.journal)["train/loss"]
        assert run.summary().identity == plain.summary().identity
        assert run.summary().metrics == plain.summary().metrics
        weights, same = (stored.load(each.last).model for each in (plain, run))
        assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_it_resumes_exactly(verify_resume: Call) -> None:
    done = verify_resume(*RUN[1:], "trainer.activation_checkpointing=sqrt")
    assert done.code == 0, done.out + done.err


def test_it_is_neither_compiled_nor_stacked_and_says_so(call: Call) -> None:
    done = call(*RUN, "trainer.activation_checkpointing=true", "trainer.compile=true")
    assert done.code == 0, done.err
    says(done.out + done.err, "activations are computed again")
    swept = call(
        *("train", "-m", *RUN[1:], "model.dropout=0", "trainer.activation_checkpointing=true", "seed=0,1"),
        "hydra/launcher=batched",
    )
    assert swept.code == 0, swept.err
    says(swept.out + swept.err, "MLP computes activations again")


def test_a_model_with_a_state_that_changes_is_refused(here: Path, call: Call) -> None:
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/counting.yaml").write_text("_target_: counting.Counting\n", encoding="utf-8")
    (here / "counting.py").write_text(
        "from torch import nn\n"
        "class Counting(nn.Module):\n"
        "    def __init__(self, input_shape, outputs):\n"
        "        super().__init__()\n"
        "        self.calls = 0\n"
        "        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, outputs))\n"
        "    def forward(self, x):\n"
        "        self.calls += self.training\n"
        "        return self.layers(x) * min(1, self.calls / 10)\n",
        encoding="utf-8",
    )
    refuses(
        call("train", "dataset=moons", "model=counting", "trainer.activation_checkpointing=true"),
        *("Counting", "model.calls", "trainer.activation_checkpointing=false"),
    )
