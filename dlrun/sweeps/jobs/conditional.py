"""Keys that only some choices have: they are set in the jobs of these, and left out of the others.

`model=mlp,linear model.width=16,32` is three jobs, for `linear` has no width. A key that none of the choices has is
a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from dlrun.config.allowlist import resolve
from dlrun.config.hydra_errors import dotted_keys, is_known
from dlrun.config.signatures import parameters
from dlrun.errors import ConfigError, did_you_mean
from dlrun.sweeps.jobs.expand import Expansion

Choices = tuple[str, ...]
"""The overrides of a job that decide which keys it has: its choices of files, and whole parts."""


@dataclass(frozen=True)
class FittedJobs:
    """The jobs of a sweep without what they do not have.

    `places` has for each job that was asked for its place in `jobs`: jobs that have become equal are one. `left_out`
    says which keys which choices do not have.
    """

    jobs: list[list[str]]
    places: list[int]
    left_out: list[str]


def fit(expansion: Expansion, jobs: Sequence[Sequence[str]]) -> FittedJobs:
    """Leave out of each job the keys that its choices do not have.

    Raises `ConfigError` for a key that none of them has.
    """
    choices = [expansion.choices(job) for job in jobs]
    # with the same choices all have the same keys: a wrong one is refused where the job is composed
    if len({*choices}) < 2:
        return FittedJobs([list(job) for job in jobs], [*range(len(jobs))], [])
    configs = {each: expansion.compose_choices(each) for each in dict.fromkeys(choices)}
    given = [
        {o: parsed for o in job if o not in chosen and (parsed := expansion.parse(o)) is not None}
        for job, chosen in zip(jobs, choices, strict=True)
    ]
    lacking = _lacking(configs, choices, given)
    _check_some_have(lacking, configs)
    fitted: list[list[str]] = []
    places: list[int] = []
    places_of: dict[tuple[str, ...], int] = {}
    for job, chosen, values in zip(jobs, choices, given, strict=True):
        absent = {o for o, parsed in values.items() if lacking[parsed.get_key_element()][chosen]}
        kept = [o for o in job if o not in absent]
        # jobs that were asked for twice are told elsewhere
        place = places_of.get(tuple(kept)) if absent else None
        if place is None:
            place = len(fitted)
            fitted.append(kept)
        places_of.setdefault(tuple(kept), place)
        places.append(place)
    left_out = {key: by for key, by in lacking.items() if any(by.values())}
    return FittedJobs(fitted, places, [f"{key.lstrip('+')}: not for {_which(by)}" for key, by in left_out.items()])


def _lacking(
    configs: Mapping[Choices, DictConfig], choices: Sequence[Choices], given: Sequence[Mapping[str, Override]]
) -> dict[str, dict[Choices, bool]]:
    """By key and choices, whether they lack it; none does where one set of choices alone is given the key."""
    found: dict[str, dict[Choices, bool]] = {}
    for chosen, values in zip(choices, given, strict=True):
        for override in values.values():
            known = found.setdefault(override.get_key_element(), {})
            if chosen not in known:
                known[chosen] = not _takes(configs[chosen], override)
    # what is wrong in any case is refused where the job is composed or checked, in better words
    hopeless = [key for key, by in found.items() if all(by.values()) and (len(by) == 1 or key.startswith("+"))]
    return found | {key: dict.fromkeys(found[key], False) for key in hopeless}


def _takes(config: DictConfig, override: Override) -> bool:
    """A configuration has the key; one that is added is an argument of its part."""
    key = override.key_or_group
    if is_known(config, key):
        return True
    if not (override.is_add() or override.is_force_add()):
        return False
    # down to the innermost mapping that is there
    node = config
    for name in key.split("."):
        inner = OmegaConf.select(node, name) if is_known(node, name) else None
        if not isinstance(inner, DictConfig):
            return _accepts(node, name)
        node = inner
    return True


def _accepts(part: DictConfig, name: str) -> bool:
    if "_target_" not in part:
        return True
    try:
        known = parameters(resolve(str(part._target_)))
    # what it names may be the user's, who has trusted nothing yet; that is said when the job is checked
    except Exception:
        return True
    return known is None or name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def _check_some_have(lacking: Mapping[str, Mapping[Choices, bool]], configs: Mapping[Choices, DictConfig]) -> None:
    for key, by in lacking.items():
        if not all(by.values()):
            continue
        parent, _, leaf = key.rpartition(".")
        nodes = [OmegaConf.select(configs[each], parent) if parent else configs[each] for each in by]
        siblings = {str(name) for node in nodes if isinstance(node, DictConfig) for name in node if name != "_target_"}
        others = {name: f"{parent}.{name}".lstrip(".") for name in siblings}
        hint = did_you_mean(key, others.values())
        if not hint:
            hint = did_you_mean(key, dict.fromkeys(name for config in configs.values() for name in dotted_keys(config)))
        taken = any(isinstance(node, DictConfig) and "_target_" in node and _accepts(node, leaf) for node in nodes)
        add = f" An argument that no file lists is added with a plus: `+{key}=…`." if taken else ""
        raise ConfigError(
            f"`{key}`: none of {_listed(by)} has it.{hint}\n"
            f"Their keys are: {', '.join(sorted(others.values())) or 'others'}.{add}"
        )


def _which(by: Mapping[Choices, bool]) -> str:
    """The choices that lack a key, by what the others have not chosen."""
    without = [each for each, lacks in by.items() if lacks]
    with_it = {o for each, lacks in by.items() if not lacks for o in each}
    telling = [o for each in without for o in each if o not in with_it]
    named: list[str] = []
    for each in without:
        if not set(each) & set(named):
            # the one that most of them share
            best = max((o for o in each if o in telling), key=telling.count, default=" ".join(each))
            named.append(best)
    return ", ".join(o.lstrip("+") for o in dict.fromkeys(named))


def _listed(choices: Iterable[Choices]) -> str:
    found = [*choices]
    shared = set(found[0]).intersection(*found)
    return ", ".join(" ".join(o.lstrip("+") for o in each if o not in shared) or "the others" for each in found[:8])
