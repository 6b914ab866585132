"""What `dlrun list` knows, and how it is described."""

from __future__ import annotations

from pathlib import Path

from dlrun.config.choices import ConfigFile, describe
from tests.facts import refuses, says


def test_launchers_and_sweepers_are_listed(here: Path, call) -> None:
    says(call("list").out, "hydra/launcher", "batched, local", "hydra/sweeper", "search")
    says(call("list", "hydra/launcher").out, "batched", "local")
    says(call("list", "hydra/sweeper").out, "grid", "Every combination of the values")


def test_the_keys_of_a_choice_are_said_with_what_they_are(here: Path, call) -> None:
    for typed in (("trainer",), ("trainer", "default")):
        says(call("list", *typed).out, "activation_checkpointing: false # true: every block", "patience: null #")
    for typed in (("model", "realnvp"), ("model=realnvp",)):
        says(call("list", *typed).out, "couplings: 8", "width: 64 #")
    says(call("list", "+experiment=density").out, "# dlrun train +experiment=density")
    for name, key in (("finetune", "freeze"), ("cost", "price_per_kwh"), ("sweep", "fresh")):
        says(call("list", name).out, f"{key}:")
    assert "_target_" not in call("list", "model").out


def test_studies_are_marked(here: Path, call) -> None:
    lines = {line.partition(" ")[0]: line for line in call("list", "experiment").out.splitlines()}
    assert lines["density"].endswith("A study.")
    assert not lines["digits"].endswith("A study.")


def test_what_is_no_group_is_answered_with_where_it_is(here: Path, call) -> None:
    refuses(call("list", "realnvp"), "`dlrun list model realnvp`")
    refuses(call("list", "study"), "`dlrun list experiment`")
    refuses(call("list", "model", "realnpv"), "Did you mean `realnvp`?", "gaussian_mixture")


def test_an_abbreviation_ends_no_sentence(tmp_path: Path) -> None:
    for text in ("After Kingma et al. (2015), e.g. for images.", "As in Hoffmann et al. They scale."):
        path = tmp_path / "a.yaml"
        path.write_text(f"# {text}\n_target_: a.b\n")
        assert describe(ConfigFile("model", "a", path, users=True)) == text
