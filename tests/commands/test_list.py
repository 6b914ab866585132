"""What `dlrun list` knows, and how it is described."""

from __future__ import annotations

from pathlib import Path

from dlrun.config.choices import ConfigFile, describe
from tests.facts import says


def test_launchers_and_sweepers_are_listed(here: Path, call) -> None:
    says(call("list").out, "hydra/launcher", "batched, local", "hydra/sweeper", "search")
    says(call("list", "hydra/launcher").out, "batched", "local")
    says(call("list", "hydra/sweeper").out, "grid", "Every combination of the values")


def test_an_abbreviation_ends_no_sentence(tmp_path: Path) -> None:
    for text in ("After Kingma et al. (2015), e.g. for images.", "As in Hoffmann et al. They scale."):
        path = tmp_path / "a.yaml"
        path.write_text(f"# {text}\n_target_: a.b\n")
        assert describe(ConfigFile("model", "a", path, users=True)) == text
