"""Pairs of texts against pandas' reading of the same files, and batches against padding by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from dlrun.config.instantiate import make_tokenizer
from dlrun.datasets.language.pairs.split import PairSplit
from dlrun.datasets.language.pairs.text_pairs import text_pairs
from dlrun.datasets.samples.collate import Pad
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.written_numbers import english, french
from dlrun.engine.batches import Batches
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import UserError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.metrics import error, exact_match
from dlrun.models.seq2seq import Seq2Seq
from dlrun.nests.batch import Batch
from dlrun.storage.lookup import all_runs
from dlrun.tokenizers.description import describe
from dlrun.tokenizers.pair import BEGIN, END, PADDING, PairTokenizer
from dlrun.types import IGNORE_INDEX, Data
from tests.conftest import Called
from tests.facts import says

CPU = torch.device("cpu")
ROWS = [(english(n), french(n)) for n in range(0, 2100, 21)]
WHOLE: dict[str, Any] = {"validation_size": 0, "test_size": 0}


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def parallel(folder: Path, name: str, rows: list[tuple[str, str]]) -> list[str]:
    return [
        write(folder / f"{name}.{side}", *texts)
        for side, texts in zip(("en", "fr"), zip(*rows, strict=True), strict=True)
    ]


def decoded(data: Data, split: str) -> list[tuple[str, str]]:
    part, pair = getattr(data, split), data.tokenizer
    assert isinstance(pair, PairTokenizer)
    batch = part.gather(torch.arange(len(part)))
    ours = PairTokenizer(pair.source, pair.source)
    return [(ours.decode(x), pair.decode(y)) for x, y in zip(batch.x["source"].tolist(), batch.y.tolist(), strict=True)]


def test_every_kind_of_file_is_what_pandas_reads(tmp_path: Path) -> None:
    # separators that are no line breaks, and quotes that are part of the text
    odd = [("a \u2028 b \x0c c", "d \x85 e"), ('"Hi," he said', 'il dit "salut"'), *ROWS]
    tabs = write(tmp_path / "pairs.tsv", *map("\t".join, odd))
    frame = pd.read_csv(tabs, sep="\t", header=None, quoting=csv.QUOTE_NONE, lineterminator="\n")
    expected = [*frame.itertuples(index=False, name=None)]
    assert expected == odd
    frame.columns = ["en", "fr"]
    frame.assign(n=1).to_csv(tmp_path / "p.csv", index=False)
    columns: dict[str, str | int] = {"source": "en", "target": "fr"}
    records = [{"id": i, "translation": {"en": one, "fr": other}} for i, (one, other) in enumerate(odd)]
    given: list[dict[str, Any]] = [
        {"path": tabs},
        {"path": write(tmp_path / "h.txt", "fr\tn\ten", *(f"{fr}\t1\t{en}" for en, fr in odd)), "columns": columns},
        {"path": tabs, "columns": {"source": 0, "target": 1}},
        {"path": str(tmp_path / "p.csv"), "columns": columns},
        {"path": write(tmp_path / "p.jsonl", *map(json.dumps, records)), "columns": columns},
        {"path": parallel(tmp_path, "corpus", odd)},
    ]
    found = [text_pairs(**one, **WHOLE, tokenizer="character") for one in given]
    for data in found:
        assert decoded(data, "train") == expected
        assert data.fingerprint == found[0].fingerprint
    back = text_pairs(path=tabs, columns={"source": 1, "target": 0}, tokenizer="byte", **WHOLE)
    assert decoded(back, "train") == [(fr, en) for en, fr in expected]


def test_splits_are_given_or_drawn(tmp_path: Path) -> None:
    parts = {"train": ROWS[:60], "validation": ROWS[60:80], "test": ROWS[80:]}
    files: dict[str, Any] = {f"{split}_path": parallel(tmp_path, split, rows) for split, rows in parts.items()}
    given = text_pairs(**files, tokenizer="word", shared=True)
    marked = [f"{one}\t{other}\t{split}" for split, rows in parts.items() for one, other in rows]
    column = text_pairs(
        path=write(tmp_path / "all.tsv", "source\ttarget\tsplit", *marked), tokenizer="word", shared=True
    )
    assert given.fingerprint == column.fingerprint
    for split, rows in parts.items():
        assert len(getattr(given, split)) == len(rows)
    pair = given.tokenizer
    assert isinstance(pair, PairTokenizer)
    # the vocabulary is of the training texts, and the same of both sides
    assert pair.source.content() == pair.target.content()
    assert decoded(given, "train") == parts["train"]
    again = make_tokenizer(json.loads(json.dumps(describe(pair))))
    assert again.encode(ROWS[0][0]) == pair.encode(ROWS[0][0])
    drawn = text_pairs(path=parallel(tmp_path, "whole", ROWS), tokenizer="byte", split_seed=1)
    sizes = [len(getattr(drawn, split)) for split in parts]
    assert sizes == [80, 10, 10]
    assert sorted(row for split in parts for row in decoded(drawn, split)) == sorted(ROWS)
    folds = [
        text_pairs(path=parallel(tmp_path, "whole", ROWS), tokenizer="byte", folds=4, fold=k, test_size=0)
        for k in range(4)
    ]
    assert sorted(row for one in folds for row in decoded(one, "validation")) == sorted(ROWS)


@pytest.mark.parametrize(
    ("lines", "others", "options", "facts"),
    [
        (["a", "b"], ["c"], {}, ["2 lines", "1:"]),
        (["a", ""], ["c", "d"], {}, ["line 2 has an empty source", "skip_empty=true"]),
        (["a\tb", "c"], None, {}, ["line 2 has 1 text", "the first has 2"]),
        (["a\tb\tc"], None, {}, ["0, 1, 2", "which one is the source", "{source: 0}"]),
        (["a"], None, {}, ["has no tab", "[pairs.txt,OTHER]"]),
        (["a\tb"] * 9, None, {"columns": {"sauce": 0}}, ["no `sauce`", "Did you mean `source`"]),
        (["a\tb"] * 9, None, {"test_size": 30}, ["dataset.test_size=30"]),
        (["a\tb"] * 9, None, {"shared": True, "target_tokenizer": "byte"}, ["target_tokenizer"]),
    ],
    ids=range(8),
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, lines: list[str], others: list[str] | None, options: dict[str, Any], facts: list[str]
) -> None:
    path: Any = write(tmp_path / "pairs.txt", *lines)
    path = path if others is None else [path, write(tmp_path / "others.txt", *others)]
    with pytest.raises(UserError) as refused:
        text_pairs(path=path, **options)
    says(str(refused.value), *facts)


def test_encodings_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "l.tsv").write_bytes("a\tb\né\tü\n".encode("latin1"))
    (tmp_path / "u.tsv").write_bytes("a\tb\n".encode("utf-16"))
    for name, facts in (("l.tsv", ["line 2", "iconv -f latin1"]), ("u.tsv", ["UTF-16", "iconv"])):
        with pytest.raises(UserError) as refused:
            text_pairs(path=str(tmp_path / name))
        says(str(refused.value), *facts)


def by_hand(pair: PairTokenizer, rows: list[tuple[str, str]]) -> Batch:
    """A batch as `Pad` makes it."""
    samples = []
    for one, other in rows:
        target = torch.tensor(pair.encode_target(other))
        shifted = torch.cat([torch.tensor([BEGIN]), target[:-1]])
        samples.append(Batch({"source": torch.tensor(pair.encode(one)), "shifted": shifted}, target))
    return Pad(value=PADDING)(samples)


def test_batches_are_padded_to_their_longest_and_of_like_lengths(tmp_path: Path) -> None:
    data = text_pairs(path=parallel(tmp_path, "c", ROWS), tokenizer="character", **WHOLE)
    pair, split = data.tokenizer, data.train
    assert isinstance(pair, PairTokenizer)
    assert isinstance(split, PairSplit)
    index = torch.tensor([7, 3, 99])
    found, expected = split.gather(index), by_hand(pair, [ROWS[i] for i in index.tolist()])
    assert all(torch.equal(a, b) for a, b in zip(found.tensors(), expected.tensors(), strict=True))
    assert found.x["source"][0].tolist()[len(ROWS[7][0])] == END
    batches = Batches(split, size=10, seed=0, device=CPU)
    seen = [next_batch for next_batch, _ in zip(batches.start(0), range(10), strict=False)]
    sums = [(batch.x["source"] != PADDING).sum(1) + (batch.y != IGNORE_INDEX).sum(1) for batch in seen]
    # sorted by the tokens of a pair, ten by ten
    ends = sorted((int(each.min()), int(each.max())) for each in sums)
    assert all(one[1] <= other[0] for one, other in pairwise(ends))
    assert sorted(torch.cat(sums).tolist()) == sorted(split.lengths.tolist())
    # a run that is resumed has the same batches, the same padding too
    for a, b in zip(seen[4:], batches.start(4), strict=False):
        assert all(torch.equal(one, other) for one, other in zip(a.tensors(), b.tensors(), strict=True))


def test_averages_are_of_tokens_and_a_match_is_what_is_generated() -> None:
    torch.manual_seed(0)
    model = Seq2Seq({"source": (None,), "shifted": (None,)}, 30, 20, width=32, heads=2, layers=1).eval()
    source, lengths = torch.randint(3, 20, (40, 7)), torch.randint(1, 6, (40,))
    words = model.generate(source, longest=5).clone()
    # of every third answer the last token is another one
    words[torch.arange(0, 40, 3), lengths[::3] - 1] += 1
    y = words.where(torch.arange(5) < lengths[:, None], IGNORE_INDEX)
    shifted = torch.cat([torch.full((40, 1), BEGIN), words[:, :-1]], 1)
    split = TensorSplit({"source": source, "shifted": shifted}, y)
    objective, metrics = Objective(model, cross_entropy), {"error": error, "exact_match": exact_match}
    sizes = {size: evaluate(objective, metrics, split, batch_size=size, device=CPU) for size in (7, 40)}
    assert sizes[7] == pytest.approx(sizes[40], rel=1e-5)
    with torch.no_grad():
        each = nn.functional.cross_entropy(model(split.x).transpose(1, 2), y, reduction="none")
    assert sizes[7]["loss"] == pytest.approx(float(each[y != IGNORE_INDEX].mean()), rel=1e-5)
    assert sizes[7]["exact_match"] == pytest.approx(26 / 40)


def copied(model: Seq2Seq) -> nn.Transformer:
    """PyTorch's transformer with the weights of a model."""
    sizes = {"d_model": 32, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 128}
    options: dict[str, Any] = {
        "dropout": 0.0,
        "activation": "gelu",
        "batch_first": True,
        "norm_first": True,
        "bias": False,
    }
    oracle: Any = nn.Transformer(**sizes, **options)
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith(("encoder.", "decoder.")):
            state[
                name.replace(".", ".layers.", 1)
                .replace("feedforward.hidden", "linear1")
                .replace("feedforward.out", "linear2")
            ] = value

    def take(theirs: str, ours: str) -> None:
        parts = [
            state.pop(key) for key in (f"{ours}.qkv.weight", f"{ours}.q.weight", f"{ours}.kv.weight") if key in state
        ]
        state[f"{theirs}.in_proj_weight"] = torch.cat(parts)
        state[f"{theirs}.out_proj.weight"] = state.pop(f"{ours}.out.weight")

    for layer in range(2):
        take(f"encoder.layers.{layer}.self_attn", f"encoder.layers.{layer}.attention")
        take(f"decoder.layers.{layer}.self_attn", f"decoder.layers.{layer}.attention")
        take(f"decoder.layers.{layer}.multihead_attn", f"decoder.layers.{layer}.of_source")
    state |= {"encoder.norm.weight": model.norm_source.weight, "decoder.norm.weight": model.norm.weight}
    oracle.load_state_dict(state)
    return oracle.eval()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_model_is_torch_s_transformer_with_its_own_positions() -> None:
    torch.manual_seed(0)
    model = Seq2Seq({"source": (None,), "shifted": (None,)}, 30, 20, width=32, heads=2, tied=False).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    source, words = torch.randint(3, 20, (3, 7)), torch.randint(3, 30, (3, 5))
    source[1, 4:] = PADDING
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)

    def placed(embedded: Tensor) -> Tensor:
        at = torch.arange(embedded.shape[1])[:, None]
        angles = at / 10_000 ** (torch.arange(0, 32, 2) / 32)
        waves = torch.zeros(embedded.shape[1], 32)
        waves[:, 0::2], waves[:, 1::2] = angles.sin(), angles.cos()
        return embedded * 32**0.5 + waves

    masks = {"tgt_mask": later, "src_key_padding_mask": source == PADDING, "memory_key_padding_mask": source == PADDING}
    with torch.no_grad():
        seen = copied(model)(placed(model.source(source)), placed(model.embedding(words)), **masks)
        found = model({"source": source, "shifted": words})
        assert torch.allclose(found, seen @ model.head.weight.T, atol=1e-5)
        # how much padding follows changes nothing, and the cache of keys and values neither
        longer = torch.cat([source, torch.zeros(3, 9, dtype=torch.int64)], 1)
        assert torch.allclose(model({"source": longer, "shifted": words}), found, atol=1e-5)
        answer = model.generate(source, longest=6)
        begun = torch.cat([torch.full((3, 1), BEGIN), answer[:, :-1]], 1)
        best = model({"source": source, "shifted": begun}).argmax(2)
    assert torch.equal(answer.where(answer != PADDING, best), best)


RUN = ["model=seq2seq", "model.width=32", "model.layers=1", "trainer.steps=3", "trainer.batch_size=16"]
RUN += ["dataset=text_pairs", "dataset.path=[c.en,c.fr]", "dataset.tokenizer=word", "trainer.evaluate_every=2"]
RUN += ["tracking.enabled=false", "trainer.figures=false"]


def test_a_run_answers_lines_with_texts_and_its_data_are_shown(here: Path, call: Callable[..., Called]) -> None:
    parallel(here, "c", ROWS)
    done = call("train", *RUN)
    assert done.code == 0, done.err
    [run] = all_runs()
    lines = [english(77), "", f"  {english(3)} "]
    write(here / "new.txt", *lines)
    done = call("predict", run.id, "new.txt", "--output", "answers.txt")
    assert done.code == 0, done.err
    answers = (here / "answers.txt").read_text().split("\n")
    assert (len(answers), answers[1], answers[3]) == (4, "", "")
    assert all(word in " ".join(french for _, french in ROWS).split() for word in answers[0].split() if word != "<unk>")
    write(here / "new.jsonl", *(json.dumps({"source": line}) for line in lines))
    for name in ("new.jsonl", "new.txt"):
        done = call("predict", run.id, name, "--output", "answers.jsonl")
        assert done.code == 0, done.err
        told = [json.loads(line)["prediction"] for line in (here / "answers.jsonl").read_text().splitlines()]
        assert told == answers[:3]
    assert call("predict", run.id, "new.txt").out.splitlines()[:1] == ["prediction"]
    assert call("predict", run.id, "new.txt", "--output", "a.npz").code == 2
    shown = call("data", "text_pairs", "dataset.path=[c.en,c.fr]", "dataset.tokenizer=word", "--look")
    says(shown.out, "80 training, 10 validation, 10 test", "vocabulary", "→")
    refused = call("train", *RUN, "model=mlp", "~model.width", "~model.layers")
    assert refused.code == 2


def test_a_run_resumes_exactly(here: Path, verify_resume: Callable[..., Called]) -> None:
    parallel(here, "c", ROWS)
    done = verify_resume(*RUN, "model.dropout=0.1")
    assert done.code == 0, done.out + done.err
