"""Sales for another asset neither create nor destroy any of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import MarketBar
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderRejectedError, OrderRequest
from tests.markets import START, instrument

WALLET = Decimal(50_000)
TICK = {"X/BTC": Decimal("0.000001"), "BTC/USDT": Decimal("0.01"), "X/USDT": Decimal("0.01")}
RULES = MarketRules(jitter=Decimal("0.5"), impact=Decimal("0.2"), participation=Decimal("0.5"))

_prices = st.fixed_dictionaries(
    {
        "X/BTC": st.integers(1_000, 100_000),
        "BTC/USDT": st.integers(100_000, 9_000_000),
        "X/USDT": st.integers(1, 900_000),
    }
)
_sells = st.tuples(
    st.sampled_from(list(TICK)), st.sampled_from(["sell", "sell", "buy"]), st.integers(1, 20_000), st.booleans()
)
plays = st.lists(st.one_of(_prices, _sells), max_size=25)


class Account:
    """100 X and 0.2 BTC, bought before anything is counted, and a log of the moves that the fills alone report."""

    def __init__(self) -> None:
        symbols = [instrument(name, price_step=str(tick)) for name, tick in TICK.items()]
        self.market = PaperMarket(symbols, seed=3, rules=RULES, recall=timedelta(days=99))
        self.market.add_account("main", market="spot", currency="USDT", wallet=WALLET)
        self.prices: Mapping[str, Decimal] = {}
        self.close({"X/BTC": 5_000, "BTC/USDT": 5_000_000, "X/USDT": 25_000})
        self.market.open_position("main", "X/USDT", "long", Decimal(25_000))
        self.market.open_position("main", "BTC/USDT", "long", Decimal(10_000))
        self._sent = 0

    def close(self, ticks: Mapping[str, int]) -> None:
        self.prices = {symbol: number * TICK[symbol] for symbol, number in ticks.items()}
        bars = {symbol: MarketBar(price, price, price, price, Decimal(400)) for symbol, price in self.prices.items()}
        self.market.advance((self.market.now or START) + timedelta(minutes=1), bars)

    def send(self, symbol: str, side: str, thousandths: int, reduce_only: bool) -> None:
        self._sent += 1
        sells = side == "sell"
        request = OrderRequest(
            client_order_id=f"c{self._sent}",
            symbol=symbol,
            side="sell" if sells else "buy",
            position_side="long",
            amount=Decimal(thousandths) / 1000,
            reduce_only=reduce_only and sells,
        )
        try:
            self.market.submit("main", request)
        except OrderRejectedError:
            return

    @property
    def seen(self) -> AccountSnapshot:
        return self.market.snapshot("main")


def _assets(seen: AccountSnapshot) -> dict[str, Decimal]:
    held: dict[str, Decimal] = {}
    for balance in seen.balances or ():
        held[balance.asset] = held.get(balance.asset, Decimal(0)) + balance.amount
    return held


@given(plays)
def test_every_asset_is_the_sum_of_its_fills_and_never_below_zero(steps: list[object]) -> None:
    """Base and quote of every fill, less its fee in the quote: USDT, BTC and X each add up to the last digit.

    And equity is the holdings at the last prices, X at whichever of its markets it was bought in or is held under."""
    play = Account()
    before = _assets(play.seen)
    for step in steps:
        if isinstance(step, dict):
            play.close(step)
        else:
            play.send(*step)  # type: ignore[misc] # a tuple of four
        moved = dict(before)
        for fill in play.seen.fills or ():
            base, _, quote = fill.symbol.partition("/")
            sign = 1 if fill.side == "buy" else -1
            moved[base] = moved.get(base, Decimal(0)) + sign * fill.amount
            moved[quote] = moved.get(quote, Decimal(0)) - sign * fill.amount * fill.price - (fill.fee or 0)
            assert fill.fee_currency == quote
        assert {asset: amount for asset, amount in moved.items() if amount} == {
            asset: amount for asset, amount in _assets(play.seen).items() if amount
        }
        assert all(amount >= 0 for amount in moved.values())
        value = sum((balance.amount * (balance.price or 0) for balance in play.seen.balances or ()), Decimal(0))
        assert play.seen.equity == value


@given(plays)
def test_equity_is_start_plus_realised_and_unrealised_less_fees(steps: list[object]) -> None:
    """Equity is the start, what fills realised and what is unrealised, less the fees at the price of their moment."""
    play = Account()
    fees = Decimal(0)
    counted: set[str] = set()
    for step in steps:
        if isinstance(step, dict):
            # What works on fills at the open, which is the only price of these bars.
            rate = step["BTC/USDT"] * TICK["BTC/USDT"]
            play.close(step)
        else:
            rate = play.prices["BTC/USDT"]
            play.send(*step)  # type: ignore[misc] # a tuple of four
        seen = play.seen
        for fill in seen.fills or ():
            if fill.id not in counted:
                counted.add(fill.id)
                fees += (fill.fee or 0) * (rate if fill.fee_currency == "BTC" else 1)
        realized = sum((fill.realized_pnl or 0 for fill in seen.fills or ()), Decimal(0))
        unrealized = sum((held.unrealized_pnl or 0 for held in seen.positions or ()), Decimal(0))
        assert seen.equity == WALLET + realized + unrealized - fees
