"""Signals of orders: our own without a fate or refused, and the rate and the size of those of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from killswitch.execution.client_order_id import client_order_id
from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.model.snapshot import AccountSnapshot, Fill, Order, OrderFate, OwnOrder, Position, Snapshot
from killswitch.signals.signal_values import ColumnReader
from tests.worlds import account, after, fill, position, rules, snapshot
from tests.worlds.firings import Scenario
from tests.worlds.signals import history_of, restarted, values_after, view_of

D = Decimal
INFINITE = math.inf
UNKNOWN = (-INFINITE, INFINITE)
OURS = client_order_id("0" * 20, 0, 0)
BTC = rules("BTC")


def own(name: str, fate: OrderFate, sent: float, at: float | None = None, where: str = "main") -> OwnOrder:
    """An order of ours, sent and decided so many seconds after the start."""
    return OwnOrder(name, where, "BTC", fate, after(seconds=sent), after(seconds=sent if at is None else at))


def order(id_: str, amount: str = "1", price: str | None = "50000", **more: Any) -> Order:
    fields = {"filled": D(0), "side": "buy", **more}
    return Order(id=id_, symbol="BTC", amount=D(amount), price=None if price is None else D(price), **fields)


def held(*, mark: str | None = "50000") -> Position:
    return position("BTC", "long", "0", contracts="2", notional="100000", mark_price=mark)


def trading(*orders: Order, equity: str = "100000", **more: Any) -> AccountSnapshot:
    """An account with a position of 2 BTC and these open orders."""
    return account(equity, more.pop("positions", [held()]), orders=orders, instruments=(BTC,), **more)


def seconds(*rows: Sequence[OwnOrder] | None, every: int = 1) -> list[Snapshot]:
    """A snapshot each `every` seconds with these orders of ours; None: a recording without them."""
    return [
        Snapshot(
            after(seconds=every * i), (trading(),), "killswitch.snapshot/v1",
            own_orders=None if each is None else tuple(each),
        )
        for i, each in enumerate(rows)
    ]  # fmt: skip


# orders.unconfirmed


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        pytest.param([own("a", "unconfirmed", 0), own("b", "pending", 0)], (2, 2), id="no answer, or none in time"),
        pytest.param([own("a", "unconfirmed", 30)], (0, 0), id="exactly as old: not older"),
        pytest.param([own("a", "unconfirmed", 29.9)], (1, 1), id="a moment older"),
        pytest.param([own("a", "accepted", 0), own("b", "done", 0), own("c", "rejected", 0)], (0, 0), id="known fates"),
        pytest.param([own("a", "unconfirmed", 0, where="other")], (0, 0), id="of an account out of the scope"),
        pytest.param([], (0, 0), id="none"),
        pytest.param(None, UNKNOWN, id="a recording without own orders"),
    ],
)
def test_orders_of_unknown_fate_are_counted_by_their_age(
    orders: Sequence[OwnOrder] | None, expected: tuple[float, float]
) -> None:
    """At second 60, older than 30 s."""
    assert values_after("orders.unconfirmed", [30 * SECOND], seconds([], orders, every=60)) == expected


# orders.rejected


def test_refusals_in_the_window_are_counted_once() -> None:
    """A fate stays in the snapshot until a scheduled tick, so that a pass between two ticks may repeat it."""
    rows = [own("a", "rejected", 1), own("b", "rejected", 1)]
    recording = seconds([], rows, rows, [own("c", "rejected", 3)])
    assert values_after("orders.rejected", [3 * SECOND], recording) == (3, 3)
    assert values_after("orders.rejected", [2 * SECOND], recording) == (3, 3)  # [1 s, 3 s], both ends included
    assert values_after("orders.rejected", [SECOND], recording) == (1, 1)


def test_an_order_that_is_refused_twice_counts_twice() -> None:
    """Sent again under its own id after a refusal without processing."""
    recording = seconds([], [own("a", "rejected", 1)], [own("a", "rejected", 1, at=2)])
    assert values_after("orders.rejected", [2 * SECOND], recording) == (2, 2)


def test_a_refusal_because_nothing_is_left_is_a_success() -> None:
    """The runner reports it as done."""
    assert values_after("orders.rejected", [2 * SECOND], seconds([], [], [own("a", "done", 1)])) == (0, 0)


def test_a_window_that_reaches_before_the_start_is_a_lower_bound() -> None:
    """Two seconds are known of an hour."""
    assert values_after("orders.rejected", [HOUR], seconds([], [own("a", "rejected", 1)], [])) == (1, INFINITE)
    assert values_after("orders.rejected", [HOUR], seconds(None, None)) == UNKNOWN


def test_refusals_outlive_a_restart() -> None:
    """The counters are stored, and a refusal is not counted again."""
    recording = seconds([], [own("a", "rejected", 1)], [own("a", "rejected", 1), own("b", "rejected", 2)])
    assert values_after("orders.rejected", [2 * SECOND], recording, restart=True) == (2, 2)


@pytest.mark.parametrize("restarts", [False, True])
def test_d18_a_refusal_before_a_reset_counts_no_more_where_it_is_reported_again(restarts: bool) -> None:
    """A fate is repeated until a scheduled tick has had it: the reset of a pass between two ticks would fire again."""
    used = SignalRef("orders.rejected", (HOUR,))
    past = history_of([used])
    first, second = own("a", "rejected", 1), own("b", "rejected", 3)
    for seen in seconds([], [first], [first], [first, second])[1:]:
        view = view_of(seen)
        past = restarted(past, history_of([used])) if restarts and seen.as_of > after(seconds=1) else past
        past.observe(view)
        if seen.as_of == after(seconds=1):
            past.rebase(accept=True)
    columns = ColumnReader([used]).read(past, view)
    assert (columns.lo, columns.hi) == ([1], [1])


# orders.rate


def test_orders_that_were_first_seen_in_the_window_are_counted() -> None:
    """Three new ones beside one that rested at the first look; more may have come and gone."""
    rests, three = order("old"), (order("a"), order("b"), order("c"))
    recording = [snapshot(after(seconds=i), trading(rests, *three[:i])) for i in range(4)]
    assert values_after("orders.rate", [MINUTE], recording) == (3, INFINITE)
    assert values_after("orders.rate", [SECOND], recording) == (2, INFINITE)  # those of seconds 2 and 3
    assert values_after("orders.rate", [MINUTE], recording, restart=True) == (3, INFINITE)


def test_an_order_is_dated_by_when_it_was_created() -> None:
    """At the first look, one of an hour ago is not new, and one of ten seconds ago is."""
    recording = [
        snapshot(after(hours=2), trading(order("a", created_at=after(hours=1)), order("b", created_at=after(hours=2))))
    ]
    assert values_after("orders.rate", [10 * SECOND], recording) == (1, INFINITE)


def _fills(*rows: Fill) -> list[Snapshot]:
    return [snapshot(after(), trading()), snapshot(after(seconds=1), trading(fills=rows))]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([fill("1", after(), "BTC", "buy", "1", "50000", order="m")], 1, id="a market order never rests"),
        pytest.param(
            [fill(i, after(), "BTC", "buy", "1", "5", order="m") for i in "12"], 1, id="two fills of one order"
        ),
        pytest.param([fill("1", after(), "BTC", "buy", "1", "5", order="m", client_order_id=OURS)], 0, id="ours"),
        pytest.param(
            [fill("1", after(), "BTC", "sell", "1", "5", order="m", cause="liquidation")], 0, id="the venue's"
        ),
    ],
)
def test_orders_are_seen_by_their_fills(rows: Sequence[Fill], expected: int) -> None:
    """A market order shows only in its fills; those of ours and of the venue are no orders of a bot."""
    assert values_after("orders.rate", [MINUTE], _fills(*rows)) == (expected, INFINITE)


def test_own_orders_are_left_out_also_where_the_venue_does_not_repeat_our_names() -> None:
    """A fill without a client order id, of a symbol in which an order of ours was sent a moment ago, may be ours."""
    row = fill("1", after(seconds=1), "BTC", "sell", "1", "50000", order="m")
    first, second = (
        Snapshot(each.as_of, each.accounts, each.format, own_orders=(own("a", "done", 0),)) for each in _fills(row)
    )
    assert values_after("orders.rate", [MINUTE], [first, second]) == (0, INFINITE)
    resting = [snapshot(after(seconds=i), trading(*[order("x", client_order_id=OURS)][:i])) for i in range(2)]
    assert values_after("orders.rate", [MINUTE], resting) == (0, INFINITE)


def test_unknown_orders_are_not_seen() -> None:
    """The bound stays what it is: the order that rests is no new one when the list is known again."""
    dark = account("100000", [held()], instruments=(BTC,))
    shown = [trading(order("a")), trading(order("a"), order("b")), dark, trading(order("a"), order("b"))]
    recording = [snapshot(after(seconds=i), each) for i, each in enumerate(shown)]
    assert values_after("orders.rate", [MINUTE], recording) == (1, INFINITE)


# orders.largest_share


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        pytest.param([order("a", "2", filled=D(1))], (0.5, 0.5), id="2 BTC at 50,000, half filled"),
        pytest.param([order("a"), order("b", "2")], (1, 1), id="the largest of several"),
        pytest.param([order("a", "2", price=None)], (1, 1), id="a market order at the mark"),
        pytest.param([order("a", "2", reduce_only=True)], (0, 0), id="reduce-only adds no risk"),
        pytest.param([order("a", "2", side="sell")], (1, 1), id="a sale without the mark may open a short"),
        pytest.param([order("a", "2", client_order_id=OURS)], (0, 0), id="an order of ours"),
        pytest.param([order("a", "2", filled=None)], (0, 1), id="the filled amount is unknown"),
        pytest.param([order("a", "1", price=None, trigger_price=D(60000))], (0.6, 0.6), id="a stop at its trigger"),
        pytest.param([], (0, 0), id="none"),
    ],
)
def test_the_largest_order_is_measured_by_its_unfilled_value(
    orders: Sequence[Order], expected: tuple[float, float]
) -> None:
    """Of an equity of 100,000."""
    assert values_after("orders.largest_share", [], [snapshot(after(), trading(*orders))]) == expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(trading(order("a", price=None), positions=[held(mark=None)]), (0, INFINITE), id="no mark"),
        pytest.param(account("100000", [held()], orders=[order("a")]), (0, INFINITE), id="no rules"),
        pytest.param(trading(order("a"), equity="-5"), (INFINITE, INFINITE), id="an order without equity"),
        pytest.param(trading(equity="-5"), (0, 0), id="nothing of no equity"),
        pytest.param(trading(order("a"), quality="down"), UNKNOWN, id="equity is unknown"),
        pytest.param(
            trading(order("a", side="sell", position_side="long"), position_mode="hedge"), (0, 0), id="closes its side"
        ),
        pytest.param(
            trading(order("a", "2", side="sell"), market="spot"), (0, 0), id="a spot account sells what it has"
        ),
    ],
)
def test_an_order_of_unknown_value_leaves_the_share_open_above(
    shown: AccountSnapshot, expected: tuple[float, float]
) -> None:
    """At least that of the others; of an equity of nothing any order is more than all."""
    assert values_after("orders.largest_share", [], [snapshot(after(), shown)]) == expected


def test_orders_of_an_account_that_does_not_report_them_are_unbounded() -> None:
    """Absent is unknown, and not none."""
    dark = AccountSnapshot("dark", "paper", "swap", "USDT", "ok", equity=D(100000), positions=())
    found = values_after("orders.largest_share", [], [snapshot(after(), trading(order("a")), dark)])
    assert found == (0.25, INFINITE)


def test_an_inverse_contract_is_measured_by_its_face() -> None:
    """100 contracts of 100 USD at 50,000 are 0.2 BTC, of an equity of 2 BTC."""
    rule = rules("BTC/USD:BTC", contract_size="100", inverse=True)
    bid = Order(id="a", symbol="BTC/USD:BTC", side="buy", amount=D(100), price=D(50000), filled=D(0))
    coins = account("2", (), orders=[bid], instruments=[rule], currency="BTC")
    assert values_after("orders.largest_share", [], [snapshot(after(), coins)]) == (0.1, 0.1)


# When they fire


def accounts(*shown: AccountSnapshot, every: float = 10) -> list[Snapshot]:
    return [snapshot(after(seconds=every * i), each) for i, each in enumerate(shown)]


MANY = [order(str(number)) for number in range(5)]
BIG, STOP = order("big", "4"), order("stop", "4", side="sell", reduce_only=True, price=None, trigger_price=D(40000))
DARK = AccountSnapshot("main", "paper", "swap", "USDT", "ok", equity=D(100000), positions=(held(),))
SCENARIOS: dict[str, Scenario] = {
    "orders.unconfirmed": Scenario(
        "signal: orders.unconfirmed, age: 10s, at_least: 1",
        seconds([], *[[own("a", "unconfirmed", 1)]] * 14),
        seconds([], *[[own("a", "unconfirmed", 1)]] * 8, [own("a", "done", 1, 9)], [], [], []),  # answered in time
        seconds(*[None] * 14),
        at=after(seconds=12),
    ),
    "orders.rejected": Scenario(
        "signal: orders.rejected, window: 1m, at_least: 2",
        seconds([], [own("a", "rejected", 1)], [own("b", "rejected", 2)]),
        seconds([], [own("a", "done", 1)], [own("b", "done", 2)], [own("c", "done", 3)]),  # already flat
        seconds(*[None] * 90),
        at=after(seconds=2),
    ),
    "orders.rate": Scenario(
        "signal: orders.rate, window: 1m, at_least: 5",
        accounts(*(trading(*MANY[:count]) for count in range(6))),
        accounts(*[trading(*MANY)] * 6),  # a ladder that rests when the runner starts
        accounts(*[trading()] * 10),  # the bound is always open above
        at=after(seconds=50),
    ),
    "orders.largest_share": Scenario(
        "signal: orders.largest_share, above: 1",
        accounts(trading(), trading(BIG)),
        accounts(trading(), trading(STOP)),  # a stop far away, with its mark
        accounts(*[DARK] * 3),
        at=after(seconds=10),
    ),
}  # fmt: skip
