"""Tokenizers: nothing is lost, portions are the whole, bytes add up, and mistakes are told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter

import pytest
import tokenizers as library

from dlrun.errors import ConfigError, UserError
from dlrun.tokenizers import by_name
from dlrun.tokenizers.bpe import Bpe
from dlrun.tokenizers.byte import Byte
from dlrun.tokenizers.character import Character
from dlrun.tokenizers.portions import PortionTokenizer, at_gaps
from dlrun.tokenizers.word import Word
from tests.facts import says

PLAIN = "It was the best of times, it was the worst of times;\nit's 1859 already, they'll say.\n" * 20
NASTY = {
    "emoji": "👩‍👩‍👧‍👦 and 🇳🇴\n",
    "line ends": "one\r\ntwo\rthree\n\n\r\n four",
    "zero": "a\0b\x01\x1f",
    "combining": "e\u0301 e\u0301\u0302 \u1112\u1161\u11ab",
    "spaces": "  \t\u00a0\u2003\u200b x   \n\n   ",
    "scripts": "漢字かな العربية עברית हिन्दी",
    "edges": "\ufeff\ufffd\U0010ffff",
    "empty": "",
}
LETTERS = "aZ9 \n\t\r\0'sé́🦊\u00a0\u2003.,!\u200b\x1c漢_~"


def made(kind: str, extra: str = "") -> Character | Byte | Word | Bpe:
    return by_name.fit(kind, [PLAIN], [extra], vocabulary_size=290 if kind == "bpe" else None)


@pytest.fixture(scope="module")
def bpe() -> Bpe:
    return Bpe.fit([PLAIN], 290)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
def test_any_text_comes_back_as_it_was(kind: str, text: str) -> None:
    tokenizer = made(kind, extra=text)
    tokens = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.size for token in tokens)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.bytes_of(text) == tokenizer.bytes_of(text, len(tokens)) == len(text.encode())


@pytest.mark.parametrize("kind", by_name.NAMES)
def test_a_tokenizer_is_made_again_from_its_content(kind: str) -> None:
    tokenizer = made(kind)
    again = by_name.load(json.loads(json.dumps(tokenizer.content())))
    assert again.size == tokenizer.size
    assert again.content() == tokenizer.content()
    assert again.encode(PLAIN) == tokenizer.encode(PLAIN)
    assert isinstance(again, PortionTokenizer)


def test_a_character_is_its_place_in_the_sorted_alphabet() -> None:
    tokenizer = Character.fit(["cab", "é"])
    assert (tokenizer.alphabet, tokenizer.size) == ("abcé", 4)
    assert tokenizer.encode("éba") == [3, 1, 0]
    with pytest.raises(UserError, match="'ж' \\(U\\+0436, CYRILLIC SMALL LETTER ZHE\\)") as caught:
        tokenizer.encode("aж")
    says(str(caught.value), "dataset.tokenizer=byte", "'abcé'")


def test_characters_outside_of_the_alphabet_share_a_token_if_there_is_one() -> None:
    tokenizer = Character.fit(["cab"], ["bad", "né"])
    assert (tokenizer.size, tokenizer.encode("cané")) == (4, [2, 0, 3, 3])
    assert tokenizer.decode([2, 0, 3]) == "ca\ufffd"
    again = by_name.load(tokenizer.content())
    assert again.content() == tokenizer.content() and again.encode("cané") == [2, 0, 3, 3]
    assert (tokenizer.bytes_of("cané", 2), tokenizer.bytes_of("cané")) == (2, None)
    assert Character.fit(["cab"], ["ab", ""]).content() == Character.fit(["cab"]).content()


def test_bytes_are_utf8_and_those_of_a_command_line_are_themselves() -> None:
    assert Byte().encode("né🦊") == list("né🦊".encode())
    assert Byte().encode(b"\xff\x61".decode(errors="surrogateescape")) == [255, 97]
    assert Byte().decode([255, 97]) == "\ufffda"


def test_words_are_the_most_frequent_of_the_text() -> None:
    text = "b b b a a c\nc a <unk> d\n"
    counts = Counter(word for line in text.splitlines() for word in line.split())
    tokenizer = Word.fit([text])
    assert tokenizer.words[:2] == ["<unk>", "<eos>"]
    assert tokenizer.words[2:] == sorted(counts.keys() - {"<unk>"}, key=lambda word: (-counts[word], word))
    assert tokenizer.encode("a\nb z") == [2, 1, 3, 0]
    assert tokenizer.decode(tokenizer.encode("a b\n\n c a\n")) == "a b\n\nc a\n"
    assert Word.fit([text], 4).words == ["<unk>", "<eos>", "a", "b"]


def test_words_know_their_bytes_if_all_are_known() -> None:
    tokenizer = Word.fit(["a é\nb <unk>"])
    text = " é  a\n b  <unk> "
    ends = [0, 3, 6, 7, 9, 16]  # of the words' letters, with what is before them
    assert [tokenizer.bytes_of(text, n) for n in range(6)] == ends
    assert tokenizer.bytes_of(text) == len(text.encode())
    assert tokenizer.bytes_of("a z") is None
    assert tokenizer.bytes_of("a z", 1) == 1


def test_byte_pairs_are_the_librarys_and_know_their_bytes(bpe: Bpe) -> None:
    oracle = library.Tokenizer.from_str(json.dumps(bpe.content()["model"]))
    tokens = oracle.encode(PLAIN).ids
    assert bpe.encode(PLAIN) == tokens
    assert len(tokens) < len(PLAIN) / 2
    assert bpe.size == 290
    for n in range(0, 40, 3):  # of ASCII, each token is a text
        assert bpe.bytes_of(PLAIN, n) == len(bpe.decode(tokens[:n]))
    assert bpe.bytes_of("🦊", 1) < len("🦊".encode())


def test_byte_pairs_are_found_again(bpe: Bpe) -> None:
    assert by_name.fit("bpe", [PLAIN[:703], PLAIN[703:]], vocabulary_size=290).content() == bpe.content()
    assert Bpe.fit(["ab"], 1000).size == 257  # no more to merge


@pytest.mark.parametrize("seed", range(30))
def test_the_tokens_of_portions_are_those_of_the_whole(seed: int, bpe: Bpe) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choice(LETTERS) for _ in range(300))
    portions = list(at_gaps([text[:100], text[100:120], text[120:]], size=10))
    assert "".join(portions) == text
    assert len(portions) > 3
    for tokenizer in (bpe, Word.fit([text], 20)):
        whole = tokenizer.encode(text)
        assert [token for portion in portions for token in tokenizer.encode(portion)] == whole
    words = Word.fit([text])
    assert sum(words.bytes_of(portion) or 0 for portion in portions) == len(text.encode())


def test_a_long_text_is_encoded_on_all_cores_to_the_same_tokens(bpe: Bpe) -> None:
    text = PLAIN * 30
    assert bpe.encode(text) == library.Tokenizer.from_str(json.dumps(bpe.content()["model"])).encode(text).ids


def test_a_fork_after_training_neither_warns_nor_hangs() -> None:
    program = (
        "import os; from dlrun.tokenizers.by_name import fit\n"
        "b = fit('bpe', ['to be or not to be ' * 5000], vocabulary_size=270)\n"
        "b.encode('to be or not ' * 5000)\n"
        "pid = os.fork()\n"
        "if not pid: os._exit(len(b.encode('to be ' * 9000)) < 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match="pip install tokenizers"):
        Bpe.fit([PLAIN])


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("bytes", None, ["no such tokenizer", "Did you mean `byte`?", "character, byte, word, bpe"]),
        ("byte", 300, ["vocabulary_size=300 has no meaning", "dataset.tokenizer=bpe"]),
        ("character", 65, ["vocabulary_size=65 has no meaning"]),
        ("bpe", 100, ["at least 256 tokens", "vocabulary_size=1024"]),
        ("word", 1, ["at least 2 tokens", "`<eos>`"]),
    ],
)
def test_a_mistake_is_told(kind: str, size: int | None, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        by_name.fit(kind, [PLAIN], vocabulary_size=size)
    says(str(caught.value), *words)


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "character"},
        {"kind": "character", "alphabet": 5},
        {"kind": "character", "alphabet": ""},
        {"kind": "word", "words": [1, 2]},
        {"kind": "word", "words": ["a"]},
        {"kind": "bpe", "model": "{"},
        {"kind": "bpe", "model": {}},
        {"kind": ["bpe"]},
        {},
    ],
)
def test_a_damaged_description_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        by_name.load(content)
