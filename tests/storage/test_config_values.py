"""The plain values of a configuration are those that OmegaConf gives."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.storage.files.config_values import raw_values, resolved_values

CONFIGS = [
    {"a": 1, "b": {"c": 2.5, "d": [1, {"e": True}], "f": None}, "g": []},
    {"seed": 3, "data": {"seed": "${seed}", "text": r"\${seed} of ${seed}", "own": "${.seed}"}, "all": "${data}"},
    {"one": "${two}", "two": "${three}", "three": [1, "${four}"], "four": {"x": "${oc.env:NOT_SET,7}"}},
    {2: "x", "none": None, "nothing": {}},
    {"part": {"_target_": "a.B", "size": "${nested.size}"}, "nested": {"size": "${oc.decode:'3'}"}},
]


@pytest.mark.parametrize("content", CONFIGS)
def test_values_equal_those_of_omegaconf(content: dict[str, object]) -> None:
    config = OmegaConf.create(content)
    assert isinstance(config, DictConfig)
    for found, resolve in ((raw_values(config), False), (resolved_values(config), True)):
        expected = OmegaConf.to_container(config, resolve=resolve)
        assert isinstance(expected, dict)
        # types too: 1, 1.0 and True are equal
        assert repr(found) == repr({str(key): value for key, value in expected.items()})


@pytest.mark.parametrize("content", [{"a": {"b": "???"}}, {"a": "${missing}"}, {"a": "${b}", "b": "???"}])
def test_errors_are_those_of_omegaconf(content: dict[str, object]) -> None:
    config = OmegaConf.create(content)
    assert isinstance(config, DictConfig)
    with pytest.raises(OmegaConfBaseException) as ours:
        resolved_values(config)
    with pytest.raises(OmegaConfBaseException) as theirs:
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert str(ours.value) == str(theirs.value)
    assert raw_values(config) == OmegaConf.to_container(config)
