"""The files of a report, in the sweep's folder `report`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from dlrun.report.claims import check, own_figures
from dlrun.report.contents import contents
from dlrun.report.document import Image
from dlrun.report.figures import file_name, sweep_figures
from dlrun.report.html import html
from dlrun.report.markdown import markdown
from dlrun.report.overview import Overview, read_overview
from dlrun.report.runs_csv import runs_csv
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.study import CaptionedFigure
from dlrun.terminal import output
from dlrun.terminal.escape import encodable


def write(sweep: SweepDir, *, figures: bool = True) -> Path:
    """Write a sweep's report; returns the HTML page.

    Files: `report.md`, `report.html` (needs no other file), `runs.csv`, `claims.json` (of a study), and `figures/` as
    PNG and SVG. An unfinished sweep gets the report so far. Raises `OSError` if a file cannot be written.
    """
    overview, folder = read_overview(sweep), sweep.report
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "runs.csv", runs_csv(overview).encode())
    claims = check(overview)
    own = save_all([partial(own_figures, overview)], folder / "figures") if figures else []
    general = {part.label: save_all(_named(part), folder / "figures") for part in overview.strata if figures}
    page = contents(overview, claims, general, own)
    title = f"{overview.manifest.name} {sweep.id}"
    write_atomically(folder / "report.md", encodable(markdown(page)).encode())
    file = folder / "report.html"
    write_atomically(file, encodable(html(page, title=title, figures=folder / "figures")).encode())
    return file


def _named(part: Overview) -> Iterator[FigureSource]:
    """The figures of a stratum; their names begin with its label."""
    prefix = f"{file_name(part.label)}-" if part.label else ""

    def renamed(source: FigureSource) -> Iterator[CaptionedFigure]:
        for drawn in source():
            yield replace(drawn, name=prefix + drawn.name)

    return (partial(renamed, source) for source in sweep_figures(part))


FigureSource = Callable[[], Iterator[CaptionedFigure]]


def save_all(sources: Iterable[FigureSource], folder: Path) -> list[Image]:
    """Draw and save figures as PNG and SVG; one that fails is a warning."""
    from dlrun.analysis.figures.style import save

    saved = []
    for drawn in (drawn for source in sources for drawn in _draw(source)):
        try:
            save(drawn.figure, folder / f"{drawn.name}.png", folder / f"{drawn.name}.svg")
        except OSError:
            raise  # a full disk: no further figure can be saved either
        except Exception as error:
            _warn(error)
        else:
            saved.append(Image(drawn.name, drawn.caption))
    return saved


def _draw(source: FigureSource) -> Iterator[CaptionedFigure]:
    # a study may fail at a later figure: those before it are kept
    try:
        yield from source()
    except Exception as error:
        _warn(error)


def _warn(error: Exception) -> None:
    output.warn(f"A figure of the report could not be drawn: {type(error).__name__}: {error}")
