"""Own quantities: what each strategy holds of a net position that several share, by hand from the fills."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.instant import DAY, HOUR, MINUTE, to_micros
from killswitch.model.snapshot import Fill, Order, Position
from killswitch.valuation.own_quantities import OwnQuantities
from killswitch.valuation.ownership import (
    NOBODY,
    UNKNOWN_OWNER,
    AccountOwnership,
    StrategyRule,
    owner_of,
    strategy_part,
)
from tests.worlds import START, account, after, fill, position

GRID = StrategyRule("grid", None, None, None, None, order_prefixes=("grid-",))
TREND = StrategyRule("trend", None, None, None, None, order_prefixes=("trend-",))
MAJORS = StrategyRule("majors", None, None, None, None, symbols=("BTC_USDT",))
NAMED = StrategyRule("named", None, None, None, None, named=("bot-7",))


def buy(id_: str, amount: str, client: str | None, price: str = "100", **more: Any) -> Fill:
    return fill(id_, after(minutes=1), "BTC_USDT", "buy", amount, price, client_order_id=client, **more)


def sell(id_: str, amount: str, client: str | None, price: str = "100", **more: Any) -> Fill:
    return fill(id_, after(minutes=1), "BTC_USDT", "sell", amount, price, client_order_id=client, **more)


def net(contracts: str) -> list[Position]:
    """The account's one position of BTC_USDT; none at 0."""
    number = Decimal(contracts)
    return [position("BTC_USDT", "long" if number > 0 else "short", contracts=str(abs(number)))] if number else []


def owned(quantities: OwnQuantities, held: Sequence[Position] | None, fills: Sequence[Fill] | None) -> AccountOwnership:
    """The owners after a snapshot with this position and these new fills."""
    found = account("1000", held, fills=fills or ())
    return quantities.observe((found,), to_micros(START) + MINUTE)["main"]


def parts(found: AccountOwnership, side: str = "long") -> dict[str, str]:
    """Owner → contracts of BTC_USDT."""
    held = found.parts.get(("BTC_USDT", side), {})
    return {owner: f"{part.contracts:f}" for owner, part in held.items()}


def begun(*rules: StrategyRule) -> OwnQuantities:
    """The fold after a snapshot in which the account was flat."""
    quantities = OwnQuantities(rules)
    owned(quantities, [], [])
    return quantities


def test_two_strategies_share_a_net_position_by_their_own_fills() -> None:
    """Of net 4, after 7 bought by one and 3 sold by the other, the parts are 7 and −3."""
    found = owned(begun(GRID, TREND), net("4"), [buy("1", "7", "grid-1"), sell("2", "3", "trend-1")])
    assert parts(found) == {"grid": "7", "trend": "-3"}


def test_what_a_person_trades_belongs_to_nobody() -> None:
    """A fill with an id that no strategy claims is nobody's part, and leaves the others as they are."""
    found = owned(begun(GRID), net("6"), [buy("1", "4", "grid-1"), buy("2", "2", "web-77")])
    assert parts(found) == {"grid": "4", NOBODY: "2"}


def test_a_position_that_was_held_before_is_unknown_and_not_guessed() -> None:
    """Nobody has seen the fills of what is held at the first snapshot, so its owners stay unknown."""
    quantities = OwnQuantities((GRID, TREND))
    first = owned(quantities, net("5"), [])
    later = owned(quantities, net("8"), [buy("1", "3", "grid-1")])
    for found in (first, later):
        assert parts(found) == {}
        assert "held at the first snapshot" in found.unknown["BTC_USDT", "long"]


def test_an_operators_reset_begins_anew_only_where_the_position_is_flat() -> None:
    """Flat in net may be +5 and −5: only an operator knows, and only while nothing is held."""
    quantities = OwnQuantities((GRID, TREND))
    owned(quantities, net("5"), [])
    quantities.accept("main")
    assert owned(quantities, net("5"), []).unknown
    owned(quantities, [], [sell("1", "5", "web-1")])
    quantities.accept("main")
    assert parts(owned(quantities, net("2"), [buy("2", "2", "grid-1")])) == {"grid": "2"}


@pytest.mark.parametrize("positions", ["known", "unknown"])
def test_the_fills_of_the_first_snapshot_count_no_more_where_they_are_repeated(positions: str) -> None:
    """A pass for another account, and the first poll of the next run, report them once more: BTC stays its owner's."""
    quantities = OwnQuantities((MAJORS, GRID))
    rows = [buy("1", "3", "grid-1"), buy("2", "1", "trend-2")]
    owned(quantities, net("4") if positions == "known" else None, rows)
    restarted = OwnQuantities((MAJORS, GRID))
    restarted.restore(quantities.changed())
    for each in (quantities, restarted):
        assert parts(owned(each, net("4"), rows)) == {"majors": "4"}
        assert parts(owned(each, net("4"), rows)) == {"majors": "4"}


def test_a_fill_is_not_folded_again_when_a_run_reads_a_day_back() -> None:
    """After an outage of a day fills are read from 24 hours back, by a clock that may be hours behind that of ticks."""
    quantities = begun(GRID)
    owned(quantities, net("3"), [buy("1", "3", "grid-1")])
    again = account("1000", net("3"), fills=[buy("1", "3", "grid-1")])
    found = quantities.observe((again,), to_micros(START) + DAY + 2 * HOUR)["main"]
    assert parts(found) == {"grid": "3"}


def test_a_fill_that_comes_later_than_its_position_is_awaited() -> None:
    """While the parts do not add up to the position the owners are unknown; the fill makes them known again."""
    quantities = begun(GRID, TREND)
    missing = owned(quantities, net("3"), [])
    assert missing.unknown["BTC_USDT", "long"] == "it is unknown whose 3 BTC_USDT are: no fill explains them yet"
    assert parts(owned(quantities, net("3"), [buy("1", "3", "trend-9")])) == {"trend": "3"}


def test_a_fill_without_an_id_makes_the_position_unknown() -> None:
    """An absent client order id is unknown: it may be any strategy's."""
    found = owned(begun(GRID), net("3"), [buy("1", "3", None)])
    assert "neither its client order id nor its strategy" in found.unknown["BTC_USDT", "long"]


def test_a_fill_without_an_id_is_told_by_its_resting_order() -> None:
    """A venue that states the id of orders and not of fills tells the owner by the order."""
    quantities = begun(GRID)
    resting = Order(id="o1", symbol="BTC_USDT", side="buy", amount=Decimal(3), client_order_id="grid-5")
    quantities.observe((account("1000", [], orders=[resting]),), to_micros(START))
    assert parts(owned(quantities, net("3"), [buy("1", "3", None, order="o1")])) == {"grid": "3"}


def test_a_declared_symbol_is_its_strategys_except_what_others_trade() -> None:
    """Also what was held before belongs to the strategy that declares the symbol; another's own fills do not."""
    quantities = OwnQuantities((MAJORS, GRID))
    assert parts(owned(quantities, net("5"), [])) == {"majors": "5"}
    assert parts(owned(quantities, net("7"), [buy("1", "2", "grid-1")])) == {"grid": "2", "majors": "5"}


def test_fills_are_counted_once() -> None:
    """A pass between two ticks repeats accounts that were not polled, with their rows."""
    quantities = begun(GRID)
    bought = [buy("1", "3", "grid-1")]
    owned(quantities, net("3"), bought)
    assert parts(owned(quantities, net("3"), bought)) == {"grid": "3"}


def test_a_liquidation_that_empties_the_position_ends_every_part() -> None:
    """Parts of 7 and −3 are nothing once the venue has closed the net position."""
    quantities = begun(GRID, TREND)
    owned(quantities, net("4"), [buy("1", "7", "grid-1"), sell("2", "3", "trend-1")])
    owned(quantities, [], [sell("3", "4", None, cause="liquidation")])
    assert parts(owned(quantities, net("2"), [buy("4", "2", "trend-2")])) == {"trend": "2"}


def test_a_liquidation_of_the_only_owner_reduces_its_part() -> None:
    """Where one strategy owns the whole position, whatever reduces it reduces its part."""
    quantities = begun(GRID)
    owned(quantities, net("7"), [buy("1", "7", "grid-1")])
    assert parts(owned(quantities, net("3"), [sell("2", "4", None, cause="adl")])) == {"grid": "3"}


def test_the_rows_of_a_venue_that_splits_positions_by_strategy_count() -> None:
    """A row with a strategy is that strategy's; a row without one is unknown, and not nobody's."""
    quantities = OwnQuantities((NAMED,))
    rows = [
        position("BTC_USDT", "long", contracts="2", strategy="bot-7"),
        position("BTC_USDT", "long", contracts="3", strategy="bot-8"),
        position("ETH_USDT", "long", contracts="1"),
    ]
    found = owned(quantities, rows, [])
    assert parts(found) == {"named": "2", NOBODY: "3"}
    assert ("ETH_USDT", "long") in found.unknown


def test_the_own_entry_is_the_average_of_the_own_fills() -> None:
    """2 at 100 and 2 at 110 are 4 at 105; a sale of 1 leaves the entry, a turn of sides sets it."""
    quantities = begun(GRID, TREND)
    fills = [buy("1", "2", "grid-1", "100"), buy("2", "2", "grid-2", "110"), sell("3", "1", "grid-3", "120")]
    found = owned(quantities, net("3"), fills)
    assert found.parts["BTC_USDT", "long"]["grid"].entry == Decimal(105)
    turned = owned(quantities, net("-2"), [sell("4", "5", "grid-4", "90")])
    assert turned.parts["BTC_USDT", "short"]["grid"].entry == Decimal(90)


def test_a_restart_keeps_the_parts() -> None:
    """What is stored restores the fold: the same parts, and the same fills known."""
    quantities = begun(GRID, TREND)
    bought = [buy("1", "7", "grid-1"), sell("2", "3", "trend-1")]
    owned(quantities, net("4"), bought)
    stored = quantities.changed()
    assert quantities.changed() is None
    restored = OwnQuantities((GRID, TREND))
    restored.restore(stored)
    assert parts(owned(restored, net("4"), bought)) == {"grid": "7", "trend": "-3"}


def test_a_part_has_its_own_contracts_and_no_equity() -> None:
    """Of net 4 long, with notional 400, the part of 3 short is a short position with a notional of 300."""
    quantities = begun(GRID, TREND)
    held = [position("BTC_USDT", "long", "12", contracts="4", notional="400", mark_price="100")]
    fills = [buy("1", "7", "grid-1"), sell("2", "3", "trend-1", "104")]
    resting = Order(id="o1", symbol="BTC_USDT", side="buy", amount=Decimal(1), client_order_id="trend-4")
    whole = account("1000", held, fills=fills, orders=[resting])
    found = quantities.observe((whole,), to_micros(START) + MINUTE)["main"]
    part = strategy_part(whole, found, "trend")
    (row,) = part.positions or ()
    assert (row.side, row.contracts, row.notional, row.entry_price) == ("short", 3, 300, 104)
    assert row.unrealized_pnl is None
    assert part.equity is None
    assert part.orders == (resting,)
    assert strategy_part(whole, found, "grid").orders == ()


@pytest.mark.parametrize(
    ("rules", "stated", "expected"),
    [
        ((GRID, TREND), {"client_order_id": "trend-1"}, "trend"),
        ((GRID, TREND), {"client_order_id": "web-1"}, NOBODY),
        ((GRID,), {}, UNKNOWN_OWNER),
        ((MAJORS,), {}, "majors"),
        ((GRID, MAJORS), {"client_order_id": "grid-1"}, "grid"),
        ((NAMED, GRID), {"strategy": "bot-7", "client_order_id": "grid-1"}, "named"),
        ((NAMED, GRID), {"strategy": "bot-9"}, NOBODY),
        ((NAMED,), {"client_order_id": "web-1"}, UNKNOWN_OWNER),
        ((), {}, NOBODY),
    ],
)
def test_an_order_belongs_to_what_its_strategy_id_or_symbol_says(
    rules: tuple[StrategyRule, ...], stated: dict[str, Any], expected: str
) -> None:
    """The stated strategy counts first, then the client order id, then the symbol; absent is unknown."""
    order = Order(id="o1", symbol="BTC_USDT", side="buy", amount=Decimal(1), **stated)
    assert owner_of(rules, order) == expected
