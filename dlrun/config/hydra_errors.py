"""Hydra's errors in our words: the override, and the valid keys or choices.

Hydra itself advises to add a misspelt key with a `+`, which makes the mistake silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.config.allowlist import resolve
from dlrun.config.signatures import parameters
from dlrun.errors import ConfigError, did_you_mean

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, AssertionError)
"""Raised by composing, for a mistake in an override or in a file."""

OPEN = ("metrics", "observers", "tracking.tags")
"""The mappings that take keys of any name."""

HINTS = ("To append to your", "Either remove +", "Or add a second +")
"""How the lines begin in which Hydra tells to add a misspelt key."""


def explain(error: Exception, overrides: Sequence[str], loader: ConfigLoaderImpl, name: str | None) -> ConfigError:
    """The error to show for one from composing `name`."""
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, OverrideParseException):
        return ConfigError(_unreadable(error, loader))
    if isinstance(error, MissingConfigException):
        return ConfigError(_missing(error, overrides, name))
    if isinstance(error, yaml.YAMLError):
        return ConfigError(f"A configuration file is not valid YAML: {error}")
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as unreadable:  # an override in a file's list of defaults
        return ConfigError(_plain(unreadable))
    # find the override that is wrong: Hydra's message does not always name it
    base, fit = _base(parsed, loader, name)
    complaints = (_complaint(o, base, loader, fit=fit) for o in parsed)
    return ConfigError(next(filter(None, complaints), _plain(error)))


@contextmanager
def resolving(what: str) -> Iterator[None]:
    """Raise `ConfigError` for an interpolation that does not resolve."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(unresolved(what, error)) from error


def unresolved(what: str, error: Exception) -> str:
    """The message on an interpolation that does not resolve.

    OmegaConf's first line says which.
    """
    key = f"`{full_key}`" if (full_key := getattr(error, "full_key", "")) and "overrides" not in full_key else what
    text = str(error).splitlines()[0].rstrip(".")
    default = " Set it, or give a default: `${oc.env:NAME,DEFAULT}`." if "Environment variable" in text else ""
    return f"{key} cannot be resolved: {text}.{default}"


RUN_ALL = "Add -m to run them all."
"""What to type on a command line; a call from Python has words of its own."""


def several_values(overrides: Sequence[str]) -> str:
    """The message on an override with several values, if any."""
    if not any(mark in override for override in overrides for mark in ",("):
        return ""  # parsing costs milliseconds, and most command lines have no sweep
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return next(filter(None, map(_sweep, parsed)), "")


def _sweep(override: Override) -> str:
    if not override.is_sweep_override():
        return ""
    given, _, values = (override.input_line or "").partition("=")
    as_list = "" if "(" in values else f" For a list as one value, type `{given}=[{values}]`."
    return f"`{given}={values}` gives several values, and a run takes one.\n{RUN_ALL}{as_list}"


def _unreadable(error: OverrideParseException, loader: ConfigLoaderImpl) -> str:
    given = error.override
    if "=" not in given and not given.startswith("~"):
        homes = [group for group in _groups(loader) if given in loader.get_group_options(group)]
        plus = {group: "+" if group == "experiment" else "" for group in homes}
        meant = " or ".join(f"`{plus[group]}{group}={given}`" for group in homes)
        hint = f" Did you mean {meant}?" if meant else " Leave no blanks around the =."
        return f"`{given}` is not of the form KEY=VALUE.{hint}"
    hint = "Quote a value with special characters twice: 'key=\"a value, with a comma\"'."
    if re.search(r"""[{,]\s*(["'])[^"']*\1\s*:""", given):
        hint = "A key within braces has no quotes of its own, such as '{*.bias:{weight_decay:0}}'."
    return f"`{given}` cannot be read: {str(error).splitlines()[0]}.\n{hint}"


def _missing(error: MissingConfigException, overrides: Sequence[str], name: str | None) -> str:
    wanted = error.missing_cfg_file or ""
    group, _, choice = wanted.rpartition("/")
    if not group:
        return f"There is no configuration `{wanted}` to begin with.\n{_plain(error)}"
    given = next((o for o in overrides if o.lstrip("+") == f"{group}={choice}"), "")
    added = [o for o in overrides if o.startswith("+")] or [f"the configuration `{name}`"]
    origin = "" if given else f"\nIt is not on the command line, but comes from {' or '.join(added)}."
    return _no_choice(given or f"{group}={choice}", choice, error.options or (), origin)


def _no_choice(given: str, choice: str, options: Sequence[str], origin: str = "") -> str:
    group = given.lstrip("+").partition("=")[0]
    return (
        f"`{given}`: {group} has no choice `{choice}`.{did_you_mean(choice, options)}{origin}"
        f"\nThe choices are: {', '.join(options)}. `dlrun list {group}` describes them."
    )


def _complaint(override: Override, base: DictConfig, loader: ConfigLoaderImpl, *, fit: bool) -> str:
    """The message on a wrong key, or nothing."""
    given, key = override.input_line, override.key_or_group
    bare = (given or "").lstrip("+~")
    chosen = base.hydra.runtime.choices if base else {}
    if options := loader.get_group_options(key):
        if fit:  # the choices of groups compose: the mistake is elsewhere
            return ""
        # the choice of one file must be a name; null and numbers are not
        single = not override.is_delete() and not override.is_sweep_override()
        if single and not isinstance(override.value(), str | list | dict):
            return _no_choice(bare, bare.partition("=")[2], options)
        if override.is_add() and key in chosen:
            return f"`{given}`: `{key}={chosen[key]}` is chosen already. Type `{bare}` to replace it."
        if key not in chosen and not override.is_add():
            return f"`{given}`: no {key} is chosen that this could replace. Add it: type `+{bare}`."
        return ""
    if key in OPEN and not override.is_delete() and not override.is_add():
        return f"`{given}`: give the keys of `{key}` one by one. Type for example `+{key}.mine=…`."
    known = is_known(base, key)
    if override.is_add():
        return f"`{given}`: `{key}` exists already. Type `{bare}`." if known else ""
    return "" if known or override.is_force_add() else f"`{given}`: {_unknown(key, base, _groups(loader))}"


def is_known(base: DictConfig, key: str) -> bool:
    """The configuration has the key, be it null."""
    parent, _, leaf = key.partition("[")[0].rpartition(".")
    try:
        node = OmegaConf.select(base, parent) if parent else base
    except OmegaConfBaseException:  # an interpolation that does not resolve yet
        return True
    return isinstance(node, DictConfig) and leaf in node.keys()  # noqa: SIM118 -- `in` is false for null


def _unknown(key: str, base: DictConfig, groups: Sequence[str]) -> str:
    if key == "hydra.sweeper.blocks":
        return (
            "blocks are grids, and this sweeper has none. Leave out hydra/sweeper; or leave out `--block`: a key that "
            "only some choices have, as in `model=mlp,linear model.width=8,16`, is searched for these alone."
        )
    parent, _, leaf = key.rpartition(".")
    if parent in OPEN:
        return f"`{parent}` has no `{leaf}` yet. Add it: type `+{key}=…`."
    node = OmegaConf.select(base, parent) if parent and is_known(base, parent) else None
    if isinstance(node, DictConfig):
        suggestion = re.sub(r"`(\w+)`", rf"`{parent}.\1`", did_you_mean(leaf, map(str, node)))
        more = _argument(key, leaf, str(node._target_)) if not suggestion and "_target_" in node else ""
        return f"{parent} has no key `{leaf}`.{suggestion}\nIts keys are: {_names(node)}.{more}"
    if parent and is_known(base, parent) and node is None:
        return f"`{parent}` is null, and has no `{leaf}` yet. Add it: type `+{key}=…`."
    keys = [k for k in dotted_keys(base) if k.startswith("hydra.") == key.startswith("hydra.")]
    suggestion = did_you_mean(key, dict.fromkeys([*groups, *keys])) or _by_leaf(leaf, keys)
    here = sorted(str(k) for k in base if k != "hydra" and k not in groups) if base else []
    return (
        f"there is no group or key `{key}`.{suggestion}"
        f"\nThe groups are: {', '.join(groups)}. The other keys are: {', '.join(here)}."
    )


def _argument(key: str, leaf: str, target: str) -> str:
    """The words on an argument of a part that its file does not list."""
    try:
        known = parameters(resolve(target))
    # what it names may be the user's, who has trusted nothing yet; that is said when it is checked
    except Exception:
        known = None
    if known is None or leaf in known or any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return f"\nAdd another argument of {target} with a plus: `+{key}=…`."
    parent = key.removesuffix(leaf)
    close = re.sub(r"`(\w+)`", rf"`+{parent}\1`", did_you_mean(leaf, known))
    return f"\nNor has {target} an argument `{leaf}`.{close}"


def _by_leaf(leaf: str, keys: Iterable[str]) -> str:
    """Suggest by the last part: `epochs` is `trainer.epochs`."""
    homes: dict[str, list[str]] = {}
    for key in keys:
        homes.setdefault(key.rpartition(".")[2], []).append(key)
    if leaf in homes:
        return f" Did you mean {' or '.join(f'`{key}`' for key in homes[leaf])}?"
    close = did_you_mean(leaf, homes)
    return re.sub("`(.+?)`", lambda found: f"`{homes[found[1]][0]}`", close)


def _names(node: DictConfig) -> str:
    return ", ".join(sorted(str(key) for key in node if key != "_target_")) or "none"


def dotted_keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key and inner key, with dots."""
    for key in map(str, cfg):
        yield f"{prefix}{key}"
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from dotted_keys(node, f"{prefix}{key}.")


def _groups(loader: ConfigLoaderImpl) -> list[str]:
    return sorted(set(loader.get_group_options("", ObjectType.GROUP)) - {"hydra"})


def _base(overrides: Sequence[Override], loader: ConfigLoaderImpl, name: str | None) -> tuple[DictConfig, bool]:
    """The configuration of the chosen groups, for looking up keys.

    If they do not compose, it is that without any override, and the second value is False.
    """
    choices = [o.input_line or "" for o in overrides if loader.get_group_options(o.key_or_group)]
    for attempt in (choices, []):
        try:
            base = ConfigLoaderImpl.load_configuration(
                loader, name, attempt, RunMode.MULTIRUN, validate_sweep_overrides=False
            )
            return base, attempt is choices
        except COMPOSITION_ERRORS:
            continue
    return OmegaConf.create(), False


def _plain(error: BaseException) -> str:
    """Hydra's own words, without its hints."""
    text = str(error).strip() or str(error.__cause__ or type(error).__name__)
    cause = error.__cause__
    if cause and str(cause) not in text:
        text += "\n" + str(cause).splitlines()[0]
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith(HINTS))
