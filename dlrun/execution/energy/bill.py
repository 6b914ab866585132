"""Energy, money and CO2 of a run: measured joules and seconds, times what the user says that they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.config.settings import Cost
from dlrun.execution.energy.sampler import Sampler
from dlrun.storage.journal import curves

JOULES_PER_KWH = 3.6e6
UNMETERED = "unmetered_seconds"
"""The entry of the seconds in which nothing told the energy, beside others in which something did."""
ACCUMULATED = ("machine_seconds", "joules", "joules_estimated", UNMETERED)
"""The entries that a resumed run adds to; all others follow from them."""


@dataclass(frozen=True)
class Spent:
    """What the processes that have trained a run before have used: `ACCUMULATED` entries, in so many seconds."""

    entries: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


NOTHING = Spent()


@dataclass(frozen=True)
class Bill:
    """The cost of a run beside its operations.

    `measured` gives the joules of this process so far, None where nothing tells them. A stack of `sharing` runs has an
    equal part each.
    """

    prices: Cost
    measured: Callable[[], float] | None = None
    source: str = ""
    before: Spent = NOTHING
    sharing: int = 1

    @property
    def kept(self) -> bool:
        """Is there anything to say?"""
        return self.measured is not None or self.prices != Cost() or bool(self.before.entries)

    @property
    def basis(self) -> str:
        """What the energy rests on, in words; empty without one."""
        if self.measured is not None:
            return self.source
        return f"an estimate: cost.watts={self.prices.watts:g} for the time of the run" if self.prices.watts else ""

    def entries(self, seconds: float) -> dict[str, float]:
        """The entries of a run's cost after `seconds` of this process.

        >>> bill = Bill(Cost(price_per_kwh=0.3, g_co2_per_kwh=400.0), measured=lambda: 1.8e6)
        >>> bill.entries(seconds=60.0)
        {'machine_seconds': 60.0, 'joules': 1800000.0, 'money': 0.15, 'g_co2': 200.0}
        >>> Bill(Cost(watts=100.0, price_per_hour=2.0), sharing=2).entries(seconds=3600.0)
        {'machine_seconds': 1800.0, 'joules_estimated': 180000.0, 'money': 1.0}

        What follows from a price of energy is left out if the energy of a part of the time is not known.

        >>> Bill(Cost(g_co2_per_kwh=400.0), before=Spent({"machine_seconds": 5.0, "joules": 9.0})).entries(seconds=2.0)
        {'machine_seconds': 7.0, 'joules': 9.0, 'unmetered_seconds': 2.0}
        """
        if not self.kept:
            return {}
        before, prices = self.before.entries, self.prices
        now = seconds / self.sharing
        found = {"machine_seconds": before.get("machine_seconds", self.before.seconds) + now}
        joules, estimated = before.get("joules"), before.get("joules_estimated")
        if self.measured is not None:
            joules = (joules or 0.0) + self.measured() / self.sharing
        elif prices.watts is not None:
            estimated = (estimated or 0.0) + prices.watts * now
        found |= {"joules": joules} if joules is not None else {}
        found |= {"joules_estimated": estimated} if estimated is not None else {}
        unmetered, known = self._unmetered(now), joules is not None or estimated is not None
        found |= {UNMETERED: unmetered} if known and unmetered else {}
        kwh = ((joules or 0.0) + (estimated or 0.0)) / JOULES_PER_KWH
        # a part that is not known leaves the sum unknown: it would look like a small one
        known = known and not unmetered
        if (prices.price_per_kwh is None or known) and (prices.price_per_kwh, prices.price_per_hour) != (None, None):
            hours = found["machine_seconds"] / 3600
            found["money"] = kwh * (prices.price_per_kwh or 0.0) + hours * (prices.price_per_hour or 0.0)
        if prices.g_co2_per_kwh is not None and known:
            found["g_co2"] = kwh * prices.g_co2_per_kwh
        return found

    def _unmetered(self, now: float) -> float:
        """The seconds in which nothing told the energy, of all processes; `now` are those of this one."""
        before = self.before.entries
        told = UNMETERED in before or {"joules", "joules_estimated"} & before.keys()
        # processes that told none have kept no such entry
        earlier = before.get(UNMETERED, 0.0) if told else before.get("machine_seconds", self.before.seconds)
        return earlier + (0.0 if self.measured is not None or self.prices.watts is not None else now)

    def lacking(self) -> str:
        """The warning of a price without energy to apply it to; empty if there is none."""
        asked = [name for name in ("price_per_kwh", "g_co2_per_kwh") if getattr(self.prices, name) is not None]
        if not asked or self.measured is not None or self.prices.watts is not None:
            return ""
        return (
            f"{' and '.join(f'cost.{name}' for name in asked)}: nothing on this machine tells the energy that a run "
            f"takes (no readable RAPL or NVML counter). Type for example cost.watts=65 for an estimate."
        )


def spent_before(cost: Mapping[str, float], journal: Path, *, seconds: float) -> Spent:
    """What a run has used so far, by the cost in its summary and by its journal."""
    kept = {name: cost[name] for name in ACCUMULATED if name in cost}
    # a process that SIGKILL ended has left its last entries in the journal alone
    logged = curves(journal)
    for name in ACCUMULATED:
        if points := logged.get(f"cost/{name}"):
            kept[name] = max(kept.get(name, 0.0), *(value for _, value in points))
    return Spent(kept, seconds)


def open_bill(prices: Cost, sampler: Sampler | None, before: Spent, *, sharing: int) -> Bill:
    """The bill of a run that begins or goes on now."""
    if sampler is None:
        return Bill(prices, before=before, sharing=sharing)
    start = sampler.sample()
    return Bill(prices, lambda: sampler.joules - start, sampler.source, before, sharing)
