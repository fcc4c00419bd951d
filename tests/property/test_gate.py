"""The gate against a venue that is late, loses requests and fills at will, and each of its rules taken out alone.

No approved exit turns a position, no limit is exceeded, no entry passes a lock, and no reservation is left over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from killswitch.limits import moment, verdict
from killswitch.limits.book import GateBook
from killswitch.limits.exposure import CountedOrders
from killswitch.limits.moment import GateMoment, LockState
from killswitch.limits.question import OrderAsked, OutcomeReport, Question
from killswitch.limits.reservations import Reservations
from killswitch.limits.verdict import PreparedBook
from killswitch.limits.view import GateAccount, GateView, InFlight, ReadTimes, SeenFill
from killswitch.model.snapshot import Order, Position
from tests.unit.limits.gates import BTC, limits, sizes, state, usdt
from tests.worlds import START

LIMIT = Decimal(20)
"""Contracts of a side, at a price of 100: 2,000 USDT."""
RULE = limits(position_size=sizes(usdt("2000")))
TIMEOUT, VALID = timedelta(seconds=30), timedelta(seconds=2)
ZERO = Decimal(0)


class Sent(Struct):
    """A request on its way: it arrives at `at`, or never."""

    at: datetime
    order: Order
    is_exit: bool


class NaiveVenue:
    """A one-way account that keeps a net position and a list of orders, and nothing else.

    `enforces`: whether a reduce-only order is bounded. Independent of the product but for the record of an order.
    """

    def __init__(self, random: Random, *, enforces: bool) -> None:
        self.random = random
        self.enforces = enforces
        self.net = ZERO
        self.resting: list[tuple[Order, bool]] = []
        self.filled: dict[str, Decimal] = {}
        self.flips: list[str] = []
        self.excused: set[str] = set()
        """Exits that a later verdict names as conflicts, or that a gate which was started again could not name, or next
        to which an entry of their side was allowed."""

    def fill(self, name: str, most: Decimal | None = None) -> None:
        """Fill a resting order by up to `most`."""
        place = next((number for number, (each, _) in enumerate(self.resting) if each.id == name), None)
        if place is None:
            return
        order, is_exit = self.resting[place]
        left = order.amount - (order.filled or ZERO)
        traded = left if most is None else min(left, most)
        sign = 1 if order.side == "buy" else -1
        if order.reduce_only and self.enforces:
            traded = min(traded, max(ZERO, -sign * self.net))
        before, self.net = self.net, self.net + sign * traded
        self.filled[name] = self.filled.get(name, ZERO) + traded
        if is_exit and name not in self.excused and (abs(self.net) > abs(before) or self.net * before < 0):
            self.flips.append(f"{name}: {before} to {self.net}")
        filled = (order.filled or ZERO) + traded
        is_over = filled >= order.amount or (order.reduce_only and self.enforces and self.net * sign >= 0)
        self.resting[place : place + 1] = [] if is_over else [(replace(order, filled=filled), is_exit)]


class Site:
    """A bot, the gate and the venue in one random history."""

    def __init__(self, seed: int, *, enforces: bool, believes: bool | None = None) -> None:
        """`believes`: what the gate takes to be enforced; None: the truth."""
        self.random = Random(seed)
        self.believes = enforces if believes is None else believes
        self.seen_fills: dict[str, Decimal] = {}
        self.venue = NaiveVenue(self.random, enforces=enforces)
        self.now = START + timedelta(seconds=100)
        self.started = START
        self.wire: list[Sent] = []
        self.held = Reservations()
        self.locked = False
        self.reads = ReadTimes(self.now, self.now, self.now)
        self.seen: tuple[Decimal, tuple[Order, ...]] = (ZERO, ())
        self.fill_times: dict[str, datetime] = {}
        self.count = 0
        self.entries_under_lock = 0
        self.approved = 0

    def view(self) -> GateView:
        net, orders = self.seen
        rows = (Position(BTC, "long" if net > 0 else "short", abs(net), mark_price=Decimal(100)),) if net else ()
        fills = tuple(SeenFill(name, amount, self.fill_times[name]) for name, amount in self.seen_fills.items())
        account = GateAccount(
            state(*rows, orders=orders), self.reads, RULE,
            enforced=("market", "limit", "stop") if self.believes else (), filled=fills,
        )  # fmt: skip
        return GateView(self.now, START, "x", (account,))

    def read(self, *, orders_first: bool = True) -> None:
        """Read orders, then positions and fills, with something happening between the two."""
        began = self.now
        if orders_first:
            orders = tuple(order for order, _ in self.venue.resting)
            self.happen()
            net, fills = self.venue.net, dict(self.venue.filled)
        else:
            net, fills = self.venue.net, dict(self.venue.filled)
            self.happen()
            orders = tuple(order for order, _ in self.venue.resting)
        self.seen = (net, orders)
        for name, amount in fills.items():
            if self.seen_fills.get(name) != amount:
                self.fill_times[name] = self.now
        self.seen_fills = fills
        self.reads = ReadTimes(began, began, began)
        account = self.view().account("main")
        assert account is not None
        self.held = self.held.seen(account)

    def arrive(self) -> None:
        """Requests arrive that are due."""
        due = [sent for sent in self.wire if sent.at <= self.now]
        self.wire = [sent for sent in self.wire if sent.at > self.now]
        for sent in due:
            self.venue.resting.append((sent.order, sent.is_exit))
            if sent.order.type == "market":
                self.venue.fill(sent.order.id)

    def happen(self) -> None:
        """Something fills, in part or whole."""
        if self.venue.resting and self.random.random() < 0.5:
            order, _ = self.random.choice(self.venue.resting)
            self.venue.fill(order.id, self.random.choice((None, Decimal(1), Decimal(3))))

    def send(self, asked: OrderAsked) -> bool:
        """Ask, and send at once what is allowed; whether it was."""
        at = GateMoment(self.now, self.started)
        found = verdict.verdict(Question(asked.client_order_id or "", "main", (asked,)), self.view(), self.held, at)
        self.held = found.reservations
        if found.verdict.allowed:
            name = asked.client_order_id or ""
            order = Order(name, BTC, asked.side, asked.amount, name, type=asked.type, reduce_only=asked.reduce_only)
            self.venue.resting.append((order, found.verdict.reason == "exit"))
        return found.verdict.allowed

    def ask(self) -> None:
        """The bot asks, and sends what is allowed: at once, late, or never."""
        self.count += 1
        name = f"b{self.count}"
        side = self.random.choice(("buy", "sell"))
        reduces = self.random.random() < 0.5
        asked = OrderAsked(
            BTC, side, Decimal(self.random.choice((1, 3, 5, 8, 12))), "contracts",  # type: ignore[arg-type]  # literal
            type=self.random.choice(("market", "limit", "stop")),
            reduce_only=reduces and self.random.random() < 0.6, is_exit=reduces,
            client_order_id=None if self.random.random() < 0.1 else name,
        )  # fmt: skip
        at = GateMoment(self.now, self.started, LockState("reduce_only" if self.locked else None, "x"))
        found = verdict.verdict(Question(name, "main", (asked,)), self.view(), self.held, at)
        self.held = found.reservations
        if not found.verdict.allowed:
            return
        self.approved += 1
        is_exit = found.verdict.reason == "exit"
        if self.locked and not is_exit:
            self.entries_under_lock += 1
        if is_exit:
            self.venue.excused.update(found.verdict.conflicts)
        else:
            others = [order for order, _ in self.venue.resting] + [sent.order for sent in self.wire]
            self.venue.excused.update(order.id for order in others if order.side == side)
        order = Order(
            name, BTC, asked.side, asked.amount, asked.client_order_id, type=asked.type, reduce_only=asked.reduce_only,
        )  # fmt: skip
        fate = self.random.random()
        if fate < 0.1:
            self.held = self.held.reported("main", OutcomeReport(name, "not_sent"))
        elif fate < 0.2:
            pass  # the bot dies, or the request is lost
        else:
            late = self.random.choice((0.0, 0.3, 1.5, 4.0, 20.0, 29.0))
            self.wire.append(Sent(self.now + timedelta(seconds=late), order, is_exit))

    def step(self, *, orders_first: bool = True) -> None:
        self.now += timedelta(seconds=self.random.choice((0.1, 0.3, 1.0, 2.0, 10.0)))
        self.arrive()
        choice = self.random.random()
        if choice < 0.45:
            self.ask()
        elif choice < 0.75:
            self.read(orders_first=orders_first)
        elif choice < 0.95:
            self.happen()
        elif choice < 0.98:
            self.locked = not self.locked
        else:
            # The gate is started again, and can name no exit that its view does not show.
            self.held, self.started = Reservations(), self.now
            shown = {order.id for order in self.seen[1]}
            sent = [each.order.id for each in self.wire] + [order.id for order, _ in self.venue.resting]
            self.venue.excused.update(name for name in sent if name not in shown)

    def worst(self) -> Decimal:
        """The largest side of the account, as the venue has it."""
        return abs(self.venue.net)


def broken(
    seed: int, *, enforces: bool, steps: int = 150, orders_first: bool = True, believes: bool | None = None
) -> tuple[str, ...]:
    """What went wrong in one history."""
    site = Site(seed, enforces=enforces, believes=believes)
    found = []
    for _ in range(steps):
        site.step(orders_first=orders_first)
        if site.worst() > LIMIT:
            found.append("limit")
            break
        if site.venue.flips:
            found.append("flip")
            break
    if site.entries_under_lock:
        found.append("lock")
    if not found:
        site.now += TIMEOUT + VALID + timedelta(seconds=1)
        site.arrive()
        site.read()
        site.now += timedelta(seconds=40)
        site.read()
        if site.held.approved:
            found.append("left over")
    return tuple(found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), enforces=st.booleans())
def test_no_history_turns_a_position_or_exceeds_a_limit(seed: int, enforces: bool) -> None:
    """With every rule: late, lost and partial, restarts of the gate, and a lock in the middle."""
    assert broken(seed, enforces=enforces) == ()


# Each rule taken out alone


def without_reservations() -> AbstractContextManager[Any]:
    return patch.object(PreparedBook, "counted", lambda self, _: CountedOrders(self, ()))


def ending_at_the_first_read_that_lacks_it() -> AbstractContextManager[Any]:
    def seen(self: Reservations, account: GateAccount) -> Reservations:
        orders = account.reads.orders
        return replace(self, approved=tuple(each for each in self.approved if orders and orders <= each.approved_at))

    return patch.object(Reservations, "seen", seen)


def judging_right_after_a_start() -> AbstractContextManager[Any]:
    return patch.object(moment, "is_warming_up", lambda *_: False)


def netting_the_opposite_position() -> AbstractContextManager[Any]:
    full = GateBook.side_value

    def netted(self: GateBook, name: Any) -> Decimal | None:
        other = self.held((name[0], "short" if name[1] == "long" else "long")) or ZERO
        value = full(self, name)
        return None if value is None else value - other * 100

    return patch.object(GateBook, "side_value", netted)


def without_resting_orders() -> AbstractContextManager[Any]:
    def blind(account: GateAccount, at: GateMoment) -> PreparedBook:
        return PreparedBook(replace(account, state=replace(account.state, orders=())), is_current=True)

    return patch.object(verdict, "book_of", blind)


@pytest.mark.parametrize(
    ("taken_out", "more", "breaks"),
    [
        (without_reservations, {}, {"limit", "flip"}),
        (ending_at_the_first_read_that_lacks_it, {}, {"limit", "flip"}),
        (nullcontext, {"believes": True, "enforces": False}, {"limit", "flip"}),
        (judging_right_after_a_start, {}, {"limit", "flip"}),
        (without_resting_orders, {}, {"limit", "flip"}),
        (nullcontext, {"orders_first": False}, {"limit", "flip"}),
    ],
    ids=[
        "reservations", "an absence proves nothing at once", "an unenforced flag is a claim", "warming up",
        "resting orders count", "orders before positions",
    ],
)  # fmt: skip
def test_every_rule_is_needed(
    taken_out: Callable[[], AbstractContextManager[Any]], more: dict[str, Any], breaks: set[str]
) -> None:
    """Without it, some of the first histories end in what it prevents."""
    found: set[str] = set()
    with taken_out():
        for seed in range(HISTORIES):
            found.update(broken(seed, **({"enforces": seed % 2 == 0} | more)))
            if found & breaks == breaks:
                break
    assert found >= breaks


@pytest.mark.parametrize("is_netted", [False, True])
def test_an_opposite_position_nets_nothing_in_advance(is_netted: bool) -> None:
    """Short 10 with two purchases of 12, and a reduce-only one of 10 that fills first: netted, it ends at 24."""
    site = Site(0, enforces=True)
    site.venue.net = Decimal(-10)
    site.read()
    with netting_the_opposite_position() if is_netted else nullcontext():
        for name in ("a", "b"):
            site.send(OrderAsked(BTC, "buy", Decimal(12), "contracts", type="limit", client_order_id=name))
        assert site.send(OrderAsked(BTC, "buy", Decimal(10), "contracts", reduce_only=True, client_order_id="c"))
    for name in ("c", "a", "b"):
        site.venue.fill(name)
    assert site.venue.net == (24 if is_netted else 12)
    assert (site.worst() > LIMIT) is is_netted


@pytest.mark.parametrize("is_counted", [True, False])
def test_our_own_close_in_flight_counts_against_a_plain_exit(is_counted: bool) -> None:
    """Long 10 under a lock, and our close of 10 on the wire: not counted, a plain exit of 10 passes, and turns it."""
    site = Site(0, enforces=True)
    site.venue.net = Decimal(10)
    site.read()
    close = InFlight("ks1", BTC, "sell", Decimal(10), reduce_only=True, position_side="long")
    (account,) = site.view().accounts
    shown = replace(site.view(), accounts=(replace(account, own=(close,) if is_counted else ()),))
    asked = OrderAsked(BTC, "sell", Decimal(10), "contracts", client_order_id="a")
    at = GateMoment(site.now, site.started, LockState("reduce_only", "x"))
    allowed = verdict.verdict(Question("a", "main", (asked,)), shown, Reservations(), at).verdict.allowed
    assert allowed is not is_counted
    for name in ("ks1", "a") if allowed else ("ks1",):
        site.venue.resting.append((Order(name, BTC, "sell", Decimal(10), name, reduce_only=name == "ks1"), True))
        site.venue.fill(name)
    assert bool(site.venue.flips) is not is_counted


HISTORIES = 400
"""Histories that a missing rule is given to break in. The rarest breaks in one of about a hundred."""
