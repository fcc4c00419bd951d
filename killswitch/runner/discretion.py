"""Keeps credentials out of what an adapter says: its errors are printed, stored and shown by `status`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

from msgspec import structs

from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    BatchingVenue,
    BookClosingVenue,
    FateUnknownError,
    MeteredVenue,
    OrderReport,
    OrderRequest,
    VenueAdapter,
    VenueError,
    VenueTraits,
    traits_of,
)

T = TypeVar("T")
HIDDEN = "[hidden credential]"


class Redactor:
    """Knows the credentials of one account, as they are and as URLs and Python's `repr` write them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        plain = {str(secret) for secret in secrets if secret}
        # Bytes of the environment that are no UTF-8 come as surrogates, and go into a URL as the bytes they were.
        in_urls = {quote(each, safe="", errors="surrogateescape") for each in plain}
        written = plain | in_urls | {str.__repr__(each)[1:-1] for each in plain}
        # A longer one first: what holds another one must not be left in pieces.
        self._written = sorted(written, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """`text` with every credential replaced."""
        for each in self._written:
            text = text.replace(each, HIDDEN)
        return text


class DiscreetVenue:
    """A VenueAdapter whose errors and reasons hold no credential; all else is as the adapter says it.

    What only some adapters offer it offers only if its adapter does.
    """

    used: Callable[[], Mapping[str, int]]
    submit_batch: Callable[[Sequence[OrderRequest]], Awaitable[Sequence[OrderReport | VenueError]]]
    close_book: Callable[[], Awaitable[None]]

    def __init__(self, adapter: VenueAdapter, redactor: Redactor) -> None:
        self._adapter = adapter
        self._redactor = redactor
        self.account = adapter.account
        if isinstance(adapter, MeteredVenue):
            self.used = adapter.used
        if isinstance(adapter, BatchingVenue):
            self.submit_batch = lambda requests: self._batched(adapter, requests)
        if isinstance(adapter, BookClosingVenue):
            self.close_book = lambda: self._through(adapter.close_book())

    @property
    def traits(self) -> VenueTraits:
        """What the adapter says of its venue."""
        return traits_of(self._adapter)

    async def snapshot(self) -> AccountSnapshot:
        answer = await self._through(self._adapter.snapshot())
        if not isinstance(answer, AccountSnapshot) or answer.reason is None:
            return answer
        return structs.replace(answer, reason=self._redactor.hide(answer.reason))

    async def submit(self, request: OrderRequest) -> OrderReport:
        return await self._through(self._adapter.submit(request))

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        return await self._through(self._adapter.find_order(symbol, client_order_id))

    async def open_orders(self) -> tuple[Order, ...]:
        return await self._through(self._adapter.open_orders())

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        return await self._through(self._adapter.fills(symbol, client_order_id))

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self._through(self._adapter.cancel(symbol, order_id))

    async def close(self) -> None:
        await self._through(self._adapter.close())

    async def _batched(
        self, adapter: BatchingVenue, requests: Sequence[OrderRequest]
    ) -> Sequence[OrderReport | VenueError]:
        answers = await self._through(adapter.submit_batch(requests))
        return [self._discreet(answer) if isinstance(answer, VenueError) else answer for answer in answers]

    async def _through(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except Exception as error:
            hidden = self._redactor.hide(str(error))
            if hidden == str(error):
                raise
            raise _saying(error, hidden) from None

    def _discreet(self, error: VenueError) -> VenueError:
        hidden = self._redactor.hide(str(error))
        return error if hidden == str(error) else _venue_saying(error, hidden)


def _saying(error: Exception, text: str) -> Exception:
    """An error that means the same and says `text`."""
    if not isinstance(error, VenueError):
        return RuntimeError(f"{type(error).__name__}: {text}")
    return _venue_saying(error, text)


def _venue_saying(error: VenueError, text: str) -> VenueError:
    error.args = (text,)
    # A subclass may make its words of something else than its arguments: of such an error only the doubt is kept.
    return error if str(error) == text else FateUnknownError(text)
