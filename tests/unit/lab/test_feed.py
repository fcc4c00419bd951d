"""A feed drives a market with bars, and `record` records static books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.lab.bars import BarTable, Series, read_market
from killswitch.lab.book import BacktestBook, BookAccount, BookPosition
from killswitch.lab.feed import Feed, record

MINUTE = 60_000_000


def _table(**closes: list[float]) -> BarTable:
    """Flat bars, a minute apart."""
    series = [
        Series(symbol, [MINUTE * i for i in range(len(prices))], *[prices] * 4, volume=[1e6] * len(prices))
        for symbol, prices in closes.items()
    ]
    return BarTable("t", series)


def _book(market: str = "swap", **notionals: str) -> BacktestBook:
    """10,000 of equity; a negative notional is a short; leverage 5 where there is margin."""
    positions = tuple(
        BookPosition(
            symbol=symbol,
            side="short" if notional.startswith("-") else "long",
            notional=Decimal(notional.lstrip("-")),
            leverage=Decimal(5) if market == "swap" else None,
        )
        for symbol, notional in notionals.items()
    )
    account = BookAccount(
        account="main",
        market=market,
        currency="USDT",
        equity=Decimal(10000),
        positions=positions,
        venue="v",
    )
    return BacktestBook(name="b", accounts=(account,))


def test_equity_is_the_books_plus_the_profit_of_its_positions() -> None:
    """Long 1,000 of A at 10 and short 500 of B at 20: at 12 and 18 the profit is 200 + 50."""
    seen = [one.accounts[0] for one in record(_table(A=[10.0, 12.0], B=[20.0, 18.0]), _book(A="1000", B="-500"))]
    assert [account.equity for account in seen] == [10000, 10250]
    assert [p.unrealized_pnl for p in seen[1].positions or ()] == [200, 50]


def test_the_book_is_opened_at_the_first_close_in_whole_lots() -> None:
    """1,000 ÷ 30 is 33.33 contracts with a lot of 0.01; instruments are given once."""
    snapshots = list(record(_table(A=[30.0, 33.0, 30.0]), _book(A="1000")))
    held = (snapshots[0].accounts[0].positions or ())[0]
    assert (str(held.contracts), held.entry_price) == ("33.33", 30)
    assert [one.accounts[0].instruments is None for one in snapshots] == [False, True, True]
    assert [one.as_of.minute for one in snapshots] == [1, 2, 3]
    assert {one.accounts[0].venue for one in snapshots} == {"v"}


def test_a_recorded_book_is_never_liquidated() -> None:
    """Equity below zero is recorded as it is (D2), and the position is kept."""
    seen = list(record(_table(A=[10.0, 5.0]), _book(A="30000")))[-1].accounts[0]
    assert (seen.equity, len(seen.positions or ())) == (-5000, 1)


def test_a_spot_book_pays_for_what_it_holds() -> None:
    """10,000 of equity, 4,000 of it in A; A doubles: 14,000."""
    seen = [one.accounts[0] for one in record(_table(A=[10.0, 20.0]), _book("spot", A="4000"))]
    assert [account.equity for account in seen] == [10000, 14000]
    assert [(b.asset, b.amount) for b in seen[1].balances or ()] == [("USDT", 6000), ("A", 400)]


def test_a_spot_book_worth_more_than_its_equity_cannot_be_opened() -> None:
    """Spot has no credit."""
    with pytest.raises(ValueError, match="owe money"):
        list(record(_table(A=[10.0, 20.0]), _book("spot", A="10001")))


def test_a_feed_steps_until_its_last_bar() -> None:
    """`due` is when the next bars close; after the last it is None."""
    feed = Feed(_table(A=[10.0, 11.0, 12.0]), _book(A="1000"), seed=1)
    assert feed.due == datetime(1970, 1, 1, 0, 2, tzinfo=UTC)
    feed.until(datetime(1970, 1, 1, 0, 2, 59, tzinfo=UTC))
    assert feed.due == datetime(1970, 1, 1, 0, 3, tzinfo=UTC)
    assert feed.step() == datetime(1970, 1, 1, 0, 3, tzinfo=UTC)
    assert (feed.step(), feed.due) == (None, None)
    assert feed.market.snapshot("main").equity == 10200


def test_a_feed_may_begin_later_in_the_bars_and_at_another_date() -> None:
    """Two bars are skipped: the book opens at the third close, with the given date."""
    begins = datetime(2025, 1, 1, tzinfo=UTC)
    feed = Feed(_table(A=[10.0, 11.0, 20.0]), _book(A="1000"), seed=1, skip=2, begins=begins)
    seen = feed.market.snapshot("main")
    assert (seen.observed_at, (seen.positions or ())[0].entry_price) == (begins, 20)
    with pytest.raises(ValueError, match="no bar is left after skipping 3"):
        Feed(_table(A=[10.0, 11.0, 20.0]), _book(A="1000"), seed=1, skip=3)


def test_real_falls_are_those_of_the_datas_readme(shared: Path) -> None:
    """Computed independently, the worst 15-minute fall of BTC's lows is the 18.0% that the README gives."""
    highs: list[tuple[datetime, Decimal]] = []
    worst = Decimal(0)
    for at, bars in read_market(shared / "data/market/2021-05-19_binance-spot_1m"):
        bar = bars["BTC_USDT"]
        highs = [(t, high) for t, high in highs if at - t < timedelta(minutes=15)] + [(at, bar.high)]
        worst = max(worst, 1 - bar.low / max(high for _, high in highs))
    assert round(worst, 3) == Decimal("0.180")
