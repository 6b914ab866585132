"""The report of a sweep: its numbers against numpy, its words against what was done, its files whole in themselves."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrun.report import sentences, tables
from dlrun.report.claims import check
from dlrun.report.contents import contents
from dlrun.report.document import Code, Heading, Paragraph, Table
from dlrun.report.figures import sweep_figures
from dlrun.report.html import html
from dlrun.report.markdown import markdown
from dlrun.report.overview import read_overview
from dlrun.report.terminal_text import terminal_text
from dlrun.report.write import write
from dlrun.storage.results import Result
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.study import CaptionedFigure, Claim, judge
from tests.facts import refuses, says
from tests.made_sweeps import group_of, made_sweep

RATES, SEEDS = [0.01, 0.1, 1.0], [0, 1, 2, 3]


def errors(values: dict[str, Any]) -> dict[str, Any]:
    """Metrics by rate, with noise by seed: 0.1 is the best."""
    base = {0.01: 0.20, 0.1: 0.10, 1.0: 0.40}[values["optimizer.lr"]]
    error = base + 0.01 * np.random.default_rng(values["seed"]).random()
    return {"train/error": error / 2, "val/error": error, "val/loss": 3 * error}


def curve(values: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Curves that fall to `errors`."""
    error = errors(values).get("val/error", 1.0)
    return {name: [(s, error + 1 / s) for s in (10, 20, 30)] for name in ("train/loss", "val/loss", "val/error")}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepDir:
    """A reported sweep of three rates by four seeds; of the largest rate, one run failed and one never started."""

    def some_fail(values: dict[str, Any]) -> dict[str, Any]:
        if values["optimizer.lr"] == 1.0 and values["seed"] < 2:
            return {"status": "failed", "error": "NonFinite: no | finite loss at step 7"} if values["seed"] else {}
        tested = {"test/error": errors(values)["val/error"] + 0.02} if values["optimizer.lr"] == 0.1 else {}
        return errors(values) | tested

    chosen = {"group": group_of(optimizer__lr=0.1), "label": "optimizer.lr=0.1"}
    grid = {"optimizer.lr": RATES, "seed": SEEDS}
    folder = tmp_path_factory.mktemp("sweeps") / "120000-made-abcd"
    made = made_sweep(folder, grid, some_fail, curves=curve, summary={"selected": chosen})
    write(made)
    return made


def page(sweep: SweepDir) -> str:
    """The Markdown page without its backslash escapes."""
    if not sweep.report.exists():
        write(sweep)
    return re.sub(r"\\([\\`*_<\[|])", r"\1", (sweep.report / "report.md").read_text())


def test_groups_are_ranked_by_their_means(sweep: SweepDir) -> None:
    groups = read_overview(sweep).groups
    assert [group.label for group in groups] == ["optimizer.lr=0.1", "optimizer.lr=0.01", "optimizer.lr=1.0"]
    values = np.array([errors({"optimizer.lr": 0.1, "seed": seed})["val/error"] for seed in SEEDS])
    best = groups[0].spread
    assert (best.n, best.mean, best.sd) == (4, pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert [group.complete for group in groups] == [True, True, False]
    assert groups[2].spread.n == 2


def test_the_page_says_what_was_asked_and_what_came_of_it(sweep: SweepDir) -> None:
    text = page(sweep)
    assert "dlrun train -m …" in text
    assert "12 jobs in 3 groups: 10 finished, 1 missing, 1 failed." in text
    assert "2 of 4" in text
    assert "| 9 | optimizer.lr=1.0 seed=1 | failed | NonFinite: no | finite loss at step 7 |" in text
    assert "dlrun resume abcd --retry-failed" in text
    assert "the lowest mean val/error" in text
    assert "`optimizer.lr=0.1` is better than the runner-up `optimizer.lr=0.01`" in text
    assert "Student's t" in text


def test_a_sealed_test_is_said_to_be(sweep: SweepDir) -> None:
    text = page(sweep)
    assert "read 4 times, by 4 runs" in text
    values = [errors({"optimizer.lr": 0.1, "seed": seed})["val/error"] + 0.02 for seed in SEEDS]
    assert f"{np.mean(values):.4f}" in text
    assert not list(sweep.report.glob("figures/*test*"))


def test_a_test_that_every_run_read_is_for_looking(tmp_path: Path) -> None:
    sweep = made_sweep(
        tmp_path / "s", {"model.degree": [1, 2, 3], "seed": [0, 1]}, lambda v: {"test/mse": v["model.degree"]} | mse(v),
        test="every", monitor="val/mse",
    )  # fmt: skip
    text = page(sweep)
    assert "(evaluation.test: every)" in text
    assert "read 6 times, by 6 runs" in text


def mse(values: dict[str, Any]) -> dict[str, float]:
    return {"train/mse": 1.0 / values["model.degree"], "val/mse": float(values["model.degree"])}


def test_every_test_metric_of_known_direction_has_worst_and_best(tmp_path: Path) -> None:
    def tested(values: dict[str, Any]) -> dict[str, Any]:
        value = 0.1 + 0.1 * values["seed"]
        return {"val/loss": value, "test/loss": value, "test/mse": value, "test/accuracy": value, "test/mine": value}

    overview = read_overview(made_sweep(tmp_path / "120000-made-ffff", {"seed": [0, 1]}, tested, monitor="val/loss"))
    table = tables.test_scores(overview, overview.groups[0])
    rows = {row[0]: row[3:6] for row in table.rows} if table else {}
    assert rows["test/loss"] == rows["test/mse"] == ["0.2", "0.15", "0.1"]
    assert rows["test/accuracy"] == ["0.1", "0.15", "0.2"]
    assert rows["test/mine"] == ["", "0.15", ""]


def test_few_skewed_values_say_nothing_about_their_mean(tmp_path: Path) -> None:
    skewed = [0.013, 0.02, 0.1, 0.6, 1.7]
    made = made_sweep(
        tmp_path / "120000-made-eeee",
        {"seed": [*range(5)]},
        lambda values: {"val/mse": skewed[values["seed"]]},
        monitor="val/mse",
    )
    overview = read_overview(made)
    cell = tables.ranking(overview).rows[0][-1]
    assert cell.startswith("0 to ") and cell.endswith("(too few seeds)")
    assert "Too few seeds" in sentences.interval_note(overview)
    assert "no bar" in next(sweep_figures(overview)[0]()).caption


def test_one_seed_a_group_says_what_it_cannot_show(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"optimizer.lr": RATES, "seed": [0]}, errors)
    text = page(sweep)
    assert "seed=range(5)" in text
    assert "±" not in text


def test_only_seeds_choose_nothing(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"seed": SEEDS}, lambda v: errors({**v, "optimizer.lr": 0.1}))
    assert "Only the seed varies" in page(sweep)
    assert "Over the seeds" in page(sweep)


def test_every_run_is_a_line_of_the_csv(sweep: SweepDir) -> None:
    rows = list(csv.DictReader((sweep.report / "runs.csv").read_text().splitlines()))
    assert [int(row["job"]) for row in rows] == list(range(12))
    assert [row["status"] for row in rows].count("finished") == 10
    assert (float(rows[0]["optimizer.lr"]), rows[3]["seed"]) == (0.01, "3")
    assert float(rows[5]["val/error"]) == errors({"optimizer.lr": 0.1, "seed": 1})["val/error"]
    assert [row["selected"] for row in rows] == ["0"] * 4 + ["1"] * 4 + ["0"] * 4
    assert (rows[8]["val/error"], rows[9]["error"]) == ("", "NonFinite: no | finite loss at step 7")


def test_the_html_page_needs_no_other_file(sweep: SweepDir) -> None:
    text = (sweep.report / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{30})', text)
    assert len(sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    drawing = base64.b64decode(re.findall(r"base64,([^\"]*)", text)[0]).decode()
    assert drawing.lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ({"optimizer.lr": RATES}, ["ranking", "against-optimizer.lr"]),
        (
            {"optimizer.lr": RATES, "model": ["mlp", "cnn"]},
            ["ranking", "against-optimizer.lr", "against-model", "heat"],
        ),
        (
            {"optimizer.lr": RATES, "model": ["mlp", "cnn"], "a.b": [0, 1]},
            ["ranking", "against-optimizer.lr", "against-model", "against-a.b", "parallel"],
        ),
    ],
    ids=["one", "two", "three"],
)
def test_a_sweep_gets_the_figures_that_suit_its_variables(
    tmp_path: Path, grid: dict[str, Any], names: list[str]
) -> None:
    seen = read_overview(made_sweep(tmp_path / "s", {**grid, "seed": [0, 1]}, errors))
    assert [finding.name for source in sweep_figures(seen) for finding in source()] == names


def test_a_random_search_gets_dots_and_no_map(tmp_path: Path) -> None:
    def drawn(values: dict[str, Any]) -> dict[str, Any]:
        # of the grid the diagonal: no value comes twice
        same = RATES.index(values["optimizer.lr"]) == values["model.width"]
        return errors(values) if same else {"status": "pruned"}

    seen = read_overview(
        made_sweep(tmp_path / "s", {"optimizer.lr": RATES, "model.width": [0, 1, 2], "seed": [0]}, drawn)
    )
    found = {finding.name: finding for source in sweep_figures(seen) for finding in source()}
    assert [*found] == ["ranking", "against-optimizer.lr", "against-model.width", "parallel"]
    assert not found["against-model.width"].figure.axes[0].get_lines()
    assert "line" not in found["against-model.width"].caption


def test_a_report_written_again_is_the_same(sweep: SweepDir) -> None:
    files = {file: file.read_bytes() for file in sweep.report.rglob("*.*")}
    assert len(files) == 3 + 2 * 3
    write(sweep)
    assert {file: file.read_bytes() for file in sweep.report.rglob("*.*")} == files


def test_nothing_finished_is_a_report_too(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"optimizer.lr": RATES, "seed": [0]}, lambda values: {})
    assert "No run has finished" in page(sweep)
    assert "3 missing" in terminal_text(sweep)


def test_a_diverged_run_is_counted_not_averaged(tmp_path: Path) -> None:
    def some_diverge(values: dict[str, Any]) -> dict[str, Any]:
        return errors(values) | ({"val/error": float("inf")} if values["seed"] == 2 else {})

    sweep = made_sweep(tmp_path / "s", {"optimizer.lr": RATES, "seed": SEEDS}, some_diverge)
    text = page(sweep)
    assert text.count("3 of 4") == 3
    assert text.count("not finite") == 3


class Study:
    """A study whose verdict is an argument."""

    def __init__(self, holds: bool | None = True, fails: bool = False) -> None:
        self.holds, self.fails = holds, fails

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        if self.fails:
            raise ValueError("no")
        return [judge("the error falls", self.holds, f"{len(results)} runs")]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        from dlrun.analysis.figures.style import figure

        drawn = figure(3, 3)
        drawn.add_subplot().plot([1, 2])
        yield CaptionedFigure("own", drawn, "What the study shows.")
        raise ValueError("the second figure")


def of_study(folder: Path, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> SweepDir:
    monkeypatch.setenv("DLRUN_TRUSTED", Study.__module__)
    study = {"_target_": f"{Study.__module__}.{Study.__qualname__}", **arguments}
    return made_sweep(folder, {"optimizer.lr": RATES, "seed": [0, 1]}, errors, study=study)


@pytest.mark.parametrize(("holds", "word"), [(True, "held"), (False, "not held"), (None, "undecided")])
def test_claims_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool | None, word: str) -> None:
    sweep = of_study(tmp_path / "s", monkeypatch, holds=holds)
    seen = read_overview(sweep)
    told = markdown(contents(seen, check(seen), {}, []))
    assert f"| {word} | the error falls | 6 runs |" in told
    assert f"  {word}: the error falls\n    6 runs" in terminal_text(sweep)
    assert json.loads((sweep.report / "claims.json").read_text())[0]["verdict"] == word


def test_a_study_that_fails_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = of_study(tmp_path / "s", monkeypatch, fails=True)
    text = page(sweep)
    assert "undecided" in text
    assert "failed: ValueError: no" in text
    assert (sweep.report / "figures" / "own.png").exists()  # drawn before the second one failed
    says(capsys.readouterr().err, "ValueError: the second figure")
    assert "figures/ranking.png" in text


def test_the_closing_lines(sweep: SweepDir) -> None:
    text = terminal_text(sweep)
    assert "★ optimizer.lr=0.1 " in text
    assert "test/error" in text
    assert "report.html" in text
    assert max(len(line) for line in text.splitlines() if "±" in line) < 130


def test_signs_stay_what_they_are() -> None:
    blocks = [Heading("a_b"), Paragraph("x<y & *z*"), Table(["k|1"], [["<b>"]])]
    assert "<b>" not in html(blocks, title="<t>", figures=Path()).partition("<body>")[2].replace("<body>", "")
    assert r"a\_b" in markdown(blocks)
    assert r"k\|1" in markdown(blocks)


def test_dlrun_report(sweep: SweepDir, call: Callable[..., Any]) -> None:
    (sweep.report / "report.html").unlink()
    done = call("report", str(sweep.path))
    assert done.code == 0, done.err
    says(done.out, "report.html")
    assert (sweep.report / "report.html").exists()
    wrong = call("report", "nothing")
    refuses(wrong, "No sweep `nothing`")


def test_no_value_of_a_run_is_markup_or_a_formula(tmp_path: Path) -> None:
    tag, formula = "<script>alert(1)</script>", "=HYPERLINK(1)"
    grid = {"+tracking.tags.a": [tag, formula, "a`<b>`|c"], "seed": [0, 1]}
    made = made_sweep(tmp_path / "120000-made-abcd", grid, lambda values: {"val/error": 0.1, "val/loss": 0.2})
    write(made, figures=False)
    for page in ("report.md", "report.html"):
        text = (made.report / page).read_text()
        assert "<script>" not in text and "<b>" not in text and "alert(1)" in text
    with (made.report / "runs.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    cells = [cell for row in rows for cell in row]
    assert f"'{formula}" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@"))]


def test_code_with_markup_stays_code_in_markdown() -> None:
    page = markdown([Code("dlrun train a='<b>'\n```\nrest"), Paragraph("`a<b` and &lt; and c<d"), Code("plain")])
    assert page == (
        "<pre>\ndlrun train a='&lt;b&gt;'\n```\nrest\n</pre>\n\n"
        "<code>a&lt;b</code> and &amp;lt; and c&lt;d\n\n```\nplain\n```\n"
    )


@pytest.mark.parametrize(
    ("far", "told"),
    [
        ([0.1], "The other group (`lr=0.3`) has no significant difference from the best either."),
        ([0.1, 0.1], "The other 2 groups (`lr=0.3`, `lr=0.4`) have no significant difference from the best either."),
        ([0.1, 9.0], "1 of the other 2 groups (`lr=0.3`) has no significant difference from the best either."),
        ([9.0], ""),
    ],
)
def test_further_groups_are_named_if_chance_could_explain_them(tmp_path: Path, far: list[float], told: str) -> None:
    rates = [0.1, 0.2, 0.3, 0.4][: 2 + len(far)]
    means = dict(zip(rates, [0.1, 0.1, *far], strict=True))

    def errors_of(job: dict[str, Any]) -> dict[str, float]:
        # the seeds' noise is the same for every rate, in another order
        return {"val/loss": means[job["lr"]] + [0.0, 0.01, 0.03, 0.02][(job["seed"] + int(job["lr"] * 10)) % 4]}

    sweep = made_sweep(tmp_path / "s", {"lr": rates, "seed": [0, 1, 2, 3]}, errors_of, monitor="val/loss")
    text = sentences.lead(read_overview(sweep))
    said = text.partition("seeds). ")[2]
    assert said == f"{told} These intervals hold for all groups at once.".strip()
