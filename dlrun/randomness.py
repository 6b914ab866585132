"""Keyed randomness: every random draw is a function of (seed, stream, counter), never of history.

So nothing of a generator is ever saved or restored: a resumed run computes the key of its step and
draws what an uninterrupted run would have drawn. Streams keep the draws of different purposes apart.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager

import torch

# old runs draw by these numbers: append, never reorder
INITIALISATION, ORDER, AUGMENTATION, STEP, SAMPLE, KILL, SEARCH, CROP, SAMPLING, EVALUATION, FLIP, OBSERVING, STREAM = (
    range(1, 14)
)
RANK = 14

_MASK = (1 << 64) - 1


def key(seed: int, stream: int, counter: int = 0) -> int:
    """A 63-bit key; different arguments give unrelated keys.

    The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014) over a linear combination of the arguments with odd constants.

    >>> key(0, ORDER, 1) == key(0, ORDER, 1), key(0, ORDER, 1) == key(1, ORDER, 0)
    (True, False)
    """
    z = (seed * 0x9E3779B97F4A7C15 + stream * 0xD1342543DE82EF95 + counter * 0xDA942042E4DD58B5 + 1) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


def generator(seed: int, stream: int, counter: int = 0) -> torch.Generator:
    """A CPU generator, seeded with the key."""
    return torch.Generator().manual_seed(key(seed, stream, counter))


def coins(index: torch.Tensor, value: int) -> torch.Tensor:
    """True or false for each of `index` [B], int64, a function of its number and `value`.

    The finalizer of SplitMix64 over both, as in `key`.

    >>> heads = coins(torch.arange(10_000), key(0, FLIP))
    >>> 0.49 < float(heads.float().mean()) < 0.51, bool((heads == coins(torch.arange(10_000), key(1, FLIP))).all())
    (True, False)
    """
    # torch has no unsigned shifts: the sign that they bring in is masked
    z = index * _signed(0x9E3779B97F4A7C15) + _signed(value)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ ((z >> shift) & (_MASK >> shift))) * _signed(factor)
    return ((z ^ (z >> 31)) & 1).bool()


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def seed_libraries(value: int) -> None:
    """Seed torch (on the CPU), Python and numpy.

    >>> seed_libraries(3); a = random.random(), float(torch.rand(()))
    >>> seed_libraries(3); a == (random.random(), float(torch.rand(())))
    True
    """
    import numpy  # most runs draw nothing from it, and it takes time to import

    torch.default_generator.manual_seed(value)
    random.seed(value)
    numpy.random.seed(value & 0xFFFFFFFF)  # it takes 32 bits


def seed_library(name: str, value: int) -> None:
    """Seed the global generator of "random", Python's, or of "numpy".

    Of a numpy that nothing has imported it seeds nothing.
    """
    if name == "random":
        random.seed(value)
    elif numpy := sys.modules.get("numpy"):
        numpy.random.seed(value & 0xFFFFFFFF)  # it takes 32 bits


def library_states() -> dict[str, Hashable]:
    """The states of the global generators of Python and numpy."""
    states: dict[str, Hashable] = {"random": random.getstate()}
    if numpy := sys.modules.get("numpy"):
        kind, values, *rest = numpy.random.get_state()
        states["numpy"] = (kind, values.tobytes(), *rest)
    return states


def changed_libraries(before: Mapping[str, Hashable]) -> list[str]:
    """The libraries whose generators were drawn from, or seeded, since `before`."""
    now = library_states()
    return [name for name, state in before.items() if now.get(name, state) != state]


@contextmanager
def preserve_generators() -> Iterator[None]:
    """Restore the generators of `seed_libraries` after the context."""
    import numpy

    states = torch.default_generator.get_state(), random.getstate(), numpy.random.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(states[0])
        random.setstate(states[1])
        numpy.random.set_state(states[2])


def seed_all(device: torch.device, value: int) -> None:
    """Seed what `seed_default` does, and Python's and numpy's generators."""
    seed_default(device, value)
    seed_library("random", value)
    seed_library("numpy", value)


def seed_default(device: torch.device, value: int) -> None:
    """Seed the default generators of the CPU and `device`."""
    # dropout and initialisation draw from them
    # `torch.manual_seed` seeds every device there could be, at a hundred times the cost, and this is done each step
    torch.default_generator.manual_seed(value)
    kind = device.type
    if kind == "cuda":
        # `cuda` is the current GPU, which in a process with several slots need not be the first
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(value)
    elif kind == "mps":
        torch.mps.manual_seed(value)
