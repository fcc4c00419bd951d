"""What an order does to an account: one table for the gate, `halt`, `cancel` and the watch for breaches."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import Order
from killswitch.planning.reducing import AccountHoldings, Judgement, enlarged_by, holdings_of, judge, kind_of
from tests.worlds import account, position

BTC = "BTC/USDT:USDT"
EVERY_TYPE = frozenset(["market", "limit", "stop", "take_profit", "trailing_stop"])


def order(side: str, amount: str, symbol: str = BTC, **more: Any) -> Order:
    return Order(id="o", symbol=symbol, side=side, amount=Decimal(amount), **more)  # type: ignore[arg-type]  # literal


def swap(*held: tuple[str, str], mode: str | None = "one_way", flags: Any = EVERY_TYPE, now: bool = True) -> Any:
    """A swap account with these positions in BTC, whose venue enforces these flags."""
    rows = [position(BTC, side, contracts=size) for side, size in held]
    return holdings_of(account("1000", rows, position_mode=mode), flags=flags, is_current=now)


def coins(*held: tuple[str, str], market: str = "spot", flags: Any = frozenset()) -> AccountHoldings:
    """An account in USDT that holds these symbols; the cash next to USDT is USDC."""
    rows = [
        position(symbol, "short" if size[0] == "-" else "long", contracts=size.lstrip("-")) for symbol, size in held
    ]
    return holdings_of(account("1000", rows, market=market), cash=["USDC"], flags=flags)


LONG, FLAT, HEDGED = swap(("long", "10")), swap(), swap(("long", "10"), ("short", "4"), mode="hedge")
MARKET_ONLY = swap(("long", "10"), flags=frozenset({"market"}))
FLAG: dict[str, Any] = {"reduce_only": True}
ETH, SHARE = "ETH/USDT", "AAPL"


@pytest.mark.parametrize(
    ("asked", "holdings", "taken", "effect"),
    [
        # bounded: whatever rests, of any size, also flat
        (order("sell", "99", **FLAG), LONG, "10", "bounded"),
        (order("sell", "99", **FLAG), FLAT, "0", "bounded"),
        (order("sell", "0", **FLAG), LONG, "10", "bounded"),
        (order("sell", "9", type="stop_market", **FLAG), LONG, "10", "bounded"),
        (order("sell", "99", **FLAG), swap(("long", "10"), now=False), "0", "bounded"),
        # a flag is a claim where the venue does not enforce it for this type, or nobody knows
        (order("sell", "11", **FLAG), swap(("long", "10"), flags=frozenset()), "0", "mixed"),
        (order("sell", "11", **FLAG), swap(("long", "10"), flags=None), "0", "mixed"),
        (order("sell", "11", type="trailing_stop", **FLAG), MARKET_ONLY, "0", "mixed"),
        (order("buy", "1", **FLAG), swap(flags=frozenset()), "0", "entry"),
        # proved: the position less everything else on that side
        (order("sell", "10"), LONG, "0", "proved"),
        (order("sell", "4"), LONG, "6", "proved"),
        (order("sell", "10", filled=Decimal(3)), LONG, "3", "proved"),
        (order("buy", "4"), swap(("short", "4")), "0", "proved"),
        # mixed and entries
        (order("sell", "10.1"), LONG, "0", "mixed"),
        (order("sell", "4.1"), LONG, "6", "mixed"),
        (order("sell", "1"), LONG, "10", "entry"),
        (order("sell", "1"), LONG, "Infinity", "entry"),
        (order("buy", "1"), LONG, "0", "entry"),
        (order("sell", "1"), FLAT, "0", "entry"),
        (order("sell", "NaN"), LONG, "0", "mixed"),
        # hedge mode: the side decides, not the flag
        (order("sell", "99", position_side="long"), HEDGED, "10", "bounded"),
        (order("buy", "99", position_side="short"), swap(mode="hedge"), "0", "bounded"),
        (order("buy", "1", position_side="long"), HEDGED, "0", "entry"),
        (order("buy", "1", position_side="long", **FLAG), HEDGED, "0", "entry"),
        (order("sell", "10"), HEDGED, "0", "proved"),
        # mode unknown: an exit must be one under both meanings
        (order("sell", "3", position_side="long"), swap(("long", "3"), mode=None), "0", "proved"),
        (order("sell", "9", position_side="long"), swap(("long", "3"), mode=None), "0", "mixed"),
        (order("sell", "3", position_side="short"), swap(("long", "3"), mode=None), "0", "entry"),
        # spot: receives cash, pays none
        (order("sell", "99", ETH), coins((ETH, "5")), "5", "bounded"),
        (order("sell", "99", "ETH/USDC"), coins((ETH, "5")), "0", "bounded"),
        (order("sell", "1", "ETH/BTC"), coins((ETH, "5")), "0", "entry"),
        (order("buy", "1", "USDC/ETH"), coins((ETH, "5")), "0", "bounded"),
        (order("buy", "1", "USDC/USDT"), coins((ETH, "5")), "0", "entry"),
        (order("sell", "1", "USDC/USDT"), coins((ETH, "5")), "0", "entry"),
        (order("buy", "1", ETH), coins(), "0", "entry"),
        (order("buy", "1", ETH, **FLAG), coins(), "0", "entry"),
        # margin, shares and a spot account that owes: one way, without a bound
        (order("sell", "5", ETH), coins((ETH, "5"), market="margin"), "0", "proved"),
        (order("sell", "5", ETH), coins((ETH, "5"), market="margin"), "5", "entry"),
        (order("sell", "6", ETH, **FLAG), coins((ETH, "5"), market="margin"), "0", "mixed"),
        (order("sell", "6", ETH, **FLAG), coins((ETH, "5"), market="margin", flags=EVERY_TYPE), "0", "bounded"),
        (order("sell", "6", SHARE), coins((SHARE, "5"), market="equity"), "0", "mixed"),
        (order("sell", "6", ETH), coins((ETH, "5"), ("BTC/USDT", "-1")), "0", "mixed"),
        (order("buy", "1", "BTC/USDT"), coins((ETH, "5"), ("BTC/USDT", "-1")), "0", "proved"),
    ],
)  # fmt: skip
def test_what_a_bot_asks_for(asked: Order, holdings: AccountHoldings, taken: str, effect: str) -> None:
    """The rules of the gate, row by row: bounded, proved, mixed, entry."""
    assert judge(asked, holdings, Decimal(taken), is_reported=False).effect == effect


def test_the_room_is_what_may_still_reduce() -> None:
    """Long 10 of which 6 are taken: 4 would be an exit."""
    assert judge(order("sell", "9"), LONG, Decimal(6)) == Judgement("mixed", Decimal(4))


@pytest.mark.parametrize(
    ("amount", "claims", "flags", "effect"),
    [
        ("10", True, frozenset(), "assumed"),
        ("10.1", True, frozenset(), "unproved"),
        ("10", False, frozenset(), "unproved"),
        ("10", True, EVERY_TYPE, "unproved"),
    ],
)
def test_with_an_old_view_only_a_claim_without_a_flag_is_assumed(
    amount: str, claims: bool, flags: Any, effect: str
) -> None:
    """It must fit the last known position; where the venue has a flag, the order must be sent with it."""
    old = swap(("long", "10"), flags=flags, now=False)
    assert judge(order("sell", amount), old, Decimal(0), is_reported=False, claims_exit=claims).effect == effect


def test_with_unknown_positions_a_plain_order_is_unproved_and_an_opening_one_an_entry() -> None:
    """Purchases on spot and the opening side of hedge mode are known to open."""
    unseen = holdings_of(account("1000", None, position_mode="one_way"))
    assert judge(order("sell", "1"), unseen, Decimal(0)).effect == "unproved"
    hedge = holdings_of(account("1000", None, position_mode="hedge"))
    assert judge(order("sell", "1", position_side="short"), hedge, Decimal(0)).effect == "entry"
    spot = holdings_of(account("1000", None, market="spot"))
    assert judge(order("buy", "1", ETH), spot, Decimal(0)).effect == "entry"


def test_a_flag_that_the_venue_reports_counts_but_on_spot() -> None:
    """Of resting orders the venue itself states the flag; a bot only claims it."""
    unknown = swap(("long", "10"), flags=None)
    assert judge(order("sell", "99", **FLAG), unknown, Decimal(0)).effect == "bounded"
    assert judge(order("sell", "99", **FLAG), unknown, Decimal(0), is_reported=False).effect == "mixed"
    assert judge(order("buy", "99", ETH, **FLAG), coins(flags=None), Decimal(0)).effect == "entry"


@pytest.mark.parametrize(
    ("type_", "more", "kind"),
    [
        ("market", {}, "market"), (None, {}, "market"), (None, {"price": Decimal(1)}, "limit"), ("LIMIT", {}, "limit"),
        ("stop_market", {}, "stop"), ("limit", {"trigger_price": Decimal(1)}, "stop"), ("STOP_LOSS_LIMIT", {}, "stop"),
        ("take_profit_limit", {}, "take_profit"), ("trailing_stop_market", {}, "trailing_stop"),
    ],
)  # fmt: skip
def test_the_kind_of_an_order_comes_from_the_word_of_the_venue(type_: str | None, more: Any, kind: str) -> None:
    """Without a word, a trigger makes it a stop, and a price a limit order."""
    assert kind_of(order("sell", "1", type=type_, **more)) == kind


@pytest.mark.parametrize(
    ("side", "position_side", "enlarged"),
    [("buy", None, "long"), ("sell", None, "short"), ("buy", "long", "long"), ("sell", "long", None)],
)
def test_a_fill_enlarges_the_position_of_its_side(side: Any, position_side: Any, enlarged: str | None) -> None:
    """In hedge mode the closing side enlarges nothing, so that it is no breach of a lock."""
    assert enlarged_by(BTC, side, position_side) == (None if enlarged is None else (BTC, enlarged))
