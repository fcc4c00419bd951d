"""The venue's rules for its symbols, loaded once for all accounts of one system, because they are large."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder, Encoder

from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import AccountSpec
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Dialect


class SharedRules(Struct, eq=False, weakref=True):
    """The rules that one client has loaded; `version` counts the loads. `at`: seconds of the loop's clock."""

    source: Any = None
    version: int = 0
    at: float = float("-inf")
    requested_at: float = float("-inf")
    failure: str | None = None
    """Why the last renewal failed; None if it did not."""
    renewal: asyncio.Task[None] | None = None
    locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = field(default_factory=WeakKeyDictionary)


class KeptRules(Struct):
    """ccxt's markets of some symbols, as an earlier run loaded them from the venue."""

    version: int
    exchange: str
    at: datetime
    markets: list[dict[str, Any]]


KEPT_VERSION: Final = 1
OLDEST_KEPT: Final = timedelta(hours=24)
"""Largest age of kept rules: steps and minimums change by the day."""
RETRY_AFTER = 60.0
"""Seconds after which a failed renewal is repeated; meanwhile the old rules remain in use."""
_ENCODER: Final = Encoder(decimal_format="string")
_DECODER: Final = Decoder(KeptRules)
SHARED: Final[WeakValueDictionary[tuple[object, ...], SharedRules]] = WeakValueDictionary()
"""Shared rules, kept only as long as some account uses them; cleared to load all of them again."""


class Rules:
    """One account's view of the shared rules."""

    def __init__(self, client: Client, dialect: Dialect, spec: AccountSpec) -> None:
        key = (dialect.exchange, spec.endpoint, spec.environment, spec.market, repr(spec.options.get("ccxt")))
        self._client = client
        self._dialect = dialect
        self._every = dialect.ages.rules
        self._loaded = SHARED.setdefault(key, SharedRules())
        self.version = 0
        """A number that changes with every load."""
        self._kept: KeptRules | None = None
        self._is_on_kept = False
        self._last_kept: tuple[int, frozenset[str]] = (0, frozenset())

    def use_kept(self, kept: bytes) -> None:
        """Begin with rules that `to_keep` returned; unreadable, foreign and outdated ones are ignored."""
        try:
            found = _DECODER.decode(kept)
        except DecodeError:
            return
        is_ours = found.version == KEPT_VERSION and found.exchange == self._dialect.exchange
        is_usable = self._dialect.keeps_rules and is_ours and found.markets
        if is_usable and abs(self._client.now() - found.at) <= OLDEST_KEPT:
            self._kept = found

    def to_keep(self, symbols: frozenset[str]) -> bytes | None:
        """The rules of `symbols`, if the last result lacks one of them or is older; None otherwise.

        Only rules that this run has loaded from the venue are kept, not those of an earlier run.
        """
        version, kept = self._last_kept
        if not self._dialect.keeps_rules or not self.version or (version == self.version and symbols <= kept):
            return None
        self._last_kept = self.version, symbols
        markets = [rule for symbol, rule in (self._client.ccxt.markets or {}).items() if symbol in symbols]
        return _ENCODER.encode(KeptRules(KEPT_VERSION, self._dialect.exchange, self._client.now(), markets))

    @property
    def why_old(self) -> str | None:
        """Why outdated rules are still in use."""
        return self._loaded.failure

    async def ready(self, *, again: bool = False, every: float | None = None) -> None:
        """Ensure that this account's client has rules; `again` loads new ones now, and raises any VenueError.

        Rules that are older than `every` seconds, or than the dialect's age of rules, are renewed in the background.
        """
        oldest = self._every if every is None else min(every, self._every)
        loop = asyncio.get_running_loop()
        loaded = self._loaded
        wanted = loaded.version
        async with loaded.locks.setdefault(loop, asyncio.Lock()):
            if loaded.version == 0 and self._kept is not None and not again:
                self._begin_with(self._kept, loaded)
            elif loaded.version == 0 or (again and loaded.version == wanted):
                await self._client.call("load_markets", True)
                self._record_load(loaded, self._client.ccxt)
            elif self.version != loaded.version and not self._adopt(loaded):
                await self._client.call("load_markets", True)
            elif _since(loaded.at) >= oldest and _since(loaded.requested_at) >= min(RETRY_AFTER, oldest):
                self._renew_in_background(loaded)
        self.version = loaded.version

    def _begin_with(self, kept: KeptRules, loaded: SharedRules) -> None:
        """Use kept rules while the venue's own are loaded in the background."""
        if not self._is_on_kept:
            self._client.ccxt.set_markets(kept.markets)
            self._is_on_kept = True
        if _since(loaded.requested_at) >= RETRY_AFTER:
            self._renew_in_background(loaded)

    def _renew_in_background(self, loaded: SharedRules) -> None:
        loop = asyncio.get_running_loop()
        loaded.requested_at = loop.time()
        loaded.renewal = loop.create_task(self._renew(loaded))

    def _adopt(self, loaded: SharedRules) -> bool:
        """Adopt the rules that another client has loaded; whether that succeeded."""
        try:
            self._client.ccxt.set_markets_from_exchange(loaded.source)
        except Exception:  # noqa: BLE001 - ccxt's own, where an exchange stores rules elsewhere
            return False
        return True

    async def wait_for_renewal(self) -> None:
        """Wait for a renewal that this account has started: its thread cannot be cancelled."""
        renewal = self._loaded.renewal
        if renewal is not None and renewal.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((renewal,))

    async def _renew(self, loaded: SharedRules) -> None:
        # After any exception of ccxt the old rules remain in use, every snapshot has a remark, and the renewal is
        # repeated.
        try:
            self._record_load(loaded, await self._client.fresh_rules())
        except Exception as error:  # noqa: BLE001 - recorded as the reason, without ccxt's text, which holds URLs
            why = why_unanswered(error, "the venue") or type(error).__name__
            age = "an earlier run" if loaded.version == 0 else f"{int(_since(loaded.at))} s ago"
            loaded.failure = f"they are from {age}, and their renewal fails: {why}"

    @staticmethod
    def _record_load(loaded: SharedRules, source: Any) -> None:
        loaded.source, loaded.at = source, asyncio.get_running_loop().time()
        loaded.version += 1
        loaded.failure = None


def _since(at: float) -> float:
    """Seconds since then; infinite where the loop's clock has restarted."""
    now = asyncio.get_running_loop().time()
    return now - at if now >= at else float("inf")
