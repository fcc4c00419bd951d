"""Common parts of Binance's futures, spot and margin: the same requests at different endpoints."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, ClassVar, Final

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    every_page,
    flag,
    identifier,
    instant,
    rows_at,
    value_at,
)
from killswitch.model.snapshot import Fill
from killswitch.model.venue import AccountSpec, ClientIdRule, OrderLife, SentTransfer, TransferFate
from killswitch_ccxt import fills
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect, TransferCalls
from killswitch_ccxt.dialect.transfers import fate_among, place_of_key, without
from killswitch_ccxt.instruments import Quote
from killswitch_ccxt.venues.binance import codes, rows
from killswitch_ccxt.withdrawals import CoinList

EndpointCall = Callable[[Row], Awaitable[Any]]
PAGE: Final = 1000
"""Most rows of one answer. By default the venue returns half as many, or fewer."""
PAGES: Final = 20
"""Most pages of one list."""
SIZE: Final = 100
"""Most rows of transfers, or of interest, in one answer."""


LISTED_FOR: Final = 120_000
"""How far back the list of transfers is read before one is sent, in ms: a decision is valid for half of that."""
LIST_TIMEOUT: Final = 2.0
"""Seconds for which a transfer waits for that list."""


class Binance(TransferCalls, Dialect, ABC):
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

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._other_transfers: set[str] = set()
        """The venue's ids of the transfers whose answers this process has had."""

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

    # Transfers between the wallets of one key: spot, cross margin, USD-M and COIN-M

    @property
    @abstractmethod
    def wallet(self) -> str:
        """Binance's name of this account among the wallets of a key."""

    @property
    def transfer_place(self) -> tuple[str, str] | None:
        """Test systems have no wallet interface."""
        place = place_of_key(self.spec, "binance")
        return None if place is None or self.spec.environment != "production" else (place, self.wallet)

    async def transfer(self, to: str, amount: Decimal, transfer: str) -> None:
        """A universal transfer, which takes no id of ours: what the list has before it is another one."""
        with suppress(Exception):  # an unread list makes only a lookup less exact, and must not delay the margin
            async with asyncio.timeout(LIST_TIMEOUT):
                rows = await self._listed_transfers(to, int(self.client.now().timestamp() * 1000) - LISTED_FOR)
                self._other_transfers |= {str(row.get("tranId")) for row in rows}
        params = {"type": f"{self.wallet}_{to}", "asset": self.spec.currency, "amount": format(amount, "f")}
        body = await self.client.call("sapiPostAssetTransfer", params, changes=True)
        self._other_transfers.add(identifier(value_at(body, "tranId"), "a transfer"))

    async def _listed_transfers(self, to: str, since: int) -> list[Row]:
        """The transfers to the wallet `to` since a time of our clock (ms)."""
        begin = int(self.client.venue_time(since).timestamp() * 1000)
        params = {"type": f"{self.wallet}_{to}", "startTime": begin}
        rows = await self.numbered_pages("sapiGetAssetTransfer", params)
        return [row for row in rows if row.get("asset") == self.spec.currency and int(row["timestamp"]) >= begin]

    async def find_transfer(self, sent: SentTransfer) -> TransferFate:
        """By the list of its type since it was sent: an amount that this process has had no answer for, and that the
        list did not have before the request.

        The venue does not document how late the list is, so that its absence proves nothing.
        """
        rows = await self._listed_transfers(sent.to, int(sent.since.timestamp() * 1000))
        return fate_among(without(rows, "tranId", self._other_transfers), sent.amount, ("amount", "status", "tranId"))

    async def numbered_pages(self, method: str, params: Row) -> list[Row]:
        """Every row of a list that comes in numbered pages; UnreadableError where it does not end."""

        async def page(number: int) -> tuple[list[Row], int | None]:
            body = await self.client.call(method, {**params, "current": number, "size": SIZE})
            is_empty = value_at(body, "rows") is None and decimal(value_at(body, "total")) == 0
            rows = [] if is_empty else rows_at(body, "rows", what=f"the answer to {method}")
            return rows, number + 1 if len(rows) >= SIZE else None

        return await every_page(page, 1, PAGES, method)


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
