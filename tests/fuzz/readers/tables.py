"""Files of tables: CSV, TSV, ARFF, Parquet, JSON lines."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from dlrun.datasets.files.given import samples
from dlrun.datasets.files.tabular.read import read
from dlrun.datasets.files.tabular.rows import read_rows
from dlrun.datasets.files.tabular.text_table import read_csv
from dlrun.datasets.language.labelled import read_table
from dlrun.datasets.language.pairs.read import read_pairs, read_sources
from dlrun.types import RawInputs
from tests.fuzz.reader import Reader, every

CSV = (
    b"a,b,label\n1,2,x\n3,,y\n",
    b'"a";"b"\n"1";"2,5"\n"3";"4 ""q"" \n5"\n',
    b"\xef\xbb\xbfa\tb\n1\t2\n\n3\t4\n",
    b"text,label,split\nhello,a,train\nbye,b,test\n",
    b"0.5,1\n2,3\n1e3,-4\n",
)
ARFF = (
    b"@relation r\n@attribute a numeric\n@attribute 'b c' {x, 'y z'}\n@data\n1,x\n% c\n?, 'y z'\n",
    b"@attribute a real\n@data\n{0 1}\n",
)
JSONL = (
    b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n',
    b'{"translation": {"en": "a", "fr": "b"}}\n{"translation": {"en": "c", "fr": "d"}}\n',
)


def _parquet() -> list[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    found = []
    table = pa.table({"a": [1.0, 2.0, None], "b": ["x", "y", "x"], "l": [[1], [2, 3], []]})
    for codec in ("snappy", "none", "gzip", "zstd"):
        file = io.BytesIO()
        parquet.write_table(table, file, compression=codec)
        found.append(file.getvalue())
    return found


def _columns(path: Path) -> None:
    from dlrun.datasets.columns import column

    for name, cells in read(path).columns.items():
        column.read(name, cells)


def _rows(path: Path) -> None:
    inputs = RawInputs(
        shape=(2,),
        dtype="float64",
        columns=("a", "b"),
        kinds=("number", "category"),
        texts=((), ("x", "y")),
        low=(0.0, 0.0),
        high=(1.0, 1.0),
    )
    read_rows(path, inputs)


def _samples(path: Path) -> None:
    samples.read(path, RawInputs(shape=(2,), dtype="float32"))


def _pairs(path: Path) -> None:
    read_pairs([path], {}, skip_empty=True)


def _sources(path: Path) -> None:
    read_sources(path, {})


TEXTS = every(read_table, _pairs, _sources)
READERS = (
    Reader("csv", "x.csv", lambda: CSV, every(_columns, _rows, _samples, read_csv, TEXTS)),
    Reader("tsv", "x.tsv", lambda: CSV, every(_columns, _rows, _samples, TEXTS)),
    Reader("csv-gz", "x.csv.gz", lambda: CSV, every(_columns, _samples), pack=gzip.compress),
    Reader("csv-gz-bytes", "x.csv.gz", lambda: [gzip.compress(c) for c in CSV], every(_columns, _samples)),
    Reader("arff", "x.arff", lambda: ARFF, _columns),
    Reader("parquet", "x.parquet", _parquet, every(_columns, _rows)),
    Reader("jsonl", "x.jsonl", lambda: JSONL, TEXTS, tree=True),
)
