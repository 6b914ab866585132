"""The benchmark of language models in small: the same maths on both sides, and a report of what was found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import gpt, language, ranks
from benchmarks.alternation import Cost
from dlrun.schedules.curves import cosine

SMALL = gpt.Recipe(layers=2, heads=2, width=16, context=8, batch_size=3, warmup=4, steps=20)


def copied(plain: nn.Module, ours: nn.Module) -> None:
    """Give the plain model the weights of dlrun's, layer for layer."""
    names = {"embedding": "wte", "positions": "wpe", "blocks": "h", "head": "lm_head"}
    inner = {"norm1": "ln_1", "norm2": "ln_2", "attention.qkv": "c_attn", "attention.out": "c_proj"}
    inner |= {"feedforward.hidden": "c_fc", "feedforward.out": "c_out"}
    state = {}
    for name, value in ours.state_dict().items():
        first, _, rest = name.partition(".")
        if first == "blocks":
            i, _, rest = rest.partition(".")
            name = f"h.{i}." + next(f"{new}.weight" for old, new in inner.items() if rest == f"{old}.weight")
        else:
            name = f"{names.get(first, 'ln_f')}.{rest}"
        state[name] = value
    plain.load_state_dict(state)


def test_both_models_are_one_function() -> None:
    plain, ours = language.plain(SMALL), language.model(SMALL)
    copied(plain, ours)
    x = torch.randint(0, 65, (3, 8))
    torch.testing.assert_close(plain(x), ours(x))
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in ours.parameters())


def test_both_loops_do_the_same_maths(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a text of one window, of which every batch is made, the weights come out the same."""
    data = torch.randint(0, 65, (9,))
    plain, ours = language.plain(SMALL), language.model(SMALL)
    copied(plain, ours)
    recipe = gpt.Recipe(**{**vars(SMALL), "batch_size": 1})
    gpt.train(plain, data, recipe, 8)
    # the same rate: nanoGPT's warm-up begins at 1/(warmup + 1), dlrun's at 1/warmup
    monkeypatch.setattr(language, "cosine", lambda step, *_, **__: gpt.get_lr(step, recipe) / recipe.lr)
    language.ours(recipe, ours, data, 8)
    again = language.plain(SMALL)
    copied(again, ours)
    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_schedules_agree_after_the_warm_up() -> None:
    for step in (4, 10, 19):
        assert cosine(step, 20, warmup=4, floor=0.1) == pytest.approx(gpt.get_lr(step, SMALL) / SMALL.lr, rel=0.05)


def test_a_batch_is_windows_and_what_follows() -> None:
    x, y = gpt.get_batch(torch.arange(100), 8, 5)
    assert torch.equal(x + 1, y) and x.shape == (5, 8)


def test_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_DATA", "nowhere")
    threads = torch.get_num_threads()
    section = language.measure(quick=True, threads=1)
    assert torch.get_num_threads() == threads
    assert len(section.figures) == 6 and "random characters" in section.notes and "1 thread." in section.notes


def test_more_tokens_a_second_is_more_than_one() -> None:
    costs = {"nanoGPT": [Cost(2.0, 2.0)] * 3, "loop": [Cost(1.5, 1.5)] * 3, "dlrun": [Cost(1.0, 1.6)] * 3}
    found = {figure.what: figure for figure in language.figures(costs, 10_000)}
    assert found["dlrun's loop and model"].value == "10.0 (10.0 to 10.0, n = 3)"
    assert found["dlrun / nanoGPT"].value.startswith("2.000") and found["dlrun / nanoGPT"].met
    assert found["dlrun / nanoGPT, tokens a CPU second"].value.startswith("1.250")
    slower = language.figures(costs | {"dlrun": [Cost(2.1, 1.6)] * 3}, 10_000)
    assert [figure.met for figure in slower if figure.target] == [False]


def test_samples_a_second_of_processes_are_compared_round_by_round() -> None:
    figures = ranks.figures_of("MLP, 2 processes", {"dlrun": [98.0, 50.0, 120.0], "ddp": [100.0, 100.0, 100.0]})
    assert [figure.value for figure in figures][2] == "0.98 (0.74 to 1.09, n = 3)"
    assert figures[2].met
