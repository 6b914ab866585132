"""`dlrun predict`: a file of raw samples in, answers out."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlrun.datasets.files import samples
from dlrun.errors import UserError
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]


@pytest.fixture
def run(call: Call) -> RunDir:
    """A short run on digits, whose pixels are 0 to 16."""
    assert call("train", "trainer.epochs=1", "tracking.enabled=false", "trainer.figures=false").code == 0
    return all_runs()[-1]


def test_one_sample_in_any_kind_of_file_has_one_answer(run: RunDir, here: Path, call: Call) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, (8, 8), dtype=np.uint8)
    np.save(here / "one.npy", pixels)
    np.save(here / "batch.npy", pixels[None, None])
    np.save(here / "flat.npy", pixels.reshape(1, -1).astype(float))
    np.savetxt(here / "table.csv", pixels.reshape(1, -1), delimiter=",")
    grey = Image.fromarray(pixels)
    grey.save(here / "grey.png")
    grey.convert("RGB").save(here / "colour.png")
    # a palette whose numbers mean other shades than their own
    palette = Image.fromarray(16 - pixels)
    palette.putpalette([shade for i in range(17) for shade in [16 - i] * 3])
    palette.save(here / "palette.png")
    answers = {file.name: call("predict", run.id, file.name) for file in here.glob("*.*") if file.is_file()}
    assert len(answers) == 7
    assert all(done.code == 0 for done in answers.values()), answers
    assert len({done.out for done in answers.values()}) == 1


def test_a_file_that_holds_no_samples_of_the_data_set_is_refused(run: RunDir, here: Path, call: Call) -> None:
    np.save(here / "objects.npy", np.array([{}], dtype=object))
    np.save(here / "holes.npy", np.full((1, 64), np.nan))
    np.save(here / "none.npy", np.zeros((0, 64)))
    np.save(here / "single.npy", np.float32(3))
    np.save(here / "words.npy", np.array(["a", "b"]))
    np.save(here / "complex.npy", np.full((1, 64), 1j))
    np.save(here / "large.npy", np.zeros((1, 9, 9)))
    (here / "ragged.csv").write_text("1,2\n3\n")
    (here / "junk.png").write_text("no picture")
    (here / "notes.doc").write_text("1,2")
    expected = {
        "objects.npy": "cannot be read as a .npy file",
        "holes.npy": "not finite",
        "none.npy": "no samples",
        "single.npy": "a single number",
        "words.npy": "real numbers",
        "complex.npy": "real numbers",
        "large.npy": "[9, 9]; those of digits are [1, 8, 8]",
        "ragged.csv": "1 to 2 numbers",
        "junk.png": "cannot be read as a .png file",
        "notes.doc": "Give a .npy, .csv, .png or .jpg file",
        "nothing.csv": "There is no file",
    }
    for name, words in expected.items():
        done = call("predict", run.id, name)
        refuses(done, name, words)
    np.save(here / "good.npy", np.zeros((1, 64)))
    done = call("predict", run.id, "good.npy", "--output", "nowhere/out.csv")
    refuses(done, "nowhere/out.csv cannot be written")


def npy(shape: str) -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("huge.npy", npy("(1000000000000,)"), "it has 64"),
        ("overflow.npy", npy("(4294967296, 4294967296, 4)"), "it has 64"),
        ("negative.npy", npy("(-1, 64)"), "it has 64"),
        ("empty.npy", b"", ""),
        ("zip.npy", b"PK\x03\x04" + bytes(60), ""),
        ("cut.csv.gz", gzip.compress(b"1,2\n" * 10000, mtime=0)[:-20], ""),
        ("bad.csv.gz", gzip.compress(b"1,2\n" * 1000, mtime=0)[:30] + b"\xff" * 40, ""),
        ("one_line.csv.gz", gzip.compress(b"0," * (1 << 22), mtime=0), "a line has more than"),
        ("quoted.csv", b'"1\n","2\n"', "cannot be read"),
        ("field.csv", b"1" * 200000 + b",2\n", ""),
        ("wide.png", png(60000, 60000), "pixels"),
        ("cut.png", png(60000, 60000)[:20], ""),
    ],
)
def test_a_damaged_file_or_one_that_claims_too_much_is_refused(
    tmp_path: Path, name: str, content: bytes, fact: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        samples.read(tmp_path / name, (1, 8, 8))
    says(str(refused.value), name, fact)
