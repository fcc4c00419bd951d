"""Realised profits of the strategies of one account, by hand from their fills."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.instant import DAY, MINUTE, to_micros
from killswitch.model.snapshot import Fill
from killswitch.model.venue import OWN_LENGTH, OWN_MARK
from killswitch.valuation.own_quantities import OwnQuantities
from killswitch.valuation.ownership import NOBODY, AccountProfits, StrategyRule
from tests.worlds import START, account, after, fill, position, rules

GRID = StrategyRule("grid", None, None, None, None, order_prefixes=("grid-",))
TREND = StrategyRule("trend", None, None, None, None, order_prefixes=("trend-",))
MAJORS = StrategyRule("majors", None, None, None, None, symbols=("ETH_USDT",))
WHOLE = StrategyRule("carry", None, None, None, None, whole=True)
RULES = {("main", name): rules(name, contract_size="2") for name in ("BTC_USDT", "ETH_USDT")}
NOW = to_micros(START)


def trade(id_: str, side: str, amount: str, price: str, client: str | None, **more: Any) -> Fill:
    fields = {"symbol": "BTC_USDT", "fee": "0", "fee_currency": "USDT", **more}
    return fill(id_, after(minutes=1), fields.pop("symbol"), side, amount, price, client_order_id=client, **fields)


def begun(*owners: StrategyRule, held: str = "0") -> OwnQuantities:
    """The fold after a first snapshot with this position of BTC_USDT."""
    quantities = OwnQuantities(owners)
    look(quantities, held, at=NOW)
    return quantities


def look(quantities: OwnQuantities, held: str, *fills: Fill, at: int = NOW + MINUTE, **more: Any) -> AccountProfits:
    """The profits after a snapshot with this net position of BTC_USDT and these new fills."""
    size = Decimal(held)
    rows = [position("BTC_USDT", "long" if size > 0 else "short", contracts=f"{abs(size)}")] if size else []
    found = account("1000", rows, fills=fills, **more)
    profits = quantities.observe((found,), at, RULES)["main"].profits
    assert profits is not None
    return profits


def made(profits: AccountProfits, owner: str) -> str:
    """What the owner made, or why it is unknown."""
    found = profits.of(owner)
    return found.unknown or f"{found.amount.normalize():f}"


def test_what_one_owner_holds_alone_made_what_the_venue_states_less_its_fees() -> None:
    """30 realised, less 0.5 of the purchase and 0.7 of the sale; who traded nothing made zero."""
    quantities = begun(GRID, TREND)
    bought = trade("1", "buy", "3", "100", "grid-1", fee="0.5")
    sold = trade("2", "sell", "3", "105", "grid-2", fee="0.7", realized_pnl="30")
    profits = look(quantities, "0", bought, sold)
    assert made(profits, "grid") == "28.8"
    assert made(profits, "trend") == "0"
    assert profits.since == NOW


@pytest.mark.parametrize("owners", [(GRID, TREND), (WHOLE,)], ids=["shared", "whole"])
def test_what_was_realised_before_the_first_snapshot_stays_out_where_its_fills_are_repeated(
    owners: tuple[StrategyRule, ...],
) -> None:
    """They precede it, also in the pass that repeats the account."""
    quantities = OwnQuantities(owners)
    rows = [trade("1", "buy", "3", "100", "grid-1"), trade("2", "sell", "3", "105", "grid-2", realized_pnl="30")]
    for at in (NOW, NOW + 1, NOW + MINUTE):
        assert made(look(quantities, "0", *rows, at=at), owners[0].name) == "0"


def test_in_a_shared_position_each_realises_by_its_own_entry() -> None:
    """Grid: 7 × (120 − 100) × 2 = 280; trend, short 3: 3 × (110 − 130) × 2 = −120, less 1 of each fill.

    The venue's number is of the net position, which trend reduced with an opening order, and does not count.
    """
    quantities = begun(GRID, TREND)
    look(quantities, "4", trade("1", "buy", "7", "100", "grid-1", fee="1"),
         trade("2", "sell", "3", "110", "trend-1", fee="1", realized_pnl="60"))  # fmt: skip
    profits = look(quantities, "0", trade("3", "sell", "7", "120", "grid-2", fee="1", realized_pnl="160"),
                   trade("4", "buy", "3", "130", "trend-2", fee="1"), at=NOW + 2 * MINUTE)  # fmt: skip
    assert made(profits, "grid") == "278"
    assert made(profits, "trend") == "-122"


def test_a_close_of_the_whole_account_realises_what_everybody_held() -> None:
    """Net 4 sold at 90: 7 × (90 − 100) × 2 = −140 and 3 × (110 − 90) × 2 = 120, less 7 and 3 tenths of its fee of 2."""
    quantities = begun(GRID, TREND)
    look(quantities, "4", trade("1", "buy", "7", "100", "grid-1"), trade("2", "sell", "3", "110", "trend-1"))
    ours = OWN_MARK + "0" * (OWN_LENGTH - len(OWN_MARK))
    profits = look(quantities, "0", trade("3", "sell", "4", "90", ours, fee="2"), at=NOW + 2 * MINUTE)
    assert made(profits, "grid") == "-141.4"
    assert made(profits, "trend") == "119.4"
    assert made(profits, NOBODY) == "0"


def test_a_fill_of_unknown_owner_makes_unknown_whom_it_may_belong_to() -> None:
    """The venue states no client order id: it may be grid's, and is not of the strategy that is told by its symbol."""
    quantities = begun(GRID, MAJORS)
    profits = look(quantities, "1", trade("9", "buy", "1", "100", None))
    assert "it is unknown whose the fill 9 of 1 BTC_USDT is" in made(profits, "grid")
    assert made(profits, "majors") == "0"
    assert "unknown whose" in made(look(quantities, "1", at=NOW + 2 * MINUTE), "grid")


def test_a_fill_without_a_fee_makes_the_profit_unknown() -> None:
    """A fee that the venue does not state is not zero; nor is one in a coin without a price."""
    unstated = begun(GRID)
    without = fill("1", after(minutes=1), "BTC_USDT", "buy", "1", "100", client_order_id="grid-1")
    assert "does not state the fee of fill 1" in made(look(unstated, "1", without), "grid")
    unpriced = begun(GRID)
    assert "whose price is unknown" in made(
        look(unpriced, "1", trade("1", "buy", "1", "100", "grid-1", fee="1", fee_currency="XYZ")), "grid"
    )


def test_what_was_held_at_the_first_snapshot_has_no_entry() -> None:
    """The owner of the symbol sells what it held before; with the venue's number it is known, without it is not."""
    owner = StrategyRule("majors", None, None, None, None, symbols=("BTC_USDT",))
    stated, unstated = begun(owner, held="5"), begun(owner, held="5")
    assert made(look(stated, "3", trade("1", "sell", "2", "90", None, realized_pnl="-20")), "majors") == "-20"
    assert "held before the first fill, is unknown" in made(
        look(unstated, "3", trade("1", "sell", "2", "90", None)), "majors"
    )


def test_a_missing_fill_makes_the_profit_unknown_until_it_is_there() -> None:
    """The position fell by 2 and no fill says so yet."""
    owner = StrategyRule("majors", None, None, None, None, symbols=("BTC_USDT",))
    quantities = begun(owner, held="5")
    assert made(look(quantities, "3"), "majors") == "no fill explains 2 BTC_USDT yet"
    late = trade("1", "sell", "2", "90", None, realized_pnl="-20")
    assert made(look(quantities, "3", late, at=NOW + 2 * MINUTE), "majors") == "-20"


def test_fills_of_the_first_snapshot_precede_the_count() -> None:
    """What is reported with the first snapshot was traded before it."""
    quantities = OwnQuantities((WHOLE,))
    first = look(quantities, "0", trade("1", "sell", "1", "100", None, realized_pnl="7"), at=NOW)
    assert made(first, "carry") == "0"
    second = trade("2", "sell", "1", "100", None, realized_pnl="5", fee="1")
    assert made(look(quantities, "0", second), "carry") == "4"
    assert made(look(quantities, "0", second), "carry") == "4"  # another pass repeats it


def test_a_day_without_fills_may_hide_some_until_a_reset() -> None:
    """Venues are read back a day: after a longer outage the profit is unknown, and a reset begins anew."""
    quantities = begun(GRID)
    later = NOW + DAY + MINUTE
    assert "were not read for more than a day" in made(look(quantities, "0", at=later), "grid")
    quantities.accept("main")
    after_reset = look(quantities, "0", at=later + MINUTE)
    assert (made(after_reset, "grid"), after_reset.since) == ("0", later)


def test_profits_survive_a_restart_and_begin_on_the_store_of_an_older_version() -> None:
    """What was stored is continued; a store without profits counts from its next snapshot."""
    quantities = begun(GRID)
    look(quantities, "3", trade("1", "buy", "3", "100", "grid-1", fee="1"))
    blob = quantities.changed()
    assert blob is not None
    restarted = OwnQuantities((GRID,))
    restarted.restore(blob)
    sold = trade("2", "sell", "3", "110", "grid-2", fee="1")
    assert made(look(restarted, "0", sold, at=NOW + 2 * MINUTE), "grid") == "58"  # 3 × 10 × 2 − 2
    older = OwnQuantities((GRID,))
    older.restore(
        b'{"books":[{"account":"main","symbol":"BTC_USDT","side":"net","parts":{"grid":{"contracts":"3","entry":"100"}},'
        b'"held":"3"}],"seen":["main"],"named":[],"orders":{},"fills":{},"closed":{}}'
    )
    assert made(look(older, "3", at=NOW + 2 * MINUTE), "grid") == "0"
    assert made(look(older, "0", sold, at=NOW + 3 * MINUTE), "grid") == "59"


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_the_size_of_an_inverse_contract_is_not_averaged_by_contracts(side: str) -> None:
    """In a shared position of inverse contracts the profit is unknown."""
    inverse = {("main", "BTC_USDT"): rules("BTC_USDT", inverse=True)}
    quantities = begun(GRID, TREND)
    other = "sell" if side == "buy" else "buy"
    fills = (trade("1", side, "2", "100", "grid-1"), trade("2", other, "1", "110", "trend-1"),
             trade("3", other, "2", "120", "grid-2"))  # fmt: skip
    held = [position("BTC_USDT", "long" if side == "sell" else "short")]
    found = quantities.observe((account("1000", held, fills=fills),), NOW + MINUTE, inverse)["main"].profits
    assert found is not None
    assert "made is unknown" in made(found, "grid")
    assert made(found, "trend") == "0"


TRADES = st.lists(
    st.tuples(st.sampled_from(("grid-", "trend-", "x-")), st.integers(-9, 9).filter(bool), st.integers(50, 150)),
    min_size=1,
    max_size=12,
)


@given(TRADES)
def test_what_all_owners_made_is_the_cash_of_all_fills_once_all_are_flat(trades: list[tuple[str, int, int]]) -> None:
    """Each closes at 100 at the end: the sum of all profits is what the sales brought less what the purchases cost."""
    open_: dict[str, int] = {}
    for owner, size, _ in trades:
        open_[owner] = open_.get(owner, 0) + size
    whole = [*trades, *((owner, -left, 100) for owner, left in open_.items() if left)]
    quantities = begun(GRID, TREND)
    net, profits = 0, None
    for number, (owner, size, price) in enumerate(whole):
        net += size
        side = "buy" if size > 0 else "sell"
        one = trade(f"{number}", side, f"{abs(size)}", f"{price}", f"{owner}{number}")
        profits = look(quantities, f"{net}", one, at=NOW + (number + 1) * MINUTE)
    assert profits is not None
    cash = -sum(size * price for _, size, price in whole) * 2
    total = sum(profits.of(owner).amount for owner in ("grid", "trend", NOBODY))
    assert abs(total - cash) < Decimal("1e-15")  # an average entry has 28 digits
    assert all(profits.of(owner).unknown is None for owner in ("grid", "trend", NOBODY))
