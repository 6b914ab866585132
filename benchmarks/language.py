"""Tokens per second of a language model's training: `dlrun.engine.loop.train` and the loop of nanoGPT.

Programs take turns in one process: nanoGPT's loop and model, nanoGPT's loop with dlrun's model, dlrun's loop and
model. `frameworks` measures a process set up as the command does it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks import gpt, report
from benchmarks.alternation import Cost, alternate, cost, ratios, spread
from benchmarks.gpt import Recipe
from benchmarks.report import Figure, Section
from benchmarks.step import CPU, Silent
from dlrun.datasets.files.files import folder_of
from dlrun.datasets.files.sources import TINYSHAKESPEARE
from dlrun.datasets.language.windows import Windows
from dlrun.datasets.tinyshakespeare import tinyshakespeare
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.errors import DataError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.gpt import GPT
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.schedules.curves import cosine

LETTERS = 65


def tokens() -> tuple[Tensor, str]:
    """The training characters of Tiny Shakespeare, or as many random ones, and their name."""
    try:
        # an explicit path is never downloaded to
        data = tinyshakespeare(path=str(folder_of(TINYSHAKESPEARE)), validation_size=0.1, test_size=0)
        assert isinstance(data.train, Windows)
        return data.train.tokens.long(), "Tiny Shakespeare"
    except DataError:
        draw = torch.Generator().manual_seed(0)
        return torch.randint(0, LETTERS, (1_003_854,), generator=draw), "random characters, as many as Tiny Shakespeare"


def ours(recipe: Recipe, model: nn.Module, data: Tensor, steps: int) -> None:
    """Train the first `steps` steps of the recipe with dlrun's loop."""
    loop.train(training(recipe, model, data, steps), State(), Silent())


def training(recipe: Recipe, model: nn.Module, data: Tensor, steps: int) -> loop.Training:
    """The recipe's parts for dlrun's loop."""
    rule = Adam(lr=recipe.lr, beta1=recipe.beta1, beta2=recipe.beta2, weight_decay=recipe.weight_decay, decoupled=True)
    optimizer = Descent(rule, clip=recipe.clip)
    objective = Objective(model, cross_entropy)
    optimizer.init(objective)
    split = Windows(data, context=recipe.context, stride=recipe.context)
    return loop.Training(
        objective=objective,
        batches=Batches(split, recipe.batch_size, seed=0, device=CPU),
        optimizer=optimizer,
        schedule=lambda step, _: cosine(step, recipe.steps, warmup=recipe.warmup, floor=recipe.floor),
        plan=Plan(steps, steps, log_every=gpt.LOG_EVERY, evaluate_every=steps, checkpoint_seconds=1e9),
        seed=0,
        device=CPU,
    )


def plain(recipe: Recipe) -> nn.Module:
    """nanoGPT's model."""
    return gpt.GPT(recipe, LETTERS)


def model(recipe: Recipe) -> nn.Module:
    """dlrun's model of the same sizes."""
    return GPT((recipe.context,), LETTERS, layers=recipe.layers, heads=recipe.heads, width=recipe.width)


def compare(recipe: Recipe, data: Tensor, steps: int, *, rounds: int, threads: int) -> dict[str, list[Cost]]:
    """The cost of `steps` steps in each program, round by round."""

    def timed(make: Callable[[Recipe], nn.Module], train: Callable[[nn.Module], object]) -> Callable[[], Cost]:
        def program() -> Cost:
            torch.manual_seed(0)
            made = make(recipe)
            return cost(lambda: train(made))

        return program

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        programs: dict[str, Callable[[], Cost]] = {
            "nanoGPT": timed(plain, lambda made: gpt.train(made, data, recipe, steps)),
            "loop": timed(model, lambda made: gpt.train(made, data, recipe, steps)),
            "dlrun": timed(model, lambda made: ours(recipe, made, data, steps)),
        }
        return alternate(programs, rounds)
    finally:
        torch.set_num_threads(before)


def measure(*, quick: bool = False, rounds: int | None = None, threads: int | None = None) -> Section:
    load, recipe = report.load(), Recipe()
    data, name = tokens()
    steps, threads = (3 if quick else 40), threads or torch.get_num_threads()
    costs = compare(recipe, data, steps, rounds=rounds or (2 if quick else 21), threads=threads)
    notes = (
        f"Data: {name}. 4 layers, 4 heads, width 128, windows of 64, batches of 12, no dropout, AdamW, clipped at 1;"
        f" {steps} steps a round, the loss read every {gpt.LOG_EVERY}; {threads} thread{'s' * (threads > 1)}. dlrun's"
        " part includes drawing the epoch's order, seeding each step and building the optimizer."
    )
    found = figures(costs, steps * recipe.batch_size * recipe.context)
    return Section("language", "tokens a second beside nanoGPT", "python -m benchmarks.language", found, notes, load)


def figures(costs: dict[str, list[Cost]], tokens: int) -> list[Figure]:
    """The figures of costs, each of `tokens` tokens."""
    wall = {name: [c.wall for c in series] for name, series in costs.items()}
    each = {name: [1e-3 * tokens / s for s in series] for name, series in wall.items()}
    faster, same = ratios(wall["nanoGPT"], wall["dlrun"]), ratios(wall["loop"], wall["dlrun"])
    cpu = ratios(*([c.cpu for c in costs[name]] for name in ("nanoGPT", "dlrun")))
    return [
        Figure("nanoGPT's loop and model, thousand tokens a second", spread(each["nanoGPT"], ".1f")),
        Figure("nanoGPT's loop, dlrun's model", spread(each["loop"], ".1f")),
        Figure("dlrun's loop and model", spread(each["dlrun"], ".1f")),
        Figure("dlrun / nanoGPT", spread(faster, ".3f"), "≥ 1.0", round(median(faster), 3) >= 1.0),
        Figure("dlrun / nanoGPT's loop with dlrun's model", spread(same, ".3f")),
        Figure("dlrun / nanoGPT, tokens a CPU second", spread(cpu, ".3f")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps, as a check that it works")
    parser.add_argument("--rounds", type=int, help="rounds (21)")
    parser.add_argument("--threads", type=int, help="CPU threads (all)")
    options = parser.parse_args()
    print(measure(quick=options.quick, rounds=options.rounds, threads=options.threads).markdown())


if __name__ == "__main__":
    main()
