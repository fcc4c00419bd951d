"""Outside trades: a position that others have enlarged is told from one that the venue shows late."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.decide.outside_trades import OutsideTrades
from killswitch.execution.decide.target_verdict import TargetAction, TargetVerdict, evaluate_target
from killswitch.journal.entries import Entry, Filled, OrderSending, PositionKey, Verified
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import AccountSnapshot, Fill, OrderSide, Position, Side

D = Decimal
AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY: PositionKey = ("BTC", "long")


def entries(position: str, filled: str, order: str = "v1", name: str = "o1") -> list[Entry]:
    """An order of ours that has filled."""
    head = ("d1", AT, "main", "BTC", "long", name, 1)
    return [OrderSending(*head, amount=D(filled), position=D(position)), Filled(*head, order=order, filled=D(filled))]


def ledger_after(*found: Entry) -> PositionLedger:
    of = PositionLedger()
    for each in found:
        of.apply(each, D(10))
    return of


def fill(second: float, side: OrderSide, amount: str, order: str = "bot", position_side: Side | None = None) -> Fill:
    at = AT + timedelta(seconds=second)
    return Fill(f"{order}@{second}", at, "BTC", side, D(amount), D(100), order=order, position_side=position_side)


def shown(contracts: str, *fills: Fill, mode: str = "one_way") -> AccountSnapshot:
    held = (Position("BTC", "long", D(contracts)),) if D(contracts) else ()
    return AccountSnapshot(
        "main", "okx", "swap", "USDT", "ok", positions=held, fills=fills, position_mode=mode
    )  # fmt: skip


def collected(ledger: PositionLedger, *accounts: AccountSnapshot, is_newest: bool = True) -> OutsideTrades:
    of = OutsideTrades()
    for account in accounts:
        of.collect(account, {KEY: ledger}, is_newest=is_newest)
    return of


OURS = fill(2, "sell", "10", order="v1")


@pytest.mark.parametrize(
    ("fills", "expected"),
    [
        ([], "0"),
        ([fill(3, "buy", "4")], "0"),  # our own fill is not listed: the list may be an old one
        ([OURS, fill(3, "buy", "4")], "4"),
        ([OURS, fill(3, "buy", "4"), fill(4, "buy", "2")], "6"),
        ([OURS, fill(3, "buy", "4"), fill(4, "sell", "1")], "3"),
        ([OURS, fill(1, "buy", "4")], "0"),  # it was part of what we sold from
        ([OURS, fill(2, "buy", "4")], "0"),  # the same instant: which came first is not known
        ([OURS, fill(3, "sell", "4")], "0"),
        ([OURS, fill(3, "buy", "4", position_side="short")], "0"),
    ],
)
def test_only_fills_of_others_after_ours_count_as_growth(fills: Sequence[Fill], expected: str) -> None:
    """Net of what others have sold since, and never below zero."""
    ledger = ledger_after(*entries("10", "10"))
    assert collected(ledger, shown("4", *fills)).grown(KEY, ledger) == D(expected)


def test_a_fill_that_names_no_side_enlarges_nothing_in_hedge_mode() -> None:
    """It may have closed a short position; a sale may always have closed the long one."""
    ledger = ledger_after(*entries("10", "10"))
    several = [OURS, fill(3, "buy", "4"), fill(4, "buy", "5", position_side="long"), fill(5, "sell", "1")]
    assert collected(ledger, shown("4", *several, mode="hedge")).grown(KEY, ledger) == D(4)


def test_after_a_further_order_growth_counts_from_its_fill() -> None:
    """The bot's first purchase was in the position that the second order was sent on."""
    ledger = ledger_after(*entries("10", "10"), *entries("4", "4", "v2", "o2"))
    before = [OURS, fill(3, "buy", "4")]
    assert collected(ledger, shown("4", *before)).grown(KEY, ledger) == D(0)
    after = [fill(4, "sell", "4", order="v2"), fill(5, "buy", "1")]
    assert collected(ledger, shown("4", *before), shown("1", *after)).grown(KEY, ledger) == D(1)


def test_an_order_in_flight_hides_growth() -> None:
    """It may have been sent on the position with it."""
    ledger = ledger_after(*entries("10", "10"), *entries("4", "4", "v2", "o2")[:1])
    assert collected(ledger, shown("4", OURS, fill(3, "buy", "4"))).grown(KEY, ledger) == D(0)


def test_a_position_is_opened_again_only_if_it_was_shown_gone_since_our_last_fill() -> None:
    """A snapshot that was requested before the fill, or one before a further order, shows nothing."""
    ledger = ledger_after(*entries("10", "10"))
    assert not collected(ledger, shown("10")).is_opened_again(KEY, ledger)
    assert not collected(ledger, shown("0"), is_newest=False).is_opened_again(KEY, ledger)
    seen = collected(ledger, shown("0"), shown("10"))
    assert seen.is_opened_again(KEY, ledger)
    for each in entries("10", "10", "v2", "o2"):
        ledger.apply(each, D(10))
        assert not seen.is_opened_again(KEY, ledger)


@pytest.mark.parametrize("quality", ["stale", "down", "malformed"])
def test_a_snapshot_that_is_no_answer_shows_no_position_gone(quality: str) -> None:
    """Nor does one without positions."""
    ledger = ledger_after(*entries("10", "10"))
    for account in (replace(shown("0"), quality=quality), replace(shown("0"), positions=None)):
        assert not collected(ledger, account).is_opened_again(KEY, ledger)


def target_of(target: str, decided: str) -> PositionTarget:
    return PositionTarget("d2", "main", "BTC", "long", "sell", D(target), D(decided), D(decided), True, 1, 0)


def test_growth_that_the_fills_explain_is_sent_at_once_and_no_more_than_it() -> None:
    """Ten of ten were sold and six stay of twelve: the venue shows 4 and 10, of which the bot has bought 3 and 4."""
    ledger = ledger_after(*entries("10", "10"), Verified("d1", AT, "main", "BTC", "long", position=D(0)))
    assert evaluate_target(target_of("0", "4"), D(4), ledger, None, attempts=8).do is TargetAction.CONTRADICTED
    verdict = evaluate_target(target_of("0", "4"), D(4), ledger, None, attempts=8, grown=D(3))
    assert verdict == TargetVerdict(TargetAction.SEND, D(3))
    ledger = ledger_after(*entries("12", "6"))
    later = target_of("6", "4")
    later.closed_before = ledger.closed
    assert evaluate_target(later, D(10), ledger, None, attempts=8).do is TargetAction.CONTRADICTED
    assert evaluate_target(later, D(10), ledger, None, attempts=8, grown=D(4)) == TargetVerdict(TargetAction.SEND, D(4))


def test_a_trim_against_growth_that_the_fills_explain_ends_at_once() -> None:
    """All six of twelve are closed, and the bot has bought four: what it bought is another decision's to close."""
    ledger = ledger_after(*entries("12", "6"))
    assert evaluate_target(target_of("6", "6"), D(10), ledger, None, attempts=8).do is TargetAction.CONTRADICTED
    verdict = evaluate_target(target_of("6", "6"), D(10), ledger, None, attempts=8, grown=D(4))
    assert (verdict.do, "has grown meanwhile" in (verdict.reason or "")) == (TargetAction.GIVE_UP, True)
