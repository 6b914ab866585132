"""A sweep for a notebook: its jobs and configurations as tables, its selection, its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.report.overview import Overview, read_overview, swept_value
from dlrun.runs.reload.loaded import Loaded
from dlrun.runs.reload.loaded import load as load_run
from dlrun.storage.lookup import find_sweep
from dlrun.storage.manifest import read
from dlrun.storage.results import Result, results
from dlrun.storage.sweep_summary import Selection
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep in a notebook. Its tables are read from its folder when they are asked for."""

    folder: SweepDir

    def __repr__(self) -> str:
        manifest = read(self.folder)
        return f"LoadedSweep({manifest.name}, {counted(len(manifest.jobs), 'job')}, {str(self.folder.path)!r})"

    @property
    def status(self) -> str:
        """`finished`; `failed` if a job did not finish or could not be tested; `running`, `killed`."""
        return self.folder.status()

    @property
    def report(self) -> Path:
        """The page with tables, figures and claims; `report.md` and `runs.csv` lie beside it."""
        return self.folder.report / "report.html"

    @property
    def selected(self) -> Selection | None:
        """The selected configuration: its `label`, the `mean` of the `monitor`, its `jobs`. None if there is none.

        Raises `UserError` for a sweep over several data sets, where `summary` shows one for each.
        """
        found = self.folder.summary().selections
        if len(found) > 1:
            raise UserError(
                f"{self.folder.path} has selected {len(found)} configurations, one of each data set: see `summary`."
            )
        return found[0] if found else None

    @property
    def runs(self) -> pd.DataFrame:
        """The jobs, a row each: swept values, seed, status, all metrics, id and folder of the run."""
        import pandas as pd  # a second

        manifest = read(self.folder)
        found = results(self.folder, manifest)
        keys = [key for key in manifest.swept if key != "seed"]
        metrics = list(dict.fromkeys(name for result in found for name in result.metrics))
        rows = [_job_row(result, keys) for result in found]
        return pd.DataFrame(rows, index=pd.Index([result.job.n for result in found], name="job")).reindex(
            columns=[*keys, "seed", "status", *metrics, "id", "folder"]
        )

    @property
    def summary(self) -> pd.DataFrame:
        """The configurations, a row each, ranked as in the report.

        The swept values, `selected`, the number of `seeds`, and of each metric the mean over them; from two seeds on
        also `METRIC sd`, and the ends `METRIC low` and `METRIC high` of the mean's 95 % interval. Only finished runs
        count.
        """
        import pandas as pd

        overview = read_overview(self.folder)
        return pd.concat(
            [_groups_table(part, several=len(overview.strata) > 1) for part in overview.strata], ignore_index=True
        )

    def load(self, job: int | None = None) -> Loaded:
        """The run of a job; without a number, that of the first selected one.

        Raises `UserError` if there is no such job, it has no weights, or nothing is selected.
        """
        manifest = read(self.folder)
        if job is None:
            chosen = self.selected
            if chosen is None and len(manifest.groups) > 1:
                raise UserError(f"{self.folder.path} has selected no configuration: give the number of a job.")
            job = chosen["jobs"][0] if chosen else manifest.jobs[0].n
        identities = {each.n: each.identity for each in manifest.jobs}
        if job not in identities:
            raise UserError(f"There is no job {job}: they are 0 to {len(identities) - 1}.")
        return load_run(str(self.folder.run(job, identities[job]).path))


def load(reference: str) -> LoadedSweep:
    """Find a sweep by its folder or the beginning of its id.

    Raises `UserError` if there is none.
    """
    sweep = find_sweep(reference)
    if sweep is None:
        raise UserError(
            f"No sweep `{reference}`: it is neither the folder of a sweep nor the beginning of its id. "
            "`dlrun runs --sweeps` lists them; a run is loaded by dlrun.load."
        )
    return LoadedSweep(sweep)


def _job_row(result: Result, keys: list[str]) -> dict[str, object]:
    swept = {key: swept_value(result, key) for key in keys}
    own = {"seed": result.job.seed, "status": result.status, "id": result.run.id, "folder": str(result.run.path)}
    return swept | result.metrics | own


def _groups_table(overview: Overview, *, several: bool) -> pd.DataFrame:
    import pandas as pd

    metrics = list(dict.fromkeys(name for result in overview.finished for name in result.metrics))
    # the one that ranks them first
    metrics.sort(key=lambda name: name != overview.metric)
    rows = []
    for group in overview.groups:
        row: dict[str, object] = {"data": overview.label} if several else {}
        row |= {key: swept_value(group.results[0], key) for key in overview.swept}
        row |= {"selected": group.selected, overview.manifest.repetitions: group.size}
        for name in metrics:
            found = group.spread_of(name)
            row[name] = found.mean
            if group.size > 1:
                row |= {f"{name} sd": found.sd, f"{name} low": found.low, f"{name} high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)
