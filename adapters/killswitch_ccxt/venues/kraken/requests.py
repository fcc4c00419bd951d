"""Kraken's counter of private requests: a local copy, the limits of an account's tier, and requests that obey it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from killswitch.model.parsing import Row, UnreadableError, every_page, object_at, value_at
from killswitch.model.venue import AccountSpec, VenueDownError
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect

BUSY: Final = 15.0
"""Seconds after an own order in which balances are fetched as often as the counter allows."""
PAGES: Final = 4
LIST_COST: Final = 2
"""Units of the counter that a request for trades or ledgers costs."""
SNAPSHOT_SHARE: Final = 0.6
"""The share of the counter that additional snapshots may use: the rest is for closing."""
LIST_SHARE: Final = 0.8
"""The share that fills and ledgers may use: they explain changes and do not state balances."""


class Tier(Struct, frozen=True):
    """Limits of an account by its verification."""

    requests: int
    """Requests that the counter allows."""
    recovery: float
    """Seconds in which the full counter recovers."""
    points: int
    """Units of the matching engine for each pair, and the seconds in which they recover."""
    points_recovery: float
    spot: float
    """Seconds between two fetches of the balances, one request, while no own order is in progress."""
    margin: float
    """The same for equity and open positions, two requests."""
    snapshot: int
    """Tenths of a request for a calm snapshot at a tick of one second, the larger of both markets."""


TIERS: Final[Mapping[str, Tier]] = {
    "starter": Tier(15, 45.0, 60, 60.0, spot=10.0, margin=15.0, snapshot=3),
    "intermediate": Tier(20, 40.0, 125, 53.0, spot=5.0, margin=8.0, snapshot=4),
    "pro": Tier(20, 20.0, 180, 48.0, spot=2.0, margin=3.0, snapshot=8),
}


def tier_of(spec: AccountSpec) -> Tier:
    """The tier of the account. ValueError for a tier that Kraken does not have."""
    tier = str(spec.options.get("tier", "starter"))
    if tier not in TIERS:
        raise ValueError(f"options: tier of a Kraken account is one of {', '.join(TIERS)}")
    return TIERS[tier]


class RequestCounter:
    """One account's counter, in requests: each request adds to it, and time reduces it."""

    def __init__(self, tier: Tier) -> None:
        self._most = float(tier.requests)
        # A little less than documented: clocks differ, and a third of a request a second is 0.33 in the documents.
        self._a_second = 0.98 * tier.requests / tier.recovery
        self._level = 0.0
        self._at = float("-inf")

    def fits(self, cost: int, share: float = 1.0) -> bool:
        """Whether `cost` requests are allowed now, with the counter filled up to `share` at most."""
        return self._now() + cost <= self._most * share

    async def use(self, cost: int) -> None:
        """Wait until the counter allows `cost` requests, and count them: the slowest tier recovers one in three
        seconds."""
        while not self.fits(cost):
            missing = self._level + cost - self._most
            await asyncio.sleep(missing / self._a_second + 0.001)
        self._level += cost

    def _now(self) -> float:
        now = asyncio.get_running_loop().time()
        if now > self._at:
            self._level = max(0.0, self._level - (now - self._at) * self._a_second)
        self._at = now
        return self._level


class KrakenRequests(Dialect):
    """The part of Kraken's dialect that spends the counter: single calls, lists in pages, and answers that are kept."""

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self.tier: Tier = tier_of(spec)
        self.counter = RequestCounter(self.tier)
        self._cached_results: tuple[Any, ...] = ()
        self.cached_as_of: datetime | None = None
        """The venue's time of the request that the cached results answer."""
        self._cached_at = self.last_order_at = self._busy_until = float("-inf")

    async def cached_answers(self, every: float, *queries: tuple[str, Mapping[str, str]]) -> tuple[Any, ...]:
        """The results of `queries`, or the last ones where these are younger than `every` and than the last own order.

        While own orders are in progress they are fetched again as far as the counter allows.
        """
        now = asyncio.get_running_loop().time()
        is_old = now - self._cached_at >= every or self._cached_at <= self.last_order_at
        is_watched = now < self._busy_until and self.counter.fits(len(queries), SNAPSHOT_SHARE)
        if not self._cached_results or is_old or is_watched or now < self._cached_at:
            await self.counter.use(len(queries))
            now, asked_at = asyncio.get_running_loop().time(), self.client.now_ms()
            results = await asyncio.gather(*(self._result_of(method, params) for method, params in queries))
            self._cached_results, self._cached_at = tuple(results), now
            self.cached_as_of = self.client.venue_time(asked_at)
        return self._cached_results

    async def _result_of(self, method: str, params: Mapping[str, str]) -> Any:
        answer = await self.client.call(method, params)
        result = value_at(answer, "result")
        if result is None:
            raise UnreadableError(f"{method}: the answer has no result")
        return result

    async def counted_call(self, method: str, params: Mapping[str, Any], cost: int = 1) -> Any:
        """Call a private endpoint as soon as the counter allows its `cost`."""
        await self.counter.use(cost)
        return await self.client.call(method, params)

    async def all_rows(self, method: str, part: str, params: Mapping[str, int]) -> dict[str, Row]:
        """Rows by id, in pages of fifty. UnreadableError where the list does not end."""
        found: dict[str, Row] = {}

        async def page(offset: int) -> tuple[list[str], int | None]:
            if not self.counter.fits(LIST_COST, LIST_SHARE):
                # Not RateLimitedError: the venue refused nothing, and balances may still be fetched.
                raise VenueDownError(f"{part} are postponed: closing needs the rest of the request counter")
            answer = await self.counted_call(method, {**params, "ofs": offset}, LIST_COST)
            rows = object_at(answer, "result", part)
            found.update(rows)
            return [*rows], len(found) if len(found) < int(value_at(answer, "result", "count") or 0) else None

        await every_page(page, 0, PAGES, method)
        return found

    def mark_busy(self) -> None:
        self._busy_until = asyncio.get_running_loop().time() + BUSY
