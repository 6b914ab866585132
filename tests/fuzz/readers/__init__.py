"""All readers of files that may come from somebody else."""

from __future__ import annotations

from tests.fuzz.readers import arrays, folders, pictures, saved, tables, texts

FILES = (
    *saved.READERS,
    *folders.READERS,
    *arrays.READERS,
    *tables.READERS,
    *texts.READERS,
    *pictures.READERS,
)
READERS = (*FILES, *folders.COMMANDS)
