"""The files of a report: pages, table and figures in the sweep's folder `report`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from dlrun.report.claims import check, findings
from dlrun.report.contents import contents
from dlrun.report.document import Image
from dlrun.report.figures import sweep_figures
from dlrun.report.html import html
from dlrun.report.markdown import markdown
from dlrun.report.overview import read_overview
from dlrun.report.runs_csv import runs_csv
from dlrun.storage.files import write_atomically
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.study import CaptionedFigure
from dlrun.terminal import output


def write(sweep: SweepDir, *, figures: bool = True) -> Path:
    """Write the report of a sweep from its folder alone, with its `figures` or without, and return the HTML page.

    `report.md` and `report.html` (which needs no other file), `runs.csv`, `claims.json` if the sweep
    is a study's, and `figures/` as PNG and SVG. A sweep that has not ended gets the report so far.
    Raises `OSError` if the files cannot be written.
    """
    overview, folder = read_overview(sweep), sweep.report
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "runs.csv", runs_csv(overview).encode())
    claims = check(overview)
    own = _saved([partial(findings, overview)], folder / "figures") if figures else []
    general = _saved(sweep_figures(overview), folder / "figures") if figures else []
    page = contents(overview, claims, general, own)
    title = f"{overview.manifest.name} {sweep.id}"
    write_atomically(folder / "report.md", markdown(page).encode())
    file = folder / "report.html"
    write_atomically(file, html(page, title=title, figures=folder / "figures").encode())
    return file


Source = Callable[[], Iterator[CaptionedFigure]]


def _saved(sources: Iterable[Source], folder: Path) -> list[Image]:
    """Save the figures; one that cannot be drawn is a warning, not a lost report."""
    from dlrun.analysis.figures.style import save

    saved = []
    for finding in (found for source in sources for found in _drawn(source)):
        try:
            save(finding.figure, folder / f"{finding.name}.png", folder / f"{finding.name}.svg")
        except OSError:
            raise
        except Exception as error:
            _warn(error)
        else:
            saved.append(Image(finding.name, finding.caption))
    return saved


def _drawn(source: Source) -> Iterator[CaptionedFigure]:
    try:
        yield from source()
    except Exception as error:
        _warn(error)


def _warn(error: Exception) -> None:
    output.warn(f"A figure of the report could not be drawn: {type(error).__name__}: {error}")
