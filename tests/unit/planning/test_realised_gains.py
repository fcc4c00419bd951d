"""What the fills of an account have realised by asset, by hand from the fills."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.instant import DAY, HOUR, MINUTE, from_micros, to_micros
from killswitch.model.snapshot import AccountSnapshot, Event, Fill, Position
from killswitch.model.store import DamagedStateError
from killswitch.planning.realised_gains import RealisedGains
from tests.worlds import START, account, fill, position, snapshot

NOW = to_micros(START)


def trade(id_: str, side: str, amount: str, pnl: str | None, at: int = NOW + MINUTE, **more: Any) -> Fill:
    fields = {"symbol": "BTC_USDT", "fee": "0", "fee_currency": "USDT", "realized_pnl": pnl, **more}
    given = {name: each for name, each in fields.items() if each is not None}
    return fill(id_, from_micros(at), given.pop("symbol"), side, amount, "100", **given)


def seen(at: int, *fills: Fill, held: int = 0, **more: Any) -> AccountSnapshot:
    """The account with this net position of BTC_USDT, whose fills are complete."""
    rows: list[Position] = []
    if held:
        rows = [position("BTC_USDT", "long" if held > 0 else "short", contracts=str(abs(held)))]
    fields = {"fills_as_of": from_micros(at), "observed_at": from_micros(at), **more}
    is_read = fields.pop("is_read", True)
    found = account("1000", rows, fills=fills, **fields)
    return found if is_read else replace(found, fills=None)


def look(gains: RealisedGains, at: int, *fills: Fill, event: Event | None = None, **more: Any) -> dict[str, str]:
    """Asset → what it made, or why it is unknown; under the empty name why all of it is."""
    gains.observe(snapshot(from_micros(at), seen(at, *fills, **more)), at, () if event is None else (event,))
    found = gains.of("main")
    assert found is not None
    made = {name: each.unknown or f"{each.amount.normalize():f}" for name, each in found.assets.items()}
    return made if found.unknown is None else {**made, "": found.unknown}


def begun(**more: Any) -> RealisedGains:
    gains = RealisedGains()
    assert look(gains, NOW, **more) == {}
    return gains


def test_the_stated_profit_less_fees_counts_by_base_asset() -> None:
    """30 − 1, and −4 of ether; a purchase costs its fee."""
    gains = begun()
    fills = (
        trade("1", "sell", "1", "30", fee="1"),
        trade("2", "buy", "1", "-4", symbol="ETH_USDT"),
        trade("3", "buy", "1", "0", symbol="SOL_USDT", fee="0.5"),
    )
    assert look(gains, NOW + MINUTE, *fills) == {"BTC": "29", "ETH": "-4", "SOL": "-0.5"}


def test_each_fill_counts_once_and_those_of_the_first_snapshot_precede_it() -> None:
    """A pass repeats them, and a new run reads a day back: also what is older than the ids that are kept."""
    first = trade("1", "sell", "1", "7", at=NOW)
    second = trade("2", "sell", "1", "5")
    gains = RealisedGains()
    assert look(gains, NOW, first) == {}
    for at in (NOW + MINUTE, NOW + 2 * MINUTE, NOW + 3 * HOUR, NOW + 6 * HOUR):
        assert look(gains, at, first, second) == {"BTC": "5"}
    restarted = RealisedGains()
    restarted.restore(gains.changed())
    assert look(restarted, NOW + 6 * HOUR + MINUTE, first, second) == {"BTC": "5"}
    assert gains.changed() is None


@pytest.mark.parametrize(
    ("held", "now", "side", "made"),
    [
        (0, 1, "buy", "0"),
        (1, 2, "buy", "0"),
        (-1, -2, "sell", "0"),
        (1, 0, "sell", "the venue does not state what fill 1 of BTC_USDT made"),
        (0, 0, "sell", "the venue does not state what fill 1 of BTC_USDT made"),
    ],
    ids=["opens", "adds", "adds short", "closes", "a fill that is a poll late"],
)
def test_a_fill_without_a_profit_made_nothing_only_if_it_surely_opened(
    held: int, now: int, side: str, made: str
) -> None:
    """The last one closed what the poll before already showed as closed: it must not count as an opening."""
    assert look(begun(held=held), NOW + MINUTE, trade("1", side, "1", None), held=now) == {"BTC": made}


def test_in_hedge_mode_the_side_of_the_position_tells_an_opening() -> None:
    """A purchase of a short closes it."""
    opens = trade("1", "sell", "1", None, position_side="short", symbol="ETH_USDT")
    closes = trade("2", "buy", "1", None, position_side="short")
    made = look(begun(), NOW + MINUTE, opens, closes)
    assert made == {"ETH": "0", "BTC": "the venue does not state what fill 2 of BTC_USDT made"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"fee": None, "fee_currency": None}, "the venue does not state the fee of fill 1 of BTC_USDT"),
        ({"fee": "1", "fee_currency": "XYZ"}, "the fee of fill 1 is in XYZ, whose price is unknown"),
    ],
)
def test_a_fee_that_is_not_known_is_not_zero(fields: dict[str, Any], why: str) -> None:
    """The asset is unknown until a reset, and the first reason stays; another asset is known."""
    gains = begun()
    other = trade("2", "sell", "1", "5", symbol="ETH_USDT")
    assert look(gains, NOW + MINUTE, trade("1", "sell", "1", "3", **fields), other) == {"BTC": why, "ETH": "5"}
    assert look(gains, NOW + 2 * MINUTE, trade("3", "sell", "1", "9"))["BTC"] == why


@pytest.mark.parametrize("odd", ["NaN", "sNaN", "Infinity", "1e60"])
@pytest.mark.parametrize("pnl", ["5", None])
def test_numbers_that_are_not_usable_make_the_asset_unknown_and_stop_nothing(odd: str, pnl: str | None) -> None:
    """Of an amount, a price, a fee in the coin, and of the position: never an exception in a tick."""
    for place in ("amount", "price", "fee", "position"):
        gains = begun(market="spot")
        fields: dict[str, Any] = {"fee": odd, "fee_currency": "BTC"} if place == "fee" else {}
        one = trade("1", "buy", "1", pnl, **fields)
        if place in ("amount", "price"):
            one = replace(one, fee=Decimal("0.1"), fee_currency="BTC", **{place: Decimal(odd)})
        seen_now = seen(NOW + MINUTE, one, held=1, market="spot")
        if place == "position":
            rows = tuple(replace(each, contracts=Decimal(odd)) for each in seen_now.positions or ())
            seen_now = replace(seen_now, positions=rows)
        gains.observe(snapshot(from_micros(NOW + MINUTE), seen_now), NOW + MINUTE)
        found = gains.of("main")
        assert found is not None
        is_known = place == "position" and pnl is not None
        assert (found.assets["BTC"].unknown is None) == is_known, place


@pytest.mark.parametrize("scope", [None, "account/main", "venue/paper", "account/other"])
def test_a_reset_of_the_account_begins_anew_what_is_unknown(scope: str | None) -> None:
    """Of the portfolio, of its venue or of itself, and of no other account."""
    gains = begun(venue="paper")
    why = look(gains, NOW + MINUTE, trade("1", "sell", "1", "NaN"), venue="paper")["BTC"]
    event = Event("e", from_micros(NOW), "reset", scope=scope)
    made = look(gains, NOW + 2 * MINUTE, event=event, venue="paper")
    assert made == ({"BTC": why} if scope == "account/other" else {})


def test_it_is_unknown_while_the_fills_are_and_known_again_afterwards() -> None:
    """A failed list, and an account that is down."""
    gains = begun()
    look(gains, NOW + MINUTE, trade("1", "sell", "1", "5"))
    for more in ({"is_read": False}, {"quality": "down", "reason": "no answer"}):
        assert look(gains, NOW + 2 * MINUTE, **more) == {"BTC": "5", "": "the fills of main are unknown"}
        assert look(gains, NOW + 3 * MINUTE) == {"BTC": "5"}


def test_where_the_venue_does_not_state_when_its_fills_are_complete_nothing_is_known() -> None:
    """An empty list may be one that was not read."""
    why = "the venue of main does not state until when its fills are complete"
    gains = RealisedGains()
    assert look(gains, NOW, fills_as_of=None) == {"": why}


def test_a_day_without_fills_may_hide_some() -> None:
    """Venues are read back a day; an hour of less is complete."""
    known, unknown = begun(), begun()
    assert look(known, NOW + DAY - HOUR, trade("1", "sell", "1", "5")) == {"BTC": "5"}
    assert "were not read for more than a day" in look(unknown, NOW + DAY + MINUTE)[""]


def test_damaged_gains_are_named() -> None:
    """An empty memory would show 0."""
    with pytest.raises(DamagedStateError, match="realised P&L"):
        RealisedGains().restore(b"[")


@given(
    st.lists(st.tuples(st.integers(-9, 9).filter(bool), st.integers(50, 150)), min_size=1, max_size=12),
    st.sets(st.integers(0, 12)),
)
def test_once_flat_the_gains_are_the_cash_of_all_fills_over_any_restart(
    trades: list[tuple[int, int]], restarts: set[int]
) -> None:
    """A venue that states (price − average entry) × closed: the sum is what sales brought less what purchases cost."""
    size, entry, gains = Decimal(0), Decimal(0), begun()
    whole = [*trades, (-sum(each for each, _ in trades), 100)]
    made: dict[str, str] = {}
    for number, (change, price) in enumerate(whole):
        if not change:
            continue
        closed = min(abs(size), Decimal(abs(change))) if size * change < 0 else Decimal(0)
        profit = closed * (price - entry) * (1 if size > 0 else -1)
        after = size + change
        if size * change >= 0:
            entry = (abs(size) * entry + abs(change) * price) / abs(after)
        elif size * after < 0:
            entry = Decimal(price)
        size = after
        if number in restarts and (blob := gains.changed()) is not None:
            gains = RealisedGains()
            gains.restore(blob)
        at = NOW + (number + 1) * MINUTE
        side = "buy" if change > 0 else "sell"
        made = look(gains, at, trade(str(number), side, str(abs(change)), str(profit), at), held=int(size))
    cash = -sum(change * price for change, price in whole)
    assert abs(Decimal(made.get("BTC", "0")) - cash) < Decimal("1e-15")
