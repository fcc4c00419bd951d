"""The markets of what is held and ordered: their rules, once an hour, and their best prices where orders need one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import structs

from killswitch.model.snapshot import Instrument, Order, Position
from killswitch.model.venue import RateLimitedError, VenueError
from killswitch_alpaca.client import RefusedError
from killswitch_alpaca.hours import Session
from killswitch_alpaca.instruments import Asset, instrument
from killswitch_alpaca.numbers import UnreadableError
from killswitch_alpaca.parts import ASSETS, CLOCK, QUOTES, Part
from killswitch_alpaca.positions import is_crypto
from killswitch_alpaca.questions import Book, Questions


class Markets:
    """What is known of them, and which of their rules were given already. Times in seconds of the loop."""

    def __init__(self, ask: Questions, *, extended: bool) -> None:
        self._ask = ask
        self._extended = extended
        self.quotes = Part(QUOTES, QUOTES)
        self._quotes: dict[str, Book] = {}
        self._assets: dict[str, Asset] = {}
        self._asset_at: dict[str, float] = {}
        self._given: dict[str, Instrument] = {}

    def coins(self) -> list[str]:
        """Symbols of the coins that are known."""
        return [symbol for symbol in self._assets if is_crypto(symbol)]

    async def read_quotes(self, symbols: Sequence[str]) -> None:
        """Read bid and ask of shares."""
        self._quotes = await self._ask.quotes(symbols)

    async def learn(self, symbols: Collection[str], now: float) -> int:
        """The rules of these, as far as they are unknown or old; how many requests that took."""
        due = {it for it in symbols if now - self._asset_at.get(it, float("-inf")) >= ASSETS}
        if not due:
            return 0
        # A failure is tried again after a minute, not with the next tick.
        self._asset_at |= dict.fromkeys(due, now - ASSETS + CLOCK)
        try:
            found, requests = await self._ask.assets(due)
        except RateLimitedError:
            raise
        except (VenueError, RefusedError, UnreadableError):
            return 0
        self._assets |= {asset.symbol: asset for asset in found}
        self._asset_at |= dict.fromkeys((asset.symbol for asset in found), now)
        return requests

    def quoted(self, position: Position, now: float) -> Position:
        """With bid and ask, where these are known."""
        quote = self._quotes.get(position.symbol) if self.quotes.is_good(now) else None
        return position if quote is None else structs.replace(position, bid=quote[0], ask=quote[1])

    def news(
        self, positions: Iterable[Position], orders: Iterable[Order], session: Session | None, *, barred: bool
    ) -> tuple[Instrument, ...]:
        """The rules that are new or have changed since they were given last. `barred`: the account takes no orders."""
        held = {position.symbol: position for position in positions}
        wanted = dict.fromkeys((*held, *(order.symbol for order in orders)))
        found = {
            symbol: instrument(self._assets[symbol], held.get(symbol), session, extended=self._extended, barred=barred)
            for symbol in wanted
            if symbol in self._assets
        }
        news = tuple(each for symbol, each in found.items() if self._given.get(symbol) != each)
        self._given |= found
        return news
