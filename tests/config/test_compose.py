"""Hydra driven by hand: composed once, checked, then given a folder; and messages that say what to type."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import inspect
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from dlrun.commands.train import multirun
from dlrun.config import compose as composition
from dlrun.config import hydra_main, hydra_parser, paths, settings
from dlrun.errors import ConfigError, RunError, UserError
from tests.facts import says


class Seen:
    """What prepares and carries out a job, and only notes what it was given."""

    def __init__(self) -> None:
        self.checked: list[DictConfig] = []
        self.ran: list[tuple[DictConfig, Path]] = []

    def prepare(self, cfg: DictConfig) -> DictConfig:
        self.checked.append(cfg)
        if cfg.seed == 666:
            raise ConfigError("not this seed")
        return cfg

    def task(self, cfg: DictConfig, folder: Path) -> dict[str, Any]:
        logging.getLogger("a library").info("a record")
        self.ran.append((cfg, folder))
        if cfg.seed == 13:
            raise ZeroDivisionError("an accident")
        if cfg.seed == 14:
            raise RunError("the loss is not finite")
        return {}


@pytest.fixture
def seen(here: Path) -> Seen:
    return Seen()


@pytest.fixture
def run(seen: Seen) -> Callable[..., int]:
    return lambda *argv: hydra_main.run(
        argv, prog="dlrun train", prepare=seen.prepare, task=seen.task, sweep=multirun.run
    )


BASIC = ("hydra/launcher=basic", "hydra/sweeper=basic")  # jobs in this process, which the tests look at


def folders(here: Path) -> list[Path]:
    return sorted(path.parent for path in here.rglob(".hydra"))


def test_a_run_is_composed_checked_and_given_a_folder(here: Path, run, seen: Seen) -> None:
    assert run("seed=3", "optimizer.lr=0.5") == 0
    (checked,), ((cfg, folder),) = seen.checked, seen.ran
    assert cfg == checked
    assert "hydra" not in cfg
    assert (cfg.seed, cfg.optimizer.lr, cfg.name) == (3, 0.5, "digits-mlp")
    assert re.fullmatch(r"outputs/runs/\d{4}-\d\d-\d\d/\d{6}-digits-mlp-[a-z]{8}", str(folder.relative_to(here)))
    assert OmegaConf.load(folder / ".hydra/config.yaml") == cfg
    assert "INFO a library: a record" in (folder / "train.log").read_text()


def test_every_run_has_a_folder_of_its_own(here: Path, run) -> None:
    for _ in range(3):
        assert run() == 0
    assert len(folders(here)) == 3


def test_a_configuration_is_composed_once(run, monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    load = composition.ConfigLoaderImpl._load_configuration_impl
    monkeypatch.setattr(
        composition.ConfigLoaderImpl,
        "_load_configuration_impl",
        lambda *args, **kwargs: count.append(1) or load(*args, **kwargs),
    )
    assert run("seed=1") == 0
    assert len(count) == 1


def test_outputs_can_be_moved(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_OUTPUTS", str(here / "elsewhere"))
    run()
    assert folders(here)[0].is_relative_to(here / "elsewhere" / "runs")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "digits-mlp"),
        (["dataset=moons", "model=linear"], "moons-linear"),
        (["+experiment=mnist"], "mnist"),
        (["+experiment=mnist", "name=mine"], "mine"),
        (["name=3"], "3"),
    ],
)
def test_the_name_is_settled_as_text(here: Path, overrides: list[str], name: str) -> None:
    assert composition.config(overrides).name == name


@pytest.mark.parametrize("name", ["a/b", "..", "'a b'", "''"])
def test_a_name_that_is_no_part_of_a_folders_name_is_refused(here: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="part of a folder's name"):
        composition.config([f"name={name}"])


def test_a_torch_optimizer_needs_its_own_keys_alone(here: Path) -> None:
    cfg = composition.config(["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "+optimizer.momentum=0.9"])
    assert cfg.optimizer == {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "groups": None}
    # what an experiment says of the optimizer stays
    assert composition.config(["+experiment=digits", "optimizer._target_=torch.optim.SGD"]).optimizer.lr == 0.003


def test_the_settings_files_are_the_settings_defaults() -> None:
    for group in (settings.Trainer, settings.Evaluation, settings.Tracking):
        file = paths.package_folder() / group.__name__.lower() / "default.yaml"
        assert yaml.safe_load(file.read_text()) == dataclasses.asdict(group())


# every kind of mistake: what was typed, and what the message has to contain
MISTAKES = [
    ("modle=mlp", ["no group or key `modle`", "Did you mean `model`?", "The groups are: dataset,"]),
    ("model=mpl", ["model has no choice `mpl`", "Did you mean `mlp`?", "gpt, lenet5, linear, lstm, mlp"]),
    ("model=3", ["model has no choice `3`", "convnet"]),
    ("+experiment=minst", ["`+experiment=minst`", "Did you mean `mnist`", "polynomial"]),
    ("experiment=mnist", ["`+experiment=mnist`"]),
    ("trainer.epoch=3", ["trainer has no key `epoch`", "Did you mean `trainer.epochs`?", "batch_size"]),
    ("~trainer.epoch", ["trainer has no key `epoch`", "`trainer.epochs`"]),
    ("epochs=3", ["Did you mean `trainer.epochs`?"]),
    ("batchsize=3", ["Did you mean `trainer.batch_size`"]),
    ("lr=0.1", ["Did you mean `optimizer.lr`"]),
    ("seed.x=1", ["Did you mean `seed`?"]),
    ("dataset.augment._target_=a.B", ["`dataset.augment` is null", "type `+dataset.augment._target_=…`"]),
    ("+seed=1", ["`seed` exists already", "Type `seed=1`"]),
    ("+model=linear", ["`model=mlp`", "`model=linear`"]),
    ("tracking.tags.mine=1", ["`+tracking.tags.mine=…`"]),
    ("hydra.run.dri=x", ["Did you mean `hydra.run.dir`?"]),
    ("moons", ["KEY=VALUE", "Did you mean `dataset=moons` or `+experiment=moons`?"]),
    ("optimizer.lr=[0.1", ["`optimizer.lr=[0.1` cannot be read"]),
    ('optimizer.groups={"*.bias":{lr:0.1}}', ["A key within braces has no quotes"]),
    ("optimizer.lr=0.1,0.3", ["several values", "-m"]),
    ("seed=range(3)", ["several values", "-m"]),
    ("model=mlp,linear", ["several values", "-m"]),
]


@pytest.mark.parametrize(("override", "words"), MISTAKES, ids=[given for given, _ in MISTAKES])
def test_a_mistake_is_told_with_what_to_type(here: Path, run, seen: Seen, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as told:
        run("seed=1", override)
    says(str(told.value), override, *words)
    assert "To append to your config" not in str(told.value)
    assert not seen.checked
    assert not any(here.iterdir())


@pytest.mark.parametrize("mistake", ["trainer.epoch=3", "trainer.epoch=3,4"])
def test_a_mistake_beside_several_values_is_told(here: Path, run, mistake: str) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean `trainer\.epochs`"):
        run("seed=0,1", mistake, "hydra.mode=MULTIRUN")


def test_a_mistake_beside_a_right_choice_is_looked_up_there(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean `optimizer\.momentum`"):
        composition.config(["optimizer=sgd", "optimizer.momentun=0.9"])


def test_a_wrong_configuration_leaves_no_folder(here: Path, run) -> None:
    with pytest.raises(ConfigError, match="not this seed"):
        run("seed=666")
    assert not any(here.iterdir())


def test_a_users_broken_file_is_named(here: Path) -> None:
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/mine.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"(?s)not valid YAML.*conf/model/mine\.yaml"):
        composition.config(["model=mine"])


def test_a_file_that_asks_for_what_is_missing_is_named(here: Path) -> None:
    (here / "conf/experiment").mkdir(parents=True)
    (here / "conf/experiment/mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /model: mpl\n")
    with pytest.raises(ConfigError, match=r"model has no choice `mpl`.*\n.*comes from \+experiment=mine"):
        composition.config(["+experiment=mine"])


def test_a_failure_is_one_line_and_its_traceback_in_the_log(here: Path, run, capfd) -> None:
    assert run("seed=13") == 1
    err = capfd.readouterr().err
    (folder,) = folders(here)
    says(err, "ZeroDivisionError: an accident", str(folder / "train.log"))
    assert "Traceback" not in err
    assert "Traceback" in (folder / "train.log").read_text()


def test_a_failures_traceback_is_shown_on_request(run, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_TRACEBACK", "1")
    assert run("seed=13") == 1
    says(capfd.readouterr().err, "Traceback")


def test_an_outputs_folder_that_cannot_be_written_is_named(here: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").touch()
    monkeypatch.setenv("DLRUN_OUTPUTS", str(here / "file"))
    with pytest.raises(UserError, match="DLRUN_OUTPUTS"):
        run()


def test_logging_is_given_back(run) -> None:
    before = logging.getLogger().handlers[:]
    run()
    assert logging.getLogger().handlers == before


def test_a_sweep_lies_in_one_folder(here: Path, run, seen: Seen) -> None:
    assert run("-m", "seed=range(2)", "model=mlp,linear", *BASIC) == 0
    assert [(cfg.seed, cfg.name) for cfg, _ in seen.ran] == [
        (0, "digits-mlp"),
        (0, "digits-linear"),
        (1, "digits-mlp"),
        (1, "digits-linear"),
    ]
    assert [folder.name for _, folder in seen.ran] == ["0", "1", "2", "3"]
    (sweep,) = {folder.parent for _, folder in seen.ran}
    assert re.fullmatch(r"outputs/sweeps/\d{4}-\d\d-\d\d/\d{6}-digits-[a-z]{8}", str(sweep.relative_to(here)))
    assert len(seen.checked) == 4


def test_a_sweep_that_an_experiment_asks_for_needs_no_option(here: Path, run, seen: Seen) -> None:
    (here / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n"
    (here / "conf/experiment/mine.yaml").write_text(text)
    assert run("+experiment=mine", *BASIC) == 0
    assert [(cfg.seed, cfg.name) for cfg, _ in seen.ran] == [(1, "mine"), (2, "mine")]
    assert run("+experiment=mine", "model=mlp,linear", *BASIC) == 0
    assert len(seen.ran) == 6


def test_the_launcher_and_the_sweeper_are_dlruns_own_unless_an_experiment_chooses(here: Path) -> None:
    (here / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /hydra/launcher: basic\n  - override /hydra/sweeper: basic\n"
    (here / "conf/experiment/mine.yaml").write_text(text)

    def chosen(*overrides: str) -> tuple[str, str]:
        with composition.open_hydra() as hydra:
            cfg = composition.load(hydra, "dlrun", overrides).hydra
            return cfg.runtime.choices["hydra/launcher"], cfg.runtime.choices["hydra/sweeper"]

    assert chosen() == ("local", "grid")
    assert chosen("+experiment=mine") == ("basic", "basic")
    assert chosen("+experiment=mine", "hydra/launcher=local") == ("local", "basic")


def test_a_failed_job_of_a_sweep_stops_no_other(run, seen: Seen, capfd) -> None:
    assert run("-m", "seed=13,1,14", "hydra/launcher=basic") == 1
    assert [cfg.seed for cfg, _ in seen.ran] == [13, 1, 14]
    err = capfd.readouterr().err
    says(err, "ZeroDivisionError: an accident", "the loss is not finite")


def test_a_sweep_over_a_misspelt_choice_runs_nothing(run, seen: Seen) -> None:
    with pytest.raises(ConfigError, match="Did you mean `mlp`"):
        run("-m", "model=linear,mpl")
    assert not seen.ran


def test_options_may_stand_between_overrides(run, seen: Seen, capfd) -> None:
    assert run("model=linear", "--cfg", "job", "seed=3") == 0
    shown = yaml.safe_load(capfd.readouterr().out)
    assert (shown["name"], shown["seed"]) == ("digits-linear", 3)
    assert not seen.checked


def test_help_shows_the_groups_and_the_configuration(run, capfd) -> None:
    assert run("--help", "model=linear") == 0
    out = capfd.readouterr().out
    says(out, "usage: dlrun train", "name: digits-linear")
    assert re.search(r"^optimizer: .*adamw.*sgd", out, re.MULTILINE)


@pytest.mark.parametrize("argv", [["--hydra-help"], ["--info", "searchpath"], ["--cfg", "hydra"]], ids=" ".join)
def test_what_hydra_shows_is_shown(run, seen: Seen, argv: list[str]) -> None:
    assert run(*argv) == 0
    assert not seen.checked


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-m", "--cfg", "job"], "Only one of"),
        (["--resolve"], "--cfg job --resolve"),
        (["--config-path", "x"], "--config-dir"),
        (["--config-dir", "nowhere"], "no such folder"),
        (["--config-name", "nothing"], "no configuration `nothing`"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, argv: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        run(*argv)


def test_a_folder_given_on_the_command_line_comes_before_the_users_own(here: Path, run, seen: Seen) -> None:
    for folder, width in (("conf", 1), ("other", 2)):
        (here / folder / "model").mkdir(parents=True)
        (here / folder / "model/mine.yaml").write_text(f"_target_: mine.Net\nwidth: {width}\n")
    assert run("model=mine") == 0
    assert run("model=mine", "--config-dir", "other") == 0
    assert [cfg.model.width for cfg, _ in seen.ran] == [1, 2]


def test_the_users_own_file_wins_and_a_line_says_so(here: Path, run, seen: Seen, capfd) -> None:
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/mlp.yaml").write_text("_target_: mine.Net\n")
    (here / "conf/config.yaml").write_text("foreign: 1\n")
    assert run() == 0
    assert seen.ran[0][0].model == {"_target_": "mine.Net"}
    assert "foreign" not in seen.ran[0][0]
    err = capfd.readouterr().err
    says(err, "conf/model/mlp.yaml of this folder is used", "conf/config.yaml is ignored")
    assert run("model=linear") == 0
    assert "model" not in capfd.readouterr().err


def test_in_the_checkout_its_conf_is_nobodys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths.package_folder().parent)
    assert paths.user_folder() is None


def test_a_consulted_configuration_leaves_no_folder(here: Path) -> None:
    given: list[DictConfig] = []
    assert hydra_main.inspect(["seed=3"], prog="dlrun check", use=lambda cfg: given.append(cfg) or 7) == 7
    assert given[0].seed == 3
    with pytest.raises(UserError, match="takes one configuration"):
        hydra_main.inspect(["-m", "seed=1,2"], prog="dlrun check", use=lambda cfg: 0)
    assert not any(here.iterdir())


def test_other_programs_of_hydra_are_left_alone(here: Path) -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    for folder, value in (("theirs", 1), ("conf", 2)):
        (here / folder).mkdir()
        (here / folder / "config.yaml").write_text(f"value: {value}\n")
    with initialize_config_dir(str(here / "theirs"), version_base="1.3"):
        assert hydra_compose("config").value == 1


class TestPrivateNamesOfHydra:
    """What is used beyond Hydra's public interface is there, and takes what it is given."""

    def test_hydra(self) -> None:
        assert [*inspect.signature(composition.Hydra).parameters] == ["task_name", "config_loader"]
        assert {"multirun", "show_cfg", "app_help", "hydra_help", "show_info"} <= {*dir(composition.Hydra)}

    def test_config_loader(self) -> None:
        signature = inspect.signature(composition.ConfigLoaderImpl.load_configuration)
        assert [*signature.parameters] == [*inspect.signature(composition.Loader.load_configuration).parameters]
        assert [*inspect.signature(composition.ConfigLoaderImpl).parameters] == ["config_search_path"]

    def test_create_config_search_path(self, here: Path) -> None:
        path = composition.create_config_search_path("/somewhere").get_path()
        assert [element.provider for element in path] == ["hydra", "main", "schema"]

    def test_load_single_config(self, here: Path) -> None:
        signature = inspect.signature(composition.ConfigLoaderImpl._load_single_config)
        assert [*signature.parameters] == ["self", "default", "repo"]

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="Hydra's own parser cannot be made")
    def test_get_args_parser(self) -> None:
        from hydra._internal.utils import get_args_parser

        def options(parser: argparse.ArgumentParser) -> list[tuple[Any, ...]]:
            names = ("option_strings", "dest", "nargs", "const", "default", "type", "required")
            return [
                (type(action), *(getattr(action, name) for name in names), [*(action.choices or ())])
                for action in parser._actions
            ]

        assert options(hydra_parser.hydra_parser()) == options(get_args_parser())

    def test_callbacks(self, here: Path) -> None:
        with composition.open_hydra() as hydra:
            cfg = composition.load(hydra, composition.PRIMARY, [])
        callbacks = hydra_main.Callbacks(cfg)
        assert {"on_run_start", "on_run_end"} <= {*dir(callbacks)}


def test_python_3_14_takes_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its argparse formats each help text when the option is added; Hydra's own parser has one that is no string."""
    from hydra._internal.utils import get_args_parser

    add = argparse.ArgumentParser.add_argument

    def add_argument(self: argparse.ArgumentParser, *names: Any, **how: Any) -> argparse.Action:
        action = add(self, *names, **how)
        try:
            self._get_formatter()._expand_help(action)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError("badly formed help string") from error
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_argument)
    with pytest.raises(ValueError, match="badly formed help string"):
        get_args_parser()
    parser, args = hydra_parser.parse(["model=mlp", "--cfg", "job", "seed=3"], "dlrun train")
    assert (args.overrides, args.cfg) == (["model=mlp", "seed=3"], "job")
    assert "--shell-completion" in parser.format_help()


@pytest.mark.parametrize("name", ["search", "optuna"])
def test_the_search_has_a_name_of_its_own_beside_hydra_s_optuna_plugin(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class OptunaSweeperConf:
        """As hydra-optuna-sweeper registers it."""

        defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
        _target_: str = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
        n_trials: int = 20

    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    store.store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="optuna_sweeper")
    with composition.open_hydra() as hydra:
        cfg = composition.load(hydra, composition.PRIMARY, ["hydra.mode=MULTIRUN", f"hydra/sweeper={name}"])
    assert cfg.hydra.sweeper._target_ == "hydra_plugins.dlrun_search.optuna.OptunaSweeper"
    assert (cfg.hydra.sweeper.sampler, cfg.hydra.sweeper.startup) == ("tpe", 5)
