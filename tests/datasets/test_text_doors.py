"""A text of one's own: its encoding, its splits, and what is no text to learn from."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dlrun.datasets import from_text
from dlrun.datasets.language.from_text import from_tokens
from dlrun.datasets.language.lines import read_lines
from dlrun.datasets.language.split_files import splits_by_name
from dlrun.datasets.text import text
from dlrun.errors import ConfigError, DataError, UserError
from dlrun.storage.lookup import all_runs
from dlrun.types import Data, Split
from tests.conftest import Called
from tests.facts import refuses, says

BOOK = "The cat sat on the mat. " * 40


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}: {BOOK}", encoding="utf-8")


def said(split: Split | None) -> str:
    assert split is not None
    return bytes(split.tokens.tolist()).decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_what_to_type(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "book.txt").write_bytes(BOOK.encode(encoding))
    with pytest.raises(DataError) as refused:
        text(path=str(tmp_path / "book.txt"))
    says(str(refused.value), f"iconv -f {encoding.replace('-le', 'le').replace('-be', 'be')} -t utf-8", "book.txt")


def test_a_compressed_text_is_named_with_what_to_type(tmp_path: Path) -> None:
    packed = tmp_path / "book.txt.gz"
    packed.write_bytes(gzip.compress(BOOK.encode()))
    for read in (lambda: text(path=str(packed)), lambda: read_lines(packed)):
        with pytest.raises(DataError) as refused:
            read()
        says(str(refused.value), "is compressed", f"gunzip -k {packed}")


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(BOOK.encode("utf-8-sig"))
    marked = text(path=str(tmp_path / "book.txt"), tokenizer="character", context=8)
    plain = from_text("text", BOOK, tokenizer="character", context=8, validation_size=0.05, test_size=0.05)
    assert marked.spec.vocabulary == plain.spec.vocabulary == len({*BOOK})
    assert from_text("text", "\ufeff" + BOOK).spec.vocabulary == len({*BOOK})


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: from_text("a", "aaaa" * 99, tokenizer="character"), ["single symbol", "dataset.tokenizer"]),
        (lambda: from_text("a", BOOK + "\udce9"), ["character 960", "U+DCE9"]),
        (lambda: from_text("a", b"bytes"), ["a bytes; expected a str"]),
        (lambda: from_tokens("a", torch.zeros(99, dtype=torch.int64)), ["single symbol"]),
        (lambda: from_tokens("a", "text"), ["train tokens", "str"]),
    ],
    ids=range(5),
)
def test_what_no_model_could_learn_from_is_refused(make: Callable[[], Data], facts: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        make()
    says(str(refused.value), *facts)


def test_tokens_may_be_an_array() -> None:
    tokens = np.arange(200)[::-1] % 7
    assert from_tokens("a", tokens).train.tokens.tolist() == tokens.tolist()  # type: ignore[attr-defined]


def test_a_text_of_one_symbol_in_bytes_is_fine() -> None:
    assert from_text("a", "a" * 400, tokenizer="byte").spec.vocabulary == 256


TRAIN_ONLY = ["train.txt", "a.txt"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.txt", "valid.txt", "test.txt"], {"train": [0], "validation": [1], "test": [2]}),
        (["Train.txt", "dev.txt"], {"train": [0], "validation": [1]}),
        (["wiki.train.tokens", "wiki.test.tokens", "README.md"], {"train": [0], "test": [1]}),
        (["a_training.txt", "a_val.txt"], {"train": [0], "validation": [1]}),
        (
            ["train-00000-of-00002.txt", "train-00001-of-00002.txt", "test-00000-of-00001.txt"],
            {"train": [0, 1], "test": [2]},
        ),
        (["train/1.txt", "train/2.txt", "validation/1.txt"], {"train": [0, 1], "validation": [2]}),
        (TRAIN_ONLY, None),
        (["one.txt", "two.txt"], None),
        (["test_utils.py", "core.py"], None),
        (["lib/test.py", "lib/core.py"], None),
        (["test/a.py", "core.py"], None),
    ],
)
def test_files_are_splits_by_their_names(
    tmp_path: Path, names: list[str], expected: dict[str, list[int]] | None
) -> None:
    found = splits_by_name(tmp_path, [tmp_path / name for name in names])
    wanted = expected and {split: [tmp_path / names[i] for i in places] for split, places in expected.items()}
    assert found == wanted


@pytest.mark.parametrize(
    ("names", "facts"),
    [
        (["book.txt", "test.txt"], ["test.txt", "book.txt", "dataset.splits_by_name=false", "dataset.train_path=…"]),
        (["train.txt", "valid.txt", "more.txt"], ["more.txt", "dataset.validation_path="]),
        (["valid.txt", "test.txt"], ["dataset.test_path="]),
    ],
)
def test_names_that_are_splits_in_part_are_asked_about(tmp_path: Path, names: list[str], facts: list[str]) -> None:
    write(tmp_path, *names)
    with pytest.raises(DataError) as refused:
        text(path=str(tmp_path), splits_by_name=True)
    says(str(refused.value), *facts)
    joined = text(path=str(tmp_path))  # as runs of before there was the key
    assert joined.notes["files"] == len(names)


def test_the_splits_of_a_folder_share_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "train.txt", "valid.txt", "test.txt")
    data = text(path=str(tmp_path), splits_by_name=True)
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        assert said(getattr(data, split)) == f"{name}.txt: {BOOK}"
    says(capsys.readouterr().out, "train.txt for train", "valid.txt for validation", "splits_by_name=false")
    given = text(
        train_path=str(tmp_path / "train.txt"),
        validation_path=str(tmp_path / "valid.txt"),
        test_path=str(tmp_path / "test.txt"),
    )
    assert given.fingerprint == data.fingerprint
    (tmp_path / "valid.txt").unlink()
    part = text(path=str(tmp_path), splits_by_name=True, validation_size=0.25)
    whole = f"train.txt: {BOOK}"
    assert said(part.test) == f"test.txt: {BOOK}"
    assert said(part.train) + said(part.validation) == whole
    assert len(said(part.validation)) == -(-len(whole) // 4)


def test_a_file_is_in_one_split(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    book = str(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt is in the train and in the test split"):
        text(path=book, test_path=book)
    with pytest.raises(ConfigError, match=r"dataset\.train_path"):
        text(path=book, train_path=book)
    with pytest.raises(DataError, match=r"dataset\.test_path: .* does not exist"):
        text(path=book, test_path=str(tmp_path / "b.txt"))
    with pytest.raises(UserError, match=r"dataset\.path=book\.txt"):
        text(test_path=book)


def test_a_run_and_its_resume_read_the_splits(here: Path, call: Callable[..., Called]) -> None:
    write(here / "books", "train.txt", "test.txt")
    quick = ("tracking.enabled=false", "trainer.figures=false", "trainer.batch_size=4", "dataset.context=8")
    done = call("train", "dataset=text", "dataset.path=books", "model=gpt", "model.size=1", "trainer.steps=2", *quick)
    assert done.code == 0, done.err
    says(done.out, "train.txt for train")
    run = all_runs()[-1]
    assert call("resume", run.id, "trainer.steps=3").code == 0
    refused = call("sample", run.id, "--prompt", "caf\udce9")
    refuses(refused, "0xe9", "UTF-8")
    write(here / "books", "more.txt")
    refuses(call("train", "dataset=text", "dataset.path=books", *quick), "dataset.splits_by_name=false")
