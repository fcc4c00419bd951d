"""The paper market as a whole: ids, recall, determinism, and the path of prices through a bar."""

from datetime import timedelta
from decimal import Decimal

import pytest

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import carried_bar, path
from killswitch.market.terms import VenueTerms
from tests.markets import START, Desk, bar, instrument


def test_a_rising_bar_visits_its_low_first_and_a_falling_one_its_high() -> None:
    """Of the extremes the one against the bar's direction comes first."""
    assert path(bar("10", "14", "9", "12")) == (10, 9, 14, 12)
    assert path(bar("12", "14", "9", "10")) == (12, 14, 9, 10)


def test_a_carried_bar_is_flat_and_without_volume() -> None:
    """Without trades the last price is kept, and no volume is available."""
    one = carried_bar(Decimal(5))
    assert (one.open, one.high, one.low, one.close, one.volume, one.carried) == (5, 5, 5, 5, 0, True)


def test_fills_are_shown_again_until_they_are_too_old() -> None:
    """One reader does not consume another's fills; after `recall` none are listed, but the order keeps them."""
    market = PaperMarket([instrument("A")], seed=1, recall=timedelta(minutes=2))
    market.add_account("main", market="swap", currency="USDT", wallet=Decimal(1000))
    desk = Desk()
    desk.market = market
    desk.pass_bar(A=bar("100"))
    desk.send("buy", "1")
    seen = [market.snapshot("main").fills for _ in range(2)]
    assert seen[0] == seen[1] and len(seen[0] or ()) == 1
    for expected in (1, 1, 0):
        desk.pass_bar(A=bar("100"))
        assert len(market.snapshot("main").fills or ()) == expected
    assert len(market.fills("main", "A", "c1")) == 1


def test_a_market_that_begins_later_repeats_no_id() -> None:
    """A restarted venue's fills are not taken for old ones by a reader that counts an id once."""
    ids = set()
    for hour in (0, 1):
        market = PaperMarket([instrument("A")], seed=1)
        market.add_account("main", market="swap", currency="USDT", wallet=Decimal(1000))
        market.advance(START + timedelta(hours=hour), {"A": bar("100")})
        ids.add(market.flow("main", "deposit", Decimal(1)).id)
    assert len(ids) == 2


def test_opening_a_position_changes_no_money() -> None:
    """A book is opened at the last price without a fee, in whole lots: 1,000 ÷ 30 is 33.333 contracts."""
    desk = Desk(price="30")
    contracts = desk.market.open_position("main", "A", "short", Decimal(1000), Decimal(5))
    assert str(contracts) == "33.333"
    held = desk.position()
    assert (held.side, held.contracts, held.entry_price, held.leverage) == ("short", contracts, 30, 5)
    assert desk.seen.equity == 10000


@pytest.mark.parametrize(
    ("market", "side", "notional", "text"),
    [("swap", "long", "0.01", "does not buy"), ("spot", "short", "10", "cannot be short"),
     ("spot", "long", "10001", "owe money")],
)  # fmt: skip
def test_a_book_that_cannot_be_opened_is_refused_with_the_cause(
    market: str, side: str, notional: str, text: str
) -> None:
    """Less than a lot, a short holding, and more than the account has."""
    desk = Desk(market=market)  # type: ignore[arg-type] # one of the two above
    with pytest.raises(ValueError, match=text):
        desk.market.open_position("main", "A", side, Decimal(notional))  # type: ignore[arg-type] # likewise


def test_an_unknown_account_is_named_with_those_that_exist() -> None:
    """The message helps to find the right name."""
    with pytest.raises(KeyError, match="no account other; the market has main"):
        Desk().market.snapshot("other")


@pytest.mark.parametrize("fields", [{"symbol": "A"}, {"contract_size": "0"}, {"price_step": "0"}])
def test_an_instrument_without_its_steps_is_refused(fields: dict[str, str]) -> None:
    """No default is assumed for a symbol's rules."""
    from killswitch.model.snapshot import Instrument

    one = Instrument("A") if "symbol" in fields else instrument("A", **fields)
    with pytest.raises(ValueError, match="must be given, above zero"):
        PaperMarket([one], seed=1)


def test_rules_out_of_range_are_refused() -> None:
    """A fee of 5 instead of 5% is found before the first trade."""
    with pytest.raises(ValueError, match="taker_fee 5 is not between 0 and 1"):
        MarketRules(taker_fee=Decimal(5))


def test_a_snapshot_is_complete() -> None:
    """Every field that the public format has for a swap position and its account is known, liquidity if it is shown.

    `marked_at` of the account is the time of the mark.
    """
    desk = Desk(wallet="1000", terms=VenueTerms(shows_liquidity=True))
    desk.send("buy", "50")
    seen, held = desk.seen, desk.position()
    absent = [n for n in seen.__struct_fields__ if getattr(seen, n) is None]
    # no market prices USDT or announces splits; nothing is watched, and the paper venue states neither of the last
    assert absent == ["reason", "rates", "corporate_actions", "watched", "withdrawals", "adl_ranks"]
    assert [n for n in held.__struct_fields__ if getattr(held, n) is None] == ["adl_rank", "strategy", "mark_at"]
