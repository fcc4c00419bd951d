"""Common parts of Binance's futures, spot and margin: the same requests at different endpoints."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import Row, UnreadableError, every_page, flag, instant
from killswitch.model.snapshot import Fill
from killswitch.model.venue import ClientIdRule, OrderLife
from killswitch_ccxt import fills
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.venues.binance import codes, rows
from killswitch_ccxt.withdrawals import CoinList

EndpointCall = Callable[[Row], Awaitable[Any]]
PAGE: Final = 1000
"""Most rows of one answer. By default the venue returns half as many, or fewer."""
PAGES: Final = 20
"""Most pages of one list."""


class Binance(Dialect, ABC):
    """One account at Binance. The account is read from the venue's own rows, see `rows`."""

    code_form = codes.FORM
    client_ids = ClientIdRule(longest=36)
    order_life = OrderLife(longest=60.0, names="open")
    window = 10_000
    fees_by_fills = True
    fills_need_symbol = True
    keeps_rules = True
    coin_list = CoinList(
        "sapiGetCapitalConfigGetall", (), "coin", "networkList", "withdrawEnable", ("true",), ("false",)
    )
    trades_endpoint: ClassVar[str]
    trading_right: ClassVar[str]
    """The permission that a key needs to trade here."""

    codes_of = staticmethod(codes.codes_of)

    @classmethod
    def used_from(cls, headers: Mapping[str, str], path: str) -> Mapping[str, int]:
        return codes.used_from(headers)

    @abstractmethod
    def method_of(self, endpoint: str) -> str:
        """ccxt's implicit method of an endpoint of this system, such as `GetOpenOrders`."""

    async def call_endpoint(
        self, endpoint: str, params: Row | None = None, *, changes: bool = False, places: bool = False
    ) -> Any:
        """Call an endpoint of this system, as `method_of` names it. `changes`, `places`: as in `Client.call`."""
        return await self.client.call(self.method_of(endpoint), dict(params or {}), changes=changes, places=places)

    async def fills(self, symbols: Sequence[str], since: int) -> tuple[Fill, ...]:
        queries = [{"symbol": self.id_of(symbol)} for symbol in symbols]
        answers = await asyncio.gather(*(self.trades(it, {"startTime": since}) for it in queries))
        return self.fills_of(row for found in answers for row in found)

    async def trades(self, params: Row, first: Row) -> list[Row]:
        """Every trade from `first` (a time or a number) on: the venue accepts a time for the first page only.

        UnreadableError where the list does not end: a part of it would pass for all fills.
        """
        found: dict[str, Row] = {}
        symbol = params.get("symbol")

        async def page(begin: Row) -> tuple[list[Row], Row | None]:
            rows = await self.call_endpoint(self.trades_endpoint, {**params, **begin, "limit": PAGE})
            for row in rows:
                if found.setdefault(str(row["id"]), row) != row:
                    raise UnreadableError(f"trade {row['id']} of {symbol} is listed twice, and the two rows differ")
            return rows, {"fromId": max(int(row["id"]) for row in rows) + 1} if len(rows) >= PAGE else None

        await every_page(page, first, PAGES, f"trades of {symbol}")
        return list(found.values())

    def fills_of(self, found: Iterable[Row]) -> tuple[Fill, ...]:
        """The fills of the venue's rows."""
        return fills.fills((rows.trade(row, self.symbol_of) for row in found), self.refine_fill)

    def quotes_of(self, symbols: Sequence[str], answers: Iterable[Any]) -> dict[str, Quote]:
        """Symbol → its quote, for symbols that have a row in one of the answers."""
        found = rows.merged(answers)
        return {symbol: rows.quote(row) for symbol in symbols if (row := found.get(self.id_of(symbol)))}

    async def rights(self) -> KeyRights:
        return rights_of(await self.client.call("sapiGetAccountApiRestrictions"), self.trading_right)


def rights_of(row: Row, trading_right: str) -> KeyRights:
    """The permissions of a key. `trading_right`: the permission that trading here needs."""
    transfer_rights = [flag(row.get(name)) for name in ("enableInternalTransfer", "permitsUniversalTransfer")]
    return KeyRights(
        read=flag(row.get("enableReading")), trade=flag(row.get(trading_right)),
        withdraw=flag(row.get("enableWithdrawals")),
        transfer=None if None in transfer_rights else any(transfer_rights),
        bound_to_addresses=flag(row.get("ipRestrict")), expires_at=instant(row.get("tradingAuthorityExpirationTime")),
    )  # fmt: skip


async def rows_by_time(fetch: EndpointCall, since: int) -> list[Row]:
    """Every row of a list that begins with the oldest from a time on; UnreadableError where it does not end."""

    async def page(begin: int) -> tuple[list[Row], int | None]:
        rows = await fetch({"startTime": begin, "limit": PAGE})
        return rows, int(rows[-1]["time"]) if len(rows) >= PAGE else None

    return await every_page(page, since, PAGES, "income")


async def rows_by_offset(fetch: EndpointCall, params: Row) -> list[Row]:
    """Every row of a list that is paged by `offset`; UnreadableError where it does not end."""

    async def page(offset: int) -> tuple[list[Row], int | None]:
        rows = await fetch({**params, "offset": offset, "limit": PAGE})
        return rows, offset + PAGE if len(rows) >= PAGE else None

    return await every_page(page, 0, PAGES, "deposits or withdrawals")
