"""A model that returns its loss trains as the same model beside that loss; its outputs are measured as any other's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.config import compose, paths
from dlrun.engine import loop
from dlrun.engine.evaluation import evaluate, evaluating, totals
from dlrun.engine.objective import Objective
from dlrun.engine.state import State
from dlrun.errors import UserError
from dlrun.losses.own import OwnLoss, answer_alone
from dlrun.metrics import accuracy
from dlrun.runs.build import Built, build
from dlrun.stacked.why_not import why_never
from dlrun.types import IGNORE_INDEX, Batch
from tests.conftest import Called
from tests.facts import says
from tests.runs.silent import Silent

PARTS = '''
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets import from_nested


def sentences(n=120):
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 9, (n, 5), generator=draw)
    length = torch.randint(2, 6, (n,), generator=draw)
    mask = (torch.arange(5) < length[:, None]).long()
    y = ((ids * mask).sum(1) / length > 4).long()
    return from_nested("sentences", ({"input_ids": ids, "attention_mask": mask}, y), task="classification",
                       validation_size=30, test_size=20)


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class Own(nn.Module):
    """As of Hugging Face: named inputs, `labels`, an object of loss and logits."""

    def __init__(self, num_labels: int = 2, returns: str = "object"):
        super().__init__()
        self.embedding, self.head, self.returns = nn.Embedding(9, 6), nn.Linear(6, num_labels), returns

    def logits_of(self, ids, mask):
        return self.head((self.embedding(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None):
        logits = self.logits_of(input_ids, attention_mask)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        if self.returns == "loss":
            return loss
        if self.returns == "mapping":
            return {"loss": loss, "logits": logits}
        if self.returns == "nothing":
            return {"logits": logits}
        return Output(loss, logits)


class Apart(Own):
    """The same without a loss."""

    def forward(self, x):
        return self.logits_of(x["input_ids"], x["attention_mask"])
'''


def built(here: Path, *overrides: str, model: str = "Own") -> Built:
    for group, name, target in (("dataset", "sentences", "sentences"), ("model", "tiny", model)):
        (here / "conf" / group).mkdir(parents=True, exist_ok=True)
        (here / f"conf/{group}/{name}.yaml").write_text(f"_target_: tiny_models.{target}\n")
    (here / "tiny_models.py").write_text(PARTS)
    paths.enable_user_modules()
    base = ["dataset=sentences", "model=tiny", "trainer.batch_size=16", "trainer.epochs=3", "trainer.compile=false"]
    return build(compose.config([*base, *overrides]))


def trained(run: Built) -> dict[str, Tensor]:
    loop.train(run.training, State(), Silent())
    return run.training.objective.model.state_dict()


@pytest.mark.parametrize("returns", ["object", "mapping"])
def test_it_trains_as_beside_the_same_loss(here: Path, returns: str) -> None:
    one = built(here, "loss=own", f"+model.returns={returns}")
    two = built(here, "loss=cross_entropy", model="Apart")
    assert {*one.training.metrics} == {*two.training.metrics} == {"accuracy", "error"}
    first, second = trained(one), trained(two)
    assert [*first] == [*second]  # names of weights are those of the model
    assert all(torch.equal(first[name], value) for name, value in second.items())
    validation, cpu = one.data.validation, torch.device("cpu")
    assert validation is not None
    found = [
        evaluate(run.training.objective, run.training.metrics, validation, batch_size=size, device=cpu)
        for run, size in ((one, 7), (one, 1000), (two, 1000))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    # torch takes the mean in float32
    assert found[1] == pytest.approx(found[2], rel=1e-6)
    assert why_never(one.training) is not None and "loss=own" in str(why_never(one.training))


def test_a_plain_scalar_is_the_loss_and_there_are_no_metrics(here: Path) -> None:
    run = built(here, "loss=own", "+model.returns=loss")
    assert not run.training.metrics and "accuracy" in run.left_out
    two = built(here, "loss=cross_entropy", model="Apart")
    first, second = trained(run), trained(two)
    assert all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (["loss=own", "+model.returns=nothing"], ["Own", "a dict (logits", "`loss`"]),
        (["loss=own", "loss.targets=y"], ["`y`", "input_ids, attention_mask, labels", "loss.targets"]),
        (["loss=cross_entropy"], ["as one dict", "loss=own"]),
    ],
)
def test_what_is_wrong_is_told(here: Path, given: list[str], facts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        built(here, *given)
    says(str(error.value), *facts)


def test_models_of_other_classes_have_losses_of_other_units(here: Path) -> None:
    unit = built(here, "loss=own").quantities["loss"]["unit"]
    assert "tiny_models.Own" in unit
    assert "tiny_models" not in built(here, "loss=cross_entropy", model="Apart").quantities["loss"]["unit"]


@dataclass
class Output:
    """As of a causal language model."""

    loss: Tensor | None
    logits: Tensor


class Causal(nn.Module):
    """Predicts the next token, and shifts the labels itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.passes = 0

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Output:
        self.passes += 1
        logits = self.head(self.embedding(input_ids))
        if labels is None:
            return Output(None, logits)
        return Output(F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), logits)


class Windows:
    """Windows of tokens and the next ones; of the last a part does not count."""

    def __init__(self) -> None:
        tokens = torch.randint(0, 7, (6, 9), generator=torch.Generator().manual_seed(1))
        self.x, self.y = tokens[:, :-1], tokens[:, 1:].clone()
        self.y[-1, :5] = IGNORE_INDEX

    def __len__(self) -> int:
        return 6

    def gather(self, index: Tensor) -> Batch:
        return Batch(self.x[index], self.y[index])


@pytest.mark.parametrize("size", [1, 4, 100])
def test_shifted_labels_are_the_next_tokens_and_their_mean_is_exact(size: int) -> None:
    torch.manual_seed(0)
    model = Causal()
    expected = copy.deepcopy(model)
    answer_alone(model, "logits")
    objective, windows = Objective(model, OwnLoss(shift=True)), Windows()
    found = evaluate(objective, {}, windows, batch_size=size, device=torch.device("cpu"))  # type: ignore[arg-type]
    each = F.cross_entropy(expected(windows.x).logits[:, :-1].flatten(0, 1), windows.y[:, :-1].flatten())
    assert math.isclose(found["loss"], each.item(), rel_tol=1e-6)


def test_an_evaluation_takes_one_pass_for_loss_and_metrics() -> None:
    model = Causal()
    answer_alone(model, "logits")
    objective = Objective(model, OwnLoss(shift=True))
    batch = Batch(Windows().x, Windows().y)
    with evaluating(objective):
        totals(objective, {"accuracy": accuracy}, batch)
    assert model.passes == 1


def test_a_copy_answers_with_its_own_weights() -> None:
    model = Causal()
    answer_alone(model, "logits")
    other = copy.deepcopy(model)
    nn.init.zeros_(other.head.weight)
    nn.init.zeros_(other.head.bias)
    x = Windows().x
    assert not other(x).any() and model(x).any()
    assert type(model).__name__ == "Causal" and isinstance(model, Causal)


def test_a_text_asks_whether_labels_are_shifted(call: Callable[..., Called]) -> None:
    called = call("check", "dataset=stdlib", "model=gpt", "loss=own")
    assert called.code == 2
    says(called.err, "loss.shift=true", "loss.shift=false")


def test_hugging_face_models_train(here: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=9, **sizes)).eval()
    other = copy.deepcopy(model)
    names = [*model.state_dict()]
    answer_alone(model, "logits")
    assert [*model.state_dict()] == names
    x = {"input_ids": torch.randint(0, 9, (4, 5)), "attention_mask": torch.ones(4, 5, dtype=torch.long)}
    y = torch.tensor([0, 1, 1, 0])
    loss: Any = OwnLoss()(model, Batch(x, y))
    expected = other(**x, labels=y)
    assert torch.equal(loss, expected.loss) and torch.equal(model(x), expected.logits)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
