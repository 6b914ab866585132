"""Contents made wrong: bytes, and the values of JSON."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

Below = Callable[[int], int]
"""A number from 0 up to, without, the one given: of a generator of random numbers, Hypothesis or libFuzzer."""

NUMBERS = (0, 1, -1, 2, 3, 127, 128, 255, 256, 32767, 65535, 65536, 1 << 24, 1 << 28, 1 << 31, (1 << 32) - 1, 1 << 40)
TOKENS = (
    *(b"", b"\0", b"\n", b"\r\n", b"\t", b'"', b"'", b",", b";", b"{", b"}", b"[", b"]", b":", b"%", b"\\", b"\x1b[2J"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"nan", b"-inf", b"1e999", b"null", b"true", b"../"),
    *(b"/etc/passwd", b"${oc.env:HOME}", b"_target_: os.system\n", b"!!python/object/apply:os.system [ls]\n", b"&a *a"),
    *(b"[" * 3000, b'{"a":' * 3000, b"9" * 400, b"a" * 5000, b"\n" * 500),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, 1e308, -0.0, "", "nan", "inf", "-inf", "\0", "\ud800"),
    *(
        "../../x",
        "/etc/passwd",
        "/dev/zero",
        "${oc.env:HOME}",
        "\x1b]0;x\a",
        "a" * 5000,
        "os.system",
        "=cmd|' /C calc'!A0",
    ),
    *([], {}, [[]], {"": None}, [None] * 300, {"_target_": "os.system", "command": "true"}, {"not finite": "nan"}),
    *({"not finite": "x"}, ["nan"], [1, "a", None], "finished", "killed", "test/accuracy", "seed", "1" * 30),
)


def change_bytes(below: Below, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A content with up to six changes: bits, bytes, numbers, cuts, copies, pieces of other contents."""
    made = bytearray(content)
    for _ in range(1 + below(6)):
        place, length = below(len(made) + 1), 1 << below(8)
        kind = below(9)
        if kind == 0 and made:
            made[place % len(made)] ^= 1 << below(8)
        elif kind == 1:
            made[place : place + 1] = bytes([below(256)])
        elif kind == 2:
            width = 1 << below(4)
            number = NUMBERS[below(len(NUMBERS))] % (1 << 8 * width)
            made[place : place + width] = number.to_bytes(width, "little" if below(2) else "big")
        elif kind == 3:
            made[place:place] = TOKENS[below(len(TOKENS))]
        elif kind == 4:
            del made[place : place + length]
        elif kind == 5:
            made[place:place] = made[place : place + length] * (1 + below(4))
        elif kind == 6:
            del made[place:]
        elif kind == 7:
            made[place : place + length] = random.Random(below(1 << 16)).randbytes(length)
        elif others:
            other = others[below(len(others))]
            start = below(len(other) + 1)
            made[place : place + length] = other[start : start + length]
    return bytes(made)


def change_tree(below: Below, value: Any) -> Any:
    """A copy of a JSON value with up to three changes: other values, keys, kinds."""
    made = [copy.deepcopy(value)]
    for _ in range(1 + below(3)):
        places = list(_places(made))
        holder, key = places[below(len(places))]
        kind = below(8)
        if kind < 4:
            holder[key] = copy.deepcopy(VALUES[below(len(VALUES))])
        elif kind == 4 and holder is not made:
            del holder[key]
        elif kind == 5:
            other, there = places[below(len(places))]
            holder[key] = copy.deepcopy(other[there])
        elif kind == 6 and isinstance(holder, dict):
            holder[str(VALUES[below(len(VALUES))])[:50]] = holder.pop(key)
        else:
            holder[key] = [holder[key]] if below(2) else {"a": holder[key]}
    return made[0]


def _places(value: Any) -> Any:
    """Every container with each of its keys."""
    for key in [*value] if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
