"""Every signal of a position in `close.where`: which position it closes, which not, and which it cannot judge."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from msgspec import Struct

from killswitch.lab.recording import replay
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Position, Snapshot
from killswitch.signals.catalogue import CATALOGUE
from tests.worlds import START, account, after, position, snapshot
from tests.worlds.firings import policy_of

IN_A_WHILE = "signal: clock.within, from: 00:07, to: 00:08, zone: UTC, days: any, is: true"


class Judged(Struct, frozen=True):
    """A condition and a recording of seven minutes: `closed` meet it at the last, and `unknown` may."""

    where: str
    recording: list[Snapshot]
    closed: set[str]
    unknown: set[str]


def positions(begin: Sequence[Position], end: Sequence[Position]) -> list[Snapshot]:
    """A book that holds C, then the first positions for six minutes, and the second ones at minute 7.

    What only the last answer leaves out counts as held.
    """
    found = [snapshot(START, account("10000", [position("C", "long", "0")]))]
    for minute in range(1, 8):
        book = end if minute == 7 else begin
        made = sum((each.unrealized_pnl or Decimal(0) for each in book), Decimal(0))
        found.append(snapshot(after(minutes=minute), account(str(10_000 + made), book)))
    return found


def lost(*profits: tuple[str, str | None], **more: str) -> list[Position]:
    return [position(symbol, "long", profit, **more) for symbol, profit in profits]


FLAT = lost(("A", "0"), ("B", "0"), ("C", "0"))
FALLEN = lost(("A", "-100"), ("B", "-10"), ("C", None))
NEAR = [
    position(symbol, "long", "0", notional=notional, mark_price="100", liquidation_price=liquidation)
    for symbol, notional, liquidation in (("A", "600", "96"), ("B", "400", "80"))
]
WITHOUT_PRICE = position("C", "long", "0")
IN_PROFIT = [position("A", "long", "-7", margin="100"), position("B", "long", "9", margin="100")]

CASES: dict[str, Judged] = {
    "position.pnl_delta": Judged(
        'position.pnl_delta("3m") <= -100.0',
        positions(lost(("A", "300"), ("B", "-500"), ("C", "0")), lost(("A", "200"), ("B", "-501"), ("C", "0"))),
        {"A"},  # still in profit; B has lost before
        set(),
    ),
    "position.pnl_delta: since the highest unit value of a longer window": Judged(
        'position.pnl_delta("7m") <= -100.0',
        positions(lost(("A", "300"), ("B", "-500"), ("C", "0")), lost(("A", "200"), ("B", "-501"), ("C", "0"))),
        {"B"},  # A was opened since and is in profit
        set(),
    ),
    "position.pnl_delta: one of them unknown": Judged(
        'position.pnl_delta("3m") <= -100.0', positions(FLAT, FALLEN), set(), {"A", "B", "C"}
    ),
    "position.bleed_rate": Judged(
        "position.bleed_rate >= 500.0",  # the mean of 1,000, 400 and 100 an hour: A was opened six minutes ago
        positions(FLAT, lost(("A", "-100"), ("B", "-99"), ("C", "0"))),
        {"A"},
        {"C"},  # older than the observation
    ),
    "position.loss": Judged("position.loss >= 100.0", positions(FLAT, FALLEN), {"A"}, {"C"}),
    "position.liquidation_distance": Judged(
        "position.liquidation_distance <= 0.04", positions(FLAT, [*NEAR, WITHOUT_PRICE]), {"A"}, {"C"}
    ),
    "position.notional_share": Judged("position.notional_share >= 0.6", positions(FLAT[:2], NEAR), {"A"}, set()),
    "position.notional_share: without a price": Judged(
        "position.notional_share >= 0.6", positions(FLAT, [*NEAR, WITHOUT_PRICE]), set(), {"A", "B", "C"}
    ),
    "position.margin_loss": Judged(
        "position.margin_loss >= 0.07", positions(FLAT, [*IN_PROFIT, position("C", "long", "-7")]), {"A"}, {"C"}
    ),
    "position.score": Judged("position.score > 0.0", positions(FLAT[:2], FALLEN[:2]), {"A", "B"}, set()),
}


@pytest.mark.parametrize("signal", [spec.name for spec in CATALOGUE if spec.level == "position"])
def test_a_signal_of_a_position_has_a_case(signal: str) -> None:
    """With a position that is closed, and one that is not known unless the signal is never unknown."""
    mine = [case for name, case in CASES.items() if name.split(":", maxsplit=1)[0] == signal]
    assert any(case.closed for case in mine)
    assert signal == "position.score" or any(case.unknown for case in mine)


@pytest.mark.parametrize("word", ["keep", "close"])
@pytest.mark.parametrize("name", CASES)
def test_what_meets_the_condition_is_closed_and_what_is_unknown_as_declared(name: str, word: str) -> None:
    """`where_unknown` decides about a position whose value is unknown, and about no other."""
    case = CASES[name]
    close = f"{{side: both, fraction: 100%, where: '{case.where}', where_unknown: {word}}}"
    decisions = [each for each in replay(policy_of(IN_A_WHILE, close=close), case.recording) if is_fired(each)]
    closed = {intent.symbol for each in decisions for intent in each.intents}
    assert closed == (case.closed | case.unknown if word == "close" else case.closed)


def is_fired(each: object) -> bool:
    return isinstance(each, Decision) and each.stage is not None
