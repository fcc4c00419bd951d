"""Lock breaches: what others open in an account while its trading lock is on disk is paged as what it is."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.alert import Alert
from killswitch.model.decision import Decision, Intent
from killswitch.model.snapshot import AccountSnapshot, Fill, Order, Snapshot, WrittenLock
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.lock_breach import LockBreaches
from tests.graphs import policy_set
from tests.worlds import account, after, fill, position, snapshot

LOCK = WrittenLock("d1", "desk", "account/main", after(seconds=1), ("main",))


def book(second: float, contracts: str, *fills: Fill, side: str = "long", **more: Any) -> AccountSnapshot:
    """An account with one position of mark 100, or none, as observed at this second."""
    held = [position("BTC", side, "0", contracts=contracts, notional=str(100 * Decimal(contracts)))]
    positions = held if Decimal(contracts) else []
    return account("1000", positions, fills=fills, **{"observed_at": after(seconds=second), **more})


def bought(second: float, amount: str, **more: Any) -> Fill:
    return fill(f"b{second}", after(seconds=second), "BTC", "buy", amount, "100", **more)


def sold(second: float, amount: str) -> Fill:
    return fill(f"s{second}", after(seconds=second), "BTC", "sell", amount, "100")


def at(second: float, *accounts: AccountSnapshot, locks: Sequence[WrittenLock] = (LOCK,)) -> Snapshot:
    return replace(snapshot(after(seconds=second), *accounts), locks=tuple(locks))


def found(breaches: LockBreaches, *snapshots: Snapshot) -> tuple[Alert, ...]:
    """The alerts of the last of these snapshots."""
    for each in snapshots:
        breaches.observe(each)
    return breaches.alerts().found


def test_what_a_bot_buys_back_under_the_lock_is_paged_with_its_amount() -> None:
    """Closed from 10 to 0, then 4 bought: 4 contracts of 100."""
    (page,) = found(
        LockBreaches(), at(2, book(2, "10")), at(3, book(3, "0", sold(3, "10"))), at(4, book(4, "4", bought(4, "4")))
    )
    assert (page.key, page.severity, page.measure) == ("breach/main/BTC/long", "page", (Decimal(4),))
    assert page.text == (
        "lock breached: main is locked since 2024-01-01T00:00:01Z, and 4 BTC long (400.00 USDT) were opened since by a "
        "bot or a person that does not obey it; the least under the lock was 0"
    )


def test_held_ten_sold_four_bought_four_is_a_breach_of_four() -> None:
    """Only what was enlarged beyond the least position since the lock counts."""
    (page,) = found(
        LockBreaches(), at(2, book(2, "10")), at(3, book(3, "6", sold(3, "4"))), at(4, book(4, "10", bought(4, "4")))
    )
    assert page.measure == (Decimal(4),)


def test_a_position_turned_around_is_a_breach_of_the_other_side() -> None:
    """Long ten, fifteen sold: short five."""
    (page,) = found(LockBreaches(), at(2, book(2, "10")), at(3, book(3, "5", sold(3, "15"), side="short")))
    assert (page.key, page.measure) == ("breach/main/BTC/short", (Decimal(5),))


def test_an_increase_without_a_fill_is_no_breach() -> None:
    """A deposit, an airdrop, a delivery or a transfer of coins."""
    delivery = bought(4, "3", cause="delivery")
    assert found(LockBreaches(), at(2, book(2, "10")), at(3, book(3, "13", delivery))) == ()


def test_what_was_held_before_the_lock_was_written_is_no_breach() -> None:
    """Positions that may be older than the lock file are not compared with, nor are fills before it."""
    breaches = LockBreaches()
    assert found(breaches, at(1, book(0.5, "4")), at(2, book(2, "10", bought(0.9, "6"))), at(3, book(3, "10"))) == ()


def test_a_repeated_snapshot_counts_its_fills_once() -> None:
    """An account that was not polled in a pass repeats its last snapshot."""
    breaches = LockBreaches()
    grown = book(3, "12", bought(3, "1"))  # one bought, one deposited
    (page,) = found(breaches, at(2, book(2, "10")), at(3, grown), at(3.5, grown), at(3.7, grown))
    assert page.measure == (Decimal(1),)


def test_orders_that_rested_before_the_lock_are_named_as_such() -> None:
    """Nobody has disobeyed, and the risk is there all the same."""
    order = Order("o1", "BTC", "buy", Decimal(4))
    (page,) = found(
        LockBreaches(), at(2, book(2, "0", orders=(order,))), at(3, book(3, "4", bought(3, "4", order="o1")))
    )
    assert "were opened since by orders that rested before the lock" in page.text


def test_an_account_that_cannot_be_read_is_unknown_and_keeps_its_book() -> None:
    """What was bought during the outage shows after it."""
    breaches = LockBreaches()
    down = account(None, None, quality="down", reason="timeout")
    assert found(breaches, at(2, book(2, "0")), at(3, down)) == ()
    assert breaches.alerts().unknown == ("breach/main",)
    (page,) = found(breaches, at(4, book(4, "4", bought(3, "4"))))
    assert page.measure == (Decimal(4),)


def test_growth_while_fills_are_unknown_is_paged_as_unknown_and_is_no_breach() -> None:
    """A venue without a list of fills: a deposit or a bot, nobody can tell."""
    breaches = LockBreaches()
    blind = replace(book(3, "4"), fills=None)
    (page,) = found(breaches, at(2, book(2, "0")), at(3, blind))
    assert (page.key, page.measure) == ("breach-unknown/main/BTC/long", (Decimal(4),))
    assert page.text.endswith(
        "whether a bot has opened that is unknown: its fills cannot be read. Nothing of it is closed"
    )
    assert breaches.found == ()


def test_a_breach_is_over_when_the_lock_is_or_when_it_is_closed() -> None:
    """Without a lock anybody may trade."""
    breaches = LockBreaches()
    (_,) = found(breaches, at(2, book(2, "0")), at(3, book(3, "4", bought(3, "4"))))
    assert found(breaches, at(4, book(4, "0", sold(4, "4")))) == ()
    (_,) = found(breaches, at(5, book(5, "1", bought(5, "1"))))
    assert found(breaches, at(6, book(6, "1"), locks=())) == ()
    assert breaches.alerts().unknown == ()


@pytest.mark.parametrize(("purpose", "expected"), [("hedge", [Decimal(1)]), ("hop", [])])
def test_what_our_own_orders_open_is_no_breach(purpose: Any, expected: list[Decimal]) -> None:
    """A hedge of three of four contracts leaves one; a conversion is of an estimated amount: its symbol is left out."""
    intent = Intent("main", "BTC", "long", "buy", Decimal(3), Decimal(0), False, 1, purpose=purpose)
    decision = Decision(
        id="h", as_of=after(seconds=2.5), policy="desk", policy_set="sha256:test", commit=None, scope="account/main",
        mode="enforce", stage=None, level=0, previous_level=0, intents=(intent,), kind="hedge",
    )  # fmt: skip
    breaches = LockBreaches()
    breaches.observe(at(2, book(2, "0")))
    breaches.acted([decision])
    pages = found(breaches, at(3, book(3, "4", bought(3, "4"))))
    assert [number for page in pages for number in page.measure or ()] == expected


def own(*intents: Intent) -> Decision:
    return Decision(
        id="h", as_of=after(seconds=2.5), policy="desk", policy_set="sha256:test", commit=None, scope="account/main",
        mode="enforce", stage=None, level=0, previous_level=0, intents=intents, kind="manual",
    )  # fmt: skip


def spot(second: float, btc: str, *fills: Fill, x: str = "0") -> AccountSnapshot:
    """A spot account with holdings of BTC and of X, which only BTC is paid for."""
    held = [
        position(name, "long", "0", contracts=size, notional="100") for name, size in (("BTC/USDT", btc), ("X/BTC", x))
    ]
    rows = [each for each in held if each.contracts]
    return account("1000", rows, market="spot", fills=fills, observed_at=after(seconds=second))


def test_what_our_sales_were_paid_out_in_is_no_growth_by_others() -> None:
    """40 X at 0.01 BTC bring 0.4 BTC: the holding of 0.2 grows to 0.6, fills or none, until the same close sells it.

    Growth of BTC for which nothing of ours pays is still a page: on another account, and before the decision.
    """
    sale = Intent("main", "X/BTC", "long", "sell", Decimal(40), Decimal(0), False, 1)
    close = Intent("main", "BTC/USDT", "long", "sell", Decimal("0.2"), Decimal(0), False, 2)
    filled = fill("s3", after(seconds=3), "X/BTC", "sell", "40", "0.01")
    before, shown = at(2, spot(2, "0.2", x="40")), spot(3, "0.6", filled)
    blind = at(3, replace(shown, fills=None))
    for case in (at(3, shown), blind):
        breaches = LockBreaches()
        breaches.observe(before)
        breaches.acted([own(sale, close)])
        assert found(breaches, case) == ()
    elsewhere, early = own(replace(sale, account="other")), replace(own(sale), as_of=after(seconds=0.5))
    for decisions in ([], [elsewhere], [early], [replace(own(sale), mode="observe")]):
        breaches = LockBreaches()
        breaches.observe(before)
        breaches.acted(decisions)
        (page,) = found(breaches, blind)
        assert page.measure == (Decimal("0.4"),)


def test_what_a_bot_buys_of_an_asset_that_our_sales_pay_out_is_still_a_breach() -> None:
    """Fills distinguish the two: 0.4 BTC are proceeds, 0.1 BTC were bought for money."""
    sale = Intent("main", "X/BTC", "long", "sell", Decimal(40), Decimal(0), False, 1)
    fills = (fill("s3", after(seconds=3), "X/BTC", "sell", "40", "0.01"),
             fill("b3", after(seconds=3), "BTC/USDT", "buy", "0.1", "50000"))  # fmt: skip
    breaches = LockBreaches()
    breaches.observe(at(2, spot(2, "0.2", x="40")))
    breaches.acted([own(sale)])
    (page,) = found(breaches, at(3, spot(3, "0.7", *fills)))
    assert (page.key, page.measure) == ("breach/main/BTC/USDT/long", (Decimal("0.1"),))


def test_our_hedge_is_no_growth_by_others_while_fills_are_unknown() -> None:
    """Three of four contracts are ours."""
    hedge = Intent("main", "BTC", "long", "buy", Decimal(3), Decimal(0), False, 1, purpose="hedge")
    breaches = LockBreaches()
    breaches.observe(at(2, book(2, "0")))
    breaches.acted([own(hedge)])
    (page,) = found(breaches, at(3, replace(book(3, "4"), fills=None)))
    assert page.measure == (Decimal(1),)


def test_a_restart_goes_on_with_the_stored_books() -> None:
    """What was the least before the restart still is."""
    made = policy_set()
    before = Interpreter(made)
    for each in (at(2, book(2, "10")), at(3, book(3, "0", sold(3, "10")))):
        before.tick(each)
    stored = before.live()
    assert before.live() == {}
    interpreter = Interpreter(made)
    interpreter.restore((), lambda *_: (), live=stored.get)
    outcome = interpreter.tick(at(5, book(5, "4", bought(4, "4"))))
    assert [page.measure for page in outcome.alerts.found] == [(Decimal(4),)]


@given(st.lists(st.integers(-5, 5), max_size=12), st.integers(0, 10))
def test_the_breach_is_what_fills_enlarged_beyond_the_least_position(trades: list[int], start: int) -> None:
    """For any trades that keep a position long: its size less its smallest size so far."""
    breaches, size, sizes = LockBreaches(), start, [start]
    breaches.observe(at(2, book(2, str(start))))
    for number, wanted in enumerate(trades, 3):
        trade = max(wanted, -size)
        fills = [bought(number, str(trade))] if trade > 0 else [sold(number, str(-trade))] if trade else []
        size += trade
        sizes.append(size)
        breaches.observe(at(number, book(number, str(size), *fills)))
        breach = sum(sum(page.measure or ()) for page in breaches.alerts().found if page.key.endswith("long"))
        assert breach == size - min(sizes)
