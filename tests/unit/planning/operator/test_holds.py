"""Halts and cancels: what adds risk goes, what reduces it stays, and nothing is closed."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Event, Order, Side
from killswitch.planning.interpreter import Interpreter, Outcome
from tests import graphs
from tests.worlds import account, after, operator_event, position, snapshot

POLICIES = graphs.policy_set(graphs.graph([], [], [], policy="calm"))
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
DOWN = replace(account(None, None, quality="down", reason="no route"), orders=None)


def order(name: str, side: str, amount: str, symbol: str = BTC, **more: Any) -> Order:
    return Order(id=name, symbol=symbol, side=side, amount=Decimal(amount), **more)  # type: ignore[arg-type]  # literal


def stop(name: str, side: str, amount: str, symbol: str = BTC, *, trigger: str = "90") -> Order:
    """A plain stop."""
    return order(name, side, amount, symbol, type="stop_market", trigger_price=Decimal(trigger))


def book(*orders: Order, held: Iterable[tuple[str, Side, str]] = ((BTC, "long", "10"),)) -> AccountSnapshot:
    rows = [position(symbol, side, contracts=size, mark_price="100") for symbol, side, size in held]
    return account("1000", rows, position_mode="one_way", orders=orders)


def command(kind: str, scope: str | None = "account/main", **more: Any) -> Event:
    event = operator_event(kind, after(), scope)  # type: ignore[arg-type]  # one of the kinds
    return replace(event, lock="reduce_only" if kind == "halt" else None, **more)


def outcome(event: Event, *accounts: AccountSnapshot) -> Outcome:
    return Interpreter(POLICIES).tick(snapshot(after(), *accounts, events=(event,)))


def decided(event: Event, *accounts: AccountSnapshot) -> Decision:
    (decision,) = outcome(event, *accounts).decisions
    return decision


def cancelled(event: Event, *accounts: AccountSnapshot) -> list[str]:
    """The ids of the orders that the command cancels, in their order."""
    return [each.order for each in decided(event, *accounts).cancels]


RESTING = (
    order("entry", "buy", "1"),
    order("exit", "sell", "2"),
    stop("stop", "sell", "8"),
    order("beyond", "sell", "1"),
    order("bounded", "sell", "99", reduce_only=True),
    order("short-eth", "sell", "1", ETH),
)
"""Next to 10 BTC long. The bounded exit takes all of the position, so that no plain exit is proved to fit."""


@pytest.mark.parametrize("kind", ["halt", "cancel"])
def test_what_adds_risk_is_cancelled_and_stops_and_exits_stay_and_nothing_is_closed(kind: str) -> None:
    """Judged together per position: of a stop of 8 and exits of 2 and 1 next to 10, the last one goes."""
    plain = tuple(each for each in RESTING if each.id != "bounded")
    decision = decided(command(kind), book(*plain))
    assert {each.order for each in decision.cancels} == {"entry", "beyond", "short-eth"}
    assert decision.intents == ()
    assert (decision.kind, decision.command, decision.is_hold) == ("manual", kind, True)
    lock = decision.lock
    assert (None if lock is None else (lock.scope, lock.mode, lock.until)) == (
        ("account/main", "reduce_only", None) if kind == "halt" else None
    )


def test_next_to_a_bounded_exit_of_the_whole_position_every_plain_one_can_turn_it() -> None:
    """The bounded one stays, whatever its size; a plain one next to it would open the other side."""
    assert set(cancelled(command("halt"), book(*RESTING))) == {"entry", "exit", "stop", "beyond", "short-eth"}


def test_with_all_orders_stops_and_exits_go_too_and_what_is_left_naked_is_named() -> None:
    """RTS 6, Article 12: everything that rests. The sizes are those of the book."""
    found = outcome(command("cancel", all_orders=True), book(*RESTING))
    (decision,) = found.decisions
    assert {each.order for each in decision.cancels} == {each.id for each in RESTING}
    assert [each.why for each in decision.cancels] == ["entry"] * 5 + ["all"]
    (naked,) = found.notices
    assert naked.text == "10 BTC/USDT:USDT long on main is left without a stop or an exit: 1 order cancelled"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"side": "long"}, {"entry"}),
        ({"side": "short"}, {"beyond", "short-eth"}),
        ({"symbols": (ETH,)}, {"short-eth"}),
        ({"side": "long", "symbols": (ETH,)}, set()),
        ({"side": "long", "all_orders": True}, {"entry", "exit", "stop"}),
        ({"side": "short", "all_orders": True}, {"beyond", "short-eth"}),
    ],
)
def test_a_side_and_symbols_name_what_would_enlarge_them(more: dict[str, Any], expected: set[str]) -> None:
    """An exit of the long side is about that side; a sale beyond it is about the short one."""
    plain = tuple(each for each in RESTING if each.id != "bounded")
    decision = decided(command("halt", **more), book(*plain))
    assert {each.order for each in decision.cancels} == expected
    assert decision.lock is not None
    assert [(each.side, each.symbols) for each in decision.lock.parts] == [(more.get("side"), more.get("symbols"))]


@pytest.mark.parametrize("scope", [None, "portfolio", "account/main", "venue/paper", f"symbol/{BTC}"])
def test_a_halt_takes_every_kind_of_scope(scope: str | None) -> None:
    """Of a symbol, the orders in it; its lock is a file of its own."""
    decision = decided(command("halt", scope), book(*RESTING[:2], RESTING[-1]))
    expected = {"entry"} if scope == f"symbol/{BTC}" else {"entry", "short-eth"}
    assert {each.order for each in decision.cancels} == expected
    assert decision.lock is not None
    assert decision.lock.scope == (scope or "portfolio")


def test_a_halt_locks_also_what_cannot_be_read_and_says_so() -> None:
    """The lock needs no data; the cancels follow once the orders are known."""
    found = outcome(command("halt"), DOWN)
    (decision,) = found.decisions
    assert decision.lock is not None
    assert decision.cancels == ()
    assert [each.text for each in found.notices] == [
        "the resting orders of main are unknown: none of them is cancelled yet"
    ]


def test_with_unknown_positions_nothing_that_could_be_an_exit_is_cancelled() -> None:
    """A plain sale may be the stop of a long position; a purchase in a spot account cannot be an exit."""
    seen = replace(book(*RESTING), positions=None)
    assert cancelled(command("halt"), seen) == []
    spot = replace(seen, market="spot", orders=(order("purchase", "buy", "1", "BTC/USDT"),))
    assert cancelled(command("halt"), spot) == ["purchase"]


def test_a_scope_without_an_account_and_an_end_that_has_passed_are_refused() -> None:
    """Nothing is locked or cancelled, and a page gives the reason."""
    for event, why in (
        (command("halt", "account/other"), "account/other names no account of this snapshot"),
        (command("halt", until=after(minutes=-1)), "it was to end at"),
    ):
        found = outcome(event, book(*RESTING))
        assert found.decisions == ()
        (notice,) = found.notices
        assert (notice.severity, "the halt was not carried out" in notice.text, why in notice.text) == (
            "page",
            True,
            True,
        )


# Property

SIZES = st.integers(1, 12).map(str)
ORDERS = st.lists(
    st.tuples(st.sampled_from(["buy", "sell"]), SIZES, st.sampled_from(["limit", "stop", "bounded"])), max_size=7
)


@given(held=st.integers(-10, 10), given_orders=ORDERS)
def test_after_a_halt_nothing_that_rests_can_add_risk_and_no_exit_was_cancelled_that_fits(
    held: int, given_orders: list[tuple[str, str, str]]
) -> None:
    """Whatever of the rest is filled, in any order, ends at a position between nothing and what was held.

    The worst case by hand: all plain orders of the closing side, with the bounded ones, at most close the position.
    """
    orders = []
    for number, (side, amount, kind) in enumerate(given_orders):
        name = f"o{number}"
        if kind == "stop":
            orders.append(stop(name, side, amount, trigger="90" if side == "sell" else "110"))
        else:
            orders.append(order(name, side, amount, reduce_only=kind == "bounded" or None))
    rows: list[tuple[str, Side, str]] = [(BTC, "long" if held > 0 else "short", str(abs(held)))] if held else []
    gone = set(cancelled(command("halt"), book(*orders, held=rows)))
    left = [each for each in orders if each.id not in gone]
    plain = [each for each in left if not each.reduce_only]
    closing = "sell" if held > 0 else "buy"
    assert all(each.side == closing for each in plain)
    bounded = sum((each.amount for each in left if each.reduce_only and each.side == closing), Decimal(0))
    total = sum((each.amount for each in plain), Decimal(0))
    assert not plain or total + bounded <= abs(held)
    assert not any(each.reduce_only for each in orders if each.id in gone)
    alone = [each for each in orders if each.side == closing]
    if held and sum((each.amount for each in alone), Decimal(0)) <= abs(held):
        assert not gone & {each.id for each in alone}, "everything fits together: nothing of it is cancelled"
