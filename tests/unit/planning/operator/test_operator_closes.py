"""Operator closes: carried out as their reason requires, and with --force also where an account cannot be read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import CorrelationGroupRule, PolicySet
from killswitch.graph.unwinding import SlippageRule, UnwindingRule
from killswitch.model.decision import Decision, Rung
from killswitch.model.snapshot import AccountSnapshot, Event, Order, Snapshot
from killswitch.operations.pages.plan import execution_text
from killswitch.planning.interpreter import NO_OUTCOME, Interpreter, Outcome
from tests import graphs
from tests.worlds import account, after, fill, operator_event, position, rules, snapshot

POLICIES = graphs.policy_set(graphs.graph([], [], [], policy="calm"))


def book(**more: Any) -> AccountSnapshot:
    """Account main with 3 BTC long and 2 ETH short."""
    rows = (
        position("BTC", "long", "0", contracts="3", entry_price="10", mark_price="10", notional="30"),
        position("ETH", "short", "0", contracts="2", entry_price="10", mark_price="10", notional="20"),
    )
    return account("1000", rows, instruments=(rules("BTC"), rules("ETH")), **more)


CLOSED_BY_BOTS = (fill("f1", after(), "BTC", "sell", "3", "10"), fill("f2", after(), "ETH", "buy", "2", "10"))
DOWN = account(None, None, quality="down", reason="no route")


def close(scope: str | None = None, *, force: bool = False, cause: Any = None) -> Event:
    return replace(operator_event("close", after(), scope), force=force, cause=cause)


def outcome_of(*snapshots: Snapshot, policies: PolicySet = POLICIES) -> Outcome:
    """The outcome of the last of the ticks."""
    interpreter = Interpreter(policies)
    outcomes = [interpreter.tick(each) for each in snapshots]
    return outcomes[-1]


def at(minute: float, *accounts: AccountSnapshot, events: tuple[Event, ...] = ()) -> Snapshot:
    return snapshot(after(minutes=minute), *accounts, events=events)


def only(outcome: Outcome) -> Decision:
    (decision,) = outcome.decisions
    return decision


def orders(decision: Decision) -> set[tuple[str, str, Decimal, Decimal]]:
    return {(each.account, each.symbol, each.contracts, each.target) for each in decision.intents}


WHOLE = {("main", "BTC", Decimal(3), Decimal(0)), ("main", "ETH", Decimal(2), Decimal(0))}


@pytest.mark.parametrize(
    ("cause", "bound", "ladder", "a_minute"),
    [
        ("operator", "0.02", ("limit_ioc", "market", "limit"), None),
        (None, "0.02", ("limit_ioc", "market", "limit"), None),
        ("market", "0.03", ("limit_ioc", "market", "limit"), None),
        ("system-failure", "0.05", ("limit_ioc", "market", "limit"), None),
        ("exchange-breach", None, (), None),
        ("regulatory", "0.01", ("limit_ioc", "limit_ioc", "market", "limit"), None),
        ("counterparty", "0.02", ("limit_ioc", "limit_ioc", "market", "limit"), None),
        ("dead-man", "0.05", ("limit_ioc", "market", "limit"), None),
        ("drill", "0.005", ("limit_ioc", "limit_ioc", "market", "limit"), 60),
    ],
)
def test_each_reason_has_its_own_bound_ladder_and_pace(
    cause: str | None, bound: str | None, ladder: tuple[str, ...] | None, a_minute: int | None
) -> None:
    """As issue 38 and the built-in unwindings declare them; a command without a reason counts as `operator`."""
    decision = only(outcome_of(at(0, book(), events=(close(cause=cause),))))
    assert decision.cause == cause
    assert {each.band for each in decision.intents} == {None if bound is None else Decimal(bound)}
    found = decision.unwinding
    assert (None if found is None else tuple(step.order for step in found.ladder)) == ladder
    assert (None if found is None else found.max_orders_per_minute) == a_minute


def unmarked(decision: Decision) -> set[str]:
    """The symbols whose orders are at market from the first."""
    return {each.symbol for each in decision.intents if each.at_market}


@pytest.mark.parametrize(
    ("seconds", "mark", "symbols"),
    [
        (60, "10", set()),
        (61, "10", {"BTC", "ETH"}),
        (None, "10", {"BTC", "ETH"}),
        (0, None, {"BTC", "ETH"}),
        (0, "0", {"BTC", "ETH"}),
        (0, "NaN", {"BTC", "ETH"}),
    ],
)
def test_a_position_without_a_fresh_mark_goes_at_market_at_once(
    seconds: int | None, mark: str | None, symbols: set[str]
) -> None:
    """A mark counts for a minute; one that is missing, of an unknown time, zero or no number never does."""
    observed = None if seconds is None else after(seconds=60 - seconds)
    held = tuple(replace(each, mark_price=None if mark is None else Decimal(mark)) for each in book().positions or ())
    seen = replace(book(observed_at=observed), positions=held)
    for cause in ("operator", "system-failure", "market", "dead-man"):
        decision = only(outcome_of(at(1, seen, events=(close(cause=cause),))))
        assert unmarked(decision) == symbols
    for cause in ("exchange-breach", "regulatory", "counterparty", "drill"):
        assert unmarked(only(outcome_of(at(1, seen, events=(close(cause=cause),))))) == set()


def test_the_venues_own_time_of_a_mark_decides_and_each_symbol_is_judged_alone() -> None:
    """BTC was marked two minutes before the poll of now, ETH in it: only BTC goes at market at once."""
    btc, eth = book().positions or ()
    seen = replace(book(observed_at=after(minutes=2)), positions=(replace(btc, mark_at=after()), eth))
    decision = only(outcome_of(at(2, seen, events=(close(),))))
    assert unmarked(decision) == {"BTC"}
    assert {each.band for each in decision.intents} == {Decimal("0.02")}  # the report shows what was declared
    assert execution_text(decision) == (
        "within 2% of the mark, 1 try, then at market, 2 tries, then resting within 6% of the mark where no market "
        "order fills; without a fresh mark, so at market at once: BTC; as fast as the venue allows"
    )


def test_a_document_keeps_its_ladder_for_a_position_without_a_mark() -> None:
    """Who declares a ladder decides how it goes: its limit is the best price of the other side then."""
    rule = UnwindingRule(
        "gently", ("operator",), slippage=(SlippageRule(None, Decimal("0.001")),), ladder=(Rung("market"),)
    )
    policies = PolicySet("sha256:test", None, POLICIES.graphs, unwindings=(rule,))
    assert unmarked(only(outcome_of(at(0, book(), events=(close(),)), policies=policies))) == set()


def test_a_document_declares_wider_bounds_for_some_symbols_of_a_close_by_hand() -> None:
    """10% for ETH, and what is built in for all others."""
    slippage = (SlippageRule(("ETH",), Decimal("0.1")), SlippageRule(None, Decimal("0.02")))
    rule = UnwindingRule("by-hand", ("operator",), slippage=slippage, ladder=(Rung("limit_ioc"), Rung("market")))
    policies = PolicySet("sha256:test", None, POLICIES.graphs, unwindings=(rule,))
    decision = only(outcome_of(at(0, book(), events=(close(),)), policies=policies))
    assert {each.symbol: each.band for each in decision.intents} == {"BTC": Decimal("0.02"), "ETH": Decimal("0.1")}


def test_a_document_that_claims_a_reason_replaces_the_built_in_unwinding() -> None:
    """A document takes precedence over what is built in."""
    rule = UnwindingRule(
        "gently", ("market",), slippage=(SlippageRule(None, Decimal("0.001")),), ladder=(Rung("market"),)
    )
    policies = PolicySet("sha256:test", None, POLICIES.graphs, unwindings=(rule,))
    decision = only(outcome_of(at(0, book(), events=(close(cause="market"),)), policies=policies))
    assert decision.unwinding is not None
    assert (decision.unwinding.name, decision.unwinding.ladder) == ("gently", (Rung("market"),))
    assert {each.band for each in decision.intents} == {Decimal("0.001")}


def test_an_operator_close_follows_the_order_of_correlation_groups() -> None:
    """The group that is declared first is closed first, whatever the ranks."""
    for first, second in (("BTC", "ETH"), ("ETH", "BTC")):
        groups = (CorrelationGroupRule("one", (first,), 1), CorrelationGroupRule("two", (second,), 2))
        policies = graphs.policy_set(graphs.graph([], [], [], policy="calm", groups=groups))
        decision = only(outcome_of(at(0, book(), events=(close(),)), policies=policies))
        assert [each.symbol for each in decision.intents] == [first, second]


def test_an_account_that_cannot_be_read_is_closed_by_force_on_its_last_positions() -> None:
    """Without force the close waits; with it the last snapshot counts, and a notice gives its time."""
    read = replace(book(), observed_at=after())
    waits = outcome_of(at(0, read), at(5, DOWN, events=(close(),)))
    assert waits.decisions == ()
    forced = outcome_of(at(0, read), at(5, DOWN, events=(close(force=True),)))
    assert orders(only(forced)) == WHOLE
    (notice,) = forced.notices
    assert notice.severity == "warning"
    assert notice.text == ("closed by force: main is down: no route; closed on its positions of 2024-01-01T00:00:00Z")


def test_force_sends_market_orders_at_once_whatever_the_reason_declares() -> None:
    """No ladder, no bound and no pace, for a reason that has all of them."""
    decision = only(outcome_of(at(0, book(), events=(close(force=True, cause="drill"),))))
    assert {each.band for each in decision.intents} == {None}
    assert decision.unwinding is not None
    assert (decision.unwinding.ladder, decision.unwinding.max_orders_per_minute) == ((), None)
    assert decision.reason == "reviewed; by force"


def test_c1_an_empty_answer_with_margin_in_use_is_closed_by_force_on_the_last_known_positions() -> None:
    """C1: empty is not flat where margin is in use; the last valid positions count."""
    empty = account("1000", (), margin_used="50")
    assert orders(only(outcome_of(at(0, book()), at(1, empty), at(2, empty, events=(close(force=True),))))) == WHOLE


def test_force_does_not_close_positions_that_are_flat_since() -> None:
    """An account whose fills explain that it is flat is flat: nothing is sent on earlier positions."""
    flat = account("1000", (), fills=CLOSED_BY_BOTS)
    assert only(outcome_of(at(0, book()), at(1, flat), at(2, DOWN, events=(close(force=True),)))).intents == ()


def test_c1_an_empty_answer_that_nothing_explains_is_not_flat_for_a_forced_close() -> None:
    """The orders reduce only: where somebody has closed it indeed, they do nothing."""
    empty = account("1000", ())
    forced = outcome_of(at(0, book()), at(1, empty), at(2, DOWN, events=(close(force=True),)))
    assert orders(only(forced)) == WHOLE


def test_force_on_an_account_that_was_never_read_waits() -> None:
    """No positions are known before the first snapshot."""
    command = close(force=True)
    interpreter = Interpreter(POLICIES)
    waiting = interpreter.tick(at(0, DOWN, events=(command,)))
    assert waiting.decisions == ()
    assert "its positions were never read" in waiting.notices[0].text
    assert orders(only(interpreter.tick(at(1, book(), events=(command,))))) == WHOLE


@pytest.mark.parametrize("market", ["spot", "margin", "equity"])
def test_force_closes_known_positions_and_no_unknown_holdings(market: str) -> None:
    """Without reduce-only an order on old positions could sell what is no longer there: that account waits."""
    other, unavailable = (
        book(name="cash", market=market),
        account(None, None, name="cash", market=market, quality="down"),
    )
    command = close("account/cash", force=True)
    interpreter = Interpreter(POLICIES)
    interpreter.tick(at(0, other))
    waiting = interpreter.tick(at(1, unavailable, events=(command,)))
    assert waiting.decisions == ()
    assert f"cash is a {market} account: without reduce-only orders --force would sell blind" in waiting.notices[0].text
    assert orders(only(interpreter.tick(at(2, other, events=(command,))))) == {("cash", *each[1:]) for each in WHOLE}
    flat = replace(other, positions=())
    for minute in (3, 4):
        assert interpreter.tick(at(minute, flat, events=(command,))) == NO_OUTCOME
    assert not interpreter.unfinished_closes()


@pytest.mark.parametrize("market", ["spot", "swap"])
@pytest.mark.parametrize("force", [False, True])
def test_an_operator_close_needs_known_positions_and_not_a_known_equity(market: str, *, force: bool) -> None:
    """An asset without a price makes a spot account's equity unknown: its holdings are sold all the same."""
    unpriced = replace(book(market=market), equity=None)
    assert orders(only(outcome_of(at(0, unpriced, events=(close(force=force),))))) == WHOLE


MALFORMED: Any = {"quality": "malformed", "reason": "page 2 of positions did not come"}


def rows(*held: tuple[str, str, str], **more: Any) -> AccountSnapshot:
    """Account main with these positions at a mark of 10."""
    found = [position(each, side, "0", contracts=contracts, mark_price="10") for each, side, contracts in held]
    return account("1000", found, instruments=(rules("BTC"), rules("ETH")), **more)


def test_force_completes_a_partial_answer_from_the_last_complete_snapshot() -> None:
    """Page 2 is missing: BTC is taken from the current answer, ETH from the earlier one, and the notice says so."""
    read = replace(book(), observed_at=after())
    half = rows(("BTC", "long", "4"), **MALFORMED, observed_at=after(minutes=5))
    forced = outcome_of(at(0, read), at(5, half, events=(close(force=True),)))
    assert orders(only(forced)) == {("main", "BTC", Decimal(4), Decimal(0)), ("main", "ETH", Decimal(2), Decimal(0))}
    assert [each.text for each in forced.notices] == [
        "closed by force: main is malformed: page 2 of positions did not come; closed on its positions of "
        "2024-01-01T00:05:00Z, and on short ETH of 2024-01-01T00:00:00Z"
    ]


def test_rows_of_zero_contracts_with_margin_in_use_are_not_a_flat_book() -> None:
    """Every position at zero contracts with margin in use is not a flat book: force uses the last known positions."""
    zeros = rows(("BTC", "long", "0"), ("ETH", "short", "0"), margin_used="50")
    assert orders(only(outcome_of(at(0, book()), at(1, zeros, events=(close(force=True),))))) == WHOLE


@pytest.mark.parametrize("contracts", ["NaN", "sNaN", "-3", "1e40"])
def test_an_invalid_position_row_does_not_replace_the_last_valid_one(contracts: str) -> None:
    """It is returned twice before the command arrives: the last valid snapshot is kept, and force uses it."""
    bad = rows(("BTC", "long", "3"), ("ETH", "short", contracts))
    forced = outcome_of(at(0, book()), at(1, bad), at(2, bad, events=(close(force=True),)))
    assert orders(only(forced)) == WHOLE
    assert [each.severity for each in forced.notices] == ["warning"]  # nothing is left out


def test_of_two_rows_of_one_position_none_counts_where_one_is_invalid() -> None:
    """1 of ETH and NaN of ETH: the earlier row is the whole position."""
    bad = rows(("BTC", "long", "3"), ("ETH", "short", "1"), ("ETH", "short", "NaN"))
    assert orders(only(outcome_of(at(0, book()), at(1, bad, events=(close(force=True),))))) == WHOLE


def test_positions_are_known_where_only_the_equity_is_missing() -> None:
    """The last answer with positions is that of minute 1, whose equity was unknown: 4 of BTC, and no ETH any more."""
    without = replace(rows(("BTC", "long", "4")), equity=None, fills=CLOSED_BY_BOTS[1:])
    forced = outcome_of(at(0, book()), at(1, without), at(2, DOWN, events=(close(force=True),)))
    assert orders(only(forced)) == {("main", "BTC", Decimal(4), Decimal(0))}


def test_force_reports_an_invalid_position_row_without_an_earlier_valid_one() -> None:
    """The rest is closed, and a page says what was left out and why."""
    bad = rows(("BTC", "long", "3"), ("ETH", "short", "NaN"))
    forced = outcome_of(at(0, bad, events=(close(force=True),)))
    assert orders(only(forced)) == {("main", "BTC", Decimal(3), Decimal(0))}
    assert [(each.severity, each.text) for each in forced.notices] == [
        ("page", "not closed by hand: main reports NaN contracts of short ETH, and its position was never read"),
        (
            "warning",
            "closed by force: main reports NaN contracts of ETH; closed on its positions of an unknown time",
        ),
    ]


def test_an_expired_operator_close_closes_nothing_and_is_reported() -> None:
    """No runner lived for ten minutes and a second: the current book is not the one that the operator meant."""
    given = close()
    in_time = outcome_of(at(10, book(), events=(given,)))
    assert orders(only(in_time)) == WHOLE
    late = outcome_of(snapshot(after(seconds=601), book(), events=(given,)))
    assert late.decisions == ()
    assert [(each.severity, each.subject, each.text) for each in late.notices] == [
        (
            "page",
            given.id,
            "the close by hand was not carried out: the command is 601 s old, and the book may have changed since: "
            "give it again",
        )
    ]
    assert outcome_of(at(20, DOWN, events=(close(force=True),))).decisions == ()


def test_the_notice_of_a_close_during_an_outage_names_force() -> None:
    """Where --force has known positions to use; on a spot account it has none, and is not named."""
    (notice,) = outcome_of(at(0, book()), at(1, DOWN, events=(close(),))).notices
    assert "--force closes its last known positions" in notice.text
    spot = account(None, None, quality="down", reason="no route", market="spot")
    (notice,) = outcome_of(at(0, spot), at(1, spot, events=(close(),))).notices
    assert "--force" not in notice.text


# Parts, and a leverage


def closing(*events: Event, **more: Any) -> Decision:
    return only(outcome_of(at(0, book(**more), events=events)))


def test_a_close_of_a_side_or_a_symbol_leaves_the_rest_with_its_orders() -> None:
    """The stop of the other side stays: without it that position would be naked."""
    stops = (
        Order("btc-stop", "BTC", "sell", Decimal(3), type="stop_market", trigger_price=Decimal(9)),
        Order("eth-stop", "ETH", "buy", Decimal(2), type="stop_market", trigger_price=Decimal(11)),
    )
    for part, symbol in (({"side": "long"}, "BTC"), ({"side": "short"}, "ETH"), ({"symbols": ("ETH",)}, "ETH")):
        decision = closing(replace(close(cause="operator"), **part), orders=stops)
        assert {each.symbol for each in decision.intents} == {symbol}
        assert [each.order for each in decision.cancels] == [f"{symbol.lower()}-stop"]


@pytest.mark.parametrize(
    ("leverage", "equity", "expected"),
    [
        ("1", "30", {("BTC", "2")}),  # 50 of gross on 30: 20 too much, which is 2 BTC at 10
        ("0.5", "30", {("BTC", "3"), ("ETH", "0.5")}),  # 35 too much: 30 of BTC, then 5 of ETH
        ("2", "30", set()),
        ("1", "0", {("BTC", "3"), ("ETH", "2")}),  # no equity bears no position
    ],
)
def test_a_close_to_a_leverage_sells_what_is_too_much_the_worst_first(
    leverage: str, equity: str, expected: set[tuple[str, str]]
) -> None:
    """By hand: gross less leverage times equity. The positions are of equal loss, and BTC is the larger one."""
    held = (
        position("BTC", "long", "-3", contracts="3", entry_price="11", mark_price="10", notional="30"),
        position("ETH", "short", "-1", contracts="2", entry_price="9.5", mark_price="10", notional="20"),
    )
    seen = account(equity, held, instruments=(rules("BTC"), rules("ETH")))
    event = replace(close(cause="operator"), leverage=Decimal(leverage))
    decision = only(outcome_of(at(0, seen, events=(event,))))
    assert {(each.symbol, str(each.contracts.normalize())) for each in decision.intents} == expected
    assert "is sold to reach" in (decision.reason or "")


def test_a_close_to_a_leverage_of_what_is_unknown_is_refused_and_locks_nothing() -> None:
    """An equity that nobody knows bears no sum; the close of everything does without it."""
    event = replace(close(cause="operator", scope="portfolio"), leverage=Decimal(1))
    for seen in ((replace(book(), equity=None),), (book(), replace(DOWN, account="other"))):
        found = outcome_of(at(0, *seen, events=(event,)))
        assert found.decisions == ()
        assert "leverage" in found.notices[0].text


@pytest.mark.parametrize(("most", "closed"), [("3", {("main", "BTC", Decimal(3), Decimal(0))}), ("2.999", None)])
def test_a_close_of_at_most_so_many_contracts_touches_no_larger_position(
    most: str, closed: set[tuple[str, str, Decimal, Decimal]] | None
) -> None:
    """A live drill closes what it has opened: of a larger position part is somebody else's, and nothing is closed."""
    event = replace(close("account/main"), symbols=("BTC",), most=Decimal(most))
    found = outcome_of(at(0, book(), events=(event,)))
    if closed is not None:
        assert orders(only(found)) == closed
        return
    assert found.decisions == ()
    assert "main holds 3 of BTC, above the 2.999 of this command" in "; ".join(each.text for each in found.notices)
