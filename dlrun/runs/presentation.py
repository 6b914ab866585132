"""The output of a run: a head before it, a live line during it, a table after it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil, isnan, nan
from pathlib import Path

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.own.state import describe as describe_state
from dlrun.engine.plan import Plan
from dlrun.engine.reading.streams import StreamBatches, size_of
from dlrun.execution.device import Execution, describe
from dlrun.runs.build import Built
from dlrun.runs.dry_run.parts import first_loss
from dlrun.runs.measures.guess import loss_of_guess
from dlrun.runs.weights.listing import describe_groups, groups_of
from dlrun.storage.overlap import Origin, describe_known, describe_shared, mark
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.terminal import output
from dlrun.terminal.format import amount, counted, duration, number, table
from dlrun.tracking.content.cost import describe_cost
from dlrun.tracking.content.description import optimizer_name
from dlrun.types import Data

SHOWN = 6
"""Groups of weights that the head names; `dlrun check --parameters` has all."""

TOO_HIGH = 1.2
"""How many times log(vocabulary) a first loss may be: initial weights of a usual scale expect nothing in particular."""


FAR = 10
"""How large the targets of a regression may be, or how small their inverse, without a line on it."""


def announce(built: Built, run: RunDir | None = None, *, start: int = 0) -> None:
    """Show the head of a run.

    Also its first loss beside that of a guess, if one is known; of a text with a warning if it is high.
    """
    output.say(head(built, run, start=start))
    if (own := built.training.own) is not None:
        for line in describe_state(own.saved, own.lost, own.drawn):
            output.warn(line)
    spec, training = built.data.spec, built.training
    _report_never_thawed(built)
    optimizer, acts = built.config["optimizer"], training.objective.decay
    if optimizer.get("weight_decay") and not optimizer.get("decay_all") and not any(acts):
        output.warn(
            f"optimizer.weight_decay={optimizer['weight_decay']} acts on nothing: the model has no matrices and no "
            "kernels, only vectors, biases and norms. Type optimizer.decay_all=true to have it act on them."
        )
    if not start:
        _report_unscaled(built)
    if start or (guess := loss_of_guess(built.data, training.objective, training.device)) is None:
        return
    first = first_loss(training.objective, built.data.train, device=training.device)
    output.say(f"  {'loss':<10}{first:.4g} at first; that of a guess, {guess.words}, is {guess.loss:.4g}")
    # not `>`: a NaN warns too
    if spec.task == "language" and not first <= TOO_HIGH * guess.loss:
        output.warn(
            f"The loss begins at {first:.4g}, {first / guess.loss - 1:.0%} above log(vocabulary), that of a guess "
            f"among {spec.vocabulary} tokens. Are the initial weights too large, or the targets wrong?"
        )


def _report_unscaled(built: Built) -> None:
    """Say that targets are large or small, if a value of the data set scales them."""
    data, one_step = built.data, getattr(built.training.optimizer, "one_step", False)
    if data.spec.target_scale or built.config["dataset"].get("scale_targets") is not False or one_step:
        return
    if data.spec.task == "regression" and isinstance(data.train, TensorSplit):
        size = float(data.train.y.double().square().mean().sqrt())
        if not 1 / FAR <= size <= FAR:
            output.say(
                f"  {'targets':<10}their root mean square is {size:.3g}, far from 1: with dataset.scale_targets=true "
                "they are learned in fewer steps"
            )


def _report_never_thawed(built: Built) -> None:
    thaw, steps = built.training.thaw, built.training.plan.steps
    late = {step for step in (*thaw.begins, *thaw.norms.values()) if step >= steps} if thaw else set()
    if late and not built.trainer.fast:
        output.warn(
            f"finetune.unfreeze: what trains after {min(late)} steps never does, for the run has {steps}. Type a "
            "smaller number, or finetune.freeze."
        )


def head(built: Built, run: RunDir | None = None, *, start: int = 0) -> str:
    """A run's data, model, optimizer, steps, device and folder."""
    plan, config = built.training.plan, built.config
    model, schedule = (config[name]["_target_"].rsplit(".", 1)[-1] for name in ("model", "schedule"))
    optimizer = optimizer_name(config["optimizer"])
    execution = built.execution
    rows = [
        ["data", f"{built.data.name}: {_sizes(built.data)}"],
        [
            "model",
            f"{model}: {counted(built.parameters, 'parameter', ',')}{_trained(built)}, "
            f"{amount(built.flop_per_step, 'FLOP')} a step",
        ],
        ["optimizer", f"{optimizer}, lr {number(built.training.optimizer.lr)}, schedule {schedule}"],
        ["steps", f"{plan.steps} of {_batch(built)} ({counted(plan.epoch(plan.steps), 'epoch', '.4g')})"],
        ["device", f"{describe(execution.device)}, {execution.precision}, {_threads(built)}{_ways(execution)}"],
    ]
    if groups := describe_groups(groups_of(built.training.optimizer), built.training.optimizer.lr):
        listed = groups[:SHOWN] + [f"and {len(groups) - SHOWN} more"] * (len(groups) > SHOWN)
        rows.insert(3, ["groups", "; ".join(listed)])
    if columns := built.data.notes.get("columns"):
        rows.insert(1, ["columns", columns])
    if shared := describe_shared(built.shared):
        rows.append(["shared", "; ".join(shared)])
    if built.origin:
        rows.append(["weights", _weights(built.origin)])
    if built.training.ranks:
        rows.append(["processes", built.training.ranks.describe()])
    if built.left_out:
        rows.append(["metrics", built.left_out])
    if built.observers:
        rows.append(["observers", built.observers.describe()])
    own = {p for module in built.training.objective.modules[1:] for p in module.parameters() if p.requires_grad}
    if own := own - {*built.training.objective.model.parameters()}:
        count = sum(p.numel() for p in own)
        rows.insert(2, ["loss", f"{counted(count, 'parameter', ',')} of its own, trained with the model's"])
    batches = built.training.batches
    if isinstance(batches, StreamBatches):
        rows.insert(1, ["stream", batches.way])
    if start:
        skipped = f", by reading {batches.skips:,} batches again" if isinstance(batches, StreamBatches) else ""
        rows.append(["resumed", f"from step {start}{skipped}"])
    if run:
        rows.append(["folder", _relative(run)])
    return f"{config['name']}  seed {config['seed']}\n" + "\n".join(f"  {name:<10}{text}" for name, text in rows)


def _trained(built: Built) -> str:
    return f", of which {built.trained:,} train" if built.trained != built.parameters else ""


def _weights(origin: Origin) -> str:
    of = f"those of {origin['init_from']}" if "init_from" in origin else "trained ones"
    if known := describe_known(origin):
        return f"{of}; {'; '.join(known)} (init_from_overlap=allow)"
    if unknown := origin.get("unknown"):
        return f"{of}, of unknown origin ({'; '.join(unknown)}): they may know validation or test samples"
    few = f", as far as one in {one_in} shows" if (one_in := origin.get("one_in", 1)) > 1 else ""
    return f"{of}, which know no sample of validation or test{few}"


def _sizes(data: Data) -> str:
    splits = {name: split for name in ("train", "validation", "test") if (split := getattr(data, name)) is not None}
    if data.spec.task != "language":
        return ", ".join(f"{size_of(split) or 'a stream'} {name}" for name, split in splits.items())
    # the first token of a text is not predicted
    counted = {n: getattr(s, "predicted", len(s) * data.spec.input_shape[0] - 1) + 1 for n, s in splits.items()}
    return ", ".join(f"{n:,} {name}" for name, n in counted.items()) + f" tokens, vocabulary {data.spec.vocabulary:,}"


def _batch(built: Built) -> str:
    size, spec = built.training.batches.size, built.data.spec
    if spec.task == "language":
        return f"{size} × {spec.input_shape[0]} tokens"
    balance = built.training.batches.balance
    return counted(size, "sample") + (f": {balance.each} of each of {balance.classes} classes" if balance else "")


def _threads(built: Built) -> str:
    n = built.execution.threads
    return counted(n, "thread")


def _ways(execution: Execution) -> str:
    ways = ["channels last"] if execution.memory_format == "channels_last" else []
    ways += [f"compiled ({execution.why})"] if execution.compile else []
    return "".join(f", {way}" for way in ways)


def _relative(run: RunDir) -> str:
    here = Path.cwd()
    return str(run.path.relative_to(here) if run.path.is_relative_to(here) else run.path)


class Progress:
    """A live line in a terminal; in a log, regular lines.

    The log gets a line each epoch, at most 20 a run, and one after 30 s of silence.
    """

    def __init__(self, plan: Plan, start: int, *, validated: bool) -> None:
        self._plan = plan
        self._start = self._written_step = start
        self._validated = validated
        self._begun = self._written = self._shown = time.monotonic()
        self._latest: dict[str, float] = {}
        self._latest_step = start

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Keep a point of the curves, and show it if due."""
        # a training point and the validation of its step; never the metrics of two steps in one line
        self._latest = self._latest | values if step == self._latest_step else dict(values)
        self._latest_step = step
        now = time.monotonic()
        # more than ten times a second nobody reads, and each takes time from the training
        if now - self._shown > 0.1 or step == self._plan.steps:
            output.live(self._line(step, epoch, now))
            self._shown = now
        if not self._unfinished(step, values) and self._due(step, now):
            output.log(self._line(step, epoch, now))
            self._written, self._written_step = now, step

    def _unfinished(self, step: int, values: dict[str, float]) -> bool:
        """True if this step's validation is yet to come."""
        return "lr" in values and self._validated and self._plan.evaluates(step)

    def _due(self, step: int, now: float) -> bool:
        portion = self._plan.per_epoch * ceil(self._plan.epoch(self._plan.steps) / 20)
        late = now - self._written > output.HEARTBEAT
        return late or step == self._plan.steps or step // portion > self._written_step // portion

    def _line(self, step: int, epoch: float, now: float) -> str:
        # of this process: a resumed run may be on another machine
        rate = (step - self._start) / max(now - self._begun, 1e-9)
        left = (self._plan.steps - step) / max(rate, 1e-9)
        shown = [f"{name} {value:.4g}" for name, value in self._latest.items() if name.startswith(("train/", "val/"))]
        of = next((of for of in ("tokens", "samples") if f"throughput/{of}_per_second" in self._latest), "samples")
        # none at an evaluation between two logging steps
        if (speed := self._latest.get(f"throughput/{of}_per_second")) is not None:
            shown.insert(0, f"{amount(speed)} {of}/s")
        # a narrow terminal cuts the metrics, not the time
        return f"  epoch {epoch:.4g}  step {step}/{self._plan.steps}  {duration(left)} left  {'  '.join(shown)}"


class Undefined:
    """Says once of each metric that it is no number, though the loss is one."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._said: set[str] = set()

    def check(self, values: Mapping[str, float]) -> None:
        """Look for such metrics among those of a point or of an evaluation."""
        for name, value in values.items():
            split = name.partition("/")[0]
            if not isnan(value) or name in self._said or isnan(values.get(f"{split}/loss", nan)):
                continue
            self._said.add(name)
            chosen = " The weights are selected by val/loss instead." if name == self._monitor else ""
            output.warn(
                f"{name} is NaN: no sample of the split counts in it (a class that the split lacks?), or the metric "
                f"returned NaN.{chosen}"
            )


def closing(summary: Summary, run: RunDir, sample: tuple[int, str] | None = None) -> str:
    """The table of metrics after a run.

    It begins with the first lines of the last `sample` (step, text).
    """
    metrics = summary.metrics
    splits = [s for s in ("train", "val", "test") if any(name.startswith(s + "/") for name in metrics)]
    names = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics))
    rows = [["", *names]]
    rows += [
        [split, *(number(metrics[k]) if (k := f"{split}/{n}") in metrics else "" for n in names)] for split in splits
    ]
    best = f"weights of step {summary.best_step}, the best {summary.selected_by}"
    weights = best if summary.selected_by else "the last weights"
    remark = f"  {words}\n" if (words := mark(summary.origin)) else ""
    if by := summary.stopped.get("by"):
        remark += f"  ended by {by} after step {summary.steps}: {summary.stopped.get('reason', '')}\n"
    cost = f"  {words}\n" if (words := describe_cost(summary)) else ""
    return (
        f"{_quoted(sample)}{table(rows)}\n{remark}"
        f"  {weights}; {counted(summary.steps or 0, 'step')} in {duration(summary.train_seconds or 0.0)}, "
        f"{duration(summary.seconds)} in all\n{cost}"
        f"  {_relative(run)}"
    )


def _quoted(sample: tuple[int, str] | None) -> str:
    if sample is None:
        return ""
    step, text = sample
    lines = [line[:100] for line in text.strip().splitlines()[:5]]
    return "\n".join([f"  written at step {step}:", *(f"  │ {line}".rstrip() for line in lines)]) + "\n"
