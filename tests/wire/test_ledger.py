"""The money of a wire-level account: every number here is worked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.venue import OrderRequest
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.virtual_time import START
from tests.wire.ledger import NEVER, Contract, Ledger, contract_of

D = Decimal
BTC, INVERSE = "BTC/USDT:USDT", "BTC/USD:BTC"
LONG: Key = (BTC, "long")


class Desk:
    """An exchange with a ledger, at seconds that the test sets."""

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
    """2 long from 100 to 90: 20 lost, none of it out of the wallet; a short of 1 gains 10."""
    desk = Desk({LONG: "2", ("ETH/USDT:USDT", "short"): "1"})
    desk.exchange.reprice(BTC, D(90))
    desk.exchange.reprice("ETH/USDT:USDT", D(90))
    book = desk.ledger.book()
    assert (book.wallets["USDT"], book.unrealized(LONG), book.unrealized_in("USDT"), book.equity) == (
        1000,
        -20,
        -10,
        990,
    )
    assert book.gross == 270


def test_a_fill_realises_what_was_unrealised_and_pays_its_fee() -> None:
    """1 of 2 sold at 90: 10 lost for good, 0.045 (0.05% of 90) paid; the rest keeps its entry."""
    desk = Desk({LONG: "2"})
    desk.exchange.reprice(BTC, D(90))
    desk.sell("1")
    book = desk.ledger.book()
    assert book.wallets["USDT"] == D("989.955")
    assert (book.lots[LONG].entry, book.unrealized(LONG), book.equity) == (100, -10, D("979.955"))
    (row,) = desk.ledger.shown()
    assert (row.kind, row.profit, row.fee, row.amount, row.balance) == (
        "trade", -10, D("0.045"), D("-10.045"), D("989.955"),
    )  # fmt: skip
    assert desk.ledger.profits[desk.exchange.fills[0].id] == -10


def test_what_is_added_moves_the_entry_by_its_weight() -> None:
    """1 at 100 and 3 at 120: 115 on average."""
    desk = Desk({LONG: "1"})
    desk.exchange.reprice(BTC, D(120))
    desk.buy("3")
    assert desk.ledger.book().lots[LONG].entry == 115


def test_an_order_that_turns_a_position_realises_one_and_opens_the_other() -> None:
    """3 sold of a long of 1 at 110: 10 won once, one fee of 0.165, and a short of 2 from 110."""
    desk = Desk({LONG: "1"})
    desk.exchange.reprice(BTC, D(110))
    desk.sell("3", opens=True)
    book = desk.ledger.book()
    assert {key: (lot.amount, lot.entry) for key, lot in book.lots.items()} == {(BTC, "short"): (2, 110)}
    assert book.wallets["USDT"] == D("1009.835")
    assert sum(row.fee for row in desk.ledger.rows) == D("0.165")


def test_an_inverse_contract_is_settled_in_its_coin() -> None:
    """100 contracts of a dollar from 100 to 80: 1.00 coin's worth becomes 1.25, and a long has lost 0.25 coins."""
    desk = Desk({(INVERSE, "long"): "100"}, currency="BTC", deposit="2")
    desk.exchange.reprice(INVERSE, D(80))
    book = desk.ledger.book()
    assert (book.unrealized((INVERSE, "long")), book.notional((INVERSE, "long"))) == (D("-0.25"), D("1.25"))
    assert book.equity == D("1.75")
    # 100 more at 80: 200 dollars were opened for 1 + 1.25 coins.
    assert contract_of(INVERSE, "USDT").average(book.lots[INVERSE, "long"], D(100), D(80)) == D(200) / D("2.25")


def test_contracts_have_a_size() -> None:
    """5 contracts of 0.1 from 100 to 110: 5."""
    sized = lambda symbol: replace(contract_of(symbol, "USDT"), size=D("0.1"))  # noqa: E731 - one line, read once
    desk = Desk({LONG: "5"}, contracts=sized)
    desk.exchange.reprice(BTC, D(110))
    assert desk.ledger.book().unrealized(LONG) == 5
    assert desk.ledger.book().notional(LONG) == 55


def test_spot_trades_move_cash_and_its_holdings_have_no_profit() -> None:
    """2 coins at 100 beside 1,000; one sold at 90 brings 90 less 0.045."""
    desk = Desk({(BTC.partition(":")[0], "long"): "2"}, mode="spot")
    symbol = "BTC/USDT"
    desk.exchange.reprice(symbol, D(90))
    assert (desk.ledger.equity, desk.ledger.book().unrealized_total) == (1180, 0)
    desk.exchange.place(OrderRequest("o", symbol, "sell", "long", D(1), reduce_only=True))
    assert desk.ledger.wallets["USDT"] == D("1089.955")
    assert desk.ledger.equity == D("1179.955")


def test_collateral_counts_at_its_price() -> None:
    """Half a coin at 2,000 beside 1,000: 2,000; at 1,000: 1,500, and nobody traded."""
    desk = Desk({})
    desk.ledger.wallets["ETH"] = D("0.5")
    desk.ledger.price_collateral("ETH", D(2000))
    assert desk.ledger.equity == 2000
    desk.ledger.price_collateral("ETH", D(1000))
    assert desk.ledger.equity == 1500


def test_worth_in_dollars_and_in_the_accounts_own_currency() -> None:
    """1,000 of a currency at 0.999 dollars."""
    desk = Desk({})
    desk.ledger.prices["USDT"] = D("0.999")
    assert (desk.ledger.book().total, desk.ledger.equity) == (999, 1000)


@pytest.mark.parametrize(("lag", "shown"), [(0.0, [0, 1, 30]), (10.0, [10, 30]), (NEVER, [])])
def test_rows_are_shown_late_or_never(lag: float, shown: list[float]) -> None:
    """Money moves at once; when its row and the fill are listed is the venue's affair."""
    desk = Desk({LONG: "2"})
    desk.ledger.row_lag = desk.ledger.fill_lag = lag
    desk.sell("1")
    desk.ledger.flow("withdrawal", D(-100))
    assert desk.ledger.wallets["USDT"] == D("899.95")
    seen = []
    for at in (0.0, 1.0, 10.0, 30.0):
        desk.at = at
        rows, fills = [*desk.ledger.shown()], [*desk.ledger.fills()]
        assert (len(rows), len(fills)) in ((0, 0), (2, 1))
        seen += [at] * bool(rows)
    assert seen == sorted({*shown, 10.0} if lag == 0.0 else shown)


def test_an_answer_may_be_older_than_the_account() -> None:
    """With worth told 3 s late, the positions show the fall before the equity does."""
    desk = Desk({LONG: "2"})
    desk.ledger.ages["equity"] = 3.0
    desk.at = 5.0
    desk.exchange.reprice(BTC, D(50))
    desk.at = 7.9
    assert (desk.ledger.book("equity").equity, desk.ledger.book("positions").equity) == (1000, 900)
    desk.at = 8.0
    assert desk.ledger.book("equity").equity == 900


def test_the_truth_is_the_value_of_a_unit() -> None:
    """1,000, of which 900 are withdrawn, and then 50 lost of what is left: half."""
    desk = Desk({LONG: "1"})
    desk.at = 1.0
    desk.ledger.flow("withdrawal", D(-900))
    desk.at = 2.0
    desk.exchange.reprice(BTC, D(50))
    assert [fall for _, fall in desk.ledger.truth.falls][-1] == D("0.5")
    assert desk.ledger.truth.fell_to(D("0.1")) == 2.0
    assert desk.ledger.truth.fell_to(D("0.51")) is None


def test_a_deposit_hides_no_loss_and_funding_is_one() -> None:
    """1,000 pays 100 of funding; a deposit of 9,100 in the same second leaves the fall where it was: 10%."""
    desk = Desk({})
    desk.at = 1.0
    desk.ledger.flow("funding", D(-100), symbol=BTC)
    desk.ledger.flow("deposit", D(9100))
    assert desk.ledger.equity == 10_000
    assert round(desk.ledger.truth.falls[-1][1], 20) == D("0.1")


def test_a_liquidation_is_sold_at_the_venues_price() -> None:
    """1 of 2 taken at 80 while the mark is 90: 20 lost for good on it, 10 so far on the other."""
    desk = Desk({LONG: "2"})
    desk.exchange.reprice(BTC, D(90))
    desk.exchange.take_away(LONG, D(1), "liquidation", D(80))
    assert desk.ledger.book().unrealized(LONG) == -10
    assert desk.ledger.wallets["USDT"] == D("979.96")


def test_another_hands_trade_without_a_fill_realises_at_the_mark() -> None:
    """Money is money, whether a list tells of it or not; only its row is missing."""
    desk = Desk({LONG: "2"})
    desk.exchange.reprice(BTC, D(90))
    desk.exchange.trade(LONG, D(-2))
    assert (desk.ledger.wallets["USDT"], desk.ledger.equity, [*desk.ledger.shown()]) == (980, 980, [])


def test_contracts_are_read_out_of_their_names() -> None:
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
    """Whatever is traded, taken and moved: wallet = deposit + all rows, and what was paid for less what was received
    for the fills, fees and flows is what the account is worth beside what it holds."""
    desk = Desk({}, deposit="100000")
    cash = D(100_000)
    for number, (what, size) in enumerate(moves):
        match what:
            case "price":
                desk.exchange.reprice(BTC, D(80 + size))
            case "flow":
                desk.ledger.flow("transfer", D(size - 20))
                cash += D(size - 20)
            case "adl":
                for key in list(desk.exchange.held):
                    desk.exchange.take_away(key, D(size), "adl")
            case side:
                held = "long" if side == "buy" else "short"
                desk.exchange.place(OrderRequest(f"o{number}", BTC, side, held, D(size), reduce_only=False))  # type: ignore[arg-type] # sides
    for fill in desk.exchange.fills:
        cash += fill.amount * fill.price * (1 if fill.side == "sell" else -1) - (fill.fee or 0)
    book = desk.ledger.book()
    worth = sum(
        (lot.amount * book.marks[BTC] * (1 if side == "long" else -1) for (_, side), lot in book.lots.items()), D(0)
    )
    assert book.wallets["USDT"] == pytest.approx(100_000 + sum(row.amount for row in desk.ledger.rows), abs=D("1E-15"))
    assert book.equity == pytest.approx(cash + worth, abs=D("1E-15"))
