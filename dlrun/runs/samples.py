"""Samples: short texts by a language model in training."""

from __future__ import annotations

from math import ceil

import torch

from dlrun.engine.generation import Sampling, as_language_model, decode_stream, default_prompt, generate
from dlrun.engine.loop import use_average
from dlrun.runs.build import Built
from dlrun.storage.journal import Journal
from dlrun.terminal import output

SAMPLES = 10
"""The most texts of a training."""
TOKENS = 200
"""The length of each."""


class Samples:
    """Writes texts into the journal, ten a run.

    They come at the first validation of each tenth. They have a seed of their own: training does not depend on them.
    They are due by the step alone, so a resumed run writes the same ones.
    """

    def __init__(self, built: Built, journal: Journal) -> None:
        assert built.data.tokenizer is not None
        self.last: tuple[int, str] | None = None
        self._tokenizer = built.data.tokenizer
        self._training = built.training
        self._model = as_language_model(built.training.objective.model, built.data.spec.input_shape[0])
        self._how = Sampling(temperature=0.8, top_k=50, seed=built.config["seed"])
        self._journal = journal
        self._failed = False

    def write(self, step: int) -> None:
        """Write a text after `step` steps, if one is due.

        A failure is a warning; after it none are written.
        """
        if self._failed or not self._due(step):
            return
        try:
            self.last = step, self._text()
            self._journal.event("text", name="samples", step=step, text=self.last[1])
        # a text for a person must not end a training
        except Exception as error:
            self._failed = True
            output.warn(f"No samples of text: {type(error).__name__}: {error}")

    def _due(self, step: int) -> bool:
        """True at the first validation of a tenth of the run."""
        plan = self._training.plan
        portion = ceil(plan.steps / SAMPLES)
        before = (step - 1) // plan.evaluate_every * plan.evaluate_every
        return step // portion > before // portion or step == plan.steps

    def _text(self) -> str:
        prompt = default_prompt(self._tokenizer)
        with use_average(self._training.average):
            drawn = list(generate(self._model, torch.tensor([prompt]), TOKENS, self._how))
        return "".join(decode_stream(self._tokenizer, prompt, (int(token) for token in drawn)))
