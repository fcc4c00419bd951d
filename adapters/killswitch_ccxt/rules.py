"""The venue's rules for its symbols: loaded once for all accounts that ask the same system, since they are large."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect


@dataclass(eq=False, slots=True, weakref_slot=True)
class Loaded:
    """The rules as one client has loaded them; `version` counts how often. `at`: seconds of the loop's clock."""

    source: Any = None
    version: int = 0
    at: float = float("-inf")
    asked_at: float = float("-inf")
    why: str | None = None
    """Why the last renewal failed; None if it did not."""
    renewal: asyncio.Task[None] | None = None
    locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = field(default_factory=WeakKeyDictionary)


AGAIN = 60.0
"""Seconds after which rules whose renewal failed are asked for again; the old ones go on meanwhile."""
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

    @property
    def why_old(self) -> str | None:
        """Why rules that have grown old are still the ones in use."""
        return self._loaded.why

    async def ready(self, *, again: bool = False, every: float | None = None) -> None:
        """See that this account's client has rules; `again` wants new ones now, and raises any VenueError of loading.

        Rules that are older than `every` seconds, or than the dialect's age of rules, are renewed beside everything
        else: nobody waits for that.
        """
        oldest = self._every if every is None else min(every, self._every)
        loop = asyncio.get_running_loop()
        loaded = self._loaded
        wanted = loaded.version
        async with loaded.locks.setdefault(loop, asyncio.Lock()):
            if loaded.version == 0 or (again and loaded.version == wanted):
                await self._client.call("load_markets", True)
                self._loaded_now(loaded, self._client.ccxt)
            elif self._seen != loaded.version and not self._adopt(loaded):
                await self._client.call("load_markets", True)
            elif _since(loaded.at) >= oldest and _since(loaded.asked_at) >= min(AGAIN, oldest):
                loaded.asked_at = loop.time()
                loaded.renewal = loop.create_task(self._renew(loaded))
        self._seen = loaded.version

    def _adopt(self, loaded: Loaded) -> bool:
        """Take over what another client has loaded; whether that worked."""
        try:
            self._client.ccxt.set_markets_from_exchange(loaded.source)
        except Exception:  # noqa: BLE001 - ccxt's own, where an exchange keeps rules in places of its own
            return False
        return True

    async def let_go(self) -> None:
        """Wait for a renewal of this account's own that is under way: its thread cannot be called off."""
        renewal = self._loaded.renewal
        if renewal is not None and renewal.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((renewal,))

    async def _renew(self, loaded: Loaded) -> None:
        # Whatever ccxt raises: the old rules go on, every snapshot says so, and it is tried again.
        try:
            self._loaded_now(loaded, await self._client.fresh_rules())
        except Exception as error:  # noqa: BLE001 - kept as the reason, without ccxt's words: they hold addresses
            why = why_unanswered(error, "the venue") or type(error).__name__
            loaded.why = f"they are from {int(_since(loaded.at))} s before, and new ones do not come: {why}"

    @staticmethod
    def _loaded_now(loaded: Loaded, source: Any) -> None:
        loaded.source, loaded.at = source, asyncio.get_running_loop().time()
        loaded.version += 1
        loaded.why = None


def _since(at: float) -> float:
    """Seconds since then; infinite where the loop's clock has begun anew."""
    now = asyncio.get_running_loop().time()
    return now - at if now >= at else float("inf")
