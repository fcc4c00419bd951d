"""Round trips where something is late, missing, ours, in another coin, or older than the observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.instant import MINUTE
from killswitch.model.snapshot import Balance, Fill, Order, OwnOrder, Position, Snapshot
from tests.worlds import account, after, fill, position, rules, snapshot
from tests.worlds.firings import Scenario
from tests.worlds.signals import values_after

INF = math.inf
OWN = "ks0123456789abcdefghijklmnopqrs"
WINDOW = 20 * MINUTE
ANY, LOSS, STOP = ((WINDOW, outcome, "scope", "any") for outcome in ("any", "loss", "stop"))
Held = Sequence[tuple[str, str]]
"""Side and size of positions of A."""


def seen(minute: float, held: Held = (), fills: Sequence[Fill] = (), **more: Any) -> Snapshot:
    """A snapshot of an account of 10,000 USDT that trades A, entered at 100."""
    positions: list[Position] = [
        position("A", side, "0", contracts=size, entry_price="100", mark_price="100", notional="100")
        for side, size in held
    ]
    own = more.pop("own_orders", None)
    now = after(minutes=minute)
    found = snapshot(
        now, account("10000", positions, fills=fills, observed_at=now, instruments=[rules("A"), rules("B")], **more)
    )
    return found if own is None else _with_own(found, own)


def _with_own(found: Snapshot, own: tuple[OwnOrder, ...]) -> Snapshot:
    return replace(found, own_orders=own)


def bought(minute: float, size: str = "1", **more: Any) -> Fill:
    return fill(f"b{minute}", after(minutes=minute), "A", "buy", size, "100", **more)


def sold(minute: float, price: str, size: str = "1", **more: Any) -> Fill:
    return fill(f"s{minute}", after(minutes=minute), "A", "sell", size, price, **more)


def later(*snapshots: Snapshot, until: int = 30) -> list[Snapshot]:
    """The snapshots between flat minutes before and after them, so that the window is known."""
    first = min(each.as_of for each in snapshots)
    quiet = [seen(minute - 40) for minute in range(0, 40, 5)]
    last = max(each.as_of for each in snapshots)
    return [*[each for each in quiet if each.as_of < first], *snapshots] + [
        each for each in (seen(minute) for minute in range(0, until + 1, 5)) if each.as_of > last
    ]


TRIP = (seen(1, [("long", "1")], [bought(1)]), seen(2, [], [sold(2, "90")]))


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_fill_leaves_no_hole(restart: bool) -> None:
    """The position is gone at minute 2 and its fill comes at minute 5: until then there may be more trips than seen."""
    opened = seen(1, [("long", "1")], [bought(1)])
    waiting = later(opened, seen(2), seen(3), until=3)
    assert values_after("trades.count", ANY, waiting, restart=restart) == (0.0, INF)
    assert values_after("trades.profit", (WINDOW, "scope"), waiting, restart=restart) == (-INF, INF)
    assert values_after("trades.since_close", ("A",), waiting, restart=restart)[0] == 0.0
    arrived = [*waiting, seen(5, [], [sold(2, "90")])]
    assert values_after("trades.count", LOSS, arrived, restart=restart) == (1.0, 1.0)
    assert values_after("trades.profit", (WINDOW, "scope"), arrived, restart=restart) == pytest.approx((-0.1, -0.1))
    assert values_after("trades.since_close", ("A",), arrived, restart=restart) == (180.0, 180.0)


def test_a_fill_that_never_comes_is_a_hole() -> None:
    """After five minutes: counts are lower bounds, a streak has no bound, the last close may be as late as the hole."""
    lost = later(*TRIP, seen(3, [("long", "1")], [bought(3)]), *(seen(minute) for minute in range(4, 11)), until=12)
    lost.append(seen(12))
    assert values_after("trades.count", ANY, lost) == (1.0, INF)
    assert values_after("trades.losing_streak", ("scope",), lost) == (1.0, INF)
    assert values_after("trades.drawdown", (WINDOW, "ratios"), lost) == (-INF, INF)
    assert values_after("trades.since_close", ("A",), lost) == (180.0, 600.0)  # the hole was found at minute 9


def test_a_trip_that_was_opened_before_observation_is_counted_and_its_profit_is_unknown() -> None:
    """What it paid and made before is not known: it may be a loss, whatever its last part made."""
    old = [seen(minute - 30, [("long", "1")]) for minute in range(0, 30, 5)] + [seen(1, [], [sold(1, "90")]), seen(2)]
    assert values_after("trades.count", ANY, old) == (1.0, 1.0)
    assert values_after("trades.count", LOSS, old) == (0.0, 1.0)
    assert values_after("trades.count", STOP, old) == (0.0, 1.0)
    assert values_after("trades.profit", (WINDOW, "scope"), old) == (-INF, INF)
    assert values_after("trades.losing_streak", ("scope",), old) == (0.0, 1.0)


def test_a_turn_over_leaves_the_whole_profit_to_the_trip_that_it_ends() -> None:
    """Sell 3 of a long 1: the venue's profit of −10 is of the one contract; the fee of 0.3 is shared by contracts."""
    turned = later(
        seen(1, [("long", "1")], [bought(1, position_side="long")], position_mode="one_way"),
        seen(
            2, [("short", "2")],
            [sold(2, "90", "3", position_side="long", realized_pnl="-10", fee="0.3", fee_currency="USDT")],
            position_mode="one_way",
        ),
        seen(3, [], [fill("c", after(minutes=3), "A", "buy", "2", "90", position_side="short", realized_pnl="0")],
             position_mode="one_way"),
    )  # fmt: skip
    window = 40 * MINUTE
    assert values_after("trades.count", (window, "loss", "scope", "long"), turned) == (1.0, 1.0)
    assert values_after("trades.count", (window, "loss", "scope", "short"), turned) == (1.0, 1.0)  # by its fee of 0.2
    wanted = -10.1 / 100 - 0.2 / 180
    assert values_after("trades.profit", (window, "scope"), turned) == pytest.approx((wanted, wanted))


@pytest.mark.parametrize(
    ("price", "wanted"), [("110", (0.0, 0.0)), ("100", (0.0, 0.0)), ("90", (1.0, 1.0))], ids=["won", "even", "lost"]
)
def test_a_stop_lost(price: str, wanted: tuple[float, float]) -> None:
    """A take-profit has a trigger price, too: only what lost by one is a stop."""
    stop = Order("s", "A", "sell", Decimal(1), trigger_price=Decimal(90), reduce_only=True)
    done = later(
        seen(1, [("long", "1")], [bought(1)], orders=[stop]), seen(2, [], [sold(2, price, order="s")]), until=5
    )
    assert values_after("trades.count", STOP, done) == wanted


def test_a_stop_is_known_by_its_client_order_id_and_by_the_fill_itself() -> None:
    """A triggered order may have another id than the one that rested."""
    stop = Order("algo7", "A", "sell", Decimal(1), client_order_id="bot-7", trigger_price=Decimal(90))
    first = seen(1, [("long", "1")], [bought(1)], orders=[stop])
    by_name = later(first, seen(2, [], [sold(2, "90", order="12", client_order_id="bot-7")]), until=5)
    stated = later(TRIP[0], seen(2, [], [sold(2, "90", trigger_price=Decimal(90))]), until=5)
    assert values_after("trades.count", STOP, by_name) == (1.0, 1.0)
    assert values_after("trades.count", STOP, stated) == (1.0, 1.0)


def test_the_part_that_this_program_closes_is_no_part_of_a_trip() -> None:
    """Of two contracts it closes one at 50; the bot's own stop closes the other at 90: −10 of 100, once."""
    cut = later(
        seen(1, [("long", "2")], [bought(1, "2")]),
        seen(2, [("long", "1")], [sold(2, "50", client_order_id=OWN)]),
        seen(3, [], [sold(3, "90")]),
        until=5,
    )
    assert values_after("trades.count", LOSS, cut) == (1.0, 1.0)
    assert values_after("trades.profit", (WINDOW, "scope"), cut) == pytest.approx((-0.1, -0.1))


@pytest.mark.parametrize("name", [None, "bot-1"])
def test_a_fill_that_may_be_of_our_order_is_a_trip_that_may_be_none(name: str | None) -> None:
    """The venue states no client order id, and an order of ours is under way in that symbol."""
    now = after(minutes=2)
    own = (OwnOrder(OWN, "main", "A", "accepted", sent_at=now, at=now),)
    done = later(TRIP[0], seen(2, [], [sold(2, "90", client_order_id=name)], own_orders=own), until=5)
    known = name is not None
    assert values_after("trades.count", LOSS, done) == ((1.0, 1.0) if known else (0.0, 1.0))
    assert values_after("trades.losing_streak", ("scope",), done) == ((1.0, 1.0) if known else (0.0, 1.0))
    assert (values_after("trades.profit", (WINDOW, "scope"), done) == (-INF, INF)) is not known


@pytest.mark.parametrize(
    ("currency", "fee", "wanted"), [("BNB", "0.01", -0.03), ("A", "0.01", -0.01), ("USDT", "2", -0.02)]
)
def test_fees_in_other_coins_are_taken_at_their_price(currency: str, fee: str, wanted: float) -> None:
    """BNB at 300, the traded coin at the price of the trade: each as a share of 100."""
    balances = (Balance("USDT", Decimal(1)), Balance("BNB", Decimal(1), Decimal(300)))
    paid = fill("s", after(minutes=2), "A/USDT", "sell", "1", "100", fee=fee, fee_currency=currency)
    made = fill("b", after(minutes=1), "A/USDT", "buy", "1", "100")
    held = [position("A/USDT", "long", "0", contracts="1", entry_price="100", mark_price="100", notional="100")]

    def of(minute: int, positions: Sequence[Position], fills: Sequence[Fill]) -> Snapshot:
        now = after(minutes=minute)
        return snapshot(
            now,
            account("10000", positions, fills=fills, observed_at=now, instruments=[rules("A/USDT")], balances=balances),
        )

    book = [of(0, [], []), of(1, held, [made]), of(2, [], [paid])]
    assert values_after("trades.profit", (MINUTE, "scope"), book) == pytest.approx((wanted, wanted))


def test_a_size_that_changes_without_a_trade_ends_no_trip() -> None:
    """A fee in the coin: 0.999 of 1 are left, and all rows are known: what is sold later is the whole trip."""
    small = [("long", "0.999")]
    book = later(
        seen(1, small, [bought(1)], fills_as_of=after(minutes=1)),
        seen(2, small, fills_as_of=after(minutes=2)),
        seen(3, [], [sold(3, "90", "0.999")], fills_as_of=after(minutes=3)),
        until=5,
    )
    assert values_after("trades.count", LOSS, book) == (1.0, 1.0)
    made = (0.999 * 90 - 100) / 100
    assert values_after("trades.profit", (WINDOW, "scope"), book) == pytest.approx((made, made))


def test_a_symbol_without_a_trip_in_the_window_is_not_the_worst() -> None:
    """B closed an hour ago, A won just now: the least profit is A's, and 0 without any trip (D9)."""
    old = [
        fill("bb", after(minutes=-60), "B", "buy", "1", "100", position_side="long"),
        fill("bs", after(minutes=-59), "B", "sell", "1", "100", position_side="long"),
    ]
    begin = [seen(-61), seen(-60, [], old[:0]), seen(-59, [], old)]
    book = [*begin, *(seen(minute) for minute in range(-55, 0, 5)), TRIP[0], seen(2, [], [sold(2, "110")]), seen(3)]
    assert values_after("trades.profit", (WINDOW, "worst_symbol"), book) == pytest.approx((0.1, 0.1))
    assert values_after("trades.profit", (WINDOW, "worst_symbol"), [*book, seen(10), seen(15), seen(20), seen(23)]) == (
        0.0, 0.0,
    )  # fmt: skip


def test_the_fall_of_the_balance_is_counted_back_from_equity_without_open_profit() -> None:
    """Equity 10,000 after −1,000: the balance was 11,000, and fell by 1/11; no trip: 0."""
    lost = later(
        seen(1, [("long", "10")], [bought(1, "10")]),
        seen(2, [], [sold(2, "0.0001", "10", realized_pnl="-1000")]), until=5,
    )  # fmt: skip
    assert values_after("trades.drawdown", (WINDOW, "equity"), lost) == pytest.approx((1 / 11, 1 / 11))
    assert values_after("trades.drawdown", (WINDOW, "equity"), later(seen(1), until=5)) == (0.0, 0.0)


def test_one_account_that_cannot_be_read_leaves_lower_bounds() -> None:
    """The trips of the other count, and there may be more."""
    away = [
        snapshot(each.as_of, *each.accounts, account("1", name="other", quality="down", reason="away"))
        for each in later(*TRIP, until=5)
    ]
    assert values_after("trades.count", LOSS, away) == (1.0, INF)
    assert values_after("fills.closed_by_venue", (WINDOW, "forced"), away) == (0.0, INF)
    assert values_after("exposure.turnover", (WINDOW,), away)[1] == INF


WON = (TRIP[0], seen(2, [], [sold(2, "110")]))
FORCED = (TRIP[0], seen(2, [], [sold(2, "90", cause="liquidation")]))
EXPIRED = (TRIP[0], seen(2, [], [sold(2, "90", cause="delivery")]))
OURS = (TRIP[0], seen(2, [], [sold(2, "90", client_order_id=OWN)]))
EVEN = (TRIP[0], seen(2, [], [sold(2, "100")]))
AWAY = [
    *later(seen(0), until=0),
    *(
        snapshot(after(minutes=minute), account("1", quality="down", reason="away", observed_at=after(minutes=minute)))
        for minute in range(1, 4)
    ),
]
"""An account that cannot be read is no quiet account."""


def trips(keys: str, fires: Sequence[Snapshot], calm: Sequence[Snapshot]) -> Scenario:
    """A scenario with flat minutes around its trip, which closes at minute 2."""
    return Scenario(f"signal: {keys}", later(*fires), later(*calm), AWAY, at=after(minutes=2))


SCENARIOS: dict[str, Scenario] = {
    "trades.count": trips(
        "trades.count, window: 20m, outcome: loss, per: worst_symbol, side: any, at_least: 1", TRIP, WON
    ),
    "trades.count: stops": trips(
        "trades.count, window: 20m, outcome: stop, per: scope, side: long, at_least: 1", FORCED, WON
    ),
    "trades.losing_streak": trips("trades.losing_streak, per: scope, at_least: 1", TRIP, EVEN),
    "trades.profit": trips("trades.profit, window: 20m, per: scope, at_most: -0.05", TRIP, EVEN),
    "trades.drawdown": trips("trades.drawdown, window: 20m, mode: ratios, at_least: 0.05", TRIP, WON),
    "trades.drawdown: of the balance": trips(
        "trades.drawdown, window: 20m, mode: equity, at_least: 0.0005", TRIP, OURS
    ),
    "trades.since_close": trips("trades.since_close, symbol: A, below: 1m", WON, OURS),
    "fills.closed_by_venue": trips("fills.closed_by_venue, window: 20m, causes: forced, at_least: 1", FORCED, EXPIRED),
    "fills.closed_by_venue_share": trips(
        "fills.closed_by_venue_share, window: 20m, causes: forced, at_least: 0.009", FORCED, EXPIRED
    ),
    "exposure.turnover": trips("exposure.turnover, window: 20m, at_least: 0.015", TRIP, OURS),
}
