"""Breaches of the lock of a strategy that shares its account: its own part alone is compared, paged and closed.

Two strategies trade one symbol in one net position at 100 a contract. The lock of `grid` is written at minute 1, when
it has 4 of 10. Worked by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.alert import Alert
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Fill, LockPart, Order, Position, Snapshot, WrittenLock
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.backtests import written
from tests.unit.planning.scopes.test_owners import STRATEGIES, book, buy, net, orders_of, policy, sell
from tests.worlds import after

LOCK = WrittenLock("d1", "of-grid", "strategy/grid", after(minutes=1), ("main",), "close")
LIMITS = "breach: {ceiling: 50%, cost_per_hour: 1%, pause: 10s}"


class Site:
    """An interpreter whose stage has fired and locked the strategy; it never fires here."""

    def __init__(self, answer: str = "page", start: Snapshot | None = None, lock: WrittenLock = LOCK) -> None:
        limits = f"\n      {LIMITS}" if answer == "close" else ""
        text = policy(trigger="signal: exposure.gross, above: 90000 USDT").replace(
            "      level: 1", f"      level: 1\n      on_breach: {answer}{limits}"
        )
        self.policies, self.lock = written(text + STRATEGIES), lock
        self.interpreter = Interpreter(self.policies)
        self.interpreter.tick(start or book(0, []))
        self.seen(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))

    def seen(self, minute: int, held: Sequence[Position], *fills: Fill, **more: Any) -> Outcome:
        """The account at this minute, with what was filled half a minute before, under the lock."""
        present = book(minute, held, *(replace(each, at=after(minutes=minute - 0.5)) for each in fills), **more)
        (account,) = present.accounts
        accounts = (replace(account, observed_at=after(minutes=minute)),)
        return self.interpreter.tick(replace(present, accounts=accounts, locks=(self.lock,)))


def breaches(outcome: Outcome) -> list[Alert]:
    return [each for each in outcome.alerts.found if each.key.startswith("breach")]


def answer(outcome: Outcome) -> Decision:
    (decision,) = outcome.decisions
    return decision


def test_what_another_strategy_opens_under_the_lock_is_no_breach() -> None:
    """`trend` buys 5 more, and the locked `grid` sells 1: nobody disobeys. D9: not the other bot's switch."""
    site = Site("close")
    outcome = site.seen(2, net("14"), buy("3", "5", "trend-2"), sell("4", "1", "grid-2"))
    assert breaches(outcome) == []
    assert outcome.decisions == ()


def test_what_the_locked_strategy_opens_is_paged_at_the_next_tick() -> None:
    """Of 14, 1 more is its own, from 4 to 5; the other's 3 are not named."""
    outcome = Site().seen(2, net("14"), buy("3", "1", "grid-2"), buy("4", "3", "trend-2"))
    (page,) = breaches(outcome)
    assert page.severity == "page"
    assert page.text.startswith("lock breached: the strategy grid on main is locked since ")
    assert "and 1 BTC_USDT long (100.00 USDT) were opened since by a bot or a person" in page.text
    assert "the least under the lock was 4" in page.text
    assert outcome.decisions == ()


def test_the_answer_closes_what_the_strategy_opened_and_nothing_of_another() -> None:
    """It had sold 2 of its 4 and buys 3 again: 3 of 17 are closed, its own entry is cancelled, and 14 stay."""
    resting = [
        Order(id=name, symbol="BTC_USDT", side="buy", amount=Decimal(1), price=Decimal(90), client_order_id=client)
        for name, client in (("a", "grid-9"), ("b", "trend-9"))
    ]
    site = Site("close")
    site.seen(2, net("8"), sell("3", "2", "grid-2"))
    outcome = site.seen(3, net("17"), buy("4", "3", "grid-3"), buy("5", "6", "trend-2"), orders=resting)
    made = answer(outcome)
    assert (made.kind, made.scope, made.policy) == ("breach", "strategy/grid", "of-grid")
    assert orders_of(made) == [("BTC_USDT", "sell", "3", "14")]
    assert [(part.strategy, part.contracts) for part in made.intents[0].parts] == [("grid", 3)]
    assert [each.order for each in made.cancels] == ["a"]


def test_an_answer_that_only_cancels_closes_nothing() -> None:
    """`on_breach: cancel` cancels the strategy's own entries."""
    resting = [
        Order(id="a", symbol="BTC_USDT", side="buy", amount=Decimal(1), price=Decimal(90), client_order_id="grid-9")
    ]
    made = answer(Site("cancel").seen(2, net("11"), buy("3", "1", "grid-2"), orders=resting))
    assert ([each.order for each in made.cancels], made.intents) == (["a"], ())


def test_the_answers_of_a_strategy_pause_by_the_equity_of_its_account() -> None:
    """It has no equity of its own. 1 of 10,000 USDT is below the ceiling of 50%, so that the second answer waits."""
    site = Site("close")
    assert site.seen(2, net("11"), buy("3", "1", "grid-2")).decisions
    (account,) = book(2, net("12"), replace(buy("4", "1", "grid-3"), at=after(minutes=2, seconds=0.4))).accounts
    soon = replace(account, observed_at=after(minutes=2, seconds=0.5))
    at = replace(book(2, []), as_of=after(minutes=2, seconds=0.5), accounts=(soon,), locks=(LOCK,))
    outcome = site.interpreter.tick(at)
    assert ([each.measure for each in breaches(outcome)], outcome.decisions) == ([(2,)], ())


def test_what_a_strategy_opens_against_the_position_is_paged_as_not_closable() -> None:
    """It sells 7 of its 4, and is short 3 in a net long of 3: buying them back would enlarge the other's."""
    site = Site("close")
    outcome = site.seen(2, net("3"), sell("3", "7", "grid-2"))
    (page,) = breaches(outcome)
    assert "3 BTC_USDT short" in page.text
    assert "3 are not closable: others hold against them" in page.text
    assert not [each for each in outcome.decisions if each.intents]


@pytest.mark.parametrize("client", [None, "grid-2"])
def test_a_fill_of_unknown_owner_is_paged_and_nothing_is_closed(client: str | None) -> None:
    """The venue states no id of one fill: whose the position is stays unknown, also what `grid` buys later."""
    site = Site("close")
    first = site.seen(2, net("11"), replace(buy("3", "1", "x"), client_order_id=None))
    outcome = first if client is None else site.seen(3, net("13"), buy("4", "2", client))
    (page,) = breaches(outcome)
    assert (page.severity, page.key) == ("page", "breach-owner/main/BTC_USDT/grid")
    assert f"and {1 if client is None else 3} BTC_USDT were traded since, which may be its own" in page.text
    assert "the venue states neither its client order id nor its strategy. Nothing of it is closed" in page.text
    assert first.decisions == outcome.decisions == ()


def test_a_closing_fill_of_hedge_mode_is_no_breach_whoever_owns_it() -> None:
    """It buys back a short: the position side decides what a fill enlarges, and it enlarges nothing."""
    cover = replace(buy("3", "1", "x"), client_order_id=None, position_side="short")
    assert breaches(Site("close").seen(2, net("10"), cover)) == []


def test_a_fill_of_unknown_owner_is_not_paged_again_by_a_snapshot_that_repeats_it() -> None:
    """A tick for another account repeats the snapshot, and with it the fills."""
    site = Site()
    fill = replace(buy("3", "1", "x"), client_order_id=None)
    site.seen(2, net("11"), fill)
    (page,) = breaches(site.seen(2, net("11"), fill))
    assert page.measure == (1,)


def test_fills_that_cannot_be_read_are_paged_where_the_owners_become_unknown() -> None:
    """The position grows from 10 to 12 without rows: it may be anybody's."""
    site = Site("close")
    present = book(2, net("12"))
    (account,) = present.accounts
    blind = replace(account, fills=None, observed_at=after(minutes=2))
    outcome = site.interpreter.tick(replace(present, accounts=(blind,), locks=(LOCK,)))
    (page,) = breaches(outcome)
    assert "BTC_USDT has moved: it is unknown whose 2 BTC_USDT are: the fills are unknown" in page.text
    assert outcome.decisions == ()


def test_a_position_of_unknown_owners_that_nobody_trades_is_no_page() -> None:
    """It was held at the first snapshot, and stays as it is."""
    site = Site(start=book(0, net("10")))
    assert breaches(site.seen(2, net("20"))) == []


def test_a_breach_while_a_fill_of_another_is_late_is_seen_once_that_has_come() -> None:
    """Its own 1 comes a minute before the other's 2 that the position has already: it is closed then."""
    site = Site("close")
    late = site.seen(2, net("13"), buy("3", "1", "grid-2"))
    assert late.decisions == ()
    made = answer(site.seen(3, net("13"), buy("4", "2", "trend-2")))
    assert orders_of(made) == [("BTC_USDT", "sell", "1", "12")]


def test_a_lock_of_one_side_of_a_strategy_is_breached_there_only() -> None:
    """Short is locked: what it buys is no breach."""
    short = replace(LOCK, only=(LockPart("reduce_only", None, "short"),))
    assert breaches(Site(lock=short).seen(2, net("12"), buy("3", "2", "grid-2"))) == []


def test_a_restart_keeps_the_least_of_the_own_part() -> None:
    """The books are stored: 1 above the least of 4 is a breach for the next process too."""
    site = Site()
    second = Interpreter(site.policies)
    second.restore((), lambda *_: (), live=site.interpreter.live().get)
    site.interpreter = second
    (page,) = breaches(site.seen(2, net("11"), buy("3", "1", "grid-2")))
    assert "the least under the lock was 4" in page.text
