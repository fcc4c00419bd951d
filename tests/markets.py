"""Short constructors of paper markets for tests: one or two symbols, numbers as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import MarketBar
from killswitch.market.terms import VenueTerms
from killswitch.model.snapshot import AccountSnapshot, Instrument, Market, OrderSide, Position, Side
from killswitch.model.venue import OrderReport, OrderRequest

START = datetime(2024, 1, 1, tzinfo=UTC)
FREE = MarketRules(
    taker_fee=Decimal(0), maker_fee=Decimal(0), half_spread=Decimal(0), impact=Decimal(0), participation=Decimal(1)
)
"""Nothing costs anything and the whole bar's volume is there."""


def bar(
    open_: str, high: str | None = None, low: str | None = None, close: str | None = None, volume: str = "1000"
) -> MarketBar:
    """A bar; one price alone is a flat one."""
    first = Decimal(open_)
    last = Decimal(close) if close else first
    top, bottom = max(first, last), min(first, last)
    return MarketBar(first, Decimal(high) if high else top, Decimal(low) if low else bottom, last, Decimal(volume))


def instrument(symbol: str, **more: str) -> Instrument:
    """Contract size 1, lot 0.001, tick 0.01 by default; `state` as text, the rest as numbers."""
    fields = {"contract_size": "1", "amount_step": "0.001", "price_step": "0.01", "min_amount": "0.001", **more}
    numbers = {key: value if key == "state" else Decimal(value) for key, value in fields.items()}
    return Instrument(symbol=symbol, **numbers)  # type: ignore[arg-type] # the names decide


class Desk:
    """One account `main` at a market whose first bars have closed, a minute after START."""

    def __init__(
        self,
        *instruments: Instrument,
        price: str = "100",
        wallet: str = "10000",
        market: Market = "swap",
        leverage: str = "10",
        rules: MarketRules = FREE,
        seed: int = 1,
        volume: str = "1000",
        terms: VenueTerms | None = None,
    ) -> None:
        symbols = instruments or (instrument("A"),)
        self.market = PaperMarket(symbols, seed=seed, rules=rules, recall=timedelta(days=9), terms=terms)
        cash = market in {"spot", "equity"}
        self.market.add_account(
            "main", market=market, currency="USDT", wallet=Decimal(wallet), leverage=Decimal("1" if cash else leverage)
        )
        self._ids = count(1)
        self.pass_bar(**{one.symbol: bar(price, volume=volume) for one in symbols})

    def pass_bar(self, **bars: MarketBar) -> None:
        """One more minute."""
        last = self.market.now or START
        self.market.advance(last + timedelta(minutes=1), bars)

    def order(
        self,
        side: OrderSide,
        amount: str,
        *,
        symbol: str = "A",
        price: str | None = None,
        reduce_only: bool = False,
        position_side: Side | None = None,
        client_order_id: str | None = None,
        ioc: bool = False,
        falls_to: str | None = None,
        rises_to: str | None = None,
    ) -> OrderRequest:
        """A market order, or with `price` a limit order; the position side fits unless it is given.

        With `falls_to` or `rises_to` it is a conditional one.
        """
        opens: Side = "long" if side == "buy" else "short"
        closes: Side = "short" if side == "buy" else "long"
        trigger = falls_to or rises_to
        return OrderRequest(
            client_order_id=client_order_id or f"c{next(self._ids)}",
            symbol=symbol,
            side=side,
            position_side=position_side or (closes if reduce_only else opens),
            amount=Decimal(amount),
            reduce_only=reduce_only,
            type="limit" if price else "market",
            price=Decimal(price) if price else None,
            time_in_force="ioc" if ioc else "gtc",
            trigger_price=Decimal(trigger) if trigger else None,
            trigger_when="falls" if falls_to else "rises" if rises_to else None,
        )

    def send(
        self,
        side: OrderSide,
        amount: str,
        *,
        symbol: str = "A",
        price: str | None = None,
        reduce_only: bool = False,
        position_side: Side | None = None,
        client_order_id: str | None = None,
        ioc: bool = False,
        falls_to: str | None = None,
        rises_to: str | None = None,
    ) -> OrderReport:
        """Submit what `order` makes."""
        request = self.order(
            side, amount, symbol=symbol, price=price, reduce_only=reduce_only, position_side=position_side,
            client_order_id=client_order_id, ioc=ioc, falls_to=falls_to, rises_to=rises_to,
        )  # fmt: skip
        return self.market.submit("main", request)

    def report(self, client_order_id: str, symbol: str = "A") -> OrderReport:
        """The market's report of an order that it has."""
        found = self.market.find_order("main", symbol, client_order_id)
        assert found is not None
        return found

    @property
    def seen(self) -> AccountSnapshot:
        return self.market.snapshot("main")

    def position(self, symbol: str = "A") -> Position:
        """The one position in `symbol`."""
        (found,) = [p for p in self.seen.positions or () if p.symbol == symbol]
        return found
