"""The description of a run on its page, in Markdown: its facts, its results, how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlrun.storage.overlap import describe_shared, mark
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary, split_sizes
from dlrun.terminal.format import counted, duration, number
from dlrun.tracking.content.cost import describe_cost
from dlrun.tracking.content.journal_reader import JournalReader, Text
from dlrun.tracking.content.metadata import command
from dlrun.tracking.content.shorten import shorten

SPLITS = ("train", "val", "test")
# the longest that MLflow takes
LIMIT = 8000


def describe(run: RunDir, config: dict[str, Any], summary: Summary, journal: JournalReader | None = None) -> str:
    """Describe a run in Markdown, at most `LIMIT` characters."""
    # MLflow's page folds all but the first lines away
    parts = [_headline(config, summary), *_results(summary)]
    # only the journal knows of values that are not finite, and has the model's last text
    parts += [*_warnings(summary, journal.nonfinite if journal else {}), _sample(journal.sample if journal else None)]
    parts += [_facts(config, summary), _repeat(run, summary)]
    return shorten("\n\n".join(part for part in parts if part), LIMIT)


def _headline(config: dict[str, Any], summary: Summary) -> str:
    # the metrics of the last split that was read
    metrics = summary.metrics
    split = next((s for s in reversed(SPLITS) if any(name.startswith(f"{s}/") for name in metrics)), "")
    shown = [f"{name} {_number(value)}" for name, value in metrics.items() if name.partition("/")[0] == split]
    line = f"**{config.get('name', 'run')}**: {summary.status}"
    return f"{line}, {', '.join(shown)}" if shown else line


def _facts(config: dict[str, Any], summary: Summary) -> str:
    data = summary.data
    sizes = [f"{size:,} {split}" for split, size in split_sizes(data).items()]
    spec = summary.spec
    if spec.get("task") == "language":
        # these splits have windows, not samples; the last says so for all
        sizes[-1:] = [f"{size} windows of {spec['input_shape'][0]} tokens" for size in sizes[-1:]]
    facts = [
        ("model", _target(config.get("model")) + _counted(summary)),
        ("data", data.get("name", "") + (f" ({', '.join(sizes)})" if sizes else "")),
        ("columns", data.get("columns")),
        ("loss", _target(config.get("loss"))),
        ("optimizer", optimizer_name(config.get("optimizer")) + _settings(config.get("optimizer"))),
        ("seed", summary.seed),
        ("device", summary.device),
        ("steps", summary.steps),
        ("time", duration(summary.seconds) if summary.seconds else None),
        ("cost", describe_cost(summary)),
    ]
    lines = [f"- {name}: {value}" for name, value in facts if value not in (None, "")]
    return "\n".join(["What it was:", "", *lines]) if lines else ""


def _results(summary: Summary) -> list[str]:
    best = summary.best_step
    tables = [(summary.metrics, f"At the selected weights (step {best})" if best else "At the selected weights")]
    # the same numbers twice would only hide them
    if summary.last != summary.metrics:
        tables.append((summary.last, "At the last step"))
    return [_table(title, metrics) for metrics, title in tables if metrics]


def _table(title: str, metrics: Mapping[str, Any]) -> str:
    kinds = list(dict.fromkeys(name.partition("/")[2] for name in metrics if name.partition("/")[0] in SPLITS))
    rows = [
        [split, *(_number(metrics.get(f"{split}/{kind}")) for kind in kinds)]
        for split in SPLITS
        if any(name.startswith(f"{split}/") for name in metrics)
    ]
    lines = [["", *kinds], ["---", *("---:" for _ in kinds)], *rows]
    return "\n".join([f"{title}:", "", *("| " + " | ".join(line) + " |" for line in lines)])


def _warnings(summary: Summary, nonfinite: dict[str, str]) -> list[str]:
    lines = [f"- `{name}` was {value}" for name, value in nonfinite.items()]
    if summary.test_reads > 1:
        lines.append(f"- the test split was read {summary.test_reads} times")
    lines += [f"- {words}" for words in [mark(summary.origin)] if words]
    lines += [f"- {shared}" for shared in describe_shared(summary.data.get("shared", {}))]
    if by := summary.stopped.get("by"):
        lines.append(f"- {by} ended it after step {summary.steps}: {summary.stopped.get('reason', '')}")
    if summary.error:
        lines.append(f"- it failed: `{summary.error}`")
    return ["\n".join(["To be aware of:", "", *lines])] if lines else []


def _repeat(run: RunDir, summary: Summary) -> str:
    git = summary.git
    commit = git.get("commit")
    lines = []
    if commit:
        remark = "    # the tree had changes that were not committed" if git.get("dirty") else ""
        lines.append(f"git checkout {commit}{remark}")
    lines.append(command(summary))
    return "\n".join(["To repeat it:", "", "```", *lines, "```", "", f"Its folder: `{run.path}`"])


def _sample(sample: Text | None) -> str:
    if sample is None:
        return ""
    # as code: a text may hold anything, Markdown too
    lines = [f"    {line[:100]}" for line in sample.text.strip().splitlines()[:8]]
    return "\n".join([f"Written at step {sample.step}:", "", *lines])


def _target(part: Any) -> str:
    """The last part of `_target_`."""
    return str(part.get("_target_", "")).rpartition(".")[2] if isinstance(part, dict) else ""


def optimizer_name(part: Any) -> str:
    """The name of an optimizer's configuration: that of Adam or SGD with decoupled weight decay ends with W.

    >>> optimizer_name({"_target_": "dlrun.optimizers.adam.Adam", "decoupled": True})
    'AdamW'
    """
    name = _target(part)
    return f"{name}W" if name in ("Adam", "SGD") and part.get("decoupled") else name


def _settings(part: Any) -> str:
    given = part if isinstance(part, dict) else {}
    shown = [f"{name} {given[name]}" for name in ("lr", "momentum", "weight_decay") if given.get(name)]
    return f" ({', '.join(shown)})" if shown else ""


def _counted(summary: Summary) -> str:
    parameters, trained = summary.parameters, summary.trained_parameters
    if parameters is None:
        return ""
    few = f", of which {trained:,} train" if trained not in (None, parameters) else ""
    return f", {counted(parameters, 'parameter', ',')}{few}"


def _number(value: Any) -> str:
    return "" if value is None else number(float(value))
