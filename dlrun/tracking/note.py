"""The note of a run's page: what the run was, what came of it, and how to repeat it."""

from __future__ import annotations

from typing import Any

from dlrun.storage.rundir import RunDir
from dlrun.terminal.format import duration, number
from dlrun.tracking.describe import TAG, command, shorten
from dlrun.tracking.journal_reader import Reader

SPLITS = ("train", "val", "test")


def note(run: RunDir, config: dict[str, Any], summary: dict[str, Any], journal: Reader | None = None) -> str:
    """Return the note in Markdown, within MLflow's limit; the `journal` is that of a run that has ended."""
    # the page folds all but the first lines away
    parts = [_headline(config, summary), *_results(summary)]
    parts += [*_warnings(summary, journal.nonfinite if journal else {}), _written(journal.sample if journal else None)]
    parts += [_what(config, summary), _repeat(run, summary)]
    return shorten("\n\n".join(part for part in parts if part), TAG)


def _headline(config: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return the status and the metrics of the last split that was read, in one line."""
    metrics = summary.get("metrics") or {}
    split = next((s for s in reversed(SPLITS) if any(name.startswith(f"{s}/") for name in metrics)), "")
    shown = [f"{name} {_number(value)}" for name, value in metrics.items() if name.partition("/")[0] == split]
    line = f"**{config.get('name', 'run')}**: {summary.get('status', 'killed')}"
    return f"{line}, {', '.join(shown)}" if shown else line


def _what(config: dict[str, Any], summary: dict[str, Any]) -> str:
    data = summary.get("data") or {}
    sizes = [f"{data[split]:,} {split}" for split in ("train", "validation", "test") if data.get(split)]
    spec = summary.get("spec") or {}
    if spec.get("task") == "language":
        sizes[-1:] = [f"{size} windows of {spec['input_shape'][0]} tokens" for size in sizes[-1:]]
    facts = [
        ("model", _target(config.get("model")) + _counted(summary.get("parameters"))),
        ("data", data.get("name", "") + (f" ({', '.join(sizes)})" if sizes else "")),
        ("loss", _target(config.get("loss"))),
        ("optimizer", _target(config.get("optimizer")) + _settings(config.get("optimizer"))),
        ("seed", summary.get("seed")),
        ("device", summary.get("device")),
        ("steps", summary.get("steps")),
        ("time", duration(summary["seconds"]) if summary.get("seconds") else None),
    ]
    lines = [f"- {name}: {value}" for name, value in facts if value not in (None, "")]
    return "\n".join(["What it was:", "", *lines]) if lines else ""


def _results(summary: dict[str, Any]) -> list[str]:
    """Return the metrics as tables, one row a split."""
    best = summary.get("best_step")
    tables = [("metrics", f"At the selected weights (step {best})" if best else "At the selected weights")]
    if summary.get("last") != summary.get("metrics"):
        tables.append(("last", "At the last step"))
    return [_table(title, summary[name]) for name, title in tables if summary.get(name)]


def _table(title: str, metrics: dict[str, Any]) -> str:
    kinds = list(dict.fromkeys(name.partition("/")[2] for name in metrics if name.partition("/")[0] in SPLITS))
    rows = [
        [split, *(_number(metrics.get(f"{split}/{kind}")) for kind in kinds)]
        for split in SPLITS
        if any(name.startswith(f"{split}/") for name in metrics)
    ]
    lines = [["", *kinds], ["---", *("---:" for _ in kinds)], *rows]
    return "\n".join([f"{title}:", "", *("| " + " | ".join(line) + " |" for line in lines)])


def _warnings(summary: dict[str, Any], nonfinite: dict[str, str]) -> list[str]:
    lines = [f"- `{name}` was {what}" for name, what in nonfinite.items()]
    if int(summary.get("test_reads") or 0) > 1:
        lines.append(f"- the test split was read {summary['test_reads']} times")
    if summary.get("error"):
        lines.append(f"- it failed: `{summary['error']}`")
    return ["\n".join(["To be aware of:", "", *lines])] if lines else []


def _repeat(run: RunDir, summary: dict[str, Any]) -> str:
    git = summary.get("git") or {}
    commit = git.get("commit")
    lines = []
    if commit:
        remark = "    # the tree had changes that were not committed" if git.get("dirty") else ""
        lines.append(f"git checkout {commit}{remark}")
    lines.append(command(summary))
    return "\n".join(["To repeat it:", "", "```", *lines, "```", "", f"Its folder: `{run.path}`"])


def _written(sample: tuple[int, str] | None) -> str:
    """Return the beginning of the last text that the model wrote, as code: it may hold anything."""
    if sample is None:
        return ""
    step, text = sample
    lines = [f"    {line[:100]}" for line in text.strip().splitlines()[:8]]
    return "\n".join([f"Written at step {step}:", "", *lines])


def _target(part: Any) -> str:
    """Return a part's own name: the end of its `_target_`."""
    return str(part.get("_target_", "")).rpartition(".")[2] if isinstance(part, dict) else ""


def _settings(part: Any) -> str:
    given = part if isinstance(part, dict) else {}
    shown = [f"{name} {given[name]}" for name in ("lr", "momentum", "weight_decay") if given.get(name)]
    return f" ({', '.join(shown)})" if shown else ""


def _counted(parameters: Any) -> str:
    return f", {parameters:,} parameters" if isinstance(parameters, int) else ""


def _number(value: Any) -> str:
    return "" if value is None else number(float(value))
