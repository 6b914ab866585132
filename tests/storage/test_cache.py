"""A cached file is made again when it is not what was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlrun.datasets.files.files import data_root
from dlrun.storage.files import cache


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'{"crc32": 1}', b'{"crc32": 1, "content": {"a": 2}}', b"\xff"]
)
def test_a_damaged_file_of_values_is_no_value(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    cache.save(path, {"a": [1, "ü"]})
    assert cache.load(path) == {"a": [1, "ü"]}
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged|decode|Expecting"):
        cache.load(path)


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "DLRUN_CACHE", "DLRUN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert cache.cache_root().stat().st_uid == os.getuid()
    assert cache.cache_root() == cache.cache_root() == data_root()
