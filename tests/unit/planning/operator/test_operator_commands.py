"""Operator commands: their decision records field by field, and the accounts that a command's scope names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AutoReset, Compare, Number, PolicySet, RankingRule, SignalRead
from killswitch.model.decision import Book, BookChange, Cancel, Decision, decision_id
from killswitch.model.instant import MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, Order, Snapshot
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.operator.closes import accounts_in, applies
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import START, account, after, operator_event, position, rules, snapshot

D = Decimal
POLICIES = replace(policy_set(graph([], [], [], policy="calm")), commit="c0ffee")


def book(name: str = "main", **more: Any) -> AccountSnapshot:
    """3 BTC long that lost 5 and 2 ETH short that lost 7, and an order that rests."""
    held = (
        position("BTC", "long", "-5", contracts="3", mark_price="10", notional="30"),
        position("ETH", "short", "-7", contracts="2", mark_price="10", notional="20"),
    )
    stop = Order(id="s1", symbol="BTC", side="sell", amount=D(3), trigger_price=D(9), reduce_only=True)
    return account("1000", held, name=name, orders=(stop,), instruments=(rules("BTC"), rules("ETH")), **more)


def outcome_of(seen: Snapshot, policies: PolicySet = POLICIES) -> Outcome:
    return Interpreter(policies).tick(seen)


def closed(scope: str | None, *accounts: AccountSnapshot, policies: PolicySet = POLICIES) -> Decision:
    (decision,) = outcome_of(
        snapshot(after(), *accounts, events=(operator_event("close", after(), scope),)), policies
    ).decisions
    return decision


def test_an_operator_close_is_recorded_completely() -> None:
    """Author, reason, policy set and book; every resting order is cancelled; the worst position comes first."""
    made = closed("account/main", book())
    assert (made.id, made.as_of) == (decision_id("operator", "account/main", "e1", after()), after())
    assert (made.policy, made.policy_set, made.commit) == ("operator", POLICIES.digest, "c0ffee")
    assert (made.scope, made.mode, made.kind, made.stage) == ("account/main", "enforce", "manual", None)
    assert (made.level, made.previous_level) == (0, 0)
    assert (made.author, made.reason, made.cause, made.lock) == ("operator-1", "reviewed", None, None)
    assert made.book == BookChange(Book(D(50), D(10), None), Book(D(0), D(0), None))
    assert made.cancels == (Cancel("main", "BTC", "s1", "all"),)
    assert [(i.symbol, i.side, i.contracts, i.target, i.rank) for i in made.intents] == [
        ("ETH", "buy", D(2), D(0), 1), ("BTC", "sell", D(3), D(0), 2)
    ]  # fmt: skip


def test_an_operator_close_uses_the_default_ranking() -> None:
    """By size alone: BTC goes first, though ETH has lost more; a ranking of another name does not count."""
    size = RankingRule("default", "normalised", (("notional_share", 1.0),), 0)
    for name, first in (("default", "BTC"), ("other", "ETH")):
        policies = policy_set(graph([], [], [], policy="calm", rankings=(replace(size, name=name),)))
        assert closed(None, book(), policies=policies).intents[0].symbol == first


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (None, ["main", "other", "third"]),
        ("portfolio", ["main", "other", "third"]),
        ("account/main", ["main"]),
        ("venue/okx", ["other", "third"]),
        ("account/okx", []),
        ("venue/main", []),
        ("account/nobody", []),
    ],
)
def test_a_scope_names_one_account_the_accounts_of_a_venue_or_all(scope: str | None, names: list[str]) -> None:
    """A venue is no account and an account is no venue."""
    seen = snapshot(START, book(), book("other", venue="okx"), book("third", venue="okx"))
    assert [each.account for each in accounts_in(scope, seen, policy_set())] == names


def test_a_command_without_a_scope_applies_to_all_scopes() -> None:
    """And one with a scope to that scope only."""
    assert applies(operator_event("pause", START, None), "account/main")
    assert applies(operator_event("pause", START, "account/main"), "account/main")
    assert not applies(operator_event("pause", START, "account/main"), "account/other")


def test_a_command_without_a_scope_is_recorded_for_the_portfolio() -> None:
    """Including the id of its decision."""
    made = closed(None, book())
    assert (made.scope, made.id) == ("portfolio", decision_id("operator", "portfolio", "e1", after()))


def test_a_scope_that_matches_no_account_is_reported_by_name() -> None:
    """Nothing is decided."""
    outcome = outcome_of(snapshot(after(), book(), events=(operator_event("close", after(), "account/nobody"),)))
    assert outcome.decisions == ()
    (notice,) = outcome.notices
    assert "account/nobody" in notice.text


def test_readable_accounts_are_closed_and_the_others_reported() -> None:
    """Each unreadable account by its own reason, also where none is readable."""
    down = account(None, None, name="other", quality="down", reason="no route")
    stale = account("1", (), name="third", quality="malformed", reason="half a page")
    some = outcome_of(snapshot(after(), book(), down, stale, events=(operator_event("close", after(), None),)))
    assert [intent.account for intent in some.decisions[0].intents] == ["main", "main"]
    assert sorted(("no route" in notice.text, "half a page" in notice.text) for notice in some.notices) == [
        (False, True), (True, False)
    ]  # fmt: skip
    none = outcome_of(snapshot(after(), down, stale, events=(operator_event("close", after(), None),)))
    assert none.decisions == ()
    assert sorted("no route" in notice.text for notice in none.notices) == [False, True]
    assert sorted("half a page" in notice.text for notice in none.notices) == [False, True]


def tripping(**more: Any) -> PolicySet:
    """Locks and closes at 5% in 15m; resets automatically one minute after the fall is below 1%."""
    made = graph(
        (FALL_15M,), (trigger("fall", 0, 0.05),),
        (stage("trip", 2, 0, cooldown=MINUTE, **({"actions": (LockTrading("all", None), close())} | more)),),
        reset_when=(Compare("<", SignalRead(0), Number(0.01)),),
    )  # fmt: skip
    return replace(policy_set(made), commit="c0ffee")


def fallen(minute: float, equity: str, *events: Any) -> Snapshot:
    lost = str(D(equity) - 1000)
    held = (position("BTC", "long", lost, contracts="3", mark_price="10", notional="30"),) if minute < 17 else ()
    return snapshot(after(minutes=minute), account(equity, held, instruments=(rules("BTC"),)), events=events)


def resets(policies: PolicySet, *events: Any) -> list[Decision]:
    """A fall of 10% in the sixteenth minute, and an hour and a half at the new level; `events` in the twentieth."""
    interpreter = Interpreter(policies)
    found: list[Decision] = []
    for minute in range(110):
        polled = fallen(minute, "1000" if minute < 16 else "900", *(events if minute == 20 else ()))
        found += interpreter.tick(polled).decisions
    assert [each.stage for each in found][:1] == ["trip"]
    return [each for each in found if each.kind == "reset"]


def test_an_operator_reset_is_recorded_completely() -> None:
    """From level 2 to 0 of the latched stage, with author and reason."""
    policies = tripping()
    (made,) = resets(policies, operator_event("reset", after(minutes=20)))
    now = after(minutes=20)
    assert (made.id, made.as_of) == (decision_id("test", "account/main", "reset/trip", now), now)
    assert (made.policy, made.policy_set, made.commit) == ("test", policies.digest, "c0ffee")
    assert (made.scope, made.mode, made.stage) == ("account/main", "enforce", "trip")
    assert (made.level, made.previous_level, made.intents) == (0, 2, ())
    assert (made.author, made.reason) == ("operator-1", "reviewed")


def test_an_automatic_reset_has_no_author_and_gives_its_reason() -> None:
    """The fall has left its window, and a minute has passed."""
    (made,) = resets(tripping(reset=AutoReset(1, MINUTE), actions=(LockTrading("all", None),)))
    assert (made.author, made.level, made.previous_level) == (None, 0, 2)
    assert made.reason
    assert to_micros(made.as_of) > to_micros(after(minutes=30))


def test_a_reset_of_another_scope_resets_nothing() -> None:
    """The stage stays latched."""
    assert resets(tripping(), replace(operator_event("reset", after(minutes=20)), scope="account/other")) == []
