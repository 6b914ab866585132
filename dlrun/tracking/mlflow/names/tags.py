"""The names of tags in MLflow, whose pages hide those with the prefix `mlflow.`."""

from __future__ import annotations

from collections.abc import Mapping

PROGRESS = "dlrun.progress"
# of the jobs that a sweep selected
SELECTED = "dlrun.selected"
DESCRIPTION = "mlflow.note.content"
# tells later whether a person has changed the description
DESCRIPTION_DIGEST = "dlrun.note"
# tags that MLflow has names of its own for
NAMES = {
    "dlrun.user": "mlflow.user",
    "dlrun.command": "mlflow.source.name",
    "dlrun.git.commit": "mlflow.source.git.commit",
}
# what nobody looks for, kept out of sight
HIDDEN = frozenset(
    {
        PROGRESS,
        DESCRIPTION_DIGEST,
        *("dlrun.definition", "dlrun.device", "dlrun.folder", "dlrun.git.dirty", "dlrun.hostname", "dlrun.identity"),
        *("dlrun.launcher", "dlrun.parameters", "dlrun.seed", "dlrun.stacked", "dlrun.test"),
    }
)


def tag_name(name: str) -> str:
    """The name that MLflow is given.

    >>> tag_name("dlrun.user"), tag_name("dlrun.folder"), tag_name("version.torch"), tag_name("dlrun.sweep")
    ('mlflow.user', 'mlflow.dlrun.folder', 'mlflow.version.torch', 'dlrun.sweep')
    """
    return f"mlflow.{name}" if name in HIDDEN or name.startswith("version.") else NAMES.get(name, name)


def read_tag(tags: Mapping[str, str], name: str) -> str | None:
    """A tag of a stored run, under the name of before 0.2 too."""
    return tags.get(tag_name(name), tags.get(name))
