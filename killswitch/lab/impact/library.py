"""The spans that are shipped: generated crashes and a calm day. Every price in them is invented."""

from __future__ import annotations

from functools import partial

from killswitch.lab.crash import CrashModel, crash_bars
from killswitch.lab.impact.replays import Span
from killswitch.lab.price_matrix import PriceMatrix

CRASHES = {
    "generated-fall-35": (1, CrashModel()),
    "generated-fall-20-fast": (2, CrashModel(crash=20, fall=0.20, rebound=20)),
    "generated-slide-30-slow": (3, CrashModel(crash=480, fall=0.30, rebound=60, jumps=2.0)),
}
"""Name → seed and shape: a fall of 35% in an hour, of 20% in 20 minutes, and of 30% in eight hours."""
CALM = {"generated-calm-day": (4, CrashModel(calm=1440, crash=0, rebound=0, after=0, fall=0.0))}


def shipped_spans() -> tuple[Span, ...]:
    """The generated spans, for a change that is given none."""
    crashes = (Span(name, "crash", partial(_matrix, *of)) for name, of in CRASHES.items())
    return (*crashes, *(Span(name, "calm", partial(_matrix, *of)) for name, of in CALM.items()))


def _matrix(seed: int, model: CrashModel) -> PriceMatrix:
    return PriceMatrix(crash_bars(seed, model))
