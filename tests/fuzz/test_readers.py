"""A few wrong files for each reader of files from strangers; `make fuzz` gives each ten minutes of them."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="pip install hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrun.storage.files import unpacked
from tests.fuzz.reader import Reader
from tests.fuzz.readers import FILES


def look(reader: Reader, folder: Path) -> None:
    """Have a reader read its own files, and some that are made wrong."""
    for content in reader.contents:
        reader.check(reader.pack(content), folder)

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def wrong_files_are_refused(data: st.DataObject) -> None:
        reader.check(reader.make(lambda count: data.draw(st.integers(0, count - 1))), folder)

    wrong_files_are_refused()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", FILES, ids=lambda reader: reader.name)
def test_a_wrong_file_is_taken_or_refused_in_a_message(
    here: Path, monkeypatch: pytest.MonkeyPatch, reader: Reader
) -> None:
    monkeypatch.setattr(unpacked, "LEAST", 1 << 26)
    look(reader, here)
    # files that a library has left open
    gc.collect()
