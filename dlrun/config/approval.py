"""What a composed configuration may do, by whose word.

Its `trusted:` is the user's word if it comes from the command line or from `./conf`. A folder of `--config-dir` or
`hydra.searchpath` may come from somebody else: it grants itself nothing, nor are modules in it the user's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.config import hydra_targets, paths, trust
from dlrun.errors import ConfigError


def approve(config: DictConfig, typed: Sequence[str] = ()) -> None:
    """Grant what the user trusts, and check Hydra's part.

    `typed` are the overrides of the command line. Raises `ConfigError` for what nobody here has granted.
    """
    overrides = _parse(typed)
    trust.grant(name for each in overrides if each.key_or_group == "trusted" for name in _texts(each))
    names = [str(name) for name in config.trusted] if OmegaConf.is_list(config.get("trusted")) else []
    folders = [*_foreign_folders(config)]
    paths.mark_foreign(map(Path, folders))
    foreign = ", ".join(folders)
    if foreign:
        trust.check(names, of=foreign)
    else:
        trust.grant(names)
        trust.grant_commands(_plain_observers(config))
    trust.grant_commands({each.key_or_group.rpartition(".")[2]: each.value() for each in overrides})
    # keys of Hydra's part are trusted as they were typed, here alone: a run's `trusted` is part of its configuration
    keys = [each.key_or_group for each in overrides if each.key_or_group.startswith("hydra.")]
    hydra_targets.check(config.hydra, trusted=[*trust.trusted_names(), *keys], foreign=foreign)


def check_search_path(primary: ConfigResult | None) -> None:
    """Refuse packages in `hydra.searchpath` of a foreign folder's first file.

    Raises `ConfigError`.
    """
    if primary is None or primary.provider != "command-line" or not OmegaConf.is_dict(primary.config):
        return
    places = OmegaConf.select(primary.config, "hydra.searchpath")
    for place in places if OmegaConf.is_list(places) else ():
        if "://" in str(place) and not str(place).startswith("file://") and str(place) not in trust.trusted_names():
            raise ConfigError(
                f"`hydra.searchpath` of {primary.path} names {place}, which would be imported. Type "
                f"`hydra.searchpath=[{place}]` if you trust it."
            )


def _plain_observers(config: DictConfig) -> Any:
    with suppress(OmegaConfBaseException):  # checking the configuration says so
        observers = config.get("observers")
        return OmegaConf.to_container(observers, resolve=True) if OmegaConf.is_config(observers) else None
    return None


def _parse(typed: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(typed))
    except HydraException:
        return []  # composing says so


def _texts(override: Override) -> Iterator[str]:
    value: Any = override.value()
    # of a sweep, several lists; a text is no list, and its letters are no names
    for item in () if isinstance(value, str) else getattr(value, "list", value) or ():
        for inner in item if isinstance(item, list) else [item]:
            yield str(getattr(inner, "text", inner))


def _foreign_folders(config: DictConfig) -> Iterator[str]:
    own = [folder.resolve() for folder in (paths.user_folder(), paths.package_folder()) if folder]
    for source in OmegaConf.select(config, "hydra.runtime.config_sources") or ():
        # Hydra's, dlrun's and those of installed plugins have other providers
        given = source.provider == "command-line" or source.provider.startswith("hydra.searchpath")
        if given and not (source.schema == "file" and Path(source.path).resolve() in own):
            yield str(source.path)
