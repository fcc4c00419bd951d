"""The profit of a position whose venue withholds it, and that settles in another coin than the account's currency.

Expected values by hand: a linear contract pays contracts × (mark − entry) of its coin, an inverse one contracts × size
× (1 ÷ entry − 1 ÷ mark) of its coin."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Instrument, Position, Rate
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.attribution_signals import shares
from killswitch.signals.history.scope import History
from killswitch.valuation.position_measures import margin_loss, notional, unrealized
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position, rules

IN_USDC, IN_BTC, CALL = "BTC/USDC:USDC", "BTC/USD:BTC", "BTC/USD:BTC-260327-60000-C"
RULES = {
    ("main", it.symbol): it
    for it in (rules(IN_USDC), rules(IN_BTC, contract_size="1", inverse=True), rules(CALL, contract_size="1"))
}
USDC = Balance("USDC", Decimal(100), Decimal("0.00002"))
"""A dollar is 0.00002 BTC where a bitcoin is 50,000."""


def withheld(contracts: str = "0.2", mark: str = "50000", symbol: str = IN_USDC) -> Position:
    """Bought at 48,000; its venue reports no profit for it."""
    return position(symbol, "long", None, contracts=contracts, mark_price=mark, entry_price="48000")


def coins(
    *positions: Position, balances: tuple[Balance, ...] = (), rates: tuple[Rate, ...] = (), equity: str = "10"
) -> AccountSnapshot:
    return account(equity, positions, currency="BTC", balances=balances, rates=rates)


def profit_and_notional(held: Position, of: AccountSnapshot) -> tuple[Decimal | None, Decimal | None]:
    rule: Instrument = RULES["main", held.symbol]
    return unrealized(held, of, rule), notional(held, of, rule)


def test_a_gain_in_another_coin_is_not_taken_for_the_accounts_currency() -> None:
    """400 USDC on 10,000 USDC are not 400 BTC on 10,000 BTC: no rate of the USDC is given, so both are unknown."""
    assert profit_and_notional(withheld(), coins(withheld())) == (None, None)
    view = ScopeView(to_micros(after()), True, (coins(withheld()),), RULES, None)
    assert (view.pnl(), view.notionals()) == (None, None)
    assert margin_loss(withheld(), coins(withheld()), RULES["main", IN_USDC]) is None


@pytest.mark.parametrize(
    "told", [{"balances": (USDC,)}, {"rates": (Rate("USDC", Decimal(50_000)),)}], ids=["as collateral", "as a rate"]
)
def test_it_is_converted_at_the_venues_price_of_the_coin(told: dict[str, tuple[Balance, ...]]) -> None:
    """400 USDC at 0.00002 are 0.008 BTC, on 0.2 BTC."""
    assert profit_and_notional(withheld(), coins(withheld(), **told)) == (Decimal("0.008"), Decimal("0.2"))  # type: ignore[arg-type] # one of the two


def test_an_inverse_contract_pays_its_coin_into_a_dollar_account() -> None:
    """4,800 USD from 48,000 to 50,000: 0.1 − 0.096 = 0.004 BTC, at 50,000 each 200 USD, on 0.096 BTC: 4,800 USD."""
    dollars = account("100000", [], currency="USDT", balances=(Balance("BTC", Decimal(1), Decimal(50_000)),))
    assert profit_and_notional(withheld("4800", symbol=IN_BTC), dollars) == (pytest.approx(200), 4800)
    assert profit_and_notional(withheld("4800", symbol=IN_BTC), account("100000", [], currency="USDT")) == (None, None)


def test_the_premium_of_an_option_is_not_its_notional() -> None:
    """Its venue gives the notional, or it is unknown; the gain is counted in premiums."""
    call = position(CALL, "long", None, contracts="3", mark_price="0.03", entry_price="0.02")
    assert profit_and_notional(call, coins(call)) == (Decimal("0.03"), None)


def lost(*, usdc: tuple[Balance, ...]) -> History:
    """A short in BTC loses 0.06 BTC within the last minute, while a long of 0.0025 BTC in USDC loses 5 USDC."""
    past = History((15 * MINUTE,), HOUR, EquityTerms(60 * SECOND, 0.001, 60 * SECOND))
    minutes = [("0", "50000", "10")] * 16 + [("-0.06", "48000", "9.9399")]
    for minute, (short, mark, equity) in enumerate(minutes):
        pair = (position(IN_BTC, "short", short), withheld("0.0025", mark))
        seen = coins(*pair, balances=usdc, equity=equity)
        past.observe(ScopeView(to_micros(after(minutes=minute)), True, (seen,), RULES, None))
    return past


def test_the_loss_of_a_short_is_not_attributed_to_a_long_in_another_coin() -> None:
    """5 USDC are 0.0001 BTC: the short has lost 99.8%. Taken for 5 BTC, the long had lost 98.8%."""
    found = shares(lost(usdc=(USDC,)), 15 * MINUTE)
    assert (found.source(0.65), found.short) == ("SHORT", pytest.approx(0.06 / 0.0601))
    assert shares(lost(usdc=()), 15 * MINUTE).source(0.65) == "UNKNOWN"
