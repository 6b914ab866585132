"""Texts with labels, and JSON lines, against what the files say."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from dlrun.datasets.files.tabular.text_table import read_csv
from dlrun.datasets.language.labelled import read_texts
from dlrun.datasets.language.text_classification import text_classification
from dlrun.datasets.text import text
from dlrun.errors import ConfigError, DataError, UserError
from dlrun.models.text_classifier import TextClassifier
from dlrun.storage.lookup import all_runs
from dlrun.types import Data
from tests.conftest import Called
from tests.facts import refuses, says

DRAW = random.Random(0)
WORDS = ["film", "plot", "cast", "scene", "music"]
GOOD = [True, False, False, False] * 25
SAID = [f"{' '.join(DRAW.choices(WORDS, k=DRAW.randint(1, 6)))} {'great' if good else 'dull'}" for good in GOOD]
ROWS = [(f"{words} {i}!", "pos" if good else "neg") for i, (words, good) in enumerate(zip(SAID, GOOD, strict=True))]


def write_csv(path: Path, rows: Iterable[Iterable[object]], header: Iterable[str] = ("text", "label")) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*header], *map(list, rows)])
    return str(path)


def write_json(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def decoded(data: Data, split: str) -> list[str]:
    x = getattr(data, split).x
    assert data.tokenizer is not None
    return [data.tokenizer.decode([token - 1 for token in row if token]) for row in x.tolist()]


def test_texts_are_padded_tokens_of_the_training_vocabulary(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", ROWS)
    data = text_classification(path=path, length=6)
    assert data.spec.class_names == ("neg", "pos")
    assert (len(data.train), len(data.validation or ()), len(data.test or ())) == (80, 10, 10)
    for split, n in (("train", 80), ("validation", 10), ("test", 10)):
        y = getattr(data, split).y
        # three quarters are negative, to one sample
        assert abs(int((y == 0).sum()) - 0.75 * n) <= 1
    by_start = {" ".join(row.replace("!", " !").split()[:6]): label for row, label in ROWS}
    for split in ("train", "validation", "test"):
        for words, label in zip(decoded(data, split), getattr(data, split).y.tolist(), strict=True):
            if "<unk>" not in words:
                assert by_start[words] == data.spec.class_names[label]
    assert "<unk>" not in " ".join(decoded(data, "train"))
    assert (data.spec.vocabulary or 0) - 1 == data.tokenizer.size  # type: ignore[union-attr]
    whole = text_classification(path=path, length=40, simplify=False, validation_size=0, test_size=0)
    assert decoded(whole, "train") == [row for row, _ in ROWS]


def test_json_and_files_of_splits_are_the_same_samples(tmp_path: Path) -> None:
    parts = {"train": ROWS[:60], "validation": ROWS[60:80], "test": ROWS[80:]}
    paths = {f"{split}_path": write_csv(tmp_path / f"{split}.csv", rows) for split, rows in parts.items()}
    files = text_classification(**paths, length=8)  # type: ignore[arg-type]
    in_json = [{"review": t, "n": 0, "sentiment": y, "split": s} for s, rows in parts.items() for t, y in rows]
    one = text_classification(path=write_json(tmp_path / "all.jsonl", *in_json), length=8)
    assert one.fingerprint == files.fingerprint
    assert decoded(one, "test") == decoded(files, "test")
    assert {*one.sample_keys} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("header", "rows", "options", "facts"),
    [
        (["a", "b", "c"], [["x", "y", "z"]], {}, ["a, b, c", "which one is the text", "{text: a}"]),
        (["review", "text", "label"], [["x", "y", "z"]], {}, ["which one is the text", "{text: review}"]),
        (["text", "label"], [["x", ""]], {}, ["line 2 has no label"]),
        (["text", "label"], [["x", "1"], ["y"]], {}, ["line 3 has 1 cell"]),
        (["text", "label"], ROWS, {"columns": {"label": "stars"}}, ["no column `stars`", "text, label"]),
        (["text", "label"], ROWS, {"columns": {"labels": "label"}}, ["no `labels`", "Did you mean `label`"]),
        (["text", "label"], ROWS, {"length": 0}, ["dataset.length=0"]),
        (["text", "label"], ROWS, {"test_size": 300}, ["dataset.test_size=300"]),
    ],
    ids=range(8),
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, header: list[str], rows: list[list[str]], options: dict[str, object], facts: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        text_classification(path=write_csv(tmp_path / "r.csv", rows, header), **options)  # type: ignore[arg-type]
    says(str(refused.value), *facts)


def test_the_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = TextClassifier((9,), 3, 20, hidden=[8, 4], dropout=0.5).eval()
    x = torch.randint(1, 20, (5, 9))
    padded = torch.cat([x, torch.zeros(5, 30, dtype=torch.int64)], 1)
    assert torch.allclose(model(x), model(padded), atol=1e-6)
    by_hand = model.layers(model.embedding.weight[x].mean(1))
    assert torch.allclose(model(x), by_hand, atol=1e-6)
    assert model(torch.zeros(2, 9, dtype=torch.int64)).isfinite().all()
    with pytest.raises(ConfigError, match="dataset=text_classification"):
        TextClassifier((1, 8, 8), 10)


def test_a_run_learns_stacks_and_answers_for_new_texts(here: Path, call: Callable[..., Called]) -> None:
    write_csv(here / "r.csv", ROWS)
    arguments = ["dataset=text_classification", "dataset.path=r.csv", "dataset.length=12", "model=text_classifier"]
    arguments += ["optimizer.lr=0.01", "trainer.epochs=20", "tracking.enabled=false", "trainer.figures=false"]
    assert call("train", *arguments).code == 0
    run = all_runs()[-1]
    assert run.summary().metrics["test/error"] <= 0.1
    (here / "new.txt").write_text("A GREAT film!\nA dull plot.\n")
    write_json(here / "new.jsonl", {"text": "A GREAT film!"}, {"text": "A dull plot."})
    for name in ("new.txt", "new.jsonl"):
        rows = call("predict", run.id, name).out.split()
        assert rows[0] == "prediction,p(neg),p(pos)"
        assert [row.partition(",")[0] for row in rows[1:]] == ["pos", "neg"]
    looked = call("data", "text_classification", "dataset.path=r.csv", "dataset.length=12", "--look").out
    says(looked, "texts of at most 12 tokens", "neg 60 (75.0%)", "outputs/data/text_classification-r.png")
    refuses(call("train", *arguments[:3], "model=lstm"), "LSTM")
    (here / "empty.txt").write_text("")
    refuses(call("predict", run.id, "empty.txt"), "holds no texts")


def test_a_field_of_json_lines_is_a_text(tmp_path: Path) -> None:
    path = write_json(tmp_path / "book.jsonl", *({"text": row, "label": y} for row, y in ROWS))
    plain = tmp_path / "book.txt"
    plain.write_text("".join(f"{row}\n" for row, _ in ROWS))
    one, other = (text(path=str(p), context=8, **f) for p, f in ((path, {"field": "text"}), (plain, {})))  # type: ignore[arg-type]
    assert one.fingerprint == other.fingerprint
    assert one.train.tokens.tolist() == other.train.tokens.tolist()  # type: ignore[attr-defined]
    assert Counter(y for _, y in ROWS)["neg"] == 75
    for wanted, file in (("no field `txt`. Did you mean `text`", path), ("dataset.field=txt", str(plain))):
        with pytest.raises((DataError, ConfigError)) as refused:
            text(path=file, field="txt")
        says(str(refused.value), wanted)


def test_a_quote_takes_no_other_lines_and_an_empty_text_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{chr(34) * (i in (3, 8))}a film\t{i % 2}\n" for i in range(20)))
    with pytest.raises(DataError, match="line 5 cannot be read"):
        text_classification(path=str(path))
    (tmp_path / "new.csv").write_text('\ntext\na\n\n"b\nc"\n""\nd\n\n')
    assert read_texts(tmp_path / "new.csv", {}) == ["a", "", "b\nc", "", "d"]
    (tmp_path / "new.txt").write_text("a\u2028b\n\nc\n")
    assert read_texts(tmp_path / "new.txt", {}) == ["a\u2028b", "", "c"]


def test_labels_have_one_writing(tmp_path: Path) -> None:
    for labels, names in (
        (["1", "01", " 2 "], ("1", "2")),
        ([" a", "a ", "b"], ("a", "b")),
        (["01", "02"], ("01", "02")),
    ):
        rows = [{"text": f"w{i}", "label": labels[i % len(labels)]} for i in range(40)]
        one = text_classification(path=write_json(tmp_path / "r.jsonl", *rows))
        other = text_classification(path=write_csv(tmp_path / "r.csv", (row.values() for row in rows)))
        assert one.spec.class_names == other.spec.class_names == names


def test_rows_of_empty_cells_at_the_ends_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "r.csv", [("a", "b"), ("", ""), ("c", "d"), (" ", ""), ("", "")])
    assert read_csv(Path(path)).column("text") == ["a", "", "c"]
    says(capsys.readouterr().out, "2 rows of empty cells")


def test_labels_that_are_missing_or_nested_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, fact in ((float("nan"), "line 3 has no label"), ([1], "`label` has lists")):
        path = write_json(tmp_path / "r.jsonl", {"text": "a", "label": "x"}, {"text": "", "label": "y"})
        with Path(path).open("a") as file:
            file.write(json.dumps({"text": "b", "label": label}) + "\n")
        with pytest.raises(DataError, match=fact):
            text_classification(path=path)
    rows = [
        {"text": "a b" * (i > 0), "label": ["x", "NA"][i % 2], "split": ["train", "holdout"][i % 2]} for i in range(40)
    ]
    text_classification(path=write_json(tmp_path / "s.jsonl", *rows), test_size=0, validation_size=0)
    said = capsys.readouterr()
    says(
        said.out + said.err,
        "`split` is not taken",
        "'holdout'",
        "1 of 40 training texts are empty",
        "`NA`, the label of 20 rows",
    )
