"""Results with unarmed accounts, holdings sold on another market, several rows of one position, and dust on spot."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.incident.record.close_causes import order_texts, remainders
from killswitch.incident.record.totals import MARK_UNKNOWN, POSITION_UNREAD
from killswitch.model.decision import Intent
from killswitch.model.snapshot import AccountSnapshot, Position, Snapshot
from killswitch.model.store import JournalEntry
from killswitch.operations.pages.outcome import CommandOutcome
from killswitch.operations.status import OpenClosing, StoreStatus, runner_state
from tests import incidents
from tests.incidents import FilledStore
from tests.shown import status_text
from tests.unit.incident.test_results import (
    banded,
    decision,
    filled,
    finished,
    planned,
    report_of,
    result,
    sent,
    verified,
)
from tests.worlds import account, after, position, rules, snapshot

CLOSED = (planned(), sent(1, "10", order="market"), filled(1, "10", "100"), verified("0", 10), finished(11))


def intent_on_unarmed_account() -> Intent:
    """The same close on an account that is not armed."""
    return replace(banded("BTC", "sell", "10", None), account="other", rank=2)


def hop_intent(symbol: str = "BTC-X", target: str = "0", after_: int | None = None) -> Intent:
    """A sale on another market than the holding's; with `after_`, of the proceeds of that sale."""
    number = Decimal(target)
    return Intent("main", symbol, "long", "sell", Decimal(10), number, False, 1, purpose="hop", after=after_)


def entry_on(symbol: str, entry: JournalEntry) -> JournalEntry:
    return replace(entry, symbol=symbol)


def snapshot_of(*rows: Position, **more: object) -> Snapshot:
    """The snapshot of the decision."""
    held: AccountSnapshot = account("1000", rows, **more)  # type: ignore[arg-type] # literal by the caller
    return snapshot(after(), held)


def test_a_close_with_an_unarmed_account_is_not_flat() -> None:
    """One of two accounts is closed and nothing was sent on the other: partly done, and the command fails."""
    made = replace(decision(banded("BTC", "sell", "10", None), intent_on_unarmed_account()), kind="manual")
    found = result(made, *CLOSED)
    assert (found.standing, found.unsent) == ("partly recorded only", ("other",))
    assert CommandOutcome(((made, found),), (), "").is_failed


def test_a_residual_on_an_armed_account_outranks_an_unarmed_account() -> None:
    """The worst known status is the decision's."""
    made = decision(banded("BTC", "sell", "10", None), intent_on_unarmed_account())
    found = result(made, *CLOSED[:3], verified("3", 10), finished(11, "residual"))
    assert (found.standing, found.unsent) == ("residual", ("other",))


def test_a_report_names_the_account_on_which_nothing_was_sent(written: FilledStore) -> None:
    """In remarks, outcome and checklist; the other account was closed and is not listed as open."""
    found, text = report_of(written, decision(banded("BTC", "sell", "10", None), intent_on_unarmed_account()), *CLOSED)
    assert any(each.startswith("nothing was sent on other, although orders") for each in found.remarks)
    assert found.firings[0].outcome == "done on armed accounts; nothing was sent on other"
    assert (found.checklist[0].state, found.checklist[0].proof) == ("open", "on some accounts of trim nothing was sent")
    assert "nothing was sent on other" in text


def test_half_of_a_holding_sold_on_another_market_is_at_target_and_not_flat() -> None:
    """Twenty are held, ten are sold, ten are to stay: the market of the sale shows no position."""
    entries = (
        planned("BTC-X"),
        entry_on("BTC-X", sent(1, "10", order="market")),
        entry_on("BTC-X", filled(1, "10", "100")),
    )
    assert result(decision(hop_intent(target="10")), *entries, finished(11)).standing == "at target"
    assert result(decision(hop_intent()), *entries, finished(11)).standing == "flat"


def test_one_holding_over_two_hops_is_one_position_closed() -> None:
    """Ten are sold for 0.01 BTC and that for money: one holding is closed, and the earlier BTC holding stays."""
    entries = (
        planned("BTC-X"), planned("BTC", "0", "0"),
        entry_on("BTC-X", sent(1, "10", order="market")), entry_on("BTC-X", filled(1, "10", "0.001")),
        sent(2, "0.01", order="market"), filled(2, "0.01", "50000"), finished(11),
    )  # fmt: skip
    found = result(decision(hop_intent(), hop_intent("BTC", "3", 0)), *entries)
    assert (found.closed, found.standing) == (1, "flat")


@pytest.mark.parametrize(("market", "others"), [("X/BTC", None), ("X/USDT", Decimal("-0.4"))])
def test_proceeds_of_a_sale_into_a_holding_that_is_closed_too_are_no_growth_by_others(
    written: FilledStore, market: str, others: Decimal | None
) -> None:
    """40 X at 0.01 BTC bring 0.4 BTC, which the close of the 0.2 BTC sells with them: 0.6 are sold of 0.2.

    Sold for USDT, X brings no BTC, and somebody else has bought the 0.4.
    """
    sale = Intent("main", market, "long", "sell", Decimal(40), Decimal(0), False, 1)
    close = Intent("main", "BTC/USDT", "long", "sell", Decimal("0.2"), Decimal(0), False, 2)
    entries = (
        entry_on(market, planned(contracts="40")), planned("BTC/USDT", "0.2"),
        entry_on(market, sent(1, "40", order="market")), entry_on(market, filled(1, "40", "0.01")),
        entry_on("BTC/USDT", sent(2, "0.6", order="market")), entry_on("BTC/USDT", filled(2, "0.6", "43000")),
        entry_on(market, verified("0", 10)), entry_on("BTC/USDT", verified("0", 10)), finished(11),
    )  # fmt: skip
    found, report = report_of(written, decision(sale, close), *entries)
    (btc,) = [each for each in found.positions if each.symbol == "BTC/USDT"]
    assert (btc.start, btc.filled, btc.left, btc.others) == (Decimal("0.2"), Decimal("0.6"), Decimal(0), others)
    assert ("somebody else trades on this account" in report) is (others is not None)


def test_the_two_hops_of_a_sale_are_distinguished(written: FilledStore) -> None:
    """The first sells the holding, the second its proceeds; plan and report both say so."""
    assert order_texts([hop_intent(target="10")])[0].endswith(
        "on another market than the holding is listed on, leaving 10 of it"
    )
    assert order_texts([hop_intent("BTC", "3", 0)])[0].endswith("of the proceeds of an earlier order")
    entries = (
        planned("BTC-X"), planned("BTC", "0", "0"),
        entry_on("BTC-X", sent(1, "10", order="market")), entry_on("BTC-X", filled(1, "10", "0.001")),
        sent(2, "0.01", order="market"), filled(2, "0.01", "50000"), finished(11),
    )  # fmt: skip
    found, _ = report_of(written, decision(hop_intent(), hop_intent("BTC", "3", 0)), *entries)
    texts = [each.partition(") ")[2] for each in found.remarks if each.startswith("order ")]
    assert texts == [
        "sold a holding on another market than it is listed on",
        "is a hop on the way to the account's currency: it sold what another order had bought",
    ]


def test_rows_of_two_strategies_are_one_position_with_the_average_entry() -> None:
    """1 from 50 and 9 from 200, all sold at 100: 50 gained and 900 lost."""
    one = position("BTC", "long", "50", contracts="1", entry_price="50", mark_price="100", notional="100", strategy="a")
    two = position(
        "BTC", "long", "-900", contracts="9", entry_price="200", mark_price="100", notional="900", strategy="b"
    )
    close = decision(banded("BTC", "sell", "10", None))
    assert result(close, *CLOSED, snapshot=snapshot_of(one, two)).realised == Decimal(-850)
    unknown = replace(two, entry_price=None)
    assert result(close, *CLOSED, snapshot=snapshot_of(one, unknown)).realised is None
    moved = replace(two, mark_price=Decimal(101))
    assert result(close, *CLOSED, snapshot=snapshot_of(one, moved)).realised is None


@pytest.mark.parametrize(
    ("reduce_only", "minimum", "dust"), [(False, "5", True), (False, "0.5", False), (True, "5", False)]
)
def test_dust_on_spot_includes_amounts_below_the_venues_minimum_notional(
    reduce_only: bool, minimum: str, dust: bool
) -> None:
    """0.01 at 100 are worth 1; the minimum of the notional does not bind reduce-only orders."""
    intent = replace(banded("BTC", "sell", "10", None), reduce_only=reduce_only)
    held = position("BTC", "long", "0", contracts="10", mark_price="100", notional="1000")
    entries = (planned(), sent(1, "9.99", order="market"), filled(1, "9.99", "100"), verified("0.01", 10), finished(11))
    decided_on = snapshot_of(held, market="spot", instruments=(rules("BTC", min_notional=minimum),))
    assert result(decision(intent), *entries, snapshot=decided_on).positions[0].dust is dust


def test_a_forced_close_of_an_unavailable_account_explains_its_unknown_sums() -> None:
    """A forced close on the last known positions has no mark: fees are known, the realised P&L never will be."""
    blind = replace(planned(), data={"contracts": "10", "target": "0"})
    unread = snapshot(after(), account(None, None, quality="down", reason="no answer"))
    unmarked = sent(1, "10", order="market", mark=None, value=None)
    found = result(decision(banded("BTC", "sell", "10", None)), blind, unmarked, *CLOSED[2:], snapshot=unread)
    assert found.fees == Decimal(1)
    assert [(each.what, each.orders, each.why) for each in found.missing] == [
        ("realised", (1,), POSITION_UNREAD), ("slippage", (1,), MARK_UNKNOWN), ("delay", (1,), MARK_UNKNOWN),
    ]  # fmt: skip
    known = result(decision(banded("BTC", "sell", "10", None)), *CLOSED, snapshot=incidents.snapshot(after()))
    assert not any(each.why for each in known.missing)


def test_an_order_that_expired_without_a_fill_is_not_reported_as_filled(written: FilledStore) -> None:
    """Eight unfilled orders within a second are one line that says so."""
    close = decision(banded("BTC", "sell", "10", None))
    expired = [
        entry
        for number in range(1, 9)
        for entry in (
            sent(number, "10"),
            replace(filled(number, "0", "0"), data={"state": "expired", "filled": "0"}),
        )
    ]
    found, _ = report_of(written, close, planned(), *expired)
    answers = [each.text for each in found.timeline if each.kind == "answered"]
    assert answers == ["8 times: an order ended without a fill (BTC)"]


def test_the_remaining_amount_includes_positions_without_an_order_yet() -> None:
    """One of two positions is verified half closed; the other has no verification yet, and all of it is left."""
    other = replace(planned("BTC-B", "4"), symbol="BTC-B")
    close = decision(banded("BTC", "sell", "10", None), banded("BTC-B", "sell", "4", None))
    under_way = OpenClosing(close.id, close.scope, "main", result(close, planned(), other, verified("5", 10)))
    now = after(seconds=11)
    status = StoreStatus(now, runner_state(None, now), None, None, (), (under_way,), (), ())
    assert (
        "2 positions: 5 BTC long, 4 BTC-B long; 1 as it was at the time of the decision; nothing later is known"
    ) in status_text(status, "store.sqlite")


def test_each_slice_names_its_remaining_quantity_and_only_the_last_the_target() -> None:
    """Ten in slices of 4, 4 and 2 with another position between them: 6, 2 and 0 are left."""
    cut = [banded("BTC", "sell", contracts, None) for contracts in ("4", "4", "2")]
    other = banded("ETH", "buy", "7", None)
    orders = (cut[0], other, cut[1], cut[2])
    assert remainders(orders) == (Decimal(6), Decimal(0), Decimal(2), Decimal(0))
    assert [each.rpartition(" ")[2] for each in order_texts(orders)] == ["6", "0", "2", "0"]


def test_a_close_without_any_fill_has_known_sums_of_zero(written: FilledStore) -> None:
    """The venue finally refused the only order: the sums are 0, not unknown, and the reason is shown."""
    said_no = replace(filled(1, "0", "0"), kind="rejected", data={"reason": "market_closed"})
    close = decision(banded("BTC", "sell", "10", None))
    why = "BTC is halted"
    found, text = report_of(
        written, close, planned(), sent(1, "10"), said_no, verified("10", 10), finished(11, "blocked", reason=why)
    )
    assert (found.money.realised, found.money.fees, found.money.slippage) == (Decimal(0), Decimal(0), Decimal(0))
    assert found.money.missing == ()
    assert f"- main ended blocked: {why}" in text
