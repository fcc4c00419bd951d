"""Shares one adapter between polling and closing: what a venue returns only once reaches both.

An adapter may return instruments the first time only, and flows and fills only as they become known. The executor may
not poll for days and does not use flows and fills, so only instruments are kept for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Flow, Instrument, Order
from killswitch.model.venue import OPTIONAL_ATTRIBUTES, OrderReport, OrderRequest, VenueAdapter

T = TypeVar("T")
_Row = TypeVar("_Row", Flow, Fill)


class AdapterView(VenueAdapter):
    """A VenueAdapter that passes every call on to another one, and offers exactly what that one offers."""

    def __init__(self, adapter: VenueAdapter) -> None:
        self._adapter = adapter
        self.account, self.traits = adapter.account, adapter.traits
        for name in OPTIONAL_ATTRIBUTES:
            setattr(self, name, self._view_of(name, getattr(adapter, name)))

    def _view_of(self, name: str, offered: Any) -> Any:
        """The view's version of a capability: a call, or a record of calls; None if the adapter does not offer it."""
        if isinstance(offered, Struct):
            parts = asdict(offered).items()
            calls = {part: self._optional(f"{name}.{part}", value) for part, value in parts if callable(value)}
            return replace(offered, **calls)
        return offered if offered is None else self._optional(name, offered)

    async def snapshot(self) -> AccountSnapshot:
        return await self._through(self._adapter.snapshot())

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

    async def _through(self, answer: Awaitable[T]) -> T:
        """Await the adapter's answer."""
        return await answer

    def _optional(self, name: str, call: Callable[..., Any]) -> Callable[..., object]:
        """The view's version of a call of a capability."""
        return call


class SharedAdapter(AdapterView):
    """One of two views of one adapter, as a VenueAdapter. `share_adapter` makes the pair."""

    def __init__(self, adapter: VenueAdapter, *, wants_rows: bool) -> None:
        """`wants_rows`: whether flows and fills that the other view has read are kept for this one."""
        super().__init__(adapter)
        self._wants_rows = wants_rows
        self._other: SharedAdapter | None = None
        self._instruments: dict[str, Instrument] = {}
        self._flows: dict[str, Flow] = {}
        self._fills: dict[str, Fill] = {}

    async def snapshot(self) -> AccountSnapshot:
        """The adapter's snapshot, with what the other view has read since this one did."""
        answer = await super().snapshot()
        if self._other is not None:
            self._other._keep(answer)  # the other view of the pair
        return self._with_kept(answer) if answer.quality == "ok" else answer

    def _keep(self, answer: AccountSnapshot) -> None:
        self._instruments.update((each.symbol, each) for each in answer.instruments or ())
        if not self._wants_rows:
            return
        self._flows.update((flow.id, flow) for flow in answer.flows or ())
        self._fills.update((fill.id, fill) for fill in answer.fills or ())

    def _with_kept(self, answer: AccountSnapshot) -> AccountSnapshot:
        if not (self._instruments or self._flows or self._fills):
            return answer
        instruments = self._instruments | {each.symbol: each for each in answer.instruments or ()}
        merged = replace(
            answer,
            instruments=tuple(instruments.values()) or answer.instruments,
            flows=_merged(self._flows, answer.flows),
            fills=_merged(self._fills, answer.fills),
        )
        self._instruments, self._flows, self._fills = {}, {}, {}
        return merged


def share_adapter(adapter: VenueAdapter) -> tuple[SharedAdapter, SharedAdapter]:
    """Two views of `adapter`: one for the ticks, one for the executor."""
    ticks, closing = SharedAdapter(adapter, wants_rows=True), SharedAdapter(adapter, wants_rows=False)
    ticks._other, closing._other = closing, ticks
    return ticks, closing


def _merged(kept: dict[str, _Row], fresh: tuple[_Row, ...] | None) -> tuple[_Row, ...] | None:
    """Rows by id, the kept ones first. Rows that are unknown in the answer stay so unless some were kept."""
    if not kept:
        return fresh
    return tuple((kept | {row.id: row for row in fresh or ()}).values())
