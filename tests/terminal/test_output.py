"""Who gets a line: the screen, the log files, both, and each of them once."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from dlrun.terminal import output


def test_a_log_file_gets_each_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run.log"
    with output.tee(log.open("a")):
        output.say("a line")
        output.warn("a warning")
        output.log("progress")
        with output.isolated():
            output.say("not for the log")
    output.say("too late")
    assert log.read_text() == "a line\na warning\nprogress\n"
    shown = capsys.readouterr()
    assert shown.out == "a line\nprogress\nnot for the log\ntoo late\n"
    assert shown.err == "dlrun: a warning\n"


def test_a_line_may_be_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with output.once():
        for _ in range(2):
            output.warn("of a fold")
            output.say("of a fold")
    output.say("of a fold")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("of a fold\n" * 2, "dlrun: of a fold\n")


def test_a_log_file_that_is_the_screen_gets_no_line_twice(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    with log.open("a") as file, redirect_stdout(file), output.tee(log.open("a")):
        output.say("once")
    assert log.read_text() == "once\n"


def test_only_the_log_gets_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, mine = tmp_path / "sweep.log", (tmp_path / "job.log").open("w")
    with mine, output.tee(log.open("a")), output.only(mine):
        output.say("for the job")
        print("to nowhere")
    assert (log.read_text(), Path(mine.name).read_text()) == ("", "for the job\n")
    assert capsys.readouterr() == ("", "")


def test_a_duplicate_goes_where_the_output_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with output.tee((tmp_path / "sweep.log").open("a")), output.duplicate() as screen, output.only():
        output.say("nowhere")
        with screen.use():
            output.say("seen")
    assert capsys.readouterr().out == "seen\n"
    assert (tmp_path / "sweep.log").read_text() == "seen\n"


@pytest.mark.parametrize("logged", [True, False])
def test_a_run_with_a_log_outlives_its_reader(tmp_path: Path, logged: bool) -> None:
    program = """
import contextlib, sys
from pathlib import Path
from dlrun.terminal import output
with output.tee(Path("run.log").open("a")) if sys.argv[1] == "True" else contextlib.nullcontext():
    input()
    output.say("nobody reads this")
    output.warn("the end")
"""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(logged)],
        stdin=subprocess.PIPE,
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    os.close(write)
    os.close(read)
    _, err = process.communicate("\n", timeout=60)
    assert (process.returncode == 0) is logged
    assert ("the end" in err) is logged
    if logged:
        assert (tmp_path / "run.log").read_text() == "nobody reads this\nthe end\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_that_lacks_characters_is_no_reason_to_fail(encoding: str) -> None:
    program = "from dlrun.terminal import output; output.prepare_streams(); output.say('a × b …'); print('ü ⇒')"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    shown = done.stdout.decode(encoding)
    assert shown.splitlines() == [
        line.encode(encoding, "backslashreplace").decode(encoding) for line in ("a × b …", "ü ⇒")
    ]


def test_numbers_of_things_are_written_in_one_place() -> None:
    package = Path(output.__file__).parents[1]
    marks = re.compile(r"""['"]s['"] ?(\*|if )""")
    found = [file.name for file in package.rglob("*.py") if marks.search(file.read_text(encoding="utf-8"))]
    # French has rules of its own
    assert found == ["written_numbers.py"]


def shown_in_a_cell(text: str) -> list[str]:
    """The lines that a notebook shows: a carriage return goes back, and what is written then covers what was there."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_cell_of_a_notebook_keeps_no_live_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    out, err, log = stream(), stream(), tmp_path / "run.log"
    now = iter([0.0, 0.5, 1.0, 3.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(now))
    with redirect_stdout(out), redirect_stderr(err), output.tee(log.open("a")):
        output.say("head")
        for line in ("epoch 1 of 10", "too soon", "epoch 3"):
            output.live(line)
        output.log("epoch 3, for the log")
        assert shown_in_a_cell(out.getvalue()) == ["head", "epoch 3"]
        output.warn("attention")
        assert shown_in_a_cell(out.getvalue()) == ["head", ""]
        output.live("epoch 4")
        output.say("done")
    assert shown_in_a_cell(out.getvalue()) == ["head", "done", ""]
    assert "too soon" not in out.getvalue() and "\x1b" not in out.getvalue()
    assert err.getvalue() == "dlrun: attention\n"
    assert log.read_text() == "head\nepoch 3, for the log\nattention\ndone\n"


def test_a_duplicate_of_a_cell_is_the_cell() -> None:
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream", "fileno": lambda self: 1})
    out = stream()
    with redirect_stdout(out), output.duplicate() as screen, output.only(), screen.use():
        output.say("seen")
    assert out.getvalue() == "seen\n"
