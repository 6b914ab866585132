"""Which edits of the code end the reuse of finished jobs."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

from dlrun.storage import sources
from tests.test_layers import MODULES, graph

UNCOUNTED = {
    *("analysis", "errors", "storage", "terminal", "tracking"),
    # the configuration that comes out of these is a part of the identity itself
    *("config.check", "config.choices", "config.settings", "config.signatures", "config.allowlist", "config.trust"),
    "config.unpickling",
    # checks before a run, and what is shown and written of it
    *(
        "runs.dry_run.averages",
        "runs.dry_run.balance",
        "runs.dry_run.messages",
        "runs.dry_run.own_state",
        "runs.dry_run.parts",
        "runs.dry_run.passes",
    ),
    *("runs.recorder", "runs.presentation", "runs.figures", "runs.interrupt"),
    *("runs.recording.checkpoint_writer", "runs.recording.nonfinite"),
}
"""Rooms and files that counted code uses, and that change no result."""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "dlrun"
    shutil.copytree(sources.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__pycache__").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(sources, "PACKAGE", package)
    return package


@pytest.mark.parametrize("file", ["report/sentences.py", "terminal/output.py", "commands/resume.py", "runs/samples.py"])
def test_an_edit_of_code_that_no_result_depends_on_ends_no_reuse(checkout: Path, file: str) -> None:
    before = sources.sources.__wrapped__()
    (checkout / file).write_text((checkout / file).read_text() + "\nOTHER = 1\n")
    assert sources.sources.__wrapped__() == before


@pytest.mark.parametrize(
    ("edit", "ends"),
    [
        ('"""Another docstring."""\n{}', False),
        ("# a comment\n{}", False),
        ("{}\n\nOTHER = 1\n", True),
    ],
)
def test_of_code_that_counts_docstrings_and_comments_do_not(checkout: Path, edit: str, ends: bool) -> None:
    before = sources.sources.__wrapped__()
    file = checkout / "losses" / "__init__.py"
    file.write_text(edit.format(file.read_text()))
    assert (sources.sources.__wrapped__() != before) == ends


def test_a_hash_is_made_once_for_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "a.py", tmp_path / "cache.json"
    file.write_text("def f():\n    '''A word.'''\n")
    before = sources.code_hash([file], cache=cache)
    monkeypatch.setattr(sources, "_code", None)
    assert sources.code_hash([file], cache=cache) == before


def test_all_code_that_counted_code_uses_is_counted() -> None:
    def counted(name: str) -> bool:
        path = MODULES[name].relative_to(sources.PACKAGE)
        return any(str(place) in sources.COUNTED for place in (path, *path.parents))

    assert all((sources.PACKAGE / name).exists() for name in sources.COUNTED)
    used = {other for name, others in graph().items() if counted(name) for other in others if not counted(other)}
    names = {other.removeprefix("dlrun.") for other in used}
    assert not {name for name in names if name not in UNCOUNTED and name.partition(".")[0] not in UNCOUNTED} - {""}


def test_a_module_counts_wherever_it_lies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = here / "lab"
    lab.mkdir()
    (here / "work").mkdir()
    monkeypatch.chdir(here / "work")
    monkeypatch.syspath_prepend(str(lab))
    (lab / "elsewhere_lab.py").write_text("RATE = 1\n")
    importlib.import_module("elsewhere_lab")
    config = {"loss": {"_target_": "elsewhere_lab.scaled"}}
    before = sources.user_modules(config)
    (lab / "elsewhere_lab.py").write_text("RATE = 10\n")
    assert sources.user_modules(config) != before


def test_a_package_counts_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"metrics": {"mine": {"_target_": "sklearn.metrics.f1_score"}}}
    importlib.import_module("sklearn")
    before = sources.user_modules(config)
    assert before != sources.NO_MODULES
    monkeypatch.setattr(sources, "version", lambda name: "0.0.1")
    assert sources.user_modules(config) != before
    assert sources.user_modules({"model": {"_target_": "torch.nn.Linear"}}) == sources.NO_MODULES
