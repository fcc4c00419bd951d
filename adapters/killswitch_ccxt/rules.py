"""The venue's rules for its symbols: loaded once for all accounts that ask the same system, since they are large."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from msgspec import DecodeError, Struct
from msgspec.json import Decoder, Encoder

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


class KeptRules(Struct):
    """ccxt's markets of some symbols, as an earlier run had them of the venue."""

    version: int
    exchange: str
    at: datetime
    markets: list[dict[str, Any]]


KEPT_VERSION: Final = 1
OLDEST_KEPT: Final = timedelta(hours=24)
"""How old kept rules may be: steps and minimums change by the day."""
AGAIN = 60.0
"""Seconds after which rules whose renewal failed are asked for again; the old ones go on meanwhile."""
_ENCODER: Final = Encoder(decimal_format="string")
_DECODER: Final = Decoder(KeptRules)
_SHARED: Final[WeakValueDictionary[tuple[object, ...], Loaded]] = WeakValueDictionary()
"""Kept only as long as some account uses it: an account's own memory, which accounts happen to share."""


class Rules:
    """One account's view of the shared rules."""

    def __init__(self, client: Client, dialect: Dialect, spec: AccountSpec) -> None:
        key = (dialect.exchange, spec.endpoint, spec.environment, spec.market, repr(spec.options.get("ccxt")))
        self._client = client
        self._dialect = dialect
        self._every = dialect.ages.rules
        self._loaded = _SHARED.setdefault(key, Loaded())
        self._seen = 0
        self._kept: KeptRules | None = None
        self._is_on_kept = False
        self._given: tuple[int, frozenset[str]] = (0, frozenset())

    def use(self, kept: bytes) -> None:
        """Begin with rules that `to_keep` gave; they are passed over where they are unreadable, foreign or too old."""
        try:
            found = _DECODER.decode(kept)
        except DecodeError:
            return
        is_ours = found.version == KEPT_VERSION and found.exchange == self._dialect.exchange
        if self._dialect.keeps_rules and is_ours and found.markets and self._is_young(found):
            self._kept = found

    def to_keep(self, symbols: frozenset[str]) -> bytes | None:
        """The rules of `symbols`, if any of them is not in what was given last, or that is older; None otherwise.

        Rules of an earlier run are not kept any longer: only those that this one has of the venue.
        """
        version, given = self._given
        if not self._dialect.keeps_rules or not self._seen or (version == self._seen and symbols <= given):
            return None
        self._given = self._seen, symbols
        markets = [rule for symbol, rule in (self._client.ccxt.markets or {}).items() if symbol in symbols]
        return _ENCODER.encode(KeptRules(KEPT_VERSION, self._dialect.exchange, self._client.now(), markets))

    def _is_young(self, kept: KeptRules) -> bool:
        return abs(self._client.now() - kept.at) <= OLDEST_KEPT

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
            if loaded.version == 0 and self._kept is not None and not again:
                self._begin_with(self._kept, loaded)
            elif loaded.version == 0 or (again and loaded.version == wanted):
                await self._client.call("load_markets", True)
                self._loaded_now(loaded, self._client.ccxt)
            elif self._seen != loaded.version and not self._adopt(loaded):
                await self._client.call("load_markets", True)
            elif _since(loaded.at) >= oldest and _since(loaded.asked_at) >= min(AGAIN, oldest):
                self._renew_beside(loaded)
        self._seen = loaded.version

    def _begin_with(self, kept: KeptRules, loaded: Loaded) -> None:
        """Use kept rules while the venue's own are on their way."""
        if not self._is_on_kept:
            self._client.ccxt.set_markets(kept.markets)
            self._is_on_kept = True
        if _since(loaded.asked_at) >= AGAIN:
            self._renew_beside(loaded)

    def _renew_beside(self, loaded: Loaded) -> None:
        loop = asyncio.get_running_loop()
        loaded.asked_at = loop.time()
        loaded.renewal = loop.create_task(self._renew(loaded))

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
            age = "an earlier run" if loaded.version == 0 else f"{int(_since(loaded.at))} s before"
            loaded.why = f"they are from {age}, and new ones do not come: {why}"

    @staticmethod
    def _loaded_now(loaded: Loaded, source: Any) -> None:
        loaded.source, loaded.at = source, asyncio.get_running_loop().time()
        loaded.version += 1
        loaded.why = None


def _since(at: float) -> float:
    """Seconds since then; infinite where the loop's clock has begun anew."""
    now = asyncio.get_running_loop().time()
    return now - at if now >= at else float("inf")
