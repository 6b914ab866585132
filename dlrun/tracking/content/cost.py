"""What a run or some runs have cost, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dlrun.storage.summary import Summary
from dlrun.terminal.format import amount, duration

ADDED = ("flop", "joules", "joules_estimated", "unmetered_seconds", "money", "g_co2")
"""The entries of a cost that add up over runs."""


def describe_cost(summary: Summary) -> str:
    """A run's operations, energy, money and CO2; empty if none is known.

    >>> cost = {"flop": 2e12, "mfu": 0.31, "joules_estimated": 7.2e5, "money": 0.06, "g_co2": 80.0}
    >>> describe_cost(Summary({"cost": cost, "cost_notes": {"currency": "EUR"}}))
    '2 TFLOP, 31% of peak; about 720 kJ (0.2 kWh, estimated); 0.06 EUR; 80 g of CO2'
    """
    return describe(summary.cost, currency=summary.cost_notes.get("currency"))


def describe_total(summaries: Iterable[Summary]) -> str:
    """The sums of some runs; of an entry that not all have, how many have it.

    >>> describe_total([Summary({"cost": {"flop": 1e9, "joules": 5.0}}), Summary({"cost": {"flop": 2e9}})])
    '3 GFLOP; 5 J (1.39e-06 kWh) of 1 in 2 runs'
    """
    found = [*summaries]
    costs = [summary.cost for summary in found]
    total = {name: sum(c[name] for c in costs if name in c) for name in ADDED if any(name in c for c in costs)}
    currencies = {summary.cost_notes.get("currency") for summary in found if "money" in summary.cost}
    if len(currencies) > 1:  # no sum of euros and dollars
        total.pop("money", None)
    counts = {name: sum(name in c for c in costs) for name in total}
    # a run without such seconds has none
    counts.pop("unmetered_seconds", None)
    few = {name: f" of {n} in {len(costs)} runs" for name, n in counts.items() if n < len(costs)}
    return describe(total, currency=next(iter(currencies), None), remarks=few)


def describe(cost: Mapping[str, float], *, currency: str | None, remarks: Mapping[str, str] | None = None) -> str:
    """The entries of a cost, each with its remark behind it."""
    parts: dict[str, str] = {}
    if "flop" in cost:
        share = f", {_percent(cost['mfu'])} of peak" if "mfu" in cost else ""
        parts["flop"] = amount(cost["flop"], "FLOP") + share
    for name, about, kind in (("joules", "", ""), ("joules_estimated", "about ", ", estimated")):
        if name in cost:
            parts[name] = f"{about}{amount(cost[name], 'J')} ({cost[name] / 3.6e6:.3g} kWh{kind})"
    if "unmetered_seconds" in cost:
        parts["unmetered_seconds"] = f"no energy is known of {duration(cost['unmetered_seconds'])}"
    if "money" in cost:
        parts["money"] = f"{cost['money']:.3g} {currency or 'in money'}"
    if "g_co2" in cost:
        parts["g_co2"] = f"{cost['g_co2']:.3g} g of CO2"
    return "; ".join(text + (remarks or {}).get(name, "") for name, text in parts.items())


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"
