"""`dlrun sample`, and what a run of language shows and keeps while it is trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.runs.samples import Samples
from dlrun.storage import journal
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.terminal.escape import visible
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
TEXT = "The cat sat on the mat, and the dog — who was old — sat on the cat.\n" * 60
QUICK = (
    "dataset=text",
    "dataset.path=text.txt",
    "tracking.enabled=false",
    "trainer.threads=1",
    "evaluation.test=never",
)
TINY = ("model=gpt", "model.size=1", "dataset.context=16", "trainer.steps=24", "trainer.batch_size=8")


def train(call: Call, *overrides: str) -> tuple[RunDir, Called]:
    """Train on a text that is gone afterwards."""
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    done = call("train", *QUICK, *overrides)
    assert done.code == 0, done.err
    Path("text.txt").unlink()
    return all_runs()[-1], done


def samples(run: RunDir) -> dict[int, str]:
    return {r["step"]: r["text"] for r in journal.read(run.journal)[0] if r.get("event") == "text"}


def test_a_run_s_folder_is_enough_to_write(here: Path, call: Call) -> None:
    run, _ = train(call, *TINY, "trainer.figures=false")
    written = call("sample", run.id, "--prompt", "The dög", "--tokens", "60")
    assert written.code == 0, written.err
    assert written.out.startswith("The dög")
    assert len(written.out.encode()) > 60
    assert call("sample", run.id, "--prompt", "The dög", "--tokens", "60").out == written.out
    assert call("sample", run.id, "--prompt", "The dög", "--tokens", "60", "--temperature", "1.5").out != written.out
    alone = [call("sample", run.id, "--tokens", "30", "--seed", seed).out for seed in "34"]
    both = call("sample", run.id, "--tokens", "30", "--seed", "3", "--n", "2").out
    assert both == f"── seed 3 ──\n{alone[0]}\n── seed 4 ──\n{alone[1]}"
    refuses(call("predict", run.id, str(run.config)), "dlrun sample")


def test_a_mistake_is_told_in_one_message(here: Path, call: Call) -> None:
    run, _ = train(call, *TINY, "dataset.tokenizer=character", "trainer.figures=false")
    mistakes = {
        ("--prompt", "Zoë"): "'Z'",
        ("--tokens", "0"): "at least 1",
        ("--temperature", "-1"): "0 or more",
        ("--temperature", "inf"): "0 or more",
        ("--top-k", "0"): "at least 1",
        ("--top-p", "2"): "at most 1",
        ("--top-p", "0"): "above 0",
        ("--seed", "-1"): "from 0 on",
        ("--n", "0"): "at least 1",
        ("--tokens", "many"): "invalid int",
    }
    for options, expected in mistakes.items():
        done = call("sample", run.id, *options)
        refuses(done, expected)
        assert not done.out
    good = run.tokenizer.read_text()
    for content, fact in {
        "": "tokenizer.json",
        "[" * 100_000: "tokenizer.json",
        "[]": "tokenizer.json",
        '{"class": 5, "content": "x"}': "expected the full name",
        '{"kind": "character"}': "alphabet",
        '{"kind": "character", "alphabet": "a"}': "it has 1 tokens",
        '{"kind": "character", "alphabet": ["a", "b"]}': "no text",
    }.items():
        run.tokenizer.write_text(content)
        refuses(call("sample", run.id), str(run.path), fact)
    run.tokenizer.write_text(good)
    summary = run.path / "summary.json"
    whole, spec = json.loads(summary.read_text()), run.summary().spec
    for damaged in ("language", {"task": "language"}, {**spec, "outputs": "many"}, {**spec, "input_shape": []}):
        summary.write_text(json.dumps(whole | {"spec": damaged}))
        refuses(call("sample", run.id), str(run.path))
    summary.write_text(json.dumps(whole))
    run.tokenizer.unlink()
    refuses(call("sample", run.id), "tokenizer.json")


def test_words_that_are_unknown_are_told(here: Path, call: Call) -> None:
    run, _ = train(call, *TINY, "dataset.tokenizer=word", "trainer.figures=false")
    done = call("sample", run.id, "--prompt", "The dog barks", "--tokens", "5")
    assert done.code == 0
    says(done.err, "`The dog <unk>`")
    assert done.out.startswith("The dog barks ")
    assert "unk" not in call("sample", run.id, "--prompt", "The dog", "--tokens", "5").err


def test_a_run_that_is_not_of_language_says_so(here: Path, call: Call) -> None:
    call("train", "trainer.epochs=0.1", "tracking.enabled=false", "trainer.figures=false")
    run = all_runs()[-1]
    done = call("sample", run.id)
    refuses(done, "no language model (classification)", f"dlrun predict {run.id}")
    assert not run.tokenizer.exists()


def test_a_reader_that_has_seen_enough_ends_it_quietly(here: Path, call: Call) -> None:
    run, _ = train(call, *TINY, "trainer.figures=false")
    command = [sys.executable, "-m", "dlrun", "sample", str(run.path), "--tokens", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy()) as process:
        assert process.stdout and process.stderr
        assert process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(timeout=120), process.stderr.read()) == (0, b"")


def test_a_model_of_counts_writes_too(here: Path, call: Call) -> None:
    counted = ("model=ngram", "optimizer=counting", "trainer.batch_size=null", "trainer.steps=1")
    run, _ = train(call, *counted, "trainer.figures=false")
    says(call("sample", run.id, "--prompt", "The", "--temperature", "0", "--tokens", "30").out, "The cat sat on the")
    assert run.summary().cost == {}, "what counting computes is not known"


def test_the_head_speaks_of_tokens_and_of_the_first_loss(here: Path, call: Call) -> None:
    run, done = train(call, *TINY, "trainer.figures=false", "trainer.log_every=1")
    n = len(TEXT.encode())
    sizes = [int(word.replace(",", "")) for word in done.out.split("text: ")[1].split()[:6:2]]
    assert sum(sizes) == pytest.approx(n, abs=3)
    says(done.out, "test tokens, vocabulary 256", "24 of 8 × 16 tokens", "log(256), is 5.545")
    assert "The loss begins" not in done.err
    curves = journal.curves(run.journal)
    flop = run.summary().flop_per_step
    assert curves["cost/flop"][4] == (5, 5 * flop)
    samples_per_second, tokens = (curves[f"throughput/{of}_per_second"] for of in ("samples", "tokens"))
    assert [v for _, v in tokens] == pytest.approx([16 * v for _, v in samples_per_second])
    assert all(share > 0 for _, share in curves["cost/mfu"])
    cost, seconds = run.summary().cost, run.summary().train_seconds
    assert cost["flop"] == 24 * flop
    first = curves["cost/mfu"][0][1] / (samples_per_second[0][1] / 8 * flop)
    assert cost["mfu"] == pytest.approx(first * cost["flop"] / seconds, rel=0.01 + 0.001 / seconds)


LOUD = """
import torch

class Loud(torch.nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.table = torch.nn.Embedding(vocabulary, vocabulary)

    def forward(self, x):
        return 5 * self.table(x)
"""


def test_a_first_loss_far_above_a_guess_s_is_a_warning(here: Path, call: Call) -> None:
    (here / "loud_model.py").write_text(LOUD)
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "loud.yaml").write_text("_target_: loud_model.Loud\n")
    run, done = train(call, *TINY[2:], "model=loud", "trainer.figures=false")
    says(done.err, "above log(vocabulary)", "initial weights")
    # it knows no steps: it is asked about whole windows
    assert len(call("sample", run.id, "--tokens", "40").out.encode()) >= 40


def test_samples_are_kept_and_change_no_number(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.runs.samples.TOKENS", 40)
    monkeypatch.setattr("dlrun.runs.run._draw", lambda *_: None)
    often = (*TINY, "trainer.evaluate_every=2", "trainer.checkpoint_every=9", "model.dropout=0.1")
    run, done = train(call, *often)
    written = samples(run)
    assert 5 <= len(written) <= 10
    assert max(written) == 24
    assert all(len(text.encode()) >= 40 for text in written.values())
    assert f"written at step 24:\n  │ {visible(written[24].strip().splitlines()[0][:100])}" in done.out
    plain, quiet = train(call, *often, "trainer.figures=false")
    assert not samples(plain)
    assert "written at" not in quiet.out
    assert plain.summary().metrics == run.summary().metrics
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    write = Samples.write

    def terminated(self: Samples, step: int) -> None:
        write(self, step)
        if step == 14:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Samples, "write", terminated)
        assert call("train", *QUICK, *often).code == 143
    broken = all_runs()[-1]
    assert 0 < len(samples(broken)) < len(written)
    assert call("resume", broken.id).code == 0
    assert samples(broken) == written


def test_a_sample_that_fails_is_a_warning(here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.runs.run._draw", lambda *_: None)
    monkeypatch.setattr("dlrun.runs.samples.generate", lambda *_: 1 / 0)
    run, done = train(call, *TINY, "trainer.evaluate_every=2")
    assert done.err.count("No samples of text: ZeroDivisionError") == 1
    assert run.status() == "finished"
