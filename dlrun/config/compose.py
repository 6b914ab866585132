"""One configuration from many files: the search path, the loader and the run's name.

Private names of Hydra 1.3, each with a test in tests/config/test_compose.py: `_internal.hydra.Hydra`,
`_internal.config_loader_impl.ConfigLoaderImpl`, its `_process_config_searchpath` and `_load_single_config`,
`_internal.config_repository.CachingConfigRepository`, `_internal.utils.create_config_search_path`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dlrun.config import approval, hydra_errors, paths
from dlrun.config.hydra_parser import block_words
from dlrun.errors import ConfigError, UserError
from dlrun.storage import lookup
from dlrun.terminal import output

PRIMARY = "dlrun"
"""The file to begin with; a `./conf` of another program often has a `config.yaml`."""

ALIASES = {"hydra/sweeper/optuna": "hydra/sweeper/search"}
"""Old names of choices that a plugin of Hydra has too."""

JOB = "train"
"""Names the log file, whatever the command."""

LONGEST = 200
"""Bytes of a run's name: a file system takes 255, and time and id come before and behind it."""


def config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> DictConfig:
    """The configuration of `dlrun train` with these overrides.

    Raises `ConfigError` for a misspelt group, choice or key.
    """
    with open_hydra(config_dir) as hydra:
        return without_hydra(load(hydra, PRIMARY, overrides))


@contextmanager
def open_hydra(config_dir: str | None = None) -> Iterator[Hydra]:
    """Open Hydra on `config_dir`, the user's `./conf`, dlrun's own."""
    # another program's Hydra, in this process, gets its own back at the end
    base, opened, current = version.VersionBase.instance(), GlobalHydra.instance(), HydraConfig.instance()
    before = base.version_base, opened.hydra, current.cfg
    version.setbase("1.3")
    opened.clear()
    hydra = Hydra(task_name=JOB, config_loader=Loader(search_path(config_dir)))
    opened.initialize(hydra)
    OmegaConf.register_new_resolver("dlrun.outputs", lambda: str(lookup.outputs()), replace=True)
    OmegaConf.register_new_resolver("dlrun.id", _new_id, use_cache=True, replace=True)
    try:
        yield hydra
    finally:
        base.version_base, opened.hydra, current.cfg = before


def search_path(config_dir: str | None = None) -> ConfigSearchPath:
    """The folders of configuration, for plugins to add to.

    Raises `UserError` if `config_dir` does not exist.
    """
    # a plugin adds the user's `./conf`: see hydra_plugins/dlrun/search_path.py
    path = create_config_search_path(str(paths.package_folder()))
    if config_dir and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder.")
    if config_dir:  # before all others, Hydra's own excepted
        first = next(e.provider for e in path.get_path() if e.provider != "hydra")
        path.prepend("command-line", f"file://{Path(config_dir).absolute()}", SearchPathQuery(provider=first))
    return path


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with our errors and the run's name."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose; raises `ConfigError` with the words to type."""
        overrides = replace_defaults(overrides)
        try:
            cfg = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except hydra_errors.COMPOSITION_ERRORS as error:
            held = self._hold_out(config_name, overrides) if run_mode == RunMode.MULTIRUN else None
            if held is None:
                raise hydra_errors.explain(error, overrides, self, config_name) from error
            cfg = held
        _resolve_name(cfg)
        return cfg

    def _hold_out(self, config_name: str | None, overrides: list[str]) -> DictConfig | None:
        """A sweep's configuration without the values that its own choices do not have.

        Jobs with other choices may have them (`sweeps.jobs.conditional`). None if that does not compose either.
        """
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
            values = [o for o in parsed if self._sets_a_value(o)]
            lines = {str(o.input_line) for o in values}
            base = self._compose_sweep(config_name, [o for o in overrides if o not in lines])
            if base.hydra.mode != RunMode.MULTIRUN or not self._chooses(parsed, base):
                return None
            unknown = {str(o.input_line) for o in values if not hydra_errors.is_known(base, o.key_or_group)}
            cfg = self._compose_sweep(config_name, [o for o in overrides if o not in unknown])
        except hydra_errors.COMPOSITION_ERRORS:
            return None
        task = set(cfg.hydra.overrides.task) | unknown
        cfg.hydra.overrides.task = [o for o in overrides if o in task]
        return cfg

    def _compose_sweep(self, config_name: str | None, overrides: list[str]) -> DictConfig:
        return super().load_configuration(config_name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)

    def _chooses(self, parsed: Sequence[Override], base: DictConfig) -> bool:
        """Do the jobs of a sweep differ in their choices of files?"""
        sweeper = base.hydra.sweeper or {}
        swept = (o.key_or_group for o in parsed if o.is_sweep_override())
        return bool(sweeper.get("blocks") or sweeper.get("params")) or any(map(self.get_group_options, swept))

    def _sets_a_value(self, override: Override) -> bool:
        # one value, of a key that the files have
        plain = not (override.is_delete() or override.is_add() or override.is_force_add())
        chooses = override.package is not None or self.get_group_options(override.key_or_group)
        return plain and not (chooses or override.is_sweep_override() or override.is_hydra_override())

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        # A plugin's configuration of the same name would be merged with ours, and refuse its keys.
        path = default.config_path or ""
        return super()._load_single_config(replace(default, config_path=ALIASES.get(path, path)), repo)

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        # `pkg://NAME` imports the module; a folder of somebody else must not choose it
        if config_name and not any(o.get_key_element() == "hydra.searchpath" for o in parsed_overrides):
            approval.check_search_path(repo.load_config(config_path=config_name))
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose a job; its choices bring values of Hydra's part too."""
        cfg = super().load_sweep_config(master_config, sweep_overrides)
        approval.approve(cfg, master_config.hydra.overrides.hydra)
        return cfg


def replace_defaults(overrides: Sequence[str]) -> list[str]:
    """Replace the default choice of model, data set or optimizer where a `_target_` alone is typed.

    The default's other keys are of another class, which this one may take as something else.

    >>> replace_defaults(["model._target_=mine.Net", "model.width=3", "seed=1"])
    ['~model', '++model._target_=mine.Net', '++model.width=3', 'seed=1']
    >>> replace_defaults(["model=linear", "model._target_=mine.Net"])
    ['model=linear', 'model._target_=mine.Net']
    """
    found = list(overrides)
    for group in ("model", "dataset", "optimizer"):
        typed = any(re.match(rf"\+*{group}\._target_=", word) for word in found)
        if typed and not any(re.match(rf"[+~]*{group}(=|@|$)", word) for word in found):
            found = [f"~{group}", *(re.sub(rf"^\+*{group}\.", f"++{group}.", word) for word in found)]
    return found


def _resolve_name(cfg: DictConfig) -> None:
    """Set the run's name; the default comes from its choices."""
    if "name" not in cfg:  # the user's own first file may have none
        return
    with hydra_errors.resolving("name"):
        name = str(cfg.name if cfg.name is not None else _default_name(cfg))
    if (length := len(name.encode(errors="surrogateescape"))) > LONGEST:
        raise ConfigError(
            f"`name={name[:40]}…` has {length} bytes: expected at most {LONGEST}, for it becomes part of a "
            f"folder's name."
        )
    if not re.fullmatch(r"[\w.+=-]*\w[\w.+=-]*", name):
        raise ConfigError(
            f"`name={name}`: expected letters, digits and - _ . + = only, for it becomes part of a folder's name."
        )
    OmegaConf.update(cfg, "name", name)


def _default_name(cfg: DictConfig) -> str:
    chosen = cfg.hydra.runtime.choices
    # the name of a sweep is what all of its jobs share
    # as they were typed: an interpolation in one of them may not resolve
    typed = cast("list[str]", OmegaConf.to_container(cfg.hydra.overrides.task))
    blocks = [word for block in (cfg.hydra.sweeper or {}).get("blocks") or () for word in block_words(block)]
    swept = {given.partition("=")[0] for given in typed if "," in given or "(" in given}
    swept |= {word.partition("=")[0] for word in blocks}
    # `+experiment=[digits,lr_range]` is no choice of one
    if several := next((given for given in typed if re.match(r"\+?experiment=\[", given)), ""):
        names = [each.strip() for each in several.partition("=")[2].strip("[]").split(",")]
        return "-".join(name.replace("/", "-") for name in names)
    if chosen.get("experiment"):
        return str(chosen["experiment"]).replace("/", "-")
    common = [] if "+experiment" in swept else [g for g in ("dataset", "model") if chosen.get(g) and g not in swept]
    words = [str(chosen[group]).replace("/", "-") for group in common]
    words += [target.rpartition(".")[2] for target in _typed_targets(typed) if target not in swept]
    return "-".join(words) or JOB


def _typed_targets(typed: Sequence[str]) -> Iterator[str]:
    """The models and data sets that were typed by their `_target_`."""
    for group in ("dataset", "model"):
        for word in typed:
            name, _, target = word.partition("=")
            if name == f"++{group}._target_" and re.fullmatch(r"[\w.]+", target):
                yield target


def _new_id() -> str:
    # consonants only: no number to YAML, as 1e5 would be, and no word
    return "".join(secrets.choice("bcdfghjkmnpqrstvwxz") for _ in range(8))


def load(hydra: Hydra, name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a run or a sweep; the experiment's `hydra.mode` decides.

    Raises `ConfigError`, also for several values of a key in a run.
    """
    cfg = hydra.config_loader.load_configuration(
        name, list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    approval.approve(cfg, overrides)
    if cfg.hydra.mode == RunMode.MULTIRUN:
        # the jobs are made from these as they resolve now
        with hydra_errors.resolving("an override"):
            list(cfg.hydra.overrides.task)
    several = hydra_errors.several_values(overrides) if cfg.hydra.mode != RunMode.MULTIRUN else ""
    if several:
        raise ConfigError(several)
    return cfg


def without_hydra(cfg: DictConfig) -> DictConfig:
    """A copy without the key `hydra`."""
    job = cfg.copy()
    with read_write(job), open_dict(job):
        del job["hydra"]
    return job


def warn_of_shadowing(cfg: DictConfig, name: str) -> None:
    """Warn of `./conf` files in place of dlrun's own."""
    own = paths.user_folder()
    if own is None:
        return
    chosen = [f"{group.partition('@')[0]}/{choice}.yaml" for group, choice in cfg.hydra.runtime.choices.items()]
    # only files in use: the user may keep others there
    for file in [f"{name}.yaml", *chosen]:
        if (own / file).is_file() and (paths.package_folder() / file).is_file():
            output.warn(f"conf/{file} of this folder is used instead of dlrun's own.")
    # other Hydra programs often begin with it
    if name != "config" and (own / "config.yaml").is_file():
        output.warn(
            "conf/config.yaml is ignored: a run begins with dlrun.yaml. To use it, type `--config-name config`."
        )
