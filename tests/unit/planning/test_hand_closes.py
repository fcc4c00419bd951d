"""A close by hand is carried out as its reason asks; by force also where an account cannot be read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import CorrelationGroupRule, PolicySet
from killswitch.graph.unwinding import LadderStepRule, SlippageRule, UnwindingRule
from killswitch.model.decision import Decision, Rung
from killswitch.model.snapshot import AccountSnapshot, Event, Snapshot
from killswitch.planning.tick import Interpreter, Outcome
from tests import graphs
from tests.worlds import account, after, hand, position, rules, snapshot

POLICIES = graphs.policy_set(graphs.graph([], [], [], policy="calm"))


def book(**more: Any) -> AccountSnapshot:
    """Account main with 3 BTC long and 2 ETH short."""
    rows = (
        position("BTC", "long", "0", contracts="3", entry_price="10", mark_price="10", notional="30"),
        position("ETH", "short", "0", contracts="2", entry_price="10", mark_price="10", notional="20"),
    )
    return account("1000", rows, instruments=(rules("BTC"), rules("ETH")), **more)


DOWN = account(None, None, quality="down", reason="no route")


def close(scope: str | None = None, *, force: bool = False, cause: Any = None) -> Event:
    return replace(hand("close", after(), scope), force=force, cause=cause)


def told(*snapshots: Snapshot, policies: PolicySet = POLICIES) -> Outcome:
    """What the last of the ticks comes to."""
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
        ("operator", None, None, None),
        ("market", "0.03", ("limit_ioc", "market", "limit"), None),
        ("system-failure", None, (), None),
        ("exchange-breach", None, (), None),
        ("regulatory", "0.01", ("limit_ioc", "limit_ioc", "market", "limit"), None),
        ("counterparty", "0.02", ("limit_ioc", "limit_ioc", "market", "limit"), None),
        ("drill", "0.005", ("limit_ioc", "limit_ioc", "market", "limit"), 60),
    ],
)
def test_each_reason_has_its_own_bound_ladder_and_pace(
    cause: str, bound: str | None, ladder: tuple[str, ...] | None, a_minute: int | None
) -> None:
    """As the vocabulary declares them: 3% of the mark in a market that runs, 60 orders a minute in a drill."""
    decision = only(told(at(0, book(), events=(close(cause=cause),))))
    assert decision.cause == cause
    assert {each.band for each in decision.intents} == {None if bound is None else Decimal(bound)}
    found = decision.unwinding
    assert (None if found is None else tuple(rung.order for rung in found.ladder)) == ladder
    assert (None if found is None else found.max_orders_per_minute) == a_minute


def test_a_document_that_claims_a_reason_is_how_it_is_carried_out() -> None:
    """What is written wins over what is built in."""
    rule = UnwindingRule(
        "gently", ("market",), slippage=(SlippageRule(None, Decimal("0.001")),), ladder=(LadderStepRule("market"),)
    )
    policies = PolicySet("sha256:test", None, POLICIES.graphs, unwindings=(rule,))
    decision = only(told(at(0, book(), events=(close(cause="market"),)), policies=policies))
    assert decision.unwinding is not None
    assert (decision.unwinding.name, decision.unwinding.ladder) == ("gently", (Rung("market"),))
    assert {each.band for each in decision.intents} == {Decimal("0.001")}


def test_a_hand_closes_in_the_order_of_correlation_groups() -> None:
    """The group that is declared first goes first, whatever its rank alone."""
    for first, second in (("BTC", "ETH"), ("ETH", "BTC")):
        groups = (CorrelationGroupRule("one", (first,), 1), CorrelationGroupRule("two", (second,), 2))
        policies = graphs.policy_set(graphs.graph([], [], [], policy="calm", groups=groups))
        decision = only(told(at(0, book(), events=(close(),)), policies=policies))
        assert [each.symbol for each in decision.intents] == [first, second]


def test_an_account_that_cannot_be_read_is_closed_by_force_on_its_last_positions() -> None:
    """Without force it waits; with it the last reading counts, and a notice says from when that is."""
    read = replace(book(), observed_at=after())
    waits = told(at(0, read), at(5, DOWN, events=(close(),)))
    assert waits.decisions == ()
    forced = told(at(0, read), at(5, DOWN, events=(close(force=True),)))
    assert orders(only(forced)) == WHOLE
    (notice,) = forced.notices
    assert notice.severity == "warning"
    assert notice.text == ("closed by force: main is down: no route; closed on its positions of 2024-01-01T00:00:00Z")


def test_force_sends_at_market_at_once_whatever_the_reason_asks() -> None:
    """No ladder, no bound and no pace, for a reason that has all of them."""
    decision = only(told(at(0, book(), events=(close(force=True, cause="drill"),))))
    assert {each.band for each in decision.intents} == {None}
    assert decision.unwinding is not None
    assert (decision.unwinding.ladder, decision.unwinding.max_orders_per_minute) == ((), None)
    assert decision.reason == "reviewed; by force"


def test_c1_an_empty_answer_with_margin_in_use_is_closed_by_force_on_what_was_there_before() -> None:
    """C1: empty is not flat where margin is in use; the last positions that made sense count."""
    empty = account("1000", (), margin_used="50")
    assert orders(only(told(at(0, book()), at(1, empty), at(2, empty, events=(close(force=True),))))) == WHOLE


def test_what_was_closed_since_is_not_closed_again_by_force() -> None:
    """An account that was read flat is flat: nothing is sent on positions from before that."""
    flat = account("1000", ())
    assert only(told(at(0, book()), at(1, flat), at(2, DOWN, events=(close(force=True),)))).intents == ()


def test_force_on_an_account_that_was_never_read_waits() -> None:
    """There is nothing to go by until the first reading."""
    wanted = close(force=True)
    interpreter = Interpreter(POLICIES)
    blind = interpreter.tick(at(0, DOWN, events=(wanted,)))
    assert blind.decisions == ()
    assert "its positions were never read" in blind.notices[0].text
    assert orders(only(interpreter.tick(at(1, book(), events=(wanted,))))) == WHOLE


@pytest.mark.parametrize("market", ["spot", "margin", "equity"])
def test_force_sells_what_is_seen_and_nothing_blind(market: str) -> None:
    """Without reduce-only an order on old positions could sell what is not there any more: that one waits."""
    other, unread = book(name="cash", market=market), account(None, None, name="cash", market=market, quality="down")
    wanted = close("account/cash", force=True)
    interpreter = Interpreter(POLICIES)
    interpreter.tick(at(0, other))
    blind = interpreter.tick(at(1, unread, events=(wanted,)))
    assert blind.decisions == ()
    assert f"cash is a {market} account: without reduce-only orders --force would sell blind" in blind.notices[0].text
    assert orders(only(interpreter.tick(at(2, other, events=(wanted,))))) == {("cash", *each[1:]) for each in WHOLE}
    assert not interpreter.unfinished_closes()


@pytest.mark.parametrize("market", ["spot", "swap"])
@pytest.mark.parametrize("force", [False, True])
def test_a_close_by_hand_needs_to_know_what_is_held_and_not_what_it_is_worth(market: str, *, force: bool) -> None:
    """An asset without a price makes a spot account's worth unknown: what it holds is sold all the same."""
    unpriced = replace(book(market=market), equity=None)
    assert orders(only(told(at(0, unpriced, events=(close(force=force),))))) == WHOLE


MALFORMED: Any = {"quality": "malformed", "reason": "page 2 of positions did not come"}


def rows(*held: tuple[str, str, str], **more: Any) -> AccountSnapshot:
    """Account main with these positions at a mark of 10."""
    found = [position(each, side, "0", contracts=contracts, mark_price="10") for each, side, contracts in held]
    return account("1000", found, instruments=(rules("BTC"), rules("ETH")), **more)


def test_half_of_the_positions_does_not_beat_the_last_whole_reading_by_force() -> None:
    """Page 2 did not come: BTC goes by the answer of now, ETH by that of before, and the notice says so."""
    read = replace(book(), observed_at=after())
    half = rows(("BTC", "long", "4"), **MALFORMED, observed_at=after(minutes=5))
    forced = told(at(0, read), at(5, half, events=(close(force=True),)))
    assert orders(only(forced)) == {("main", "BTC", Decimal(4), Decimal(0)), ("main", "ETH", Decimal(2), Decimal(0))}
    assert [each.text for each in forced.notices] == [
        "closed by force: main is malformed: page 2 of positions did not come; closed on its positions of "
        "2024-01-01T00:05:00Z, and on short ETH of 2024-01-01T00:00:00Z"
    ]


def test_rows_of_nothing_in_an_answer_that_is_in_doubt_close_nothing_off() -> None:
    """Every position at zero contracts with margin in use is no flat book: force goes by what was there before."""
    zeros = rows(("BTC", "long", "0"), ("ETH", "short", "0"), margin_used="50")
    assert orders(only(told(at(0, book()), at(1, zeros, events=(close(force=True),))))) == WHOLE


@pytest.mark.parametrize("contracts", ["NaN", "sNaN", "-3", "1e40"])
def test_a_row_that_is_no_position_does_not_replace_what_was_read_before(contracts: str) -> None:
    """Told twice before the hand comes: the last reading that made sense is kept, and force goes by it."""
    bad = rows(("BTC", "long", "3"), ("ETH", "short", contracts))
    forced = told(at(0, book()), at(1, bad), at(2, bad, events=(close(force=True),)))
    assert orders(only(forced)) == WHOLE
    assert [each.severity for each in forced.notices] == ["warning"]  # nothing is left out


def test_of_two_rows_of_one_position_none_counts_where_one_is_no_position() -> None:
    """1 of ETH and NaN of ETH: what was read before is the whole of it."""
    bad = rows(("BTC", "long", "3"), ("ETH", "short", "1"), ("ETH", "short", "NaN"))
    assert orders(only(told(at(0, book()), at(1, bad, events=(close(force=True),))))) == WHOLE


def test_positions_count_as_read_where_only_the_equity_is_missing() -> None:
    """The last answer with positions is that of minute 1, whose equity was unknown: 4 of BTC, and no ETH any more."""
    without = replace(rows(("BTC", "long", "4")), equity=None)
    forced = told(at(0, book()), at(1, without), at(2, DOWN, events=(close(force=True),)))
    assert orders(only(forced)) == {("main", "BTC", Decimal(4), Decimal(0))}


def test_a_row_that_is_no_position_and_was_never_read_is_named_by_force() -> None:
    """The rest is closed, and a page says what was left out and why."""
    bad = rows(("BTC", "long", "3"), ("ETH", "short", "NaN"))
    forced = told(at(0, bad, events=(close(force=True),)))
    assert orders(only(forced)) == {("main", "BTC", Decimal(3), Decimal(0))}
    assert [(each.severity, each.text) for each in forced.notices] == [
        ("page", "not closed by hand: main reports NaN contracts of short ETH, and its position was never read"),
        (
            "warning",
            "closed by force: main reports NaN contracts of ETH; closed on its positions of an unknown time",
        ),
    ]


def test_a_close_that_was_given_too_long_ago_closes_nothing_and_says_so() -> None:
    """No runner lived for ten minutes and a second: the book of now is not the one that the hand meant."""
    given = close()
    in_time = told(at(10, book(), events=(given,)))
    assert orders(only(in_time)) == WHOLE
    late = told(snapshot(after(seconds=601), book(), events=(given,)))
    assert late.decisions == ()
    assert [(each.severity, each.subject, each.text) for each in late.notices] == [
        (
            "page",
            given.id,
            "the close by hand was not carried out: the command is 601 s old, and the book may have changed since: "
            "give it again",
        )
    ]
    assert told(at(20, DOWN, events=(close(force=True),))).decisions == ()


def test_a_close_during_an_outage_names_force() -> None:
    """Where --force has something to go by; on a spot account it has nothing, and is not named."""
    (notice,) = told(at(0, book()), at(1, DOWN, events=(close(),))).notices
    assert "--force closes its last known positions" in notice.text
    spot = account(None, None, quality="down", reason="no route", market="spot")
    (notice,) = told(at(0, spot), at(1, spot, events=(close(),))).notices
    assert "--force" not in notice.text
