"""Hypothesis strategies for made-up recordings: falls, calm, rises, outages, silence, flows and operator resets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.oracle.walks import Walk

# Steps that differ from every threshold by more than a rounding of binary fractions: a fall of exactly 7%
# is a case of its own.
DRIFTS = ("-0.0613", "-0.0231", "-0.0117", "-0.0051", "-0.0013", "0", "0", "0.0007", "0.0023", "0.0119", "0.031")
SECONDS = (10, 30, 60, 60, 120, 300, 599, 600, 601)

reading = st.tuples(st.just("read"), st.sampled_from(SECONDS), st.integers(1, 25), st.sampled_from(DRIFTS).map(Decimal))
outage = st.tuples(
    st.sampled_from(("down", "stale", "malformed")), st.sampled_from(SECONDS), st.integers(1, 12), st.just(Decimal(0))
)
silence = st.tuples(
    st.just("silence"), st.sampled_from((300, 600, 660, 1800)), st.just(1), st.sampled_from(DRIFTS).map(Decimal)
)
flow = st.tuples(st.just("flow"), st.just(0), st.just(1), st.sampled_from(("-0.7", "-0.25", "0.4", "2")).map(Decimal))
operator_reset = st.tuples(st.just("reset"), st.just(0), st.just(1), st.just(Decimal(0)))
segments = st.lists(
    st.one_of(reading, reading, reading, outage, silence, flow, operator_reset), min_size=2, max_size=24
)


@st.composite
def recordings(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Snapshots of one account, the first of them available."""
    walk = Walk(leverage=draw(st.sampled_from((1, 3)))).see()
    for kind, seconds, count, size in draw(segments):
        _add(walk, kind, seconds, count, size)
    return walk.snapshots


def _add(walk: Walk, kind: str, seconds: int, count: int, size: Decimal) -> None:
    if kind == "read":
        for _ in range(count):
            walk.wait(seconds).move(size).see()
    elif kind == "silence":
        walk.wait(seconds).move(size)
    elif kind == "flow":
        # Reported at once, so that the equity just before it is that of the previous snapshot.
        if walk.equity > 0:
            walk.flow((walk.equity * size).quantize(Decimal("0.01"))).wait(1).see()
    elif kind == "reset":
        walk.operator_reset().wait(1).see()
    else:
        for _ in range(count):
            walk.wait(seconds).see(kind)
