"""The `Drill` document: a rehearsal of the whole way from a crash to a flat book, and the targets it is held against.

A drill tests the others, as a scenario does: it is no part of a deployed policy set, and of no digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from killswitch.policy.schema.cross_key_checks import Breach, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.scalars import Duration, Fraction, Name, Price, Word, whole_number

Seed = Annotated[int, whole_number(0, 1_000_000)]
MINUTE = 60_000_000


class DrillTargets(Part):
    """What a drill is to reach. That every position is closed is always one of them."""

    decision: Duration = MINUTE
    """From the moment in which a trigger has been true for as long as its `confirm` demands, until its stage has fired.
    Left out: 60s."""
    first_order: Duration = MINUTE
    """From the decision to the first order. Left out: 60s."""
    flat: Duration = MINUTE
    """From the decision until the venue shows every target. Left out: 60s."""
    notification: Duration = MINUTE
    """From the decision until its message is delivered. Left out: 60s."""
    average_slippage: Fraction = Decimal("0.02")
    """The average slippage of the filled orders. Left out: 2%."""
    worst_slippage: Fraction = Decimal("0.05")
    """The worst slippage of a filled order. Left out: 5%."""


class LivePosition(Part):
    """The one real position that a live drill opens and closes. It touches no other."""

    account: Name
    """The account."""
    symbol: Word
    """The symbol, as the venue names it: one in which the account holds nothing, and in which nothing else trades."""
    most: Price
    """The largest size in contracts. The drill opens the smallest order that the venue accepts, and is refused where
    that is larger."""


class DrillSpec(Part):
    """A rehearsal: how often, in which way, and with which targets."""

    mode: Literal["dry_run", "simulation", "live"]
    """`dry_run`: a simulated crash, and nothing is sent even to the paper venue. `simulation`: the crash with orders on
    the paper venue. `live`: the smallest position is opened at the venue of the account once people have approved it,
    and the runner closes it."""
    every: Duration
    """How often it is due."""
    seed: Seed = 7
    """The seed of the generated crash. Left out: 7."""
    faults: tuple[Literal["reject", "lost_answer", "outage"], ...] = ()
    """What the paper venue does wrong: it rejects the first order, loses the answer of the second, and cannot be read
    for ten seconds after the third. Left out: nothing."""
    targets: DrillTargets = DrillTargets()
    """What it is to reach. Left out: the default of each target."""
    live: LivePosition | None = None
    """The real position of a `live` drill, which only such a drill names. Left out: none."""


class DrillDocument(VersionedPart):
    """A rehearsal that `ksctl drill` runs, and measures against its targets."""

    kind: Literal["Drill"]
    spec: DrillSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check that a live drill names its position, that no other does, and that faults have orders to meet."""
        spec = mapping(spec_of(written))
        mode = spec.get("mode")
        if mode == "live" and "live" not in spec:
            yield Breach(
                "KS2260", ("spec", "mode"), "a live drill names no position",
                "add `live: {account: …, symbol: …, most: …}`, or write `mode: simulation`",
            )  # fmt: skip
        if mode in ("dry_run", "simulation") and "live" in spec:
            yield Breach(
                "KS2260", ("spec", "live"), f"a drill with `mode: {mode}` touches no real position",
                "take `live` out, or write `mode: live`",
            )  # fmt: skip
        if mode in ("dry_run", "live") and spec.get("faults"):
            yield Breach(
                "KS2261", ("spec", "faults"), f"a drill with `mode: {mode}` sends no order that a fault could meet",
                "take `faults` out, or write `mode: simulation`",
            )  # fmt: skip
