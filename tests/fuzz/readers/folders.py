"""Files in the folders of runs and sweeps."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from dlrun.report.gallery.records import read_records
from dlrun.storage import journal, manifest, run_config
from dlrun.storage.identity import digest
from dlrun.storage.results import results
from dlrun.storage.rundir import RunDir, read_reused
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.location import saved_hydra
from dlrun.sweeps.search import definition
from dlrun.tracking.content.journal_reader import JournalReader
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.store import creation_time, prepare
from dlrun.tracking.mlflow.store_paths import location_of
from tests.fuzz.reader import Reader
from tests.made_sweeps import made_sweep

RUN = "runs/d/101112-toy-kxabcdef"
SWEEP = "sweeps/d/101112-made-kyabcdef"
LAUGHS = b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n" % (n + 1, n + 1, *[n] * 8) for n in range(97, 107)
)
POINT = b'{"step": 1, "epoch": 0, "metrics": {"val/error": 0.5}}\n'
SEARCH = json.dumps(
    {
        "space": {
            "dimensions": {"a": {"kind": "Interval", "low": 0.1, "high": 1.0, "log": True, "whole": False}},
            "seeds": ["0", "1"],
            "fixed": ["dataset=moons"],
        },
        "settings": {"n_trials": 6, "sampler": "tpe", "pruner": "median", "seed": 0, "startup": 5, "warmup": 1},
        "bases": {"keys": [], "configs": [[[], {"name": "a", "seed": 0}]]},
        "fresh": False,
    }
).encode()
RECORD = json.dumps(
    {
        "name": "a",
        "command": "b",
        "started": 1.0,
        "seconds": 2.0,
        "jobs": 3,
        "setting": "c",
        "claims": [{"text": "t", "verdict": "holds", "evidence": "e"}],
        "scores": [["a", "b"]],
        "pictures": [{"file": "a.png", "caption": "c"}],
    }
).encode()
MULTIRUN = b"hydra:\n  run: {dir: a}\n  sweep: {dir: b, subdir: c}\n  launcher: {_target_: a.B}\n  callbacks: {}\n"
ROWS = ",".join(["0"] * 64) + "\n"


@cache
def outputs() -> Path:
    """An outputs folder with a run and a sweep, made once."""
    folder = Path(tempfile.mkdtemp(prefix="dlrun-fuzz-"))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    quiet = ("trainer.figures=false", "tracking.enabled=false", "trainer.epochs=1", "model=linear")
    assert _call("train", *quiet, f"hydra.run.dir={folder / RUN}") == 0
    made_sweep(
        folder / SWEEP,
        {"optimizer.lr": [0.1, 0.2], "seed": [0, 1], "sweep.figures": [False]},
        lambda values: {"val/error": values["optimizer.lr"], "test/error": 0.5},
    )
    return folder


def _call(*arguments: str) -> int:
    from dlrun.cli import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main([*arguments])


def _seed(place: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(outputs() / place).read_bytes()]


def _commands(place: str, *commands: tuple[str, ...]) -> Callable[[Path], None]:
    """Have commands read a folder with one file of a stranger's; HERE is the folder of the run or sweep."""

    def read(path: Path) -> None:
        # the place of the file says where the outputs begin
        root = path
        while root.name not in ("runs", "sweeps"):
            root = root.parent
        root = root.parent
        content = path.read_bytes()
        shutil.rmtree(root / root.name, ignore_errors=True)
        shutil.copytree(outputs(), root, dirs_exist_ok=True)
        path.write_bytes(content)
        rows = root / "rows.csv"
        rows.write_text(ROWS)
        before = os.environ.get("DLRUN_OUTPUTS")
        os.environ["DLRUN_OUTPUTS"] = str(root)
        try:
            for command in commands:
                _call(
                    *(
                        str(rows) if word == "ROWS" else str(root / place) if word == "HERE" else word
                        for word in command
                    )
                )
        finally:
            os.environ.pop("DLRUN_OUTPUTS")
            if before is not None:
                os.environ["DLRUN_OUTPUTS"] = before

    return read


def _summary(path: Path) -> None:
    run = RunDir(path.parent)
    run.summary()
    SweepDir(path.parent).summary()


def _journal(path: Path) -> None:
    for read in (journal.curves, journal.last_step, journal.last_cost, journal.count_test_reads, journal.first_start):
        read(path)
    journal.validations(path, 3)
    for _ in JournalReader(path).batches():
        pass


def _manifest(path: Path) -> None:
    found = manifest.read(sweep := SweepDir(path.parent))
    assert (found.swept, found.groups, found.strata, found.repetitions) and results(sweep, found) is not None


def _signed(content: bytes) -> bytes:
    """A manifest with the digest of what it says."""
    try:
        value = json.loads(content)
        if isinstance(value, dict):
            value["digest"] = digest({k: v for k, v in value.items() if k != "digest"})
            return json.dumps(value).encode()
    except (ValueError, RecursionError, TypeError):
        pass
    return content


def _added() -> list[bytes]:
    jobs = json.loads((outputs() / SWEEP / "manifest.json").read_bytes())["jobs"]
    return [b"".join(json.dumps({"job": {**job, "n": n}}).encode() + b"\n" for n, job in enumerate(jobs, 4))]


def _signed_lines(content: bytes) -> bytes:
    made = []
    for line in content.split(b"\n"):
        try:
            value = json.loads(line)
            value["digest"] = digest(value["job"])
            made.append(json.dumps(value).encode())
        except Exception:
            made.append(line)
    return b"\n".join(made)


def _config(path: Path) -> None:
    from dlrun.tracking.content.settings import config_of, experiment_of

    run = RunDir(path.parent.parent)
    experiment_of(config_of(run))
    run_config.plain(run)
    run_config.load(run)


def _note(path: Path) -> None:
    read_reused(path.parent)


def _notes() -> list[bytes]:
    return [b'{"run": "runs/d/101112-toy-kxabcdef", "identity": "a"}']


def _yaml_seeds() -> list[bytes]:
    content = (outputs() / RUN / ".hydra" / "config.yaml").read_bytes()
    return [
        content,
        b"a: 1\nb: ${a}\nname: toy\nseed: 0\nmodel:\n  _target_: dlrun.models.Linear\n",
        b"a: &a [*a, 1]\n",
        LAUGHS,
    ]


def _config_tree() -> list[bytes]:
    import yaml

    return [json.dumps(yaml.safe_load((outputs() / RUN / ".hydra" / "config.yaml").read_text())).encode()]


def _run_commands(path: Path) -> None:
    _commands(RUN, ("runs",), ("predict", "HERE", "ROWS"))(path)


def _config_commands(path: Path) -> None:
    summary = outputs() / RUN / "summary.json"
    kept = summary.read_bytes()
    summary.write_text(json.dumps({k: v for k, v in json.loads(kept).items() if k != "config_digests"}))
    try:
        _commands(RUN, ("predict", "HERE", "ROWS"), ("test", "HERE", "--split", "validation"))(path)
    finally:
        summary.write_bytes(kept)


_sweep_commands = _commands(
    SWEEP, ("runs",), ("runs", "--sweep", "HERE"), ("report", "HERE"), ("compare", "HERE", "HERE")
)


def _of_sweep(read: Callable[[SweepDir], object]) -> Callable[[Path], object]:
    return lambda path: read(SweepDir(path.parent))


def _records() -> list[bytes]:
    return [RECORD, *(path.read_bytes() for path in sorted(Path("docs/gallery").glob("*.json")))]


@cache
def _store() -> Sequence[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mlflow.db")
        prepare(Address(f"sqlite:///{path}"), path.parent / "mlartifacts")
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = DELETE")
        return [path.read_bytes()]


def _prepare(path: Path) -> None:
    prepare(Address(f"sqlite:///{path}"), path.parent / "mlartifacts")
    location_of(path, "0")
    creation_time(path)


READERS = (
    Reader("summary", f"{RUN}/summary.json", _seed(f"{RUN}/summary.json"), _summary, tree=True),
    Reader("journal", f"{RUN}/journal.jsonl", _seed(f"{RUN}/journal.jsonl"), _journal, tree=True),
    Reader("config", f"{RUN}/.hydra/config.yaml", _yaml_seeds, _config),
    Reader("reused", f"{SWEEP}/0/reused.json", _notes, _note, tree=True),
    Reader("search", f"{SWEEP}/search.json", lambda: [SEARCH], _of_sweep(definition.read), tree=True),
    Reader(
        "multirun",
        f"{SWEEP}/multirun.yaml",
        lambda: [MULTIRUN, LAUGHS],
        lambda path: saved_hydra(SweepDir(path.parent)),
    ),
    Reader("gallery", "gallery/digits.json", _records, lambda path: read_records(path.parent), tree=True),
    Reader("manifest", f"{SWEEP}/manifest.json", _seed(f"{SWEEP}/manifest.json"), _manifest, tree=True, pack=_signed),
)

COMMANDS = (
    Reader("run-summary", f"{RUN}/summary.json", _seed(f"{RUN}/summary.json"), _run_commands, tree=True),
    Reader("run-journal", f"{RUN}/journal.jsonl", _seed(f"{RUN}/journal.jsonl"), _run_commands, tree=True),
    Reader("run-config", f"{RUN}/.hydra/config.yaml", _config_tree, _config_commands, tree=True),
    Reader("job-reused", f"{SWEEP}/0/reused.json", _notes, _sweep_commands, tree=True),
    Reader("job-summary", f"{SWEEP}/0/summary.json", _seed(f"{SWEEP}/0/summary.json"), _sweep_commands, tree=True),
    Reader("job-journal", f"{SWEEP}/0/journal.jsonl", lambda: [POINT], _sweep_commands, tree=True),
    Reader(
        *("sweep-manifest", f"{SWEEP}/manifest.json", _seed(f"{SWEEP}/manifest.json"), _sweep_commands),
        tree=True,
        pack=_signed,
    ),
    Reader("store", "outputs/mlflow.db", _store, _prepare, also=(sqlite3.DatabaseError, RuntimeError)),
    Reader("sweep-added", f"{SWEEP}/added.jsonl", _added, _sweep_commands, tree=True, pack=_signed_lines),
    Reader("sweep-summary", f"{SWEEP}/summary.json", _seed(f"{SWEEP}/summary.json"), _sweep_commands, tree=True),
)
"""Of whole commands, which take longer."""
