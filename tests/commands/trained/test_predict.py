"""`dlrun predict`: a file of raw samples in, answers out."""

from __future__ import annotations

import gzip
import shlex
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dlrun as package
from dlrun.datasets.digits import digits
from dlrun.datasets.files.given import samples
from dlrun.datasets.files.pictures import Reading
from dlrun.errors import UserError
from dlrun.runs.reload.predictor import load_predictor
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.types import RawInputs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
DIGITS = RawInputs((1, 8, 8), "uint8", (0.0,), (16.0,), (0.0, 16.0))


@pytest.fixture
def run(call: Call) -> RunDir:
    """A short run on digits, whose pixels are 0 to 16."""
    assert call("train", "trainer.epochs=1", "tracking.enabled=false", "trainer.figures=false").code == 0
    return all_runs()[-1]


def grey(pixels: np.ndarray) -> np.ndarray:
    """The bytes of a picture whose white is the digits' 16."""
    return np.rint(pixels / 16 * 255).astype(np.uint8)


def test_one_sample_in_any_kind_of_file_has_one_answer(run: RunDir, here: Path, call: Call) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, (8, 8), dtype=np.uint8)
    np.save(here / "one.npy", pixels)
    np.save(here / "batch.npy", pixels[None, None])
    np.save(here / "last.npy", pixels[None, :, :, None])
    np.save(here / "mirrored.npy", np.asfortranarray(pixels))
    np.save(here / "flat.npy", pixels.reshape(1, -1).astype(float))
    np.savetxt(here / "table.csv", pixels.reshape(1, -1), delimiter=",")
    np.savetxt(here / "table.txt", pixels.reshape(1, -1))
    picture = Image.fromarray(grey(pixels))
    picture.save(here / "grey.png")
    picture.convert("RGB").save(here / "colour.png")
    picture.convert("RGBA").save(here / "opaque.png")
    Image.fromarray(np.rint(pixels / 16 * 65535).astype(np.uint16)).save(here / "deep.png")
    # a palette whose numbers mean other shades than their own
    palette = Image.fromarray(16 - pixels)
    palette.putpalette([shade for i in range(17) for shade in [round((16 - i) * 255 / 16)] * 3])
    palette.save(here / "palette.png")
    turned = Image.fromarray(np.rot90(grey(pixels)))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    turned.save(here / "turned.PNG", exif=exif)
    answers = {file.name: call("predict", run.id, file.name) for file in here.glob("*.*") if file.is_file()}
    assert len(answers) == 13
    assert all(done.code == 0 for done in answers.values()), answers
    assert len({done.out for done in answers.values()}) == 1
    says(answers["grey.png"].err, "0 to 255 are mapped to 0 to 16")
    assert not answers["one.npy"].err


def test_pictures_of_the_test_digits_have_the_run_s_own_error(run: RunDir, tmp_path: Path) -> None:
    test = digits(normalise=False).test
    assert test is not None
    x, y = test.gather(torch.arange(len(test)))
    asked, wrong = load_predictor(run), 0
    for pixels, label in zip((x * 16).round(), y.tolist(), strict=True):
        Image.fromarray(grey(pixels[0].numpy())).save(tmp_path / "digit.png")
        wrong += int(asked(samples.read(tmp_path / "digit.png", asked.inputs)).argmax()) != label
    assert wrong / len(test) == pytest.approx(run.summary().metrics["test/error"])


def test_a_negative_is_said_and_inverted_when_asked(run: RunDir, here: Path, call: Call) -> None:
    """Of the test digits, black on white, nearly all are noticed, and none of them as they are."""
    test = digits(normalise=False).test
    assert test is not None
    x, _ = test.gather(torch.arange(100))
    for i, pixels in enumerate((x * 16).round()):
        Image.fromarray(grey(pixels[0].numpy())).save(here / f"{i}.png")
        Image.fromarray(255 - grey(pixels[0].numpy())).save(here / f"negative{i}.png")
    own = [f"{i}.png" for i in range(len(x))]
    negative = [f"negative{name}" for name in own]
    answers, exchanged = call("predict", run.id, *own), call("predict", run.id, *negative)
    assert "--invert" not in answers.err
    assert exchanged.err.count("type --invert") >= 98
    says(exchanged.err, "negative0.png", "border is light", "training pictures are dark")
    inverted = call("predict", run.id, *negative, "--invert")
    assert "--invert" not in inverted.err
    assert inverted.out.replace("negative", "") == answers.out
    says(call("predict", run.id, "0.png", "--invert").err, "0.png", "border is light", "Without --invert")
    assert (
        call("predict", run.id, "negative0.png", "--pixels", "0,16", "--invert").out.split()[1]
        == (inverted.out.split()[1].partition(",")[2])
    )
    np.save(here / "batch.npy", 16 - (x * 16).round().numpy())
    says(call("predict", run.id, "batch.npy").err, "100 samples are light", "give 16 - x")


@pytest.mark.parametrize(
    ("shape", "border", "of_picture", "said"),
    [
        ((1, 6, 6), (0.0, 0.0), 0.9, True),
        ((1, 6, 6), (0.0, 0.0), 0.6, False),  # no nearer to the training pictures once it is inverted
        ((3, 6, 6), (0.1, 0.9), 1.0, False),  # photographs have borders of any kind
        ((6, 6, 3), (0.8, 1.0), 0.1, True),  # drawings on paper, and one on a blackboard
        ((36,), (0.0, 0.1), 1.0, True),
        ((4, 6, 6), (0.0, 0.1), 1.0, True),
        ((1, 6, 6), None, 1.0, False),  # a run of an earlier version
    ],
)
def test_a_border_of_the_other_side_is_a_negative_s(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, ...],
    border: tuple[float, float] | None,
    of_picture: float,
    said: bool,
) -> None:
    inputs = RawInputs(shape, "float32", (0.0,), (1.0,), (0.0, 1.0), border=border)
    pixels = np.full((6, 6), round(255 * of_picture), np.uint8)
    pixels[2:4, 2:4] = 255 - pixels[2:4, 2:4]
    Image.fromarray(pixels).convert("RGBA" if 4 in shape else "RGB" if 3 in shape else "L").save(tmp_path / "a.png")
    raw = samples.read(tmp_path / "a.png", inputs)
    assert ("type --invert" in capsys.readouterr().err) is said
    inverted = samples.read(tmp_path / "a.png", inputs, Reading(invert=True))
    colours = raw[:, :3] if 4 in shape else raw
    assert torch.allclose(1 - colours, inverted[:, :3] if 4 in shape else inverted, atol=1e-6)


def test_what_a_picture_does_not_say_is_asked_for(run: RunDir, here: Path, call: Call) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, (8, 8), dtype=np.uint8)
    np.save(here / "one.npy", pixels)
    own = call("predict", run.id, "one.npy").out
    Image.fromarray(pixels).save(here / "dark.png")
    refuses(call("predict", run.id, "dark.png"), "--raw", "--pixels 0,16")
    assert call("predict", run.id, "dark.png", "--raw").out == own
    shape = np.full((8, 8, 4), 255, np.uint8)
    shape[..., 3] = grey(pixels)
    Image.fromarray(shape).save(here / "alpha.png")
    refuses(call("predict", run.id, "alpha.png"), "--background black", "--background white")
    assert call("predict", run.id, "alpha.png", "--background", "black").out == own
    assert call("predict", run.id, "alpha.png", "--background", "white").out != own
    Image.fromarray(grey(pixels)).resize((8, 9)).save(here / "tall.png")
    refused = call("predict", run.id, "tall.png")
    refuses(refused, "8 × 9 pixels (width × height)", "8 × 8")
    line = next(line for line in refused.err.splitlines() if line.strip().startswith("python -c"))
    subprocess.run(line.strip().replace("python", shlex.quote(sys.executable), 1), shell=True, check=True, cwd=here)
    assert call("predict", run.id, "tall_8x8.png").code == 0
    refuses(call("predict", run.id, "tall.png", "--pixels", "many"), "--pixels 0,1")


def test_several_files_have_the_rows_of_each(run: RunDir, here: Path, call: Call) -> None:
    draw = np.random.default_rng(0)
    for name, count in (("a.npy", 2), ("b.npy", 1)):
        np.save(here / name, draw.integers(0, 17, (count, 64)))
    alone = [call("predict", run.id, name).out.splitlines() for name in ("b.npy", "a.npy")]
    both = call("predict", run.id, "b.npy", "a.npy")
    named = [f"{name},{row}" for name, lines in zip(("b.npy", "a.npy"), alone, strict=True) for row in lines[1:]]
    assert both.out.splitlines() == [f"file,{alone[0][0]}", *named]
    refused = call("predict", run.id, "a.npy", "c.npy")
    refuses(refused, "no file c.npy")
    assert not refused.out


def test_an_option_that_changes_nothing_is_said(run: RunDir, here: Path, call: Call) -> None:
    Image.new("L", (8, 8), 255).save(here / "white.png")
    np.save(here / "one.npy", np.zeros(64))
    says(call("predict", run.id, "white.png", "--background", "black").err, "white.png", "opaque", "--background black")
    says(call("predict", run.id, "one.npy", "--raw").err, "one.npy", "no picture", "--raw")


@pytest.mark.parametrize(
    ("inputs", "white"),
    [
        (RawInputs((1, 2, 2), "uint8", (3.0,), (200.0,)), 255),
        (RawInputs((1, 2, 2), "uint8", (0.0,), (16.0,)), 16),
        (RawInputs((2, 2), "float32", (0.0,), (0.98,)), 1),
        (RawInputs((2, 2), "float64", (3.0,), (200.0,)), 255),
        (RawInputs((2, 2), "float64", (0.0,), (16.0,)), 16),
        (RawInputs((2, 2), "float32", (-0.9,), (1.0,)), 1),
        (RawInputs((2, 2), "float32", (0.0,), (255.0,), (255.0, 0.0)), 0),
        (RawInputs((3, 2, 2), "float32", (-2.0, -1.0, 0.5), (2.0, 3.0, 4.0)), (2, 3, 4)),
        (RawInputs((2, 2, 3), "uint8"), 255),
        (RawInputs((4,), "int64", (0.0,) * 4, (9.0, 7.0, 9.0, 8.0)), 9),
    ],
)
def test_white_is_the_data_set_s_white(tmp_path: Path, inputs: RawInputs, white: float | tuple[float, ...]) -> None:
    for mode, full in (("L", 255), ("RGB", (255,) * 3), ("1", 1), ("I;16", 65535)):
        Image.new(mode, (2, 2), full).save(tmp_path / "white.png")
        raw = samples.read(tmp_path / "white.png", inputs)
        expected = torch.tensor(white).float().reshape(-1, 1, 1) if isinstance(white, tuple) else torch.tensor(white)
        assert torch.equal(raw.float(), expected.expand(1, *inputs.shape).float()), mode


def test_values_of_another_range_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mnist = RawInputs((1, 4, 4), "uint8", (0.0,), (255.0,), (0.0, 255.0))
    for values, said in (
        (np.linspace(0, 1, 32), "from 0 to 1, those of the training samples from 0 to 255"),
        (np.linspace(-0.4, 2.8, 32), "4 of 32 values, in 1 of 2 samples"),
        (np.linspace(0, 255, 32), ""),
    ):
        np.save(tmp_path / "a.npy", values.reshape(2, 1, 4, 4))
        samples.read(tmp_path / "a.npy", mnist)
        err = capsys.readouterr().err
        says(err, said)
        assert bool(err) == bool(said)


def test_numbers_with_a_sign_keep_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[-1, 2]], np.int8))
    assert samples.read(tmp_path / "a.npy", RawInputs((2,), "int64")).tolist() == [[-1, 2]]


def test_a_stream_whose_range_nobody_said_asks_for_it(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 255).save(tmp_path / "white.png")
    inputs = RawInputs((1, 2, 2), "float32")
    with pytest.raises(UserError, match="--pixels 0,1"):
        samples.read(tmp_path / "white.png", inputs)
    assert float(samples.read(tmp_path / "white.png", inputs, Reading(pixels=(-1, 1))).max()) == 1


TABLE = RawInputs((2,), "float32", (0.0, 0.0), (1.0, 5.0), columns=("age", "size"))
PLAIN = RawInputs((2,), "float32", (0.0, 0.0), (1.0, 5.0))
ROWS = [[0.5, 2.0], [0.25, 4.0]]


@pytest.mark.parametrize(
    ("inputs", "name", "content", "said"),
    [
        (TABLE, "a.csv", "age,size\n0.5,2\n0.25,4\n", ""),
        (TABLE, "a.csv", "size,age\n2,0.5\n4,0.25\n", ""),
        (
            TABLE,
            "a.csv",
            ',size,class,age\n0,2,"a,b",0.5\n1,4,,0.25\n',
            "2 columns left out: a column",
        ),
        (TABLE, "a.csv", "0.5,2\n0.25,4\n", "taken as age, size"),
        (TABLE, "a.csv", "\ufeffsize,age\r\n2,0.5\r\n4,0.25\r\n", ""),
        (PLAIN, "a.csv", "\ufeff0.5,2\n0.25,4\n", ""),
        (PLAIN, "a.csv", "x,y\n0.5,2\n0.25,4\n", "taken in their order"),
        (PLAIN, "a.tsv", "0.5\t2\n0.25\t4\n\n", ""),
        (PLAIN, "a.txt", "5.0e-01 2\n 0.25  4\n", ""),
        (PLAIN, "a.csv", "0.5,20\n0.25,4\n", "column 2 runs from 4 to 20, there 0 to 5"),
    ],
)
def test_a_table_is_read_by_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inputs: RawInputs, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    read = samples.read(tmp_path / name, inputs).tolist()
    assert read == ([[0.5, 20.0], ROWS[1]] if "20" in content else ROWS)
    err = capsys.readouterr().err
    says(err, said)
    assert bool(err) == bool(said)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"0.1,\n0.3,0.4\n", ["line 1 column 2", "empty"]),
        (b"0.1,0.2\n0.3,\n", ["line 2 column 2", "empty"]),
        (b"0.1,x\n", ["line 1 column 2", "`x`"]),
        (b"age,size\n0.1,0.2\n0.3,big\n", ["line 3 column 2 (`size`)", "`big`"]),
        (b"NA,NA\n0.1,0.2\n", ["line 1 column 1", "`NA`"]),
        (b"nan,0.2\n", ["line 1 column 1", "`nan`"]),
        (b"1_0,0.2\n", ["line 1 column 1", "`1_0`"]),
        (b"1e99,0.2\n", ["line 1 column 1", "float32"]),
        ("\u0661,0.2\n".encode(), ["line 1 column 1"]),
        (b"0.1,0.2\n0.3\n", ["line 2", "1 cell;", "first line has 2"]),
        (b"0.1,0.2,0.3\n", ["3 cells", "has 2"]),
        (b"0,1,0,2\n", ["4 cells", "Write 0.5, not 0,5"]),
        (b"0,1;0,2\n", ["semicolons", "decimal commas", "sed 's/,/./g; s/;/,/g'"]),
        (b"a;b\n0.1;0.2\n", ["semicolons", "sed 's/;/,/g'"]),
        (b"0.1\t0.2\n", [".tsv"]),
        (b'"0,1","0,2"\n', ["line 1 column 1", "write 0.5, not 0,5"]),
        ("0.1,0.2\n".encode("utf-16"), ["UTF-16", "iconv -f utf-16 -t utf-8"]),
        ("größe,x\n0.1,0.2\n".encode("latin1"), ["not UTF-8", "iconv"]),
        (b"age,length\n0.1,0.2\n", ["no column `size`", "age, size"]),
        (b"age,age,size\n0.1,0.1,0.2\n", ["two columns `age`"]),
    ],
)
def test_a_cell_that_is_no_number_is_refused_by_its_place(tmp_path: Path, content: bytes, facts: list[str]) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    inputs = TABLE if b"age" in content else PLAIN
    with pytest.raises(UserError) as refused:
        samples.read(tmp_path / "a.csv", inputs)
    says(str(refused.value), "a.csv", *facts)


def test_a_blank_line_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    one = RawInputs((1,), "float32")
    (tmp_path / "a.csv").write_text("0.1\n0.2\n\n\n")
    assert len(samples.read(tmp_path / "a.csv", one)) == 2
    (tmp_path / "a.csv").write_text("0.1\n\n0.2\n")
    with pytest.raises(UserError, match="line 2"):
        samples.read(tmp_path / "a.csv", one)


OWN = """
import torch
from pathlib import Path
from dlrun.datasets import from_tensors
def data():
    Path("numbers.txt").read_text()
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 2, generator=draw), torch.arange(60) % 2
    x[:, 0] += y
    x[:, 1] *= 5
    names = ["age", "size"]
    return from_tensors("own", (x, y), task="classification", validation_size=10, columns=names, normalise=True)
"""


def test_a_run_answers_without_its_data(here: Path, call: Call) -> None:
    (here / "own_data.py").write_text(OWN)
    (here / "numbers.txt").write_text("1")
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "own.yaml").write_text("_target_: own_data.data\n")
    quick = ("tracking.enabled=false", "trainer.figures=false", "evaluation.test=never")
    assert call("train", "dataset=own", "trainer.epochs=20", "trainer.batch_size=10", *quick).code == 0
    run = all_runs()[-1]
    (here / "one.csv").write_text("age,size\n0.5,2\n1.5,4\n")
    (here / "other.csv").write_text("size,age\n2,0.5\n4,1.5\n")
    whole = package.load(run.id)
    x = whole.prepare(torch.tensor([[0.5, 2.0], [1.5, 4.0]]))
    expected = whole.model(x).softmax(1).tolist()
    assert len(whole.data.train) == 50
    (here / "numbers.txt").unlink()
    for name in ("one.csv", "other.csv"):
        done = call("predict", run.id, name)
        assert done.code == 0, done.err
        rows = [list(map(float, line.split(",")[1:])) for line in done.out.splitlines()[1:]]
        assert np.allclose(rows, expected, atol=1e-6)
    again = package.load(run.id)
    assert torch.equal(again.prepare(torch.tensor([[0.5, 2.0], [1.5, 4.0]])), x)
    with pytest.raises(UserError, match=r"numbers\.txt"):
        _ = again.data
    # a run of before its inputs were kept needs its data
    with run.edit_summary() as summary:
        summary.inputs = {}
    (here / "numbers.txt").write_text("1")
    assert call("predict", run.id, "other.csv").out == done.out
    with run.edit_summary() as summary:
        summary.inputs = {"shape": "many"}
    refuses(call("predict", run.id, "other.csv"), "summary.json", "`shape`")


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
        "large.npy": "[9, 9]; those of this run are [1, 8, 8]",
        "ragged.csv": "2 cells; a sample of this run has 64",
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
        samples.read(tmp_path / name, DIGITS)
    says(str(refused.value), name, fact)
