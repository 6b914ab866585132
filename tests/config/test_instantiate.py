"""What a `_target_` may name, and what its arguments may be."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch

import dlrun
from dlrun.config.instantiate import check_part, make, partial, resolve
from dlrun.config.settings import Trainer
from dlrun.config.signatures import check_arguments, in_words, matches
from dlrun.errors import ConfigError
from dlrun.studies.search_history import SearchHistory
from tests.facts import says

if TYPE_CHECKING:
    from somewhere import Unknown

MYLAB = """
import functools
import os
from os import system
import torch
from torch import load

class Mine(torch.nn.Module):
    inner = os
    def __init__(self, width: int, input_shape: tuple[int, ...], outputs: int, body: torch.nn.Module | None = None):
        super().__init__()
        self.width, self.input_shape, self.outputs, self.body = width, input_shape, outputs, body

def loss(net, batch, alpha: float = 1.0):
    return alpha * net(batch)

doubled = functools.partial(loss, alpha=2.0)
hidden = functools.partial(load)
value = 3
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with a module of their own."""
    (tmp_path / "mylab_t.py").write_text(MYLAB)
    (tmp_path / "broken_t.py").write_text("x = 1\nimport nope_t\n")
    (tmp_path / "syntax_t.py").write_text("x = (\n")
    (tmp_path / "sklearn.py").write_text("class A: ...\n")
    packages = tmp_path / "env" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "foreign_t.py").write_text("class A: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    known = set(sys.modules)
    yield tmp_path
    for name in [n for n in sys.modules if n not in known and n.endswith("_t")]:
        del sys.modules[name]


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as info:
        call(*args, **kwargs)
    return str(info.value)


def test_what_is_allowed_is_found(lab: Path) -> None:
    assert resolve("torch.nn.Linear") is torch.nn.Linear
    assert resolve("torch.optim.SGD") is torch.optim.SGD
    assert resolve("torch.nn.functional.cross_entropy") is torch.nn.functional.cross_entropy
    assert resolve("mylab_t.Mine").__name__ == "Mine"
    assert resolve("mylab_t.doubled").func.__name__ == "loss"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.eval",
        "torch.Tensor",
        "torch.load",
        "torch.serialization.load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.ops.load_library",
        "torch.utils.cpp_extension.load",
        "torch.nn.functional.torch.load",
        "torch.nn.modules.torch.hub.load",
        "torch.nn.parallel.os",
        "torch.nn.init.warnings",
        "torch.nn.Module.__init__",
        "torch.nn",
        "mylab_t.load",
        "mylab_t.hidden",
        "mylab_t.system",
        "mylab_t.os.system",
        "mylab_t.torch.load",
        "mylab_t.Mine.inner.system",
        "mylab_t.value",
        "foreign_t.A",
        "dlrun.errors.difflib.get_close_matches",
        "dlrun.commands.train.main",
        "dlrun.models.gpt.GPT.forward",
        "torch.nn.utils.skip_init",
        "torch.optim.lr_scheduler.StepLR",
        "..",
        "Mine",
        "",
    ],
)
def test_what_is_not_allowed_is_refused(lab: Path, path: str) -> None:
    refusal(resolve, path)


def test_nothing_that_is_refused_is_imported(lab: Path) -> None:
    (lab / "env/lib/site-packages/effect_t.py").write_text("raise SystemExit('imported')\n")
    assert "effect_t" in refusal(resolve, "effect_t.A")


def test_trusted_allows_what_it_lists_and_never_the_worst(lab: Path) -> None:
    assert resolve("foreign_t.A", trusted=["foreign_t"]).__name__ == "A"
    assert resolve("foreign_t.A", trusted=["foreign_t.*"]).__name__ == "A"
    assert resolve("collections.OrderedDict", trusted=["collections.OrderedDict"])
    assert "never allowed" in refusal(resolve, "torch.load", trusted=["torch", "torch.load"])
    # quoted: some shells take brackets for a pattern
    refused = refusal(resolve, "foreign_t.A", trusted=["foreign"])
    assert "`'trusted=[foreign_t.A]'`" in refused and "`trusted: [foreign_t.A]` in your own conf/" in refused


def test_of_dlrun_only_the_parts_can_be_named() -> None:
    conf = Path(dlrun.__file__).parent.parent / "conf"
    paths = {t for file in conf.rglob("*.yaml") for t in re.findall(r"_target_: *(dlrun\.[\w.]+)", file.read_text())}
    paths |= {
        f"dlrun.datasets.{name}"
        for name in ("from_tensors", "from_nested", "from_datasets", "from_stream", "from_text")
    }
    paths |= {f"dlrun.losses.penalties.{name}" for name in ("l1", "l2")}
    paths |= {f"dlrun.tokenizers.{name}" for name in ("bpe.Bpe", "byte.Byte", "character.Character", "word.Word")}
    parts = {resolve(path) for path in paths} | {SearchHistory}
    named = []
    for module in pkgutil.walk_packages(dlrun.__path__, "dlrun."):
        if module.name == "dlrun.__main__":
            continue
        owner = importlib.import_module(module.name)
        for name in vars(owner):
            with contextlib.suppress(ConfigError):
                named.append((f"{module.name}.{name}", resolve(f"{module.name}.{name}")))
    assert len(named) > 40
    assert not [path for path, found in named if found not in parts]


def test_nothing_that_acts_on_runs_becomes_allowed_by_trust() -> None:
    for path in (
        "dlrun.storage.lookup.find",
        "dlrun.storage.rundir.RunDir.update",
        "dlrun.config.instantiate.make",
        "dlrun.config.allowlist.resolve",
    ):
        assert "never allowed" in refusal(resolve, path, trusted=["dlrun", path])


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in: the library is not installed here."""
    files = {
        "__init__": "",
        "models/__init__": "from torchvision.models._utils import IntermediateLayerGetter",
        "models/_utils": "import torch\n\nclass IntermediateLayerGetter(torch.nn.ModuleDict): ...",
        "models/feature_extraction": "def create_feature_extractor(model): return model",
        "models/resnet": "def resnet18(): ...",
        "transforms/v2/__init__": "from torchvision.transforms.v2._geometry import Pad, _Hidden, pad",
        "transforms/v2/_geometry": """import torch

class Pad(torch.nn.Module): ...
class _Hidden(torch.nn.Module): ...
def pad(x): ...""",
    }
    for name, text in files.items():
        file = tmp_path / "torchvision" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize("name", ["feature_extraction.create_feature_extractor", "IntermediateLayerGetter"])
def test_what_writes_code_of_names_is_to_be_trusted(torchvision: None, name: str) -> None:
    with pytest.raises(ConfigError, match="and that is not allowed"):
        resolve(f"torchvision.models.{name}")
    assert callable(resolve(f"torchvision.models.{name}", trusted=["torchvision"]))
    assert callable(resolve("torchvision.models.resnet.resnet18"))


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_transforms_of_torchvision_may_be_named_by_their_public_names(torchvision: None) -> None:
    assert callable(resolve("torchvision.transforms.v2.Pad"))
    for name in ("pad", "_Hidden", "_geometry.Pad"):
        with pytest.raises(ConfigError):
            resolve(f"torchvision.transforms.v2.{name}")


@pytest.mark.parametrize("name", ['a", print("run") or "', "a b", "a-b"])
def test_a_module_s_parts_have_names_that_code_can_have(name: str) -> None:
    linear = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}
    with pytest.raises(ConfigError, match="letters, digits"):
        make({"_target_": "torch.nn.ModuleDict", "modules": {name: linear}})
    assert make({"_target_": "torch.nn.ModuleDict", "modules": {"a_1": linear, "2": linear}})


@pytest.mark.parametrize("hidden", [[["_target_", "os.system"]], {"a": ["_target_"]}, "_target_"], ids=str)
def test_a_target_among_values_is_refused(hidden: Any) -> None:
    config = {"_target_": "torch.nn.ParameterDict", "parameters": hidden}
    assert "parameters" in refusal(check_part, config, where="model")


def test_errors_say_what_to_type(lab: Path) -> None:
    assert "`Linear`" in refusal(resolve, "torch.nn.Linaer")
    assert "`mylab_t`" in refusal(resolve, "mylabt_t.Mine")
    assert "`Mine`" in refusal(resolve, "mylab_t.Mien")
    assert "hidden by an installed module" in refusal(resolve, "sklearn.A")
    for trusted in ([], ["nowhere"]):
        missing = refusal(resolve, "nowhere.A", trusted=trusted)
        # an index may have another package of this name
        assert "neither installed nor in" in missing and "Put its file there" in missing and "pip" not in missing
    assert f"{lab / 'broken_t.py'}:2" in refusal(resolve, "broken_t.A")
    assert f"{lab / 'syntax_t.py'}:1" in refusal(resolve, "syntax_t.A")


def part(
    a: int,
    /,
    width: int = 8,
    *,
    rate: float = 0.1,
    kind: Literal["relu", "tanh"] = "relu",
    sizes: list[int] | None = None,
    pair: tuple[float, float] = (0.9, 0.999),
    late: Unknown | None = None,
    free=None,
) -> None:
    """A part with one parameter of each sort."""


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"width": 3, "rate": 1},
        {"rate": -1e-3, "kind": "tanh"},
        {"sizes": [1, 2]},
        {"sizes": None},
        {"sizes": []},
        {"pair": [0.5, 1]},
        {"late": "anything", "free": object()},
    ],
)
def test_arguments_that_fit_pass(given: dict[str, Any]) -> None:
    check_arguments(part, given, where="part", positional=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"widht": 3}, ["part.widht", "`part.width`", "kind"]),
        ({"a": 3}, ["part.a"]),
        ({"rate": "abc"}, ["part.rate=abc", "a number", "part.rate=0.1"]),
        ({"rate": True}, ["part.rate=true", "a number"]),
        ({"rate": None}, ["part.rate=null", "a number"]),
        ({"width": 1.5}, ["part.width=1.5", "a whole number", "part.width=8"]),
        ({"width": True}, ["part.width=true", "a whole number"]),
        ({"kind": "tanj"}, ["part.kind=tanj", "Did you mean `tanh`", "`relu`, `tanh`"]),
        ({"sizes": 3}, ["part.sizes=3", "a list of whole numbers or null", "part.sizes=[3]"]),
        ({"sizes": [1, "b"]}, ["part.sizes=[1,b]"]),
        ({"sizes": "12"}, ["part.sizes=12"]),
        ({"pair": [0.5]}, ["part.pair=[0.5]", "a list of 2 (a number, a number)", "part.pair=[0.9,0.999]"]),
    ],
)
def test_arguments_that_do_not_fit_are_explained(given: dict[str, Any], words: list[str]) -> None:
    says(refusal(check_arguments, part, given, where="part", positional=1), *words)


def test_a_missing_argument_is_named_unless_the_runner_supplies_it() -> None:
    def model(width: int, outputs: int) -> None: ...

    assert "`model.width`" in refusal(check_arguments, model, {}, where="model", runtime={"outputs"})
    assert "`model.width`" in refusal(check_arguments, model, {"width": "???"}, where="model", runtime={"outputs"})
    check_arguments(model, {"width": 3}, where="model", runtime={"outputs"})
    check_arguments(model, {"width": 3, "outputs": None}, where="model", runtime={"outputs"})
    assert "outputs=abc" in refusal(
        check_arguments, model, {"width": 3, "outputs": "abc"}, where="model", runtime={"outputs"}
    )


def test_the_runner_s_positional_arguments_are_no_keys() -> None:
    def loss(net: Any, data: Any, alpha: float = 1.0) -> None: ...

    check_arguments(loss, {"alpha": 2.0}, where="loss", positional=2)
    assert "loss.net" in refusal(check_arguments, loss, {"net": 1}, where="loss", positional=2)


def test_other_signatures() -> None:
    def anything(width: int, **rest: Any) -> None: ...

    @dataclass
    class Settings:
        lr: float = 0.1

    check_arguments(anything, {"width": 1, "more": "x"}, where="x")
    check_arguments(Settings, {"lr": 1}, where="x")
    assert "a number" in refusal(check_arguments, Settings, {"lr": "fast"}, where="x")
    assert "`trainer.epochs=ten`" in refusal(check_arguments, Trainer, {"epochs": "ten"}, where="trainer")
    check_arguments(torch.optim.AdamW, {"lr": 0.1, "betas": [0.9, 0.99]}, where="optimizer", positional=1)
    assert "Did you mean `x.lr`" in refusal(check_arguments, torch.optim.SGD, {"lrr": 0.1}, where="x", positional=1)
    check_arguments(dict, {"a": 1}, where="x")


def test_words_for_types() -> None:
    assert matches({"a": 1}, dict[str, int])
    assert not matches({"a": "b"}, dict[str, int])
    assert matches([1, 2], tuple[int, ...])
    assert not matches("ab", list[str])
    assert in_words(dict[str, int]) == "a mapping {key: a whole number}"
    assert in_words(list[str]) == "a list, each text"


def test_check_follows_nested_parts(lab: Path) -> None:
    body = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "three"}
    config = {"_target_": "mylab_t.Mine", "width": 3, "body": body}
    message = refusal(check_part, config, where="model", runtime={"input_shape", "outputs"})
    says(message, "`model.body.out_features=three`")
    config["body"] = {"_target_": "torch.load", "f": "x"}
    assert "model.body" in refusal(check_part, config, where="model", runtime={"input_shape", "outputs"})
    assert "_target_" in refusal(check_part, {"width": 3}, where="model")


def test_make_supplies_what_the_configuration_leaves_open(lab: Path) -> None:
    body = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    config = {"_target_": "mylab_t.Mine", "width": 3, "outputs": None, "body": body}
    model = make(config, input_shape=(1, 8, 8), outputs=10, vocabulary=5)
    assert (model.width, model.input_shape, model.outputs) == (3, (1, 8, 8), 10)
    assert model.body.weight.shape == (3, 2)
    model = make(config | {"outputs": 4, "input_shape": [2, 2]}, input_shape=(1, 8, 8), outputs=10)
    assert (model.input_shape, model.outputs) == ((2, 2), 4)


def test_make_turns_a_refused_value_into_a_config_error() -> None:
    assert "dropout probability" in refusal(make, {"_target_": "torch.nn.Dropout", "p": 2})


def test_partial_leaves_the_runner_s_arguments_open(lab: Path) -> None:
    assert partial({"_target_": "mylab_t.loss", "alpha": 3.0})(abs, -2) == 6.0
    assert partial({"_target_": "mylab_t.doubled"})(abs, -2) == 4.0
    identity = partial({"_target_": "torch.nn.Identity"})
    assert identity(3) == 3
