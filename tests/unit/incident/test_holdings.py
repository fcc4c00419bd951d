"""What a result says of accounts left out, holdings that are sold elsewhere, rows of one position, and dust on spot."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.cli.live.status_text import _closings
from killswitch.cli.operate.command_output import _is_failed
from killswitch.incident.record.close_causes import order_texts, remainders
from killswitch.incident.record.totals import MARK_UNKNOWN, POSITION_UNREAD
from killswitch.model.decision import Intent
from killswitch.model.snapshot import AccountSnapshot, Position, Snapshot
from killswitch.model.store import JournalEntry
from killswitch.operations.status import OpenClosing
from tests import incidents
from tests.incidents import HandWritten, hand_written
from tests.unit.incident.test_results import (
    banded,
    decision,
    ended,
    filled,
    planned,
    report_of,
    result,
    seen,
    sent,
)
from tests.worlds import account, after, position, rules, snapshot

CLOSED = (planned(), sent(1, "10", order="market"), filled(1, "10", "100"), seen("0", 10), ended(11))


@pytest.fixture
def written(tmp_path: Path) -> Iterator[HandWritten]:
    made = hand_written(tmp_path)
    yield made
    made.store.close()


def elsewhere() -> Intent:
    """The same close on an account that nothing is armed for."""
    return structs.replace(banded("BTC", "sell", "10", None), account="other", rank=2)


def hop(symbol: str = "BTC-X", target: str = "0", after_: int | None = None) -> Intent:
    """A sale on a market that the holding is not listed on; with `after_`, of what that sale has brought in."""
    number = Decimal(target)
    return Intent("main", symbol, "long", "sell", Decimal(10), number, False, 1, purpose="hop", after=after_)


def on(symbol: str, entry: JournalEntry) -> JournalEntry:
    return structs.replace(entry, symbol=symbol)


def kept(*rows: Position, **more: object) -> Snapshot:
    """What was decided on."""
    held: AccountSnapshot = account("1000", rows, **more)  # type: ignore[arg-type] # literal by the caller
    return snapshot(after(), held)


def test_an_account_that_is_not_armed_keeps_a_close_from_reading_flat() -> None:
    """One of two accounts is closed and nothing was sent on the other: done in part, and the command fails."""
    made = structs.replace(decision(banded("BTC", "sell", "10", None), elsewhere()), kind="manual")
    found = result(made, *CLOSED)
    assert (found.standing, found.unsent) == ("partly recorded only", ("other",))
    assert _is_failed(made, found)


def test_what_is_left_on_an_armed_account_weighs_more_than_one_that_is_not_armed() -> None:
    """The worst that is known speaks for the decision."""
    made = decision(banded("BTC", "sell", "10", None), elsewhere())
    found = result(made, *CLOSED[:3], seen("3", 10), ended(11, "residual"))
    assert (found.standing, found.unsent) == ("residual", ("other",))


def test_a_report_names_the_account_on_which_nothing_was_sent(written: HandWritten) -> None:
    """In the remarks, in the outcome and on the checklist; the rest was closed and is not said to be open."""
    found, text = report_of(written, decision(banded("BTC", "sell", "10", None), elsewhere()), *CLOSED)
    assert any(each.startswith("nothing was sent on other, although orders") for each in found.remarks)
    assert found.firings[0].outcome == "done on armed accounts; nothing was sent on other"
    assert (found.checklist[0].state, found.checklist[0].proof) == ("open", "on some accounts of trim nothing was sent")
    assert "nothing was sent on other" in text


def test_half_of_a_holding_sold_on_another_market_is_at_target_and_not_flat() -> None:
    """Twenty are held, ten are sold, ten are to stay: the market that it is sold on shows nothing of that."""
    entries = (planned("BTC-X"), on("BTC-X", sent(1, "10", order="market")), on("BTC-X", filled(1, "10", "100")))
    assert result(decision(hop(target="10")), *entries, ended(11)).standing == "at target"
    assert result(decision(hop()), *entries, ended(11)).standing == "flat"


def test_one_holding_over_two_hops_is_one_position_closed() -> None:
    """Ten are sold for 0.01 BTC and that for money: one holding is gone, and what was held of BTC stays."""
    entries = (
        planned("BTC-X"), planned("BTC", "0", "0"),
        on("BTC-X", sent(1, "10", order="market")), on("BTC-X", filled(1, "10", "0.001")),
        sent(2, "0.01", order="market"), filled(2, "0.01", "50000"), ended(11),
    )  # fmt: skip
    found = result(decision(hop(), hop("BTC", "3", 0)), *entries)
    assert (found.closed, found.standing) == (1, "flat")


def test_the_two_hops_of_a_sale_are_told_apart(written: HandWritten) -> None:
    """The first sells the holding, the second what that brought in; both in a plan and in a report."""
    assert order_texts([hop(target="10")])[0].endswith(
        "on another market than the holding is listed on, leaving 10 of it"
    )
    assert order_texts([hop("BTC", "3", 0)])[0].endswith("of the proceeds of an earlier order")
    entries = (
        planned("BTC-X"), planned("BTC", "0", "0"),
        on("BTC-X", sent(1, "10", order="market")), on("BTC-X", filled(1, "10", "0.001")),
        sent(2, "0.01", order="market"), filled(2, "0.01", "50000"), ended(11),
    )  # fmt: skip
    found, _ = report_of(written, decision(hop(), hop("BTC", "3", 0)), *entries)
    said = [each.partition(") ")[2] for each in found.remarks if each.startswith("order ")]
    assert said == [
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
    assert result(close, *CLOSED, snapshot=kept(one, two)).realised == Decimal(-850)
    unknown = structs.replace(two, entry_price=None)
    assert result(close, *CLOSED, snapshot=kept(one, unknown)).realised is None
    moved = structs.replace(two, mark_price=Decimal(101))
    assert result(close, *CLOSED, snapshot=kept(one, moved)).realised is None


@pytest.mark.parametrize(
    ("reduce_only", "minimum", "dust"), [(False, "5", True), (False, "0.5", False), (True, "5", False)]
)
def test_dust_on_spot_is_also_what_is_worth_less_than_the_venue_takes(
    reduce_only: bool, minimum: str, dust: bool
) -> None:
    """0.01 at 100 are worth 1; the minimum of the notional does not bind reduce-only orders."""
    intent = structs.replace(banded("BTC", "sell", "10", None), reduce_only=reduce_only)
    held = position("BTC", "long", "0", contracts="10", mark_price="100", notional="1000")
    entries = (planned(), sent(1, "9.99", order="market"), filled(1, "9.99", "100"), seen("0.01", 10), ended(11))
    decided_on = kept(held, market="spot", instruments=(rules("BTC", min_notional=minimum),))
    assert result(decision(intent), *entries, snapshot=decided_on).positions[0].dust is dust


def test_a_close_of_what_could_not_be_read_says_why_its_sums_are_unknown() -> None:
    """By force on the last known positions there is no mark: fees are known, and what was realised never will be."""
    blind = structs.replace(planned(), data={"contracts": "10", "target": "0"})
    unread = snapshot(after(), account(None, None, quality="down", reason="no answer"))
    unmarked = sent(1, "10", order="market", mark=None, value=None)
    found = result(decision(banded("BTC", "sell", "10", None)), blind, unmarked, *CLOSED[2:], snapshot=unread)
    assert found.fees == Decimal(1)
    assert [(each.what, each.orders, each.why) for each in found.missing] == [
        ("realised", (1,), POSITION_UNREAD), ("slippage", (1,), MARK_UNKNOWN), ("delay", (1,), MARK_UNKNOWN),
    ]  # fmt: skip
    known = result(decision(banded("BTC", "sell", "10", None)), *CLOSED, snapshot=incidents.snapshot(after()))
    assert not any(each.why for each in known.missing)


def test_an_order_that_expired_without_a_fill_is_not_told_as_filled(written: HandWritten) -> None:
    """Eight orders in a second that filled nothing are one line, and it says so."""
    close = decision(banded("BTC", "sell", "10", None))
    expired = [
        entry
        for number in range(1, 9)
        for entry in (
            sent(number, "10"),
            structs.replace(filled(number, "0", "0"), data={"state": "expired", "filled": "0"}),
        )
    ]
    found, _ = report_of(written, close, planned(), *expired)
    told = [each.text for each in found.timeline if each.kind == "answered"]
    assert told == ["8 times: an order ended without a fill (BTC)"]


def test_what_is_left_to_close_counts_what_no_order_was_sent_for_yet() -> None:
    """One of two positions was seen half closed; of the other nothing has been seen yet, and all of it is left."""
    other = structs.replace(planned("BTC-B", "4"), symbol="BTC-B")
    close = decision(banded("BTC", "sell", "10", None), banded("BTC-B", "sell", "4", None))
    under_way = OpenClosing(close.id, close.scope, "main", result(close, planned(), other, seen("5", 10)))
    assert (
        "2 positions: 5 BTC long, 4 BTC-B long; 1 as it was at the time of the decision; nothing later is known"
    ) in _closings([under_way], alive=True)


def test_each_slice_says_what_it_leaves_and_only_the_last_one_the_target() -> None:
    """Ten in slices of 4, 4 and 2 down to nothing, among them another position: 6, 2 and 0 are left."""
    cut = [banded("BTC", "sell", contracts, None) for contracts in ("4", "4", "2")]
    other = banded("ETH", "buy", "7", None)
    orders = (cut[0], other, cut[1], cut[2])
    assert remainders(orders) == (Decimal(6), Decimal(0), Decimal(2), Decimal(0))
    assert [each.rpartition(" ")[2] for each in order_texts(orders)] == ["6", "0", "2", "0"]


def test_a_close_whose_orders_filled_nothing_came_to_nothing(written: HandWritten) -> None:
    """The venue refused the one order for good: that is known, and so it is 0 and not unknown; the reason is shown."""
    said_no = structs.replace(filled(1, "0", "0"), kind="rejected", data={"reason": "market_closed"})
    close = decision(banded("BTC", "sell", "10", None))
    why = "BTC is halted"
    found, text = report_of(
        written, close, planned(), sent(1, "10"), said_no, seen("10", 10), ended(11, "blocked", reason=why)
    )
    assert (found.money.realised, found.money.fees, found.money.slippage) == (Decimal(0), Decimal(0), Decimal(0))
    assert found.money.missing == ()
    assert f"- main ended blocked: {why}" in text
