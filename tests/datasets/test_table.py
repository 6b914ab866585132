"""Tables of the user's own, compared with pandas, scikit-learn and scipy."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dlrun.datasets.columns.column import MISSING
from dlrun.datasets.files.tabular.rows import read_rows
from dlrun.datasets.table import table
from dlrun.datasets.tensors import raw_inputs
from dlrun.errors import ConfigError, DataError
from dlrun.types import Data
from tests.facts import says

N = 400


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Rows with numbers, categories, dates and gaps."""
    draw = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "age": draw.integers(18, 90, N),
            "income": draw.normal(5e4, 1e4, N).round(2),
            "city": draw.choice(["oslo", "rome", "lima", "bern"], N, p=[0.5, 0.3, 0.19, 0.01]),
            "patient": draw.choice([f"p{i}" for i in range(40)], N),
            "day": pd.date_range("2020-01-01", periods=N).astype(str),
            "risk": draw.choice(["low", "high"], N),
            "score": draw.normal(size=N),
        }
    )
    frame.loc[draw.choice(N, 30, replace=False), "income"] = np.nan
    frame.loc[draw.choice(N, 20, replace=False), "city"] = np.nan
    frame.to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


def read(path: Path, **options) -> Data:
    given = {"target": "risk", "columns": ["age", "income", "city"], "missing": "mean"} | options
    return table(path=str(path), **given)


def parts(data: Data) -> dict[str, torch.Tensor]:
    return {name: getattr(data, name).x for name in ("train", "validation", "test")}


def rows_of(path: Path, data: Data) -> dict[str, pd.DataFrame]:
    """The rows of each split, by the age and the score, which no two share."""
    frame = pd.read_csv(path)
    scores = {name: getattr(data, name).y[:, 0].numpy() for name in ("train", "validation", "test")}
    return {name: frame.set_index(frame.score.astype("float32")).loc[values] for name, values in scores.items()}


@pytest.mark.parametrize("min_count", [1, 10])
def test_inputs_are_those_of_scikit_learn_s_transformers(people: Path, min_count: int) -> None:
    data = read(people, target="score", missing="indicator", min_count=min_count)
    rows = rows_of(people, data)
    train = rows["train"]
    numbers, gaps = SimpleImputer(), StandardScaler()
    rare = {"min_frequency": min_count, "handle_unknown": "infrequent_if_exist"}
    places = OneHotEncoder(sparse_output=False, **rare if min_count > 1 else {"handle_unknown": "ignore"})
    gaps.fit(train[["age", "income"]])
    places.fit(train.city.dropna().to_frame())
    numbers.fit(train[["age", "income"]])
    for name, x in parts(data).items():
        frame = rows[name]
        scaled = gaps.transform(pd.DataFrame(numbers.transform(frame[["age", "income"]]), columns=["age", "income"]))
        city = np.where(frame.city.isna().to_numpy()[:, None], 0, places.transform(frame.city.fillna("?").to_frame()))
        missing = frame.income.isna(), frame.city.isna()
        theirs = np.column_stack([scaled, missing[0], city, missing[1]])
        assert np.allclose(x.numpy(), theirs, atol=1e-5), name
    assert data.spec.input_shape == (x.shape[1],)


def test_with_mean_a_missing_category_has_the_shares_of_its_values(people: Path) -> None:
    data = read(people, target="score", normalise=False)
    frame = rows_of(people, data)["train"]
    shares = frame.city.value_counts(normalize=True).sort_index().to_numpy()
    x = data.train.x[frame.city.isna().tolist()]
    assert len(x) and np.allclose(x[:, 2:], shares) and np.allclose(data.train.x[:, 2:].sum(1), 1)
    gap = data.train.x[frame.income.isna().tolist()]
    assert np.allclose(gap[:, 1], frame.income.mean())


def test_an_unknown_category_is_none_of_the_known_ones(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_csv(people).fillna({"city": "oslo"})
    frame["part"] = ["train"] * 300 + ["val"] * 50 + ["test"] * 50
    frame.loc[299, "city"] = "bern"
    frame.loc[300, "city"] = frame.loc[310, "city"] = "paris"
    frame.to_csv(people, index=False)
    data = read(people, split_column="part")
    assert [len(getattr(data, name)) for name in ("train", "validation", "test")] == [300, 50, 50]
    assert (data.validation.x[[0, 10], 2:] == 0).all() and (data.train.x[:, 2:].sum(1) == 1).all()
    says(capsys.readouterr().err, "In 2 validation rows `city`", "paris")
    assert torch.equal(data.train.x[:, 0].sum().round(), torch.tensor(0.0))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet", "semicolons"])
def test_every_kind_of_file_has_the_same_rows(people: Path, kind: str) -> None:
    frame, plain = pd.read_csv(people), read(people)
    path = people.with_name(f"other.{kind}") if kind != "semicolons" else people.with_name("other.csv")
    if kind == "parquet":
        frame["city"] = frame["city"].astype("category")
        frame["age"] = frame["age"].astype("int32")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep={"tsv": "\t", "semicolons": ";"}.get(kind, ","))
    other = read(path)
    assert other.fingerprint == plain.fingerprint
    assert all(torch.equal(one, two) for one, two in zip(parts(other).values(), parts(plain).values(), strict=True))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_index_of_pandas_is_no_input(people: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_csv(people).sample(frac=1, random_state=0).drop(columns=["day", "patient"])
    path = people.with_name(f"shuffled.{kind}")
    frame.to_csv(path) if kind == "csv" else frame.to_parquet(path)
    assert read(path, columns=None).inputs.columns == ("age", "income", "city", "score")
    says(capsys.readouterr().out, "Left out as an index", "unnamed: 1" if kind == "csv" else "__index_level_0__")


def test_a_changed_cell_is_another_data_set(people: Path) -> None:
    before = read(people).fingerprint
    people.write_text(people.read_text().replace("oslo", "oslO", 1))
    assert read(people).fingerprint != before


def test_missing_values_are_those_of_pandas(tmp_path: Path) -> None:
    texts = [text for text in MISSING if text != "?"]
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{text},{i % 2}\n1,1\n2,0\n" for i, text in enumerate(texts)))
    theirs = int(pd.read_csv(tmp_path / "a.csv").x.isna().sum())
    assert theirs == len(texts)
    with pytest.raises(DataError, match=f"`x` in {theirs} of {3 * len(texts)} rows"):
        read(tmp_path / "a.csv", target="y", columns=None, missing="refuse")


def test_arff_is_read_as_scipy_reads_it(tmp_path: Path) -> None:
    from scipy.io import arff

    (tmp_path / "weather.arff").write_text(
        "% a comment\n@RELATION weather\n@ATTRIBUTE 'the outlook' {sunny, rainy, overcast}\n"
        "@attribute temperature REAL\n@attribute humidity numeric\n@attribute play {yes, no}\n@DATA\n"
        + "sunny,85,85.5,no\n% another\nrainy,70,?,yes\novercast,64,65,yes\nsunny,69,70,no\n"
        * 5
    )
    rows, _ = arff.loadarff(tmp_path / "weather.arff")
    data = read(tmp_path / "weather.arff", target="play", columns=None, normalise=False, validation_size=0, test_size=0)
    assert data.spec.class_names == ("yes", "no")
    assert [data.spec.class_names[i] for i in data.train.y] == [text.decode() for text in rows["play"]]
    assert np.array_equal(data.train.x[:, 3], rows["temperature"].astype("float32"))
    known = ~np.isnan(rows["humidity"])
    assert np.array_equal(data.train.x[:, 4].numpy()[known], rows["humidity"][known].astype("float32"))
    outlook = ["sunny", "rainy", "overcast"]
    assert [outlook[i] for i in data.train.x[:, :3].argmax(1)] == [text.decode() for text in rows["the outlook"]]


def test_arff_may_quote_its_names(tmp_path: Path) -> None:
    head = "@relation r\n@attribute \"a b\" {'light rain', 'it\\'s dry', x}\n@attribute y {0,1}\n@data\n"
    (tmp_path / "q.arff").write_text(head + "'light rain',0\nx, 1\n 'light rain' ,1\n'it\\'s dry',0\n")
    data = read(tmp_path / "q.arff", target="y", columns=None, validation_size=0, test_size=0)
    assert data.inputs.texts == (("light rain", "it's dry", "x"),) and data.inputs.columns == ("a b",)
    assert data.train.x.argmax(1).tolist() == [0, 2, 0, 1]


def test_targets_are_classes_by_name_numbers_or_several(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(people).spec.class_names == ("high", "low")
    several = read(people, target=["score", "age"], columns=["income"])
    assert (several.spec.task, several.spec.outputs, several.train.y.shape[1]) == ("regression", 2, 2)
    frame = pd.read_csv(people)
    frame["level"] = np.arange(N) % 6 + 3
    frame.to_csv(people, index=False)
    assert read(people, target="level").spec.class_names == ("3", "4", "5", "6", "7", "8")
    says(capsys.readouterr().out, "6 different whole numbers", "dataset.task=regression")
    assert read(people, target="level", task="regression").train.y.max() == 8
    assert read(people, target="age", columns=["city"]).spec.task == "regression"


def test_dates_are_days_where_asked(people: Path) -> None:
    data = read(people, target="score", columns=["day"], dates=["day"], normalise=False)
    days = pd.to_datetime(rows_of(people, data)["train"].day)
    assert np.array_equal(data.train.x[:, 0], ((days - pd.Timestamp(0)).dt.days).astype("float32"))
    ordered = read(people, time="day")
    first = pd.to_datetime(pd.read_csv(people).day)
    assert len(ordered.test) == 60 and first.is_monotonic_increasing
    assert "day" not in ordered.inputs.columns


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_days_without_hyphens_are_said_and_read_as_days(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    days = pd.date_range("2022-12-25", periods=20)
    frame = pd.DataFrame({"a": days.strftime("%Y%m%d").astype(int), "b": np.random.rand(20), "y": [0, 1] * 10})
    path = str(tmp_path / f"t.{kind}")
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    given = {"path": path, "target": "y", "columns": ["a"], "normalise": False}
    table(path=path, target="y")
    says(capsys.readouterr().out, "all look like days, as 20221225", "'dataset.dates=[a]'")
    data = table(**given, dates=["a"])  # type: ignore[arg-type]
    expected = (days - pd.Timestamp(0)).days
    assert {*data.train.x[:, 0].tolist()} <= {*map(float, expected)}
    assert len(data.train) > 9


def test_groups_stay_together(people: Path) -> None:
    data = read(people, target="score", group="patient")
    held = [{*frame.patient} for frame in rows_of(people, data).values()]
    assert sum(map(len, held)) == len(set().union(*held)) == 40


def test_numbers_can_be_categories(people: Path) -> None:
    data = read(people, columns=["age"], categories=["age"], validation_size=0, test_size=0)
    assert data.train.x.shape[1] == len(set(data.inputs.texts[0])) == pd.read_csv(people).age.nunique()
    assert data.inputs.texts[0][0] == "18"


def test_the_encoding_is_kept_with_the_run(people: Path) -> None:
    data = read(people, missing="indicator")
    inputs, prepare = raw_inputs.restore(raw_inputs.describe(data.inputs, data.prepare))
    assert (inputs, prepare) == (data.inputs, data.prepare)
    with pytest.raises(ValueError, match="known"):
        raw_inputs.restore({"shape": [1], "dtype": "float64", "prepare": {"columns": [{"number": False, "known": 1}]}})


def test_scaled_numbers_are_scaled_back_and_categories_are_not(people: Path) -> None:
    data = read(people, columns=["age", "income"], validation_size=0, test_size=0)
    raw = torch.tensor(pd.read_csv(people)[["age", "income"]].fillna(pd.read_csv(people).income.mean()).to_numpy())
    assert torch.allclose(data.prepare.undo(data.train.x).double(), raw, rtol=1e-4)
    assert data.prepare.deviation[0] == pytest.approx(pd.read_csv(people).age.std(ddof=0))
    with pytest.raises(DataError, match="categories"):
        read(people).prepare.undo(data.train.x)


REFUSED = {
    "path": ({"path": "peple.csv"}, ["peple.csv", "does not exist", "people.csv"]),
    "kind": ({"path": "a.xlsx"}, [".xlsx", ".parquet"]),
    "target": ({"target": "risc"}, ["target", "risc", "Did you mean `risk`"]),
    "no target": ({"target": None}, ["dataset.target=score"]),
    "column": ({"columns": ["agee"]}, ["columns", "agee", "`age`"]),
    "its target": ({"columns": ["age", "risk"]}, ["risk", "target"]),
    "left out": ({"columns": ["age"], "leave_out": ["age"]}, ["no column is left"]),
    "all": (
        {"columns": None},
        ["`day` holds dates", "'dataset.leave_out=[day]'", "'dataset.dates=[day]'"],
    ),
    "gaps": ({"missing": "refuse"}, ["`income` in 30 of 400", "`city` in 20", "dataset.missing=mean"]),
    "classes": ({"target": "patient", "columns": ["age"], "stratify": True, "group": "risk"}, ["group", "stratify"]),
    "dates": ({"columns": ["city"], "dates": ["city"]}, ["city", "2026-11-29"]),
    "fractions": ({"target": "score", "task": "classification"}, ["score", "fractions"]),
    "regression": ({"task": "regression"}, ["risk", "no number"]),
    "gap in group": ({"group": "city"}, ["city", "missing in 20"]),
    "split": ({"split_column": "patient"}, ["patient", "train, validation"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_what_to_type(people: Path, case: str) -> None:
    wrong, facts = REFUSED[case]
    (people.parent / "a.xlsx").write_text("")
    path = people.with_name(str(wrong.pop("path", "people.csv")))
    with pytest.raises((ConfigError, DataError)) as error:
        read(path, **wrong)
    says(str(error.value), *facts)


BAD = {
    "numbered": ("Id,a,y\n1,5,0\n2,7,1\n3,5,1\n4,8,0\n", ["`Id` numbers the rows", "leave_out=[Id]"]),
    "constant": ("a,b,y\n1,5,0\n1,7,1\n1,5,1\n1,8,0\n", ["`a` has one value in all rows, `1`"]),
    "text": ("a,b,y\nx,5,0\nyy,7,1\nz,5,1\nw,8,0\n", ["`a` is text: 4", "categories=[a]"]),
    "mixed": ("a,b,y\n1,5,0\n2,7,1\nunknown,5,1\n3,8,0\n1,1,1\n", ["`a` has numbers, and texts such as `unknown`"]),
    "empty column": ("a,b,y\n,5,0\n,7,1\n,5,1\n,8,0\n", ["`a` has no value"]),
    "no target": ("b,y\n5,0\n7,\n5,1\n8,0\n", ["`y` is missing in 1 of 4 rows", "row 2"]),
    "one target": ("b,y\n5,0\n7,0\n5,0\n8,0\n", ["`y` has one value"]),
    "short row": ("b,y\n5,0\n7\n5,1\n8,0\n", ["got 1"]),
    "long row": ("b,y\n5,0\n7,1,2\n5,1\n8,0\n", ["got 3"]),
    "twice": ("b,b,y\n5,1,0\n7,1,1\n", ["two columns `b`"]),
    "no header": ("5,0\n7,1\n5,1\n", ["dataset.header=false"]),
    "no rows": ("b,y\n", ["no rows"]),
    "nothing": ("", ["empty"]),
    "huge": ("b,y\n1e300,0\n7,1\n5,1\n8,0\n", ["1e+300", "float32"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused(tmp_path: Path, case: str) -> None:
    content, facts = BAD[case]
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises((ConfigError, DataError)) as error:
        table(path=str(tmp_path / "t.csv"), target="y")
    says(str(error.value), *facts)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    for name, encoding in (("latin1.csv", "latin1"), ("wide.csv", "utf-16")):
        (tmp_path / name).write_bytes("é,y\n1,0\nö,1\n".encode(encoding))
        with pytest.raises(DataError, match=r"UTF-8.*iconv"):
            table(path=str(tmp_path / name), target="y")
    (tmp_path / "marked.csv").write_bytes("a,y\n1,0\n2,1\n3,0\n3,1\n".encode("utf-8-sig"))
    assert table(path=str(tmp_path / "marked.csv"), target="y", columns=["a"], test_size=0).inputs.columns == ("a",)
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write('a,y\n"1",0\n"2",1\n 3 ,0\n3,1\n')
    packed = table(path=str(tmp_path / "t.csv.gz"), target="y", validation_size=0, test_size=0, normalise=False)
    assert packed.train.x[:, 0].tolist() == [1, 2, 3, 3]


def test_given_splits_that_share_a_group_or_run_back_in_time_are_refused(people: Path) -> None:
    frame = pd.read_csv(people)
    frame["part"] = np.where(np.arange(N) % 4 == 0, "test", "train")
    frame.to_csv(people, index=False)
    with pytest.raises(DataError, match="in train and in test"):
        read(people, split_column="part", group="patient")
    with pytest.raises(DataError, match="not all before"):
        read(people, split_column="part", time="day")
    data = read(people, split_column="part", folds=3, fold=1)
    assert (len(data.test), len(data.validation)) == (100, 100)


def written(path: Path, cells: list[str], **options) -> Data:
    """A table with these cells in the column `a`, beside a number and two classes."""
    draw = np.random.default_rng(0)
    lines = [f"{cell},{draw.random():.3f},{i % 2}" for i, cell in enumerate(cells)]
    path.write_text("\n".join(["a,b,y", *lines]) + "\n")
    return table(path=str(path), **({"target": "y", "test_size": 0, "validation_size": 0} | options))


DOUBTS = {
    "decimal commas": (['"1,5"', '"2,5"'] * 10, "numbers written as `1,5`"),
    "thousands": (['"1,000"', "900"] * 10, "numbers written as `1,000`"),
    "percent": (["12%", "7 %", "3%"] * 10, "numbers written as `12%`"),
    "money": (["$3.50", "$7"] * 10, "numbers written as `$3.50`"),
    "large ids": ([str(2**53 + i % 3) for i in range(20)], "takes for one another, as 9007199254740992"),
    "shuffled rows": ([str(i * 7 % 20) for i in range(20)], "`a` numbers the rows"),
    "an open quote": (['"u' if i in (3, 9) else "v" for i in range(20)], 'row at line 5 has a quote (") that is not'),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_a_column_that_may_be_mistaken_is_asked_about(tmp_path: Path, case: str) -> None:
    cells, told = DOUBTS[case]
    with pytest.raises(DataError) as error:
        written(tmp_path / "t.csv", cells)
    assert told in str(error.value)


def test_ids_by_name_are_no_inputs_and_codes_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "t.csv", [f"0{i % 7}134" for i in range(20)])
    assert "`a` is taken for numbers, 00134 for 134. For codes type 'dataset.categories=[a]'" in capsys.readouterr().out
    frame = pd.read_csv(tmp_path / "t.csv")
    frame["PassengerId"] = np.random.default_rng(0).permutation(1000)[: len(frame)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="`PassengerId` is an id by its name"):
        table(path=str(tmp_path / "t.csv"), target="y")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_whole_numbers_of_any_size_are_categories_of_their_own(tmp_path: Path, kind: str) -> None:
    numbers = [2**53 + i % 3 for i in range(30)]
    data = written(tmp_path / "t.csv", [str(number) for number in numbers], categories=["a"])
    if kind == "parquet":
        pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
        data = table(path=str(tmp_path / "t.parquet"), target="y", categories=["a"], test_size=0, validation_size=0)
    assert data.inputs is not None
    assert data.inputs.texts[0] == tuple(str(2**53 + i) for i in range(3))
    assert torch.equal(data.train.x[:, :3], torch.eye(3).repeat(10, 1))


def test_a_code_keeps_its_zeros_and_a_known_value_may_be_written_otherwise(tmp_path: Path) -> None:
    cells = [f"{i % 3},0{i % 3}" for i in range(30)]
    lines = [f"{cell},{i % 2 == 0},{i % 2}" for i, cell in enumerate(cells)]
    (tmp_path / "t.csv").write_text("\n".join(["a,code,flag,y", *lines]))
    data = table(path=str(tmp_path / "t.csv"), target="y", categories=["a", "code"])
    assert data.inputs is not None
    assert data.inputs.texts == (("0", "1", "2"), ("00", "01", "02"), ("False", "True"))
    (tmp_path / "new.csv").write_text("flag,code,a\ntrue,1,2.0\nFALSE,02,other\nno,3,0\n")
    rows = read_rows(tmp_path / "new.csv", data.inputs)
    assert rows.tolist() == [[2, 1, 1], [-1, 2, 0], [0, -1, -1]]
    pd.DataFrame({"a": [1], "code": [2], "flag": [True]}).to_parquet(tmp_path / "new.parquet")
    assert read_rows(tmp_path / "new.parquet", data.inputs).tolist() == [[1, 2, 1]]


@pytest.mark.parametrize("text", ["\n\nc,y\n", "\ufeff\r\nc,y\r\n", '"c",y\n'])
def test_the_header_is_no_row_whatever_is_before_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text + "".join(f"{'uv'[i % 2]},{'no' if i % 4 else 'yes'}\n" for i in range(40)))
    data = table(path=str(tmp_path / "t.csv"), target="y")
    assert data.spec.class_names == ("no", "yes")
    assert data.inputs is not None
    assert data.inputs.texts == (("u", "v"),)


def test_a_name_may_have_two_lines(tmp_path: Path) -> None:
    rows = "".join(f"{i * i};{i % 2}\n" for i in range(20))
    (tmp_path / "t.csv").write_text('"a\nin mm";y\n' + rows)
    data = table(path=str(tmp_path / "t.csv"), target="y")
    assert data.inputs is not None
    assert data.inputs.columns == ("a\nin mm",)


def test_an_empty_line_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i * i},{i % 2}\n" for i in range(20)))
    data = table(path=str(tmp_path / "t.csv"), target="y", missing="mean")
    (tmp_path / "new.csv").write_text("x\n1\n\n3\n\n")
    assert data.inputs is not None
    assert torch.equal(read_rows(tmp_path / "new.csv", data.inputs).isnan()[:, 0], torch.tensor([False, True, False]))


def test_a_declared_value_is_taken_as_it_is_written(tmp_path: Path) -> None:
    head = "@relation t\n@attribute a numeric\n@attribute c {01,02}\n@attribute y {no,yes}\n@data\n"
    rows = "".join(f"{i * i},0{1 + i % 2},{'no' if i % 3 else 'yes'}\n" for i in range(20))
    (tmp_path / "t.arff").write_text(head + rows)
    data = table(path=str(tmp_path / "t.arff"), target="y")
    assert data.inputs is not None
    assert data.inputs.texts[1] == ("01", "02")
