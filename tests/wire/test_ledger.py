"""The money of a wire-level account: every number here is computed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.venue import OrderRequest
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.virtual_time import START
from tests.wire.ledger import NEVER, Contract, Ledger, contract_of

D = Decimal
BTC, INVERSE = "BTC/USDT:USDT", "BTC/USD:BTC"
LONG: Key = (BTC, "long")


class BookedExchange:
    """An exchange with a ledger, on a clock that the test sets."""

    def __init__(self, held: Mapping[Key, str], *, mode: Mode = "one_way", deposit: str = "1000", **more: Any) -> None:
        self.at = 0.0
        amounts = {key: D(amount) for key, amount in held.items()}
        symbols = [
            Market(symbol, D(100), minimum=D("0.001")) for symbol in dict.fromkeys([BTC, *(it for it, _ in held)])
        ]
        now = lambda: (self.at, START + timedelta(seconds=self.at))  # noqa: E731 - one line, read once
        self.exchange = Exchange(amounts, now, mode=mode, markets=symbols)
        self.ledger = Ledger(self.exchange, D(deposit), **more)

    def sell(self, amount: str, *, opens: bool = False) -> None:
        side = "short" if opens else "long"
        self.exchange.place(OrderRequest(f"o{self.at}", BTC, "sell", side, D(amount), reduce_only=not opens))  # type: ignore[arg-type] # a side

    def buy(self, amount: str) -> None:
        self.exchange.place(OrderRequest(f"o{self.at}", BTC, "buy", "long", D(amount), reduce_only=False))


def test_a_price_moves_unrealised_profit_and_no_wallet() -> None:
    """2 long from 100 to 90: 20 lost, none of it from the wallet; a short of 1 gains 10."""
    booked = BookedExchange({LONG: "2", ("ETH/USDT:USDT", "short"): "1"})
    booked.exchange.reprice(BTC, D(90))
    booked.exchange.reprice("ETH/USDT:USDT", D(90))
    book = booked.ledger.book()
    assert (book.wallets["USDT"], book.unrealized(LONG), book.unrealized_in("USDT"), book.equity) == (
        1000,
        -20,
        -10,
        990,
    )
    assert book.gross == 270


def test_a_fill_realises_what_was_unrealised_and_pays_its_fee() -> None:
    """1 of 2 sold at 90: 10 lost for good, 0.045 (0.05% of 90) paid; the rest keeps its entry."""
    booked = BookedExchange({LONG: "2"})
    booked.exchange.reprice(BTC, D(90))
    booked.sell("1")
    book = booked.ledger.book()
    assert book.wallets["USDT"] == D("989.955")
    assert (book.lots[LONG].entry, book.unrealized(LONG), book.equity) == (100, -10, D("979.955"))
    (row,) = booked.ledger.shown()
    assert (row.kind, row.profit, row.fee, row.amount, row.balance) == (
        "trade", -10, D("0.045"), D("-10.045"), D("989.955"),
    )  # fmt: skip
    assert booked.ledger.profits[booked.exchange.fills[0].id] == -10


def test_an_addition_moves_the_entry_by_its_weight() -> None:
    """1 at 100 and 3 at 120: 115 on average."""
    booked = BookedExchange({LONG: "1"})
    booked.exchange.reprice(BTC, D(120))
    booked.buy("3")
    assert booked.ledger.book().lots[LONG].entry == 115


def test_an_order_that_turns_a_position_realises_one_and_opens_the_other() -> None:
    """3 sold of a long of 1 at 110: a profit of 10 once, one fee of 0.165, and a short of 2 from 110."""
    booked = BookedExchange({LONG: "1"})
    booked.exchange.reprice(BTC, D(110))
    booked.sell("3", opens=True)
    book = booked.ledger.book()
    assert {key: (lot.amount, lot.entry) for key, lot in book.lots.items()} == {(BTC, "short"): (2, 110)}
    assert book.wallets["USDT"] == D("1009.835")
    assert sum(row.fee for row in booked.ledger.rows) == D("0.165")


def test_an_inverse_contract_is_settled_in_its_coin() -> None:
    """100 contracts of a dollar from 100 to 80: worth 1.00 coin, then 1.25, and a long has lost 0.25 coins."""
    booked = BookedExchange({(INVERSE, "long"): "100"}, currency="BTC", deposit="2")
    booked.exchange.reprice(INVERSE, D(80))
    book = booked.ledger.book()
    assert (book.unrealized((INVERSE, "long")), book.notional((INVERSE, "long"))) == (D("-0.25"), D("1.25"))
    assert book.equity == D("1.75")
    # 100 more at 80: 200 dollars were opened for 1 + 1.25 coins.
    assert contract_of(INVERSE, "USDT").average(book.lots[INVERSE, "long"], D(100), D(80)) == D(200) / D("2.25")


def test_contracts_have_a_size() -> None:
    """5 contracts of 0.1 from 100 to 110: 5."""
    sized = lambda symbol: replace(contract_of(symbol, "USDT"), size=D("0.1"))  # noqa: E731 - one line, read once
    booked = BookedExchange({LONG: "5"}, contracts=sized)
    booked.exchange.reprice(BTC, D(110))
    assert booked.ledger.book().unrealized(LONG) == 5
    assert booked.ledger.book().notional(LONG) == 55


def test_spot_trades_move_cash_and_holdings_have_no_profit() -> None:
    """2 coins at 100 and 1,000 in cash; one sold at 90 brings 90 less 0.045."""
    booked = BookedExchange({(BTC.partition(":")[0], "long"): "2"}, mode="spot")
    symbol = "BTC/USDT"
    booked.exchange.reprice(symbol, D(90))
    assert (booked.ledger.equity, booked.ledger.book().unrealized_total) == (1180, 0)
    booked.exchange.place(OrderRequest("o", symbol, "sell", "long", D(1), reduce_only=True))
    assert booked.ledger.wallets["USDT"] == D("1089.955")
    assert booked.ledger.equity == D("1179.955")


def test_collateral_counts_at_its_price() -> None:
    """Half a coin at 2,000 and 1,000 in cash: 2,000; at 1,000: 1,500, without a trade."""
    booked = BookedExchange({})
    booked.ledger.wallets["ETH"] = D("0.5")
    booked.ledger.price_collateral("ETH", D(2000))
    assert booked.ledger.equity == 2000
    booked.ledger.price_collateral("ETH", D(1000))
    assert booked.ledger.equity == 1500


def test_equity_in_dollars_and_in_the_accounts_own_currency() -> None:
    """1,000 of a currency at 0.999 dollars."""
    booked = BookedExchange({})
    booked.ledger.prices["USDT"] = D("0.999")
    assert (booked.ledger.book().total, booked.ledger.equity) == (999, 1000)


@pytest.mark.parametrize(("lag", "shown"), [(0.0, [0, 1, 30]), (10.0, [10, 30]), (NEVER, [])])
def test_rows_are_shown_late_or_never(lag: float, shown: list[float]) -> None:
    """Money moves at once; the venue decides when its row and the fill are listed."""
    booked = BookedExchange({LONG: "2"})
    booked.ledger.row_lag = booked.ledger.fill_lag = lag
    booked.sell("1")
    booked.ledger.flow("withdrawal", D(-100))
    assert booked.ledger.wallets["USDT"] == D("899.95")
    seen = []
    for at in (0.0, 1.0, 10.0, 30.0):
        booked.at = at
        rows, fills = [*booked.ledger.shown()], [*booked.ledger.fills()]
        assert (len(rows), len(fills)) in ((0, 0), (2, 1))
        seen += [at] * bool(rows)
    assert seen == sorted({*shown, 10.0} if lag == 0.0 else shown)


def test_an_answer_may_be_older_than_the_account() -> None:
    """With equity 3 s late, the positions show the fall before the equity does."""
    booked = BookedExchange({LONG: "2"})
    booked.ledger.ages["equity"] = 3.0
    booked.at = 5.0
    booked.exchange.reprice(BTC, D(50))
    booked.at = 7.9
    assert (booked.ledger.book("equity").equity, booked.ledger.book("positions").equity) == (1000, 900)
    booked.at = 8.0
    assert booked.ledger.book("equity").equity == 900


def test_the_truth_is_the_value_of_a_unit() -> None:
    """Of 1,000, 900 are withdrawn, and then 50 of the rest are lost: half."""
    booked = BookedExchange({LONG: "1"})
    booked.at = 1.0
    booked.ledger.flow("withdrawal", D(-900))
    booked.at = 2.0
    booked.exchange.reprice(BTC, D(50))
    assert [fall for _, fall in booked.ledger.truth.falls][-1] == D("0.5")
    assert booked.ledger.truth.fell_to(D("0.1")) == 2.0
    assert booked.ledger.truth.fell_to(D("0.51")) is None


def test_a_deposit_hides_no_loss_and_funding_is_a_loss() -> None:
    """1,000 pays 100 of funding; a deposit of 9,100 in the same second leaves the drawdown at 10%."""
    booked = BookedExchange({})
    booked.at = 1.0
    booked.ledger.flow("funding", D(-100), symbol=BTC)
    booked.ledger.flow("deposit", D(9100))
    assert booked.ledger.equity == 10_000
    assert round(booked.ledger.truth.falls[-1][1], 20) == D("0.1")


def test_a_liquidation_is_sold_at_the_venues_price() -> None:
    """1 of 2 liquidated at 80 while the mark is 90: 20 lost for good on it, 10 so far on the other."""
    booked = BookedExchange({LONG: "2"})
    booked.exchange.reprice(BTC, D(90))
    booked.exchange.take_away(LONG, D(1), "liquidation", D(80))
    assert booked.ledger.book().unrealized(LONG) == -10
    assert booked.ledger.wallets["USDT"] == D("979.96")


def test_a_foreign_trade_without_a_fill_realises_at_the_mark() -> None:
    """Money moves whether a list shows it or not; only its row is missing."""
    booked = BookedExchange({LONG: "2"})
    booked.exchange.reprice(BTC, D(90))
    booked.exchange.trade(LONG, D(-2))
    assert (booked.ledger.wallets["USDT"], booked.ledger.equity, [*booked.ledger.shown()]) == (980, 980, [])


def test_contracts_are_derived_from_their_symbols() -> None:
    assert contract_of("BTC", "USDT") == Contract("USDT")
    assert contract_of("BTC/USDT:USDT", "EUR") == Contract("USDT")
    assert contract_of("BTC/USD:BTC-261225", "USDT") == Contract("BTC", inverse=True)
    assert contract_of("BTC/EUR", "USDT") == Contract("EUR")


MOVES = st.lists(
    st.tuples(st.sampled_from(["buy", "sell", "price", "flow", "adl"]), st.integers(min_value=1, max_value=40)),
    max_size=30,
)


@given(MOVES)
def test_every_unit_of_a_wallet_has_a_row(moves: list[tuple[str, int]]) -> None:
    """Whatever is traded, taken and moved: wallet = deposit + all rows, and the net payments for fills, fees and flows
    are the equity without the value of the holdings.
    """
    booked = BookedExchange({}, deposit="100000")
    cash = D(100_000)
    for number, (what, size) in enumerate(moves):
        match what:
            case "price":
                booked.exchange.reprice(BTC, D(80 + size))
            case "flow":
                booked.ledger.flow("transfer", D(size - 20))
                cash += D(size - 20)
            case "adl":
                for key in list(booked.exchange.held):
                    booked.exchange.take_away(key, D(size), "adl")
            case side:
                held = "long" if side == "buy" else "short"
                booked.exchange.place(OrderRequest(f"o{number}", BTC, side, held, D(size), reduce_only=False))  # type: ignore[arg-type] # sides
    for fill in booked.exchange.fills:
        cash += fill.amount * fill.price * (1 if fill.side == "sell" else -1) - (fill.fee or 0)
    book = booked.ledger.book()
    holdings_value = sum(
        (lot.amount * book.marks[BTC] * (1 if side == "long" else -1) for (_, side), lot in book.lots.items()), D(0)
    )
    assert book.wallets["USDT"] == pytest.approx(
        100_000 + sum(row.amount for row in booked.ledger.rows), abs=D("1E-15")
    )
    assert book.equity == pytest.approx(cash + holdings_value, abs=D("1E-15"))
