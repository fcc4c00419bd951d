"""Random worlds against an independent oracle: false closes and delays per family, and the first rule's figures.

    python -m tests.bench worlds                 # ten worlds of each family
    WORLDS=70 python -m tests.bench worlds       # more than ten thousand in all, a quarter of an hour of an idle core

`python -m tests.worlds` prints the same table for chosen families, seeds and processes, and one world tick by tick.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Final

from tests.bench.measure import Measure
from tests.worlds.catalogue import FAMILIES
from tests.worlds.judge import Verdict
from tests.worlds.report import HEAD, complaints, line, percentile, run_one

WORLDS: Final = int(os.environ.get("WORLDS", "10"))
"""Worlds of each family; their seeds are 0, 1, 2, …"""
FALSE: Final[Mapping[str, float]] = {
    "dust withdrawals, rows 61 s late": 50 / 250,
    "noisy equity, silent ledger": 11 / 250,
}
"""The shares of worlds that the first rule closed falsely, in the two families where it did."""
CHOSEN: Final = "close and sweep, no rows at all"
"""Only time distinguishes this from stops whose rows never appear; the outcome is a policy's choice."""
DELAYS: Final[Mapping[str, tuple[float, float]]] = {
    "fat finger": (1.0, 15.0),
    "runaway churn, rows never": (1.0, 16.0),
    "stops fill, rows never": (0.9, 20.0),
}
"""Where only rows could show a loss: a share of the losses, and the seconds in which the first rule detected it."""


def measures() -> Iterator[Measure]:
    """A row for each family, then the false and the late closes, then the families where the first rule has a cost."""
    print(f"{WORLDS} worlds of each of {len(FAMILIES)} families; delays in seconds; first: the first rule's figures")
    print(HEAD)
    found: dict[str, list[Verdict]] = {}
    for family in FAMILIES.values():
        found[family.name] = [run_one(family.name, seed) for seed in range(WORLDS)]
        problems = complaints(family, found[family.name])
        print("\n  ".join([line(family, found[family.name]) + ("   <--" if problems else ""), *problems]), flush=True)
    yield _false([each for name, mine in found.items() if name not in (*FALSE, CHOSEN) for each in mine])
    yield _late([each for mine in found.values() for each in mine])
    yield _wrong([each for mine in found.values() for each in mine])
    for name, share in FALSE.items():
        ours = sum(bool(each.false) for each in found[name]) / len(found[name])
        yield Measure(f"{name}: false closes", 100 * ours, 100 * share, "published", 1.0, "%")
    for name, (share, seconds) in DELAYS.items():
        ours = percentile([delay for each in found[name] for delay in each.delays], share)
        label = "longest delay" if share == 1.0 else f"p{share * 100:.0f} of delays"
        yield Measure(f"{name}: {label}", 0.0 if math.isnan(ours) else ours, seconds, "published", 1.0, "s")


def _false(verdicts: list[Verdict]) -> Measure:
    closed = sum(bool(each.false) for each in verdicts)
    return Measure(
        "false closes in all other families", float(closed), float(len(verdicts)), "all such worlds", 0.0, "worlds"
    )


def _late(verdicts: list[Verdict]) -> Measure:
    late = sum(len(each.late) + len(each.missed) for each in verdicts)
    real = sum(len(each.delays) + len(each.missed) for each in verdicts)
    return Measure("losses seen late or never", float(late), float(real), "all losses", 0.0, "losses")


def _wrong(verdicts: list[Verdict]) -> Measure:
    wrong = sum(bool(each.misread) for each in verdicts)
    return Measure("values and latches that are wrong", float(wrong), float(len(verdicts)), "all worlds", 0.0, "worlds")
