"""Results of a close beyond plain fills: bounds, unknown orders, changes by others, dust, missing protection."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import Incident
from killswitch.incident.record.incident_decisions import find_incident, group_decisions
from killswitch.incident.record.order_outcomes import Bound
from killswitch.incident.record.orders import outcomes
from killswitch.incident.record.results import Result, fold_result
from killswitch.incident.record.totals import MARK_UNKNOWN, Missing
from killswitch.incident.record.unprotected import Exposure
from killswitch.incident.report.rendering import report_markdown
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Cause, Decision, Intent, Rung, Unwinding
from killswitch.model.snapshot import Instrument, Snapshot
from killswitch.model.store import JournalEntry
from killswitch.operations.pages.decision import decision_history_of
from tests import incidents
from tests.incidents import FIRST, SCOPE, SET, FilledStore, entry
from tests.shown import decision_history_text
from tests.worlds import after

LADDER = (Rung("limit_ioc"), Rung("limit_ioc", widen=Decimal(2)), Rung("market", tries=2))


def banded(symbol: str, side: str, contracts: str, band: str | None = "0.005") -> Intent:
    """A full close whose orders may slip by half of one per cent."""
    plain = incidents.intent(symbol, side, contracts, "0")
    return replace(plain, band=None if band is None else Decimal(band))


def decision(*intents: Intent, **more: object) -> Decision:
    """The decision of a stage with a declared execution style."""
    return incidents.firing(
        FIRST, after(), "trim", 1, 0, *intents, **{"unwinding": Unwinding("careful", LADDER), **more}
    )


def planned(symbol: str = "BTC", contracts: str = "10", target: str = "0") -> JournalEntry:
    """The plan of a position: the mark and the value of a contract are 100."""
    return entry(FIRST, "planned", after(), symbol, contracts=contracts, target=target, mark="100", value="100")


def sent(number: int, amount: str, **data: str | None) -> JournalEntry:
    """The sending of order `number`, a second after the previous one; the mark is 100 unless `data` has another."""
    data = {"mark": "100", "value": "100", **data}
    made = entry(FIRST, "sending", after(seconds=number), side="sell", amount=amount, **data)
    return replace(made, client_order_id=f"ks{number}", attempt=number)


def order_entry(kind: str, number: int, seconds: float, **data: str | None) -> JournalEntry:
    """An entry about order `number`, for example the venue's answer."""
    return replace(entry(FIRST, kind, after(seconds=seconds), **data), client_order_id=f"ks{number}")


def filled(number: int, amount: str, price: str, seconds: float = 9, fee: str | None = "1") -> JournalEntry:
    return order_entry("filled", number, seconds, state="filled", filled=amount, price=price, fee=fee)


def verified(position: str, seconds: float, target: str = "0") -> JournalEntry:
    return entry(FIRST, "verified", after(seconds=seconds), position=position, target=target)


def finished(seconds: float, status: str = "flat", **data: str | None) -> JournalEntry:
    return entry(FIRST, "finished", after(seconds=seconds), None, status=status, **data)


def result(made: Decision, *journal: JournalEntry, snapshot: Snapshot | None = None) -> Result:
    numbered = [replace(each, sequence=number) for number, each in enumerate(journal, start=1)]
    return fold_result(made, decode_all(numbered), snapshot)


def report_of(written: FilledStore, made: Decision, *journal: JournalEntry) -> tuple[Incident, str]:
    """The incident and its report for a decision and its journal in a store."""
    plans = [each for each in journal if each.kind == "planned"]
    written.tick(made.as_of, [made], plans, snapshot=incidents.snapshot(made.as_of))
    for each in journal:
        if each.kind != "planned":
            written.store.append(each)
    found = incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite"))
    return found, report_markdown(found)


def test_each_execution_step_records_whether_its_bound_was_kept() -> None:
    """Half of one per cent is declared: 99.60 keeps it, 99.20 at the wider limit exceeds it, the market had none."""
    found = result(
        decision(banded("BTC", "sell", "10")),
        planned(),
        sent(1, "4", order="limit_ioc", price="99.5", rung="0", mark="100"),
        filled(1, "4", "99.6"),
        sent(2, "4", order="limit_ioc", price="99", rung="1", mark="100"),
        filled(2, "4", "99.2"),
        sent(3, "2", order="market", rung="2", mark="100"),
        filled(3, "2", "98"),
        verified("0", 12),
        finished(12),
    )
    band = Decimal("0.005")
    assert [order.bound for order in found.orders] == [
        Bound(band, sent=True, slipped=Decimal("0.004"), kept=True),
        Bound(band, sent=True, slipped=Decimal("0.008"), kept=False),
        Bound(band, sent=False, slipped=Decimal("0.02"), kept=False),
    ]
    assert [(order.kind, order.rung, order.limit) for order in found.orders] == [
        ("limit_ioc", 0, Decimal("99.5")), ("limit_ioc", 1, Decimal(99)), ("market", 2, None),
    ]  # fmt: skip
    totals = found.totals
    assert (totals.kept, totals.exceeded, totals.unbounded, totals.took) == (1, 2, 1, 11.0)


def test_a_bound_is_compared_with_the_mark_at_sending() -> None:
    """The mark fell to 90 before the order was sent: 89.82 is 0.2% from it, 0.18 of slippage, after 10 of delay."""
    found = result(
        decision(banded("BTC", "sell", "1")),
        planned(contracts="1"),
        sent(1, "1", order="limit_ioc", price="89.55", rung="0", mark="90", value="90"),
        filled(1, "1", "89.82"),
    )
    (order,) = found.orders
    assert order.bound == Bound(Decimal("0.005"), sent=True, slipped=Decimal("0.002"), kept=True)
    assert (order.mark, order.arrival_mark) == (Decimal(100), Decimal(90))
    assert (order.slippage, order.delay) == (Decimal("0.18"), Decimal(10))
    assert (found.slippage, found.delay) == (Decimal("0.18"), Decimal(10))


def test_a_favourable_move_before_the_order_is_delay_and_not_slippage() -> None:
    """Decided at 100 and sent at 120: sold at 119 it slipped 1 a contract, and the delay gained 20."""
    found = result(
        decision(banded("BTC", "sell", "2", None)), planned(contracts="2"),
        sent(1, "2", mark="120", value="120"), filled(1, "2", "119"),
    )  # fmt: skip
    assert (found.fees, found.slippage, found.delay) == (Decimal(1), Decimal(2), Decimal(-40))


def test_for_a_buy_order_both_costs_have_the_opposite_sign() -> None:
    """A short decided at 100, bought back at 111 after the mark had risen to 110: 10 of delay, 1 of slippage."""
    made = sent(1, "1", mark="110", value="110")
    bought = replace(made, data={**made.data, "side": "buy"})
    found = result(decision(banded("BTC", "buy", "1", None)), planned(contracts="1"), bought, filled(1, "1", "111"))
    assert (found.slippage, found.delay) == (Decimal(1), Decimal(10))


def test_without_a_mark_at_sending_both_costs_are_unknown_with_the_reason() -> None:
    """An order on the decision's own snapshot, sent while the account was unavailable."""
    found = result(
        decision(banded("BTC", "sell", "1")), planned(contracts="1"),
        sent(1, "1", order="market", rung="2", mark=None, value=None), filled(1, "1", "99"),
        snapshot=incidents.snapshot(after()),
    )  # fmt: skip
    assert (found.realised, found.slippage, found.delay) == (Decimal(-11), None, None)
    assert [(each.what, each.orders, each.why) for each in found.missing] == [
        ("slippage", (1,), MARK_UNKNOWN), ("delay", (1,), MARK_UNKNOWN),
    ]  # fmt: skip
    assert found.orders[0].bound == Bound(Decimal("0.005"), sent=False, slipped=None, kept=None)


def test_a_fill_beyond_the_orders_own_limit_is_reported() -> None:
    """The venue fills a limit of 99.5 at 99.4, which it must not."""
    found = result(
        decision(banded("BTC", "sell", "1")), planned(contracts="1"),
        sent(1, "1", order="limit_ioc", price="99.5", rung="0", mark="100"), filled(1, "1", "99.4"),
    )  # fmt: skip
    assert found.orders[0].bound == Bound(Decimal("0.005"), sent=True, slipped=Decimal("0.006"), kept=False,
                                          beyond_limit=True)  # fmt: skip


def test_without_a_declared_bound_an_order_has_none() -> None:
    """Neither a market order without a band, nor an order from a journal older than bounds."""
    plain = decision(banded("BTC", "sell", "2", None))
    assert result(plain, planned(), sent(1, "1", order="market"), filled(1, "1", "99")).orders[0].bound is None
    bounded = decision(banded("BTC", "sell", "2"))
    assert result(bounded, planned(), sent(1, "1"), filled(1, "1", "99")).orders[0].bound is None


def test_an_unknown_sum_names_its_known_part_and_the_missing_orders() -> None:
    """Order 2 has no fee and order 3 no answer: 1 of fees is known, and 4 + 8 of slippage."""
    found = result(
        decision(banded("BTC", "sell", "10", None)), planned(),
        sent(1, "4"), filled(1, "4", "99"), sent(2, "4"), filled(2, "4", "98", fee=None),
        sent(3, "2"), order_entry("unknown", 3, 9), order_entry("set_aside", 3, 12), order_entry("abandoned", 3, 20),
        snapshot=incidents.snapshot(after()),
    )  # fmt: skip
    assert (found.fees, found.slippage, found.realised) == (None, None, None)
    assert found.missing == (
        Missing("realised", Decimal(-92), (3,)),
        Missing("fees", Decimal(1), (2, 3)),
        Missing("slippage", Decimal(12), (3,)),
        Missing("delay", Decimal(0), (3,)),
    )
    assert (found.totals.unknown, found.totals.set_aside, found.totals.abandoned) == (1, 0, 1)
    assert found.orders[2].outcome == "status unknown, no longer queried"


def test_fees_reported_later_count_like_fees_of_the_order() -> None:
    """1 with the order, 2 reported after the end."""
    found = result(
        decision(banded("BTC", "sell", "8", None)), planned(),
        sent(1, "4"), filled(1, "4", "99"), sent(2, "4"), filled(2, "4", "98", fee=None),
        order_entry("charged", 2, 30, fee="2", text=None), snapshot=incidents.snapshot(after()),
    )  # fmt: skip
    assert (found.fees, found.missing) == (Decimal(3), ())
    assert found.orders[1].filled == Decimal(4)


def test_a_fee_in_another_asset_is_named_but_not_added() -> None:
    """1 in the currency is known; 0.002 BNB is text, in the sum's reason and with the order."""
    found = result(
        decision(banded("BTC", "sell", "8", None)), planned(),
        sent(1, "4"), filled(1, "4", "99"), sent(2, "4"), filled(2, "4", "98", fee=None),
        order_entry("charged", 2, 30, fee=None, text="charged 0.002 BNB"), snapshot=incidents.snapshot(after()),
    )  # fmt: skip
    assert found.fees is None
    assert found.missing == (Missing("fees", Decimal(1), (2,), why="charged 0.002 BNB"),)
    outcome = outcomes([found])[1]
    assert (outcome.fee, outcome.text, outcome.outcome) == (None, "charged 0.002 BNB", "filled")
    kept, shown = (msgjson.decode(msgjson.encode(each)) for each in (found.orders[1], outcome))
    assert "fee_unknown" not in shown
    assert kept == {**shown, "text": None, "fee_unknown": "charged 0.002 BNB"}


def test_of_many_reasons_for_unknown_fees_the_sum_names_the_first_three() -> None:
    """Each order keeps its own reason."""
    orders = [it for number in range(1, 6) for it in (
        sent(number, "1"), filled(number, "1", "99", fee=None),
        order_entry("charged", number, 30, fee=None, text=f"charged 0.00{number} BNB"),
    )]  # fmt: skip
    found = result(decision(banded("BTC", "sell", "5", None)), planned(), *orders)
    (missing,) = [it for it in found.missing if it.what == "fees"]
    assert missing.why == "charged 0.001 BNB; charged 0.002 BNB; charged 0.003 BNB; and 2 more"


def test_a_resting_order_leaves_the_sum_unknown() -> None:
    """It has filled nothing so far; its final costs are not known."""
    found = result(
        decision(banded("BTC", "sell", "10", None)),
        planned(),
        sent(1, "4"),
        order_entry("acknowledged", 1, 2, filled="0"),
    )
    assert (found.fees, found.slippage, found.realised) == (None, None, None)
    assert [(each.known, each.orders) for each in found.missing] == [(None, (1,))] * 4


def test_a_sum_without_a_known_part_is_unknown_and_not_zero(written: FilledStore) -> None:
    """Two orders were filled without a fee, a third was refused: fees are nowhere shown as 0.00."""
    close = decision(banded("BTC", "sell", "10", None))
    journal = (
        planned(), sent(1, "4"), filled(1, "4", "99", fee=None), sent(2, "4"), filled(2, "4", "98", fee=None),
        sent(3, "2"), order_entry("rejected", 3, 5, reason="price_band"), verified("2", 10), finished(11, "residual"),
    )  # fmt: skip
    incident, text = report_of(written, close, *journal)
    assert incident.money.missing == (Missing("fees", None, (1, 2)),)
    assert "| fees, as far as known | unknown: nothing is known of orders 1 and 2 |" in text
    assert "- [ ] **P&L recorded**: fees unknown (of orders 1 and 2): look it up in the venue's statement" in text
    assert not [line for line in text.splitlines() if "fees" in line and "0.00" in line.partition("slippage")[0]]


def test_the_orders_missing_in_a_sum_are_named_as_a_range(written: FilledStore) -> None:
    """Twenty-five orders without a fee, one with 1: the text fits on one line."""
    close = decision(banded("BTC", "sell", "26", None))
    orders = [it for n in range(1, 27) for it in (sent(n, "1"), filled(n, "1", "99", 40, None if n < 26 else "1"))]
    _, text = report_of(written, close, planned(contracts="26"), *orders, verified("0", 50), finished(51))
    assert "| fees, as far as known | 1.00 USDT without orders 1 to 25 |" in text
    assert "fees unknown (of orders 1 to 25)" in text


def test_a_hedge_belongs_to_the_incident_whose_close_it_replaces() -> None:
    """To the latched stage; after a manual close, to that close; without either it is its own incident."""
    hedge = replace(decision(), id="hh" * 10, kind="hedge", stage=None, level=0)
    fired = decision()
    by_hand = replace(fired, id="mm" * 10, kind="manual", policy="operator", cause="drill")
    assert [[each.id for each in life.decisions] for life in group_decisions([fired, hedge])] == [[FIRST, hedge.id]]
    assert [[each.id for each in life.decisions] for life in group_decisions([by_hand, hedge])] == [
        [by_hand.id, hedge.id]
    ]
    assert [[each.id for each in life.decisions] for life in group_decisions([hedge, fired])] == [[hedge.id], [FIRST]]


def test_an_order_that_filled_nothing_leaves_every_sum_known() -> None:
    """A refusal, an order that never arrived and one that expired unfilled leave every sum known."""
    found = result(
        decision(banded("BTC", "sell", "10", None)), planned(),
        sent(1, "4"), order_entry("rejected", 1, 5, reason="price_band"), sent(2, "4"), order_entry("absent", 2, 6),
        sent(3, "4"), filled(3, "0", "99", fee=None), sent(4, "4"), filled(4, "4", "99"),
        snapshot=incidents.snapshot(after()),
    )  # fmt: skip
    assert (found.fees, found.slippage, found.realised, found.missing) == (Decimal(1), Decimal(4), Decimal(-44), ())


def test_changes_by_others_are_separated_from_our_own_fills() -> None:
    """10 were held, our orders closed 4 and the venue shows 3: others closed 3."""
    found = result(
        decision(banded("BTC", "sell", "10", None)), planned(), sent(1, "4"), filled(1, "4", "99"), verified("3", 10)
    )
    (position,) = found.positions
    assert [position.start, position.filled, position.left, position.others] == [10, 4, 3, 3]


def test_changes_by_others_are_unknown_while_an_order_is() -> None:
    """Our own order may have closed it; an order answered after the last snapshot is not part of it."""
    made = decision(banded("BTC", "sell", "10", None))
    (unclear,) = result(made, planned(), sent(1, "4"), order_entry("unknown", 1, 5), verified("3", 10)).positions
    assert (unclear.filled, unclear.others) == (None, None)
    (late,) = result(made, planned(), sent(1, "4"), verified("10", 5), filled(1, "4", "99", 6)).positions
    assert [late.filled, late.left, late.others] == [4, 10, None]


def test_dust_is_an_amount_below_the_venues_minimum() -> None:
    """By the rule in the snapshot if it is known, else by the final journal entry; a contract is worth 100."""
    account = replace(
        incidents.snapshot(after()).accounts[0], instruments=(Instrument("BTC", min_amount=Decimal("0.01")),)
    )
    snapshot = replace(incidents.snapshot(after()), accounts=(account,))
    made = decision(banded("BTC", "sell", "10", None))
    for left, dust in (("0.009", True), ("0.01", False), ("0", False)):
        (position,) = result(made, planned(), verified(left, 5), snapshot=snapshot).positions
        assert position.dust is dust
    (worded,) = result(
        made,
        planned(),
        verified("0.009", 5),
        finished(6, "blocked", reason="dust: 0.009 BTC is below the venue's minimum"),
    ).positions
    assert (worded.dust, worded.worth) == (True, Decimal("0.9"))
    assert result(made, planned(), verified("0.009", 5)).positions[0].dust is None


@pytest.mark.parametrize(
    ("journal", "seconds", "end", "text"),
    [
        ([order_entry("guarded", 7, 6, **{"for": "s1", "state": "resting"})], 4.0, "put back", None),
        ([order_entry("guarded", 7, 6, **{"for": "s1", "state": "not needed"})], 4.0, "not needed", None),
        ([order_entry("guarded", 7, 6, **{"for": "s2", "state": "resting"})], None, "open", None),
        ([order_entry("guarded", 7, 6, **{"for": "s1", "state": "refused: too close"})], None, "refused",
         "refused: too close"),
        ([order_entry("guarded", 7, 6, **{"for": "s1", "state": "canceled"})], None, "refused", "canceled"),
        ([order_entry("guarded", 7, 6, **{"for": "s1", "state": "again"}),
          order_entry("guarded", 7, 9, **{"for": "s1", "state": "resting"})], 7.0, "put back", None),
        ([verified("0", 5)], 3.0, "position closed", None),
        ([verified("1", 5)], None, "open", None),
    ],
)  # fmt: skip
def test_time_without_protection_ends_when_the_position_is_covered(
    journal: list[JournalEntry], seconds: float | None, end: str, text: str | None
) -> None:
    """From the cancel at second 2: until a new order rests, none is needed, or the position is gone."""
    taken = entry(FIRST, "unprotected", after(seconds=2), order="s1")
    (found,) = result(decision(banded("BTC", "sell", "10")), planned(), taken, *journal).exposures
    until = None if seconds is None else after(seconds=2 + seconds)
    assert found == Exposure("main", "BTC", "long", "s1", after(seconds=2), until, seconds, end, text)  # type: ignore[arg-type] # a literal


def test_hops_and_hedges_are_counted_by_their_fills_and_have_no_target() -> None:
    """They are not closed positions, and an opened hedge realises nothing."""
    hedge = replace(incidents.intent("BTC", "sell", "2", "0"), purpose="hedge", reduce_only=False)
    made = replace(decision(hedge), kind="hedge")
    found = result(
        made, entry(FIRST, "planned", after(), contracts="2", mark="100", value="100"), sent(1, "2"),
        filled(1, "2", "99"), finished(9), snapshot=incidents.snapshot(after()),
    )  # fmt: skip
    assert (found.closed, found.positions, found.totals.hedges) == (0, (), 1)
    assert [found.standing, found.realised, found.fees] == ["at target", 0, 1]


def test_a_whole_book_close_counts_as_closed_without_known_sums(written: FilledStore) -> None:
    """One request, no order, and the venue shows 0: one position is closed, and its P&L is unknown."""
    journal = (
        planned(),
        replace(entry(FIRST, "swept", after(seconds=1), None), client_order_id=None),
        verified("0", 5),
        finished(6),
    )
    found = result(decision(banded("BTC", "sell", "10", None)), *journal)
    assert (found.closed, found.swept) == (1, ("main",))
    assert (found.realised, found.fees, found.slippage) == (None, None, None)
    assert {each.swept for each in found.missing} == {True}
    incident, text = report_of(written, decision(banded("BTC", "sell", "10", None)), *journal)
    assert "No order was sent: the venue was requested to close the whole book of main at once." in text
    assert {each.known for each in found.missing} == {None}
    assert "| fees, as far as known | unknown: nothing is known of what the whole-book request closed |" in text
    assert "| 0.00" not in text.partition("## In short")[2]
    states = {item.key: item.state for item in incident.checklist}
    assert [states[key] for key in ("closed", "reconciled", "counted")] == ["proved", "open", "open"]


def test_the_report_of_a_close_with_exceptions_names_all_of_them(written: FilledStore) -> None:
    """An exceeded bound, a liquidation, dust, an unprotected position: each as a remark and in its table.

    The page of the decision has the same remarks.
    """
    found, text = report_of(
        written,
        decision(banded("BTC", "sell", "10")),
        planned(),
        entry(FIRST, "unprotected", after(seconds=1), order="s1"),
        sent(2, "4", order="limit_ioc", price="99.5", rung="0", mark="100"),
        filled(2, "4", "99.5", 3),
        sent(4, "3", order="market", rung="2", mark="100"),
        filled(4, "3", "98", 5),
        entry(FIRST, "verified", after(seconds=6), position="0.009", target="0"),
        finished(7, "blocked", reason="dust: 0.009 BTC is below the venue's minimum"),
    )
    assert found.remarks == (
        "order 2 (sell 3 BTC long on main, ks4) was sent without a bound: slippage 2.00% against the declared 0.50%",
        "2.991 of the 10 BTC long on main was closed without an order of ours: by a liquidation, deleveraging or a "
        "person at the venue; its P&L is not included here",
        "0.009 BTC long on main is left as dust, below the venue's minimum, worth 0.90 USDT",
        "BTC long on main without its protective order s1 since 2024-01-01T00:00:01Z: it was not replaced",
    )
    page = decision_history_text(decision_history_of(written.store, FIRST)).splitlines()
    start = page.index("To be noted") + 1
    assert [line.strip() for line in page[start : page.index("", start)]] == list(found.remarks)
    assert any(line.endswith("2.00%    exceeded, sent without a bound") for line in page)
    assert "| BTC long | main | 10 | 7 | 2.991 | 0.009 (dust) | 00:00:06 |" in text
    assert "| 1 | 1 | limit_ioc | 99.5 | 0.50% | 0.50% | kept |" in text
    assert "| 2 | 3 | market | – | 0.50% | 2.00% | **exceeded, sent without a bound** |" in text
    assert "| BTC long | main | 0.009 | 0 | 0.009 (dust) | 00:00:06 |" in text
    assert "Sent by the unwinding careful." in text


def test_the_report_of_a_plain_close_has_no_exceptions(written: FilledStore) -> None:
    """No remarks and no bounds; only the duration of each close: from 1 s to 3 s, and from 61 s to 69 s."""
    incidents.whole_incident(written)
    found = incident_of(written.store, find_incident(written.store, None), StartedAs("store.sqlite"))
    text = report_markdown(found)
    assert found.remarks == ()
    assert "To be noted" not in text
    assert "bound" not in text
    ends = "s, from its first order to its last snapshot of the venue |"
    assert [line for line in text.splitlines() if line.startswith("| time of the close")] == [
        f"| time of the close, trim at 00:00:00 | 2.0 {ends}",
        f"| time of the close, close-everything at 00:01:00 | 8.0 {ends}",
    ]


@pytest.mark.parametrize(
    ("cause", "heading", "items"),
    [
        ("exchange-breach", "Close after a breach of the venue on account/main",
         ["API keys revoked", "Funds withdrawn", "Other venues checked", "Venue's statement kept"]),
        ("regulatory", "Close for a regulatory reason on account/main",
         ["Compliance informed", "Demand on file", "Cancelled orders attributed", "Records kept"]),
        ("dead-man", "Close by a dead-man's switch on account/main",
         ["Silence explained", "Timeout reviewed", "Switch armed again"]),
        ("drill", "DRILL: close by hand on account/main",
         ["DRILL: times noted", "DRILL: differences noted", "DRILL: book restored"]),
        ("operator", "Close by hand on account/main", []),
    ],
)  # fmt: skip
def test_a_manual_close_is_reported_by_its_declared_cause(
    written: FilledStore, cause: Cause, heading: str, items: list[str]
) -> None:
    """Heading and checklist follow the cause; the cause `operator` keeps the text of a plain manual close."""
    made = Decision(
        FIRST, after(), "operator", SET, SCOPE, "enforce", None, 0, 0, kind="manual", author="ada",
        reason="as the plan says", cause=cause, intents=(incidents.intent("BTC", "sell", "10", "0"),),
    )  # fmt: skip
    found, text = report_of(
        written, made, planned(), sent(1, "10"), filled(1, "10", "99"), verified("0", 10), finished(10)
    )
    assert found.title == heading
    keys = {"closed", "reconciled", "counted", "notified", "audited", "cause", "recovery", "debrief"}
    added = [item for item in found.checklist if item.key not in keys]
    assert [item.title for item in added] == items
    assert {item.state for item in added} <= {"open"}
    assert f"# Incident {FIRST}: {heading}" in text
    assert ("DRILL" in text) is (cause == "drill")
