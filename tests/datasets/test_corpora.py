"""Corpora: cut by position, tokenised once, every byte counted; files that are text, and files that are not."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import tokenizers as library
import torch

from dlrun.datasets import from_text
from dlrun.datasets import tinyshakespeare as tinyshakespeare_file
from dlrun.datasets import wikitext2 as wikitext2_file
from dlrun.datasets.files.sources import TINYSHAKESPEARE, WIKITEXT2, File
from dlrun.datasets.language import corpus, text_files, token_cache
from dlrun.datasets.language.corpus import Passage, StringText, cut_by_position
from dlrun.datasets.language.from_text import from_tokens
from dlrun.datasets.language.token_cache import tokenizer_of, tokens_of
from dlrun.datasets.language.windows import Streams, Windows
from dlrun.datasets.stdlib import stdlib
from dlrun.datasets.text import text as text_of
from dlrun.datasets.tinyshakespeare import tinyshakespeare
from dlrun.datasets.wikitext2 import wikitext2
from dlrun.errors import ConfigError, DataError
from dlrun.tokenizers.by_name import NAMES as KINDS
from dlrun.tokenizers.byte import Byte
from dlrun.types import Data
from tests.conftest import Called
from tests.facts import refuses, says

REAL = Path(os.environ.get("DLRUN_DATA", "/nowhere"))
WORDS = ["the", "quick", "brown", "fox,", "jumps", "över", "lazy", "🦊", "dogs", "in", "1859!", "don't", "\r\n"]


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"no {name}: set DLRUN_DATA to where {name}/ is")


def prose(n: int, seed: int = 0) -> str:
    """`n` random words, with some line breaks."""
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice("  \n") for _ in range(n))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DLRUN_DATA", str(tmp_path / "data"))
    return tmp_path / "cache"


def windows(data: Data, part: str = "train") -> Windows:
    split = getattr(data, part)
    found = split.windows if isinstance(split, Streams) else split
    assert isinstance(found, Windows)
    return found


def text_in(data: Data, part: str) -> str:
    assert data.tokenizer is not None
    return data.tokenizer.decode(windows(data, part).tokens.tolist())


# the parts of a text


@pytest.mark.parametrize("n", [10, 11, 30, 997, 1_115_394])
def test_a_tenth_is_cut_off_where_nanogpt_cuts(n: int) -> None:
    cut = cut_by_position(StringText("x" * n), validation_size=0.1, test_size=0)
    assert (cut["train"].stop, cut["validation"].stop) == (int(0.9 * n), n)
    assert "test" not in cut


def test_parts_lie_one_after_another() -> None:
    data = from_text("mine", "abcdefghijklmnopqrst", context=2, validation_size=0.25, test_size=4, tokenizer="byte")
    assert [text_in(data, part) for part in ("train", "validation", "test")] == ["abcdefghijk", "lmnop", "qrst"]
    assert (data.spec.task, data.spec.input_shape, data.spec.outputs, data.spec.vocabulary) == (
        "language",
        (2,),
        256,
        256,
    )
    first = data.train.gather(torch.tensor([0]))
    assert first.x.tolist() == [[97, 98]] and first.y.tolist() == [[98, 99]]


def test_own_parts_are_taken_as_they_are() -> None:
    data = from_text("mine", "abab" * 9, "acdc" * 9, context=4)
    assert data.test is None
    assert data.spec.vocabulary == 4  # an alphabet is that of training and validation
    assert text_in(data, "validation") == "acdc" * 9


def test_an_alphabet_knows_no_character_of_the_test() -> None:
    def made(test: str, **options):
        return from_text("mine", "abab" * 9, "acdc" * 9, test, context=4, **options)

    same, one, other = made("abcd" * 9), made("abez" * 9), made("abфы" * 9)
    alphabets = [data.tokenizer.content()["alphabet"] for data in (same, one, other) if data.tokenizer]
    assert alphabets == ["abcd"] * 3
    # nothing but that there are some is known of the others: they are one token, the last
    assert [data.spec.vocabulary for data in (same, one, other)] == [4, 5, 5]
    assert torch.equal(windows(one, "test").tokens, torch.tensor([0, 1, 4, 4] * 9))
    assert torch.equal(windows(one, "test").tokens, windows(other, "test").tokens)
    assert torch.equal(windows(one, "train").tokens, windows(same, "train").tokens)
    assert text_in(one, "test") == "ab��" * 9
    # the tokens do not stand for the text any more: no bits a byte
    assert windows(one, "test").bytes == 0 < windows(one, "validation").bytes == windows(same, "validation").bytes
    # a text without such characters is what it was
    assert same.tokenizer and same.tokenizer.content() == {"kind": "character", "alphabet": "abcd"}
    assert len({data.fingerprint for data in (same, one, other)}) == 3


def test_an_alphabet_that_is_cached_is_that_of_the_same_splits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.datasets.language.token_cache.SHORT", 10)
    tests = ("abez" * 9, "abcd" * 9, None, "abez" * 9)
    for validation in ("acdc" * 9, "acdz" * 9, None):
        for test in tests:
            made = from_text("mine", "abab" * 9, validation, test, context=4).tokenizer
            seen = {*"ab", *(validation or "")}
            unknown = {"unknown": True} if {*(test or "")} - seen else {}
            assert made and made.content() == {"kind": "character", "alphabet": "".join(sorted(seen))} | unknown


def test_a_vocabulary_is_that_of_the_training_part() -> None:
    data = from_text("mine", "to be " * 99, "to see " * 99, tokenizer="word", context=4)
    assert data.tokenizer is not None
    assert data.tokenizer.content()["words"] == ["<unk>", "<eos>", "be", "to"]
    assert (windows(data).bytes, windows(data, "validation").bytes) == (6 * 99 - 2, 0)  # of unknown words none is known
    one, other = (from_text("mine", prose(400), v, tokenizer="bpe", context=4) for v in (prose(90, 1), prose(90, 2)))
    assert one.tokenizer.content() == other.tokenizer.content()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_behind_the_first_token(kind: str) -> None:
    text = "é" + prose(600)
    size = {"vocabulary_size": 300} if kind == "bpe" else {}
    data = from_text("mine", text, tokenizer=kind, context=8, train_size=100, **size)  # type: ignore[arg-type]
    whole = from_text("mine", text, tokenizer=kind, context=8, **size)  # type: ignore[arg-type]
    assert data.tokenizer is not None and whole.tokenizer is not None
    first = {"character": 2, "byte": 1, "word": len(text.split()[0].encode())}.get(kind)
    if first is None:
        first = len(library.Tokenizer.from_str(json.dumps(whole.tokenizer.content()["model"])).encode(text).tokens[0])
    assert windows(whole).bytes == len(text.encode()) - first
    assert data.tokenizer.content() == whole.tokenizer.content()
    assert windows(data).tokens.tolist() == windows(whole).tokens.tolist()[:100]
    if kind == "character":
        assert windows(data).bytes == len(text[1:100].encode())
    if kind == "byte":
        assert windows(data).bytes == 99


def test_a_tokenizer_of_ones_own_will_do() -> None:
    class Halves:
        size = 2

        def encode(self, text: str) -> list[int]:
            return [int(character > "m") for character in text]

        def decode(self, tokens: Any) -> str:
            return "".join("az"[token] for token in tokens)

        def content(self) -> dict[str, Any]:
            return {"kind": "halves"}

    data = from_text("mine", "azbykx" * 3, tokenizer=Halves(), context=4)
    assert text_in(data, "train") == "azazaz" * 3
    assert windows(data).bytes == 0


def test_the_fingerprint_is_of_what_is_predicted_and_not_of_the_windows() -> None:
    def of(text: str = prose(99), **changes: Any) -> str:
        return from_text("mine", text, **{"context": 8, "validation_size": 0.3, **changes}).fingerprint

    assert of() == of(context=16) == of(stride=2) == of(streams=3)
    changed = [of(prose(99, 1)), of(validation_size=0.4), of(tokenizer="byte"), of(train_size=50), of(test_size=0.1)]
    assert len({of(), *changed}) == 6


def test_tokens_make_a_data_set_too() -> None:
    tokens = torch.arange(40, dtype=torch.int16) % 7
    data = from_tokens("mine", tokens, tokens[:9], context=8, streams=2)
    assert data.spec.vocabulary == 7 and data.tokenizer is None
    assert isinstance(data.train, Streams)
    assert data.fingerprint != from_tokens("mine", tokens, tokens[:10], context=8).fingerprint


ABC = "abc" * 20
REFUSED: dict[str, tuple[Callable[[], Data], list[str]]] = {
    "context": (
        lambda: from_text("m", "abc", context=3),
        ["train split", "3 tokens", "need 4", "dataset.context=2 or less, or a longer text"],
    ),
    "validation": (
        lambda: from_text("m", ABC, context=8, validation_size=5),
        ["validation split", "5 tokens", "dataset.context=4 or less", "larger dataset.validation_size"],
    ),
    "one": (lambda: from_text("m", ABC, context=8, test_size=1), ["test split", "1 token;", "Give a longer text"]),
    "empty": (lambda: from_text("m", ""), ["is empty"]),
    "nothing left": (
        lambda: from_text("m", ABC, validation_size=50, test_size=10),
        ["leave nothing to train on", "60 characters"],
    ),
    "own split": (lambda: from_text("m", ABC, ABC, validation_size=0.1), ["has its own validation split"]),
    "tokenizer": (lambda: from_text("m", ABC, tokenizer="charcter"), ["Did you mean `character`?"]),
    "size": (lambda: from_text("m", ABC, vocabulary_size=9), ["has no meaning for dataset.tokenizer=character"]),
    "two sizes": (lambda: from_text("m", ABC, tokenizer=Byte(), vocabulary_size=9), ["has its own size"]),
    "train_size": (lambda: from_text("m", ABC, context=4, train_size=99), ["train_size=99: expected 1 to 60"]),
    "no train_size": (lambda: from_text("m", ABC, context=4, train_size=0), ["train_size=0: expected 1 to 60"]),
    "stride": (lambda: from_text("m", ABC, context=4, stride=5), ["dataset.stride=5"]),
    "range": (
        lambda: from_tokens("m", torch.arange(30), vocabulary=29, context=4),
        ["run from 0 to 29; expected 0 to 28"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_data_set_is_refused(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises((ConfigError, DataError)) as caught:
        make()
    says(str(caught.value), *words)


# the cache


@pytest.fixture
def all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "SHORT", 0)


def encodings(monkeypatch: pytest.MonkeyPatch) -> list[Passage]:
    """Record the passages encoded from now on."""
    seen: list[Passage] = []
    encode = token_cache.encode

    def counted(passage: Passage, *arguments: Any, **named: Any) -> Iterator[Any]:
        seen.append(passage)
        return encode(passage, *arguments, **named)

    monkeypatch.setattr(token_cache, "encode", counted)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_cached_tokens_are_those_of_the_text(kind: str, all_kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    passage = Passage.whole(StringText(prose(3000)))
    size = 300 if kind in ("bpe", "word") else None
    seen = encodings(monkeypatch)
    tokenizer = tokenizer_of(kind, passage, vocabulary_size=size)
    made, read = tokens_of(passage, tokenizer), tokens_of(passage, tokenizer_of(kind, passage, vocabulary_size=size))
    assert len(seen) == 1
    assert made.values.tolist() == read.values.tolist() == tokenizer.encode(passage.text.text)  # type: ignore[attr-defined]
    assert made.bytes == read.bytes > 0
    assert read.values.dtype == (torch.uint8 if tokenizer.size <= 256 else torch.int16)


@pytest.mark.parametrize("kind", ["character", "word", "bpe"])
def test_a_text_read_in_pieces_has_the_tokens_of_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = prose(65_000)
    size = 300 if kind == "bpe" else None
    monkeypatch.setattr(corpus, "PIECE", 10_007)
    passage = Passage.whole(StringText(text))
    tokenizer = tokenizer_of(kind, passage, vocabulary_size=size)
    if kind == "bpe":
        oracle = library.Tokenizer.from_str(json.dumps(tokenizer.content()["model"])).encode(text).ids
    else:
        oracle = tokenizer.encode(text)
    tokens = tokens_of(passage, tokenizer)
    assert torch.equal(tokens.values.long(), torch.tensor(oracle))
    assert len(text.encode()) - 12 < tokens.bytes < len(text.encode())


def test_a_large_vocabulary_is_indexed_gathered_and_mapped(all_kept: None) -> None:
    text = " ".join(map(str, range(40_000)))
    data = from_text("mine", text, tokenizer="word", context=64)
    tokens = windows(data).tokens
    assert tokens.dtype == torch.int32
    batch = data.train.gather(torch.tensor([600, 3]))
    assert batch.x[0].tolist() == tokens[600 * 64 : 601 * 64].long().tolist()
    assert batch.y[1].tolist() == tokens[3 * 64 + 1 : 4 * 64 + 1].long().tolist()


def test_what_is_of_no_use_in_the_cache_is_made_again(
    all_kept: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passage, tokenizer = Passage.whole(StringText(prose(99))), Byte()
    oracle = tokens_of(passage, tokenizer).values.tolist()
    seen = encodings(monkeypatch)
    for damage in (
        lambda path: path.write_bytes(b"cut"),
        lambda path: path.write_bytes(bytes(reversed(path.read_bytes()))),  # as large, and other tokens
        lambda path: path.with_suffix(".json").write_text("{"),
    ):
        (path,) = (cache / "tokens").glob("*.bin")
        damage(path)
        assert tokens_of(passage, tokenizer).values.tolist() == oracle
    assert len(seen) == 3
    assert not [path for path in (cache / "tokens").iterdir() if path.name.startswith(".")]


def test_a_cache_that_cannot_be_written_costs_time_only(
    all_kept: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / "file" / "cache"))
    data = from_text("mine", prose(99), tokenizer="word", context=8)
    assert text_in(data, "train").split() == prose(99).split()


def test_one_encodes_and_the_others_wait(all_kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, passage = encodings(monkeypatch), Passage.whole(StringText(prose(3000)))
    results: list[int] = []
    ask = [threading.Thread(target=lambda: results.append(len(tokens_of(passage, Byte()).values))) for _ in range(4)]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert len(seen) == 1 and results == [len(prose(3000).encode())] * 4


# files


def write(folder: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_files_are_one_text_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    write(folder, b_txt=b"\xef\xbb\xbfsecond\r\n", a__z_md="fïrst".encode(), c_txt=b"", d_txt=b"third\n", _git=b"\0")
    write(folder, _hidden__x_txt=b"no")
    data = text_of(path=str(folder), tokenizer="character", context=2, validation_size=0, test_size=0)
    assert text_in(data, "train") == "fïrst\nsecond\r\nthird\n"
    assert data.notes["files"] == 3
    only = text_of(path=str(folder), endings=[".txt"], context=2, validation_size=0, test_size=0)
    assert text_in(only, "train") == "second\r\nthird\n"
    one = text_of(path=str(folder / "a" / "z.md"), context=2, validation_size=0, test_size=0)
    assert text_in(one, "train") == "fïrst"


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_files_are_read_from_any_place_on(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_CHUNK", chunk)
    contents = ["né🦊", "\r\n", "", "漢字\n", "\ufeffx", "a\ufeff"]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}").write_text(content, encoding="utf-8", newline="")
    files = text_files.collect(sorted(tmp_path.glob("[0-9]")))
    whole = "né🦊\n\r\n漢字\nx\na\ufeff\n"
    assert len(files) == len(whole)
    assert files.content == hashlib.sha256(whole.encode()).hexdigest() == StringText(whole).content
    for start in range(len(whole)):
        for stop in range(start, len(whole) + 1):
            assert "".join(files.read(start, stop)) == whole[start:stop]


def test_what_was_found_out_about_files_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "book.txt"
    path.write_text("word " * 300_000)
    first = text_files.collect([path])
    with monkeypatch.context() as patched:
        patched.setattr(text_files, "pieces", None)
        assert text_files.collect([path]) == first
    path.write_text("next " * 300_001)
    assert text_files.collect([path]) != first


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("word " * 99)
    passage = Passage.whole(text_files.collect([path]))
    path.write_text("word")
    with pytest.raises(DataError, match="has changed while it was read"):
        tokens_of(passage, Byte())


LATIN = b"one two " * 2 + "é".encode("latin1") + b" three"
NO_TEXT: dict[str, tuple[dict[str, bytes], dict[str, Any], list[str]]] = {
    "no path": ({}, {}, ["needs a file or a folder", "dataset.path=book.txt"]),
    "not there": ({"book_txt": b"x"}, {"path": "bok.txt"}, ["does not exist", "Did you mean `book.txt`?"]),
    "empty": ({"book_txt": b""}, {"path": "book.txt"}, ["book.txt is empty"]),
    "binary": ({"book_txt": b"PNG\0"}, {"path": "book.txt"}, ["book.txt is not text", "byte 3 is zero"]),
    "latin": ({"book_txt": LATIN}, {"path": "book.txt"}, ["byte 16 (0xe9) is not UTF-8", "iconv"]),
    "cut": ({"book_txt": "é".encode()[:1]}, {"path": "book.txt"}, ["byte 0 (0xc3) is not UTF-8"]),
    "endings": (
        {"a__x_md": b"x", "a__y_md": b"x", "a__z_c": b"x"},
        {"path": "a", "endings": [".txt"]},
        ["has no file whose name ends with .txt", "There are: .md (2), .c (1)"],
    ),
    "one of them": (
        {"a__x_txt": b"x", "a__y_txt": LATIN},
        {"path": "a", "endings": [".txt"]},
        ["a/y.txt is not text", "byte 16"],
    ),
    "none of them": ({"a__x": b"\0", "a__y": b""}, {"path": "a"}, ["no file in the folder", "1 are not UTF-8"]),
    "no file": ({"a___x": b"x"}, {"path": "a"}, ["has no file"]),
}


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize("case", NO_TEXT)
def test_what_is_no_text_is_told(case: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_CHUNK", chunk)
    monkeypatch.chdir(tmp_path)
    contents, arguments, words = NO_TEXT[case]
    write(tmp_path, **contents)
    with pytest.raises((ConfigError, DataError)) as caught:
        text_of(**arguments)
    says(str(caught.value), *words)


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, a_txt=b"text\n", b_txt=LATIN, c_png=b"\x89\0")
    data = text_of(path=str(tmp_path), context=2, validation_size=0, test_size=0)
    assert text_in(data, "train") == "text\n"
    says(capsys.readouterr().out, "2 of 3 files", "b.txt", "byte 16 (0xe9)", "not UTF-8")


def test_the_standard_library_is_at_hand() -> None:
    data, more = (stdlib(size=size, context=32) for size in (100_000, 400_000))
    assert data.name == f"stdlib-{platform.python_version()}"
    lengths = [sum(len(windows(d, part).tokens) for part in ("train", "validation", "test")) for d in (data, more)]
    assert lengths[0] >= 100_000 and lengths[1] >= 400_000
    assert text_in(more, "train").startswith(text_in(data, "train")[:90_000])
    assert "def " in text_in(data, "test") and data.fingerprint != more.fingerprint
    with pytest.raises(ConfigError, match=r"dataset\.size=0"):
        stdlib(size=0)


# the sets of the menu, as twins and as they are


def listed(contents: dict[str, bytes], source: Any) -> Any:
    aliases = {file.name: file.aliases for file in source.files}
    files = (File(n, len(c), hashlib.sha256(c).hexdigest(), aliases[n]) for n, c in contents.items())
    return replace(source, files=tuple(files), mirrors=())


def test_a_twin_of_tiny_shakespeare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = prose(300)
    source = listed({"input.txt": text.encode()}, TINYSHAKESPEARE)
    monkeypatch.setattr(tinyshakespeare_file, "TINYSHAKESPEARE", source)
    with pytest.raises(DataError, match="lacks 1 of the 1 files"):
        tinyshakespeare()
    write(tmp_path / "data" / "tinyshakespeare", input_txt=text.encode())
    data = tinyshakespeare(context=8)
    assert "".join(text_in(data, part) for part in ("train", "validation", "test")) == text
    assert len(text_in(data, "train")) == len(text) - 2 * ceil(len(text) / 20)


@pytest.mark.parametrize(
    "names", [("train.txt", "valid.txt", "test.txt"), ("wiki.train.tokens", "wiki.valid.tokens.gz")]
)
def test_a_twin_of_wikitext2(names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {"train.txt": b" \n = A = \n b <unk> b \n", "valid.txt": b" b A \n", "test.txt": b" = b \n \n"}
    monkeypatch.setattr(wikitext2_file, "WIKITEXT2", listed(contents, WIKITEXT2))
    folder = tmp_path / "w"
    folder.mkdir()
    for name, content in zip((*names, "test.txt"), contents.values(), strict=False):
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = wikitext2(path=str(folder), context=2)
    assert data.spec.vocabulary == 5  # <unk> <eos> = b A
    assert text_in(data, "train") == "\n= A =\nb <unk> b\n"
    assert [windows(data, part).predicted for part in ("train", "validation", "test")] == [8, 2, 3]
    assert windows(data, "validation").bytes == len(b" A \n")


@needs("tinyshakespeare")
def test_tiny_shakespeare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_DATA", str(REAL))
    data = tinyshakespeare(validation_size=0.1, test_size=0)
    assert (len(windows(data).tokens), len(windows(data, "validation").tokens)) == (1_003_854, 111_540)
    assert data.spec.vocabulary == 65 and data.test is None
    thirds = tinyshakespeare()
    assert [windows(thirds, part).predicted + 1 for part in ("train", "validation", "test")] == [
        1_003_854,
        55_770,
        55_770,
    ]


@needs("wikitext2")
def test_wikitext2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_DATA", str(REAL))
    data = wikitext2()
    counts = [len(windows(data, part).tokens) for part in ("train", "validation", "test")]
    assert (data.spec.vocabulary, counts) == (33_278, [2_088_628, 217_646, 245_569])
    assert data.tokenizer is not None
    unknown = data.tokenizer.encode("<unk>")[0]
    assert unknown in windows(data).tokens and windows(data, "test").bytes > 1_256_000


# from the command line


def test_a_text_is_trained_on_from_the_command_line(call: Callable[..., Called], here: Path) -> None:
    (here / "book.txt").write_text(prose(2000), encoding="utf-8")
    quick = ("model=gpt", "model.size=nano", "trainer.fast=true", "tracking.enabled=false", "trainer.figures=false")
    done = call("train", "dataset=text", "dataset.path=book.txt", "dataset.context=16", *quick)
    assert done.code == 0, done.err
    refused = call("train", "dataset=text", "dataset.tokenizer=words", "dataset.path=book.txt", *quick)
    refuses(refused, "Did you mean `word`?")
    refuses(call("train", "dataset=text", *quick), "dataset.path=book.txt")
