"""OKX's queries: the account, its market, its history; and the settings of the account."""

from __future__ import annotations

import asyncio
from abc import ABC
from collections import Counter
from decimal import Decimal
from typing import Final

from tests.faults.exchange import ZERO, Exchange, Market, Placed
from tests.wire.okx.orders import OkxOrders
from tests.wire.okx.payloads import (
    Row,
    balance_row,
    bill_row,
    fill_row,
    instrument_row,
    kind_of,
    pair_of,
    position_row,
    text,
)
from tests.wire.okx.responses import good, paged, refusal
from tests.wire.server import Ask, Reply

MINUTE: Final = 60_000


class OkxQueries(OkxOrders, ABC):
    """The part of OKX that only reports, and the settings of the account."""

    def __init__(
        self, exchange: Exchange, *, perm: str = "read_only,trade", ip: str = "127.0.0.1", **more: object
    ) -> None:
        super().__init__(exchange, **more)  # type: ignore[arg-type] # options of orders
        self.perm = perm
        self.ip = ip
        self.bills_told: list[Row] = []
        """Rows of `account/bills` in addition to the ledger's, newest first, set by the test."""
        self.has_price_limits = True
        self.is_suspended = False
        """Whether no chain of USDT lets withdrawals out."""
        self.timer: asyncio.TimerHandle | None = None
        self.subscribed: list[str] = []
        """Channels with a subscriber."""

    @property
    def timed(self) -> tuple[str, ...]:
        """Whether the account's timer runs."""
        return ("all",) * (self.timer is not None)

    async def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        await super().stop()

    def time(self, ask: Ask) -> Reply:
        return good([{"ts": str(self.now_ms())}])

    def status(self, ask: Ask) -> Reply:
        return good([])

    def instruments(self, ask: Ask) -> Reply:
        rows = [
            instrument_row(self.id_of(symbol), market, self.sizes.get(symbol, Decimal(1)))
            for symbol, market in self.exchange.markets.items()
        ]
        family = ask.params.get("uly")
        return good([it for it in rows if it["instType"] == ask.params["instType"] and family in (None, it["uly"])])

    def tickers(self, ask: Ask) -> Reply:
        kind = ask.params.get("instType", "SPOT")
        return good(
            [
                {
                    "instType": kind, "instId": self.id_of(symbol), "last": text(it.last_price), "lastSz": "1",
                    "bidPx": text(it.taken_at("sell")), "askPx": text(it.taken_at("buy")), "bidSz": "10", "askSz": "10",
                    "open24h": text(it.price), "high24h": text(it.price), "low24h": text(it.price), "vol24h": "1000",
                    "volCcy24h": "1000", "sodUtc0": text(it.price), "sodUtc8": text(it.price), "ts": str(self.now_ms()),
                }
                for symbol, it in self.exchange.markets.items()
                if kind_of(self.id_of(symbol)) == kind and ask.params.get("instId") in (None, self.id_of(symbol))
            ]
        )  # fmt: skip

    def books(self, ask: Ask) -> Reply:
        """`market/books` of one instrument: a level on each side."""
        market = self._market(ask)
        sides = {"asks": [[text(market.taken_at("buy")), "1000", "0", "1"]],
                 "bids": [[text(market.taken_at("sell")), "1000", "0", "1"]]}  # fmt: skip
        return good([sides | {"ts": str(self.now_ms()), "seqId": 1}])

    def bars(self, ask: Ask) -> Reply:
        """`market/candles` of one instrument: flat bars of a minute, newest first, between `before` and `after`."""
        price, now = text(self._market(ask).price), self.now_ms()
        newest = min(now, int(ask.params.get("after", now + 1)) - 1) // MINUTE * MINUTE
        oldest = max(int(ask.params.get("before", 0)), newest - int(ask.params.get("limit", 100)) * MINUTE)
        rows = [
            [str(at), price, price, price, price, "60", "60", "6000", str(int(at + MINUTE <= now))]
            for at in range(newest, oldest, -MINUTE)
        ]
        return good(rows)

    def _market(self, ask: Ask) -> Market:
        return next(it for symbol, it in self.exchange.markets.items() if self.id_of(symbol) == ask.params["instId"])

    def mark_prices(self, ask: Ask) -> Reply:
        rows = ((self.id_of(symbol), it) for symbol, it in self.exchange.markets.items())
        stamp = str(self.now_ms())
        return good(
            [
                {"instType": kind_of(name), "instId": name, "markPx": text(it.price), "ts": stamp}
                for name, it in rows
                if kind_of(name) == ask.params["instType"]
            ]
        )

    def price_limits(self, ask: Ask) -> Reply:
        """2% above and 1% below the price, of one instrument; those of no other one are on."""
        name, price = ask.params["instId"], self._market(ask).price
        row = {
            "instType": kind_of(name), "instId": name, "buyLmt": text(price * Decimal("1.02")),
            "sellLmt": text(price * Decimal("0.99")), "ts": str(self.now_ms()), "enabled": self.has_price_limits,
        }  # fmt: skip
        return good([row])

    def coins(self, ask: Ask) -> Reply:
        """Two chains of USDT, of which one lets nothing out."""
        chains = (
            ("USDT", "USDT-ERC20", False),
            ("USDT", "USDT-TRC20", not self.is_suspended),
            ("BTC", "BTC-Bitcoin", True),
        )
        return good(
            [{"ccy": coin, "chain": chain, "canDep": True, "canWd": is_open} for coin, chain, is_open in chains]
        )

    def config(self, ask: Ask) -> Reply:
        return good(
            [
                {
                    "acctLv": "1" if self.exchange.mode == "spot" else "2", "posMode": self.pos_mode, "perm": self.perm,
                    "ip": self.ip, "uid": "44705892343619584", "mainUid": "44705892343619584", "label": "switch",
                    "level": "Lv1", "autoLoan": False, "kycLv": "3", "ctIsoMode": "automatic", "roleType": "0",
                }
            ]
        )  # fmt: skip

    def balance(self, ask: Ask) -> Reply:
        return good([self.balance_row()])

    def balance_row(self) -> Row:
        """The equity of the account, as in `account/balance` and the stream."""
        book, margin = self.book("equity"), ZERO
        if not book.spot:
            cross = (key for key in book.lots if key[0] not in self.isolated and book.marks[key[0]].is_finite())
            margin = sum((book.notional(key) for key in cross), ZERO) / 100
        return balance_row(book, str(self.now_ms()), margin)

    def index(self, ask: Ask) -> Reply:
        """Prices of the assets of an account, in US dollars and in USDT, and of the underlyings of its contracts."""
        found: dict[str, Decimal] = {}
        for asset, price in self.ledger.prices.items():
            found[f"{asset}-USD"] = price
            if asset != "USDT":
                found[f"{asset}-USDT"] = price / self.usd
        for symbol, market in self.exchange.markets.items():
            found.setdefault("-".join(pair_of(self.id_of(symbol))), market.index_price)
        wanted, quote = ask.params.get("instId"), ask.params.get("quoteCcy")
        rows: list[Row] = [
            {"instId": name, "idxPx": text(price), "ts": str(self.now_ms())}
            for name, price in found.items()
            if wanted in (None, name) and quote in (None, name.rpartition("-")[2])
        ]
        return good(rows)

    def position_rows(self) -> list[Row]:
        """The positions, as in `account/positions` and the stream."""
        book = self.book("positions")
        keys = () if book.spot else book.lots
        return [position_row(self.id_of(key[0]), key, book, self.more(key[0])) for key in keys]

    def risk(self, ask: Ask) -> Reply:
        """`account/account-position-risk`: balances and positions of one moment."""
        book = self.book("equity")
        balances: list[Row] = [
            {"ccy": asset, "eq": text(book.equity_in(asset)), "disEq": text(book.equity_in(asset) * book.price(asset))}
            for asset in book.assets
        ]
        names = ("instId", "instType", "mgnMode", "notionalUsd", "pos", "posCcy", "posId", "posSide", "ccy")
        rows = [position_row(self.id_of(key[0]), key, book, self.more(key[0])) for key in book.lots]
        positions: list[Row] = [{name: row[name] for name in names} for row in rows]
        return good([{"adjEq": "", "balData": balances, "posData": positions, "ts": str(self.now_ms())}])

    def positions(self, ask: Ask) -> Reply:
        wanted = str(ask.params.get("instId", "")).split(",")
        return good([it for it in self.position_rows() if wanted == [""] or it["instId"] in wanted])

    def fills(self, ask: Ask) -> Reply:
        begin = int(ask.params.get("begin", 0))
        rows: list[Row] = []
        trades: Counter[str] = Counter()
        for fill in self.ledger.fills():
            trades[fill.symbol] += 1
            order: Placed | None = self.exchange.orders.get(fill.order or "")
            name = order.name if order else None
            profit = self.ledger.profits[fill.id]
            row = fill_row(self.id_of(fill.symbol), fill, trades[fill.symbol], name, self.exchange.mode, profit)
            wanted = all(ask.params.get(it) in (None, row[it]) for it in ("instType", "instId", "ordId"))
            if wanted and int(str(row["ts"])) >= begin:
                rows.insert(0, row)
        return good(paged(rows, ask, "billId"))

    def bills(self, ask: Ask) -> Reply:
        begin, kind = int(ask.params.get("begin", 0)), ask.params.get("type")
        booked = [bill_row(it, self.id_of(it.symbol) if it.symbol else "") for it in self.ledger.shown()]
        rows = [*booked[::-1], *self.bills_told]
        kept = [it for it in rows if int(str(it["ts"])) >= begin and kind in (None, it["type"])]
        return good(paged(kept, ask, "billId"))

    def nothing(self, ask: Ask) -> Reply:
        return good([])

    def set_mode(self, ask: Ask) -> Reply:
        if any(self.exchange.held.values()) or self.exchange.resting():
            return refusal(
                "59000", "Setting failed. Cancel any open orders, close positions, and stop trading bots first."
            )
        self.exchange.mode = "hedge" if ask.params["posMode"] == "long_short_mode" else "one_way"
        return good([{"posMode": ask.params["posMode"]}])

    def dead_man(self, ask: Ask) -> Reply:
        seconds = int(ask.params["timeOut"])
        if seconds and not 10 <= seconds <= 120:
            return refusal("51000", "Parameter timeOut error")
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(seconds, self._cancel_all) if seconds else None
        at = str(self.now_ms() + seconds * 1000) if seconds else "0"
        return good([{"triggerTime": at, "tag": "", "ts": str(self.now_ms())}])

    def _cancel_all(self) -> None:
        self.timer = None
        for order in self.exchange.resting():
            if order.trigger_price is None:
                self.exchange.cancel(order.id)
