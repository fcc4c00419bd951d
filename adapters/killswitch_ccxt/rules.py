"""The venue's rules for its symbols: loaded once for all accounts that ask the same system, since they are large."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from killswitch.model.venue import AccountSpec
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect


@dataclass(eq=False, slots=True, weakref_slot=True)
class Loaded:
    """The rules as one client has loaded them; `version` counts how often. `at`: seconds of the loop's clock."""

    source: Any = None
    version: int = 0
    at: float = float("-inf")
    locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = field(default_factory=WeakKeyDictionary)


_SHARED: Final[WeakValueDictionary[tuple[object, ...], Loaded]] = WeakValueDictionary()
"""Kept only as long as some account uses it: an account's own memory, which accounts happen to share."""


class Rules:
    """One account's view of the shared rules."""

    def __init__(self, client: Client, dialect: Dialect, spec: AccountSpec) -> None:
        key = (dialect.exchange, spec.endpoint, spec.environment, spec.market, repr(spec.options.get("ccxt")))
        self._client = client
        self._every = dialect.ages.rules
        self._loaded = _SHARED.setdefault(key, Loaded())
        self._seen = 0

    @property
    def version(self) -> int:
        """Changes when they were loaded anew."""
        return self._seen

    async def ready(self, *, again: bool = False) -> None:
        """See that this account's client has rules that are young enough; `again` wants new ones.

        Any VenueError of loading; old rules go on where there are some.
        """
        loop = asyncio.get_running_loop()
        loaded = self._loaded
        wanted = loaded.version
        async with loaded.locks.setdefault(loop, asyncio.Lock()):
            old = loaded.version == 0 or loop.time() - loaded.at >= self._every or loop.time() < loaded.at
            if old or (again and loaded.version == wanted):
                await self._client.call("load_markets", True)
                loaded.source, loaded.at = self._client.ccxt, loop.time()
                loaded.version += 1
            elif self._seen != loaded.version:
                self._client.ccxt.set_markets_from_exchange(loaded.source)
        self._seen = loaded.version
