"""The columns of a file, by its ending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrun.datasets.files.missing import no_such
from dlrun.datasets.files.tabular import arff, separated
from dlrun.errors import DataError, UserError
from dlrun.storage.files.unpacked import too_large

ROWS = 1 << 16
"""Of a Parquet file that are decoded at once."""

ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".arff")


@dataclass(frozen=True)
class Table:
    """Columns by name, each an array of pyarrow; `declared` are the values of an ARFF file's nominal attributes."""

    columns: Mapping[str, Any]
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def indices(self) -> list[str]:
        """The columns that are an index of pandas: they have no name of their own."""
        return [name for name in self.columns if name.startswith((separated.UNNAMED, "__index_level_"))]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()), ()))


def is_table(path: Path) -> bool:
    """Whether a file's ending is one of a table's."""
    return ending(path) in ENDINGS


def ending(path: Path) -> str:
    """The ending that says what a file holds: .csv of table.csv.gz."""
    return (path.suffix if path.suffix.lower() != ".gz" else Path(path.stem).suffix).lower()


def read(path: Path, *, header: bool = True, key: str = "dataset.path") -> Table:
    """The table in a file.

    Without a `header` the columns of a CSV file are called column_1 and so on. `key` is what gave the path. Raises
    `DataError` for a file that is missing, empty, damaged, or no table.
    """
    if not path.is_file():
        raise DataError(no_such(key, path, "a table in a file"))
    kind = ending(path)
    try:
        if kind in (".parquet", ".pq"):
            found = Table(_parquet(path))
        elif kind == ".arff":
            found = Table(*arff.read(path))
        elif kind in ENDINGS:
            found = Table(separated.read(path, header=header))
        else:
            raise DataError(f"{key}: {path} is a `{kind}` file; expected one of {', '.join(ENDINGS)}.")
    except (UserError, ImportError):
        raise
    except Exception as error:  # pyarrow raises what its parsers stumble over
        raise DataError(f"{path} cannot be read as a {kind} file: {str(error).splitlines()[0]}") from None
    if not found.columns or not found.rows:
        raise DataError(f"{path} has no rows.")
    return found


def _parquet(path: Path) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import parquet

    # read_table would take folders called key=value for columns, and looks for each name
    file = parquet.ParquetFile(path)
    batches, size = [], 0
    # a value that is repeated takes a few bits of a file, and all its bytes in memory
    for batch in file.iter_batches(ROWS):
        size += batch.nbytes
        if reason := too_large(path, size):
            raise DataError(f"{path}: {reason}. If you trust it, save it without compression as .csv.")
        batches.append(batch)
    table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    return separated.named(path, table.column_names, [column.combine_chunks() for column in table.columns])
