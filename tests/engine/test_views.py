"""Outputs averaged over views: equal to a loop over the views, the same in evaluation and in prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import collect
from dlrun.engine.forward.views import Views, averaging, make_views
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.runs.reload.loaded import load
from dlrun.runs.reload.predictor import load_predictor
from dlrun.storage.lookup import all_runs
from tests.conftest import Called


def by_hand(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    moved = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    places = [(x, 0.5), (moved[..., :-2, :-2], 0.25), (moved[..., 2:, 2:], 0.25)]
    return sum(weight / 2 * (model(image) + model(image.flip(-1))) for image, weight in places)


def test_the_outputs_are_the_mean_over_the_views() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(24, 3), nn.Tanh()), torch.rand(7, 1, 4, 6)
    with averaging(model, Views(flip=True, shift=1)):
        assert torch.allclose(model(x), by_hand(lambda image: model[2](model[1](model[0](image))), x), atol=1e-6)
    assert "forward" not in vars(model)


def test_an_evaluation_averages_and_a_step_does_not() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), torch.rand(7, 1, 4, 6), torch.arange(7) % 3
    plain, viewed = Objective(model, cross_entropy), Objective(model, cross_entropy, views=Views(flip=True, shift=1))
    means, seen = collect(viewed, {}, TensorSplit(x, y), batch_size=3, device=torch.device("cpu"))
    expected = by_hand(model, x).detach()
    assert torch.allclose(seen.output, expected, atol=1e-6)
    assert means["loss"] == pytest.approx(float(nn.functional.cross_entropy(expected, y)), abs=1e-6)
    batch = TensorSplit(x, y).gather(torch.arange(7))
    assert torch.equal(plain(batch), viewed(batch))


@pytest.mark.parametrize("options", [{"flipped": True}, {"flip": 1}, {"shift": -1}, {"shift": True}, {"shift": 4}])
def test_other_options_are_refused(options: dict[str, bool | int]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.views"):
        make_views(options, (1, 4, 6))


def test_a_loss_that_asks_the_model_in_another_way_is_refused(call: Callable[..., Called], here: Path) -> None:
    (here / "of_features.py").write_text(
        "from torch.nn.functional import cross_entropy\n\n\n"
        "def loss(model, batch):\n    return cross_entropy(model.head(model.features(batch.x)), batch.y)\n"
    )
    (here / "conf" / "loss").mkdir(parents=True)
    (here / "conf" / "loss" / "of_features.yaml").write_text("_target_: of_features.loss\n")
    quick = ("dataset=digits", "model=revnet", "model.width=4", "model.depth=1", "loss=of_features")
    for views, code in (("evaluation.views={flip: true}", 2), ("evaluation.views=null", 0)):
        done = call("check", *quick, views)
        assert done.code == code, done.err
        assert ("evaluation.views=null" in done.err) == (code == 2)


def test_a_run_is_tested_and_predicts_by_its_views(call: Callable[..., Called]) -> None:
    views = "evaluation.views={flip: true, shift: 1}"
    quick = ("dataset=digits", "trainer.steps=3", "tracking.enabled=false", "model=linear")
    done = call("train", *quick, views)
    assert done.code == 0, done.err
    folder = all_runs()[-1]
    asked, data = load_predictor(folder), load(str(folder.path)).data
    assert data.test is not None
    x, y = data.test.gather(torch.arange(len(data.test)))
    with torch.no_grad():
        outputs = by_hand(asked.model.eval(), x)
    error = float((outputs.argmax(1) != y).double().mean())
    assert folder.summary().metrics["test/error"] == pytest.approx(error, abs=1e-9)
    raw = torch.rand(5, *asked.inputs.shape) * 16
    with torch.no_grad():
        assert torch.allclose(asked(raw), by_hand(asked.model, asked.prepare(raw)), atol=1e-5)
