"""Adapters that lie fail the conformance suite: each lie is checked against the guarantee that it breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from killswitch.conformance import AdapterGuarantees, VenueHarness
from killswitch.conformance.harness import Key
from killswitch.conformance.mutations import Change
from killswitch.model.snapshot import AccountSnapshot, Fill
from killswitch.model.venue import OrderReport, OrderRequest, VenueAdapter, VenueError
from tests.conformance.harnesses import WireHarness
from tests.conformance.wires import WIRES

GUARANTEES = AdapterGuarantees()


class Liar:
    """Wraps another adapter, and changes its snapshots with `altered_snapshot`."""

    def __init__(self, honest: VenueAdapter) -> None:
        self.honest: Any = honest

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    async def snapshot(self) -> AccountSnapshot:
        return self.altered_snapshot(await self.honest.snapshot())

    def altered_snapshot(self, seen: AccountSnapshot) -> AccountSnapshot:
        return seen


class RepeatsTheLastGoodSnapshot(Liar):
    """Answers a failed poll with the last good snapshot."""

    last: AccountSnapshot

    async def snapshot(self) -> AccountSnapshot:
        try:
            seen: AccountSnapshot = await self.honest.snapshot()
        except VenueError:
            return self.last
        if seen.quality == "ok":
            self.last = seen
        return self.last


class Changed(Liar):
    """Changes the numbers of an `ok` snapshot."""

    def __init__(self, honest: VenueAdapter, change: Callable[[AccountSnapshot], dict[str, Any]]) -> None:
        super().__init__(honest)
        self.change = change

    def altered_snapshot(self, seen: AccountSnapshot) -> AccountSnapshot:
        return replace(seen, **self.change(seen)) if seen.quality == "ok" else seen


class DropsPrices(Liar):
    """Sends limits and stops as market orders."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        sent: OrderReport = await self.honest.submit(
            replace(request, type="market", price=None, trigger_price=None, trigger_when=None)
        )
        return sent


class InventsPrices(Liar):
    """Reports fills at a price that never was."""

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        found = await self.honest.fills(symbol, client_order_id)
        return tuple(replace(fill, price=Decimal(1)) for fill in found)


class TakesNonsenseForFlat(Liar):
    """Reports a malformed answer as an account without positions."""

    def altered_snapshot(self, seen: AccountSnapshot) -> AccountSnapshot:
        return replace(seen, quality="ok", positions=()) if seen.quality != "ok" else seen


class SendsTwice(Liar):
    """Sends an order without an answer again, under another id."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        try:
            report: OrderReport = await self.honest.submit(request)
        except VenueError:
            report = await self.honest.submit(request)
        return report


class Lie(Struct, frozen=True):
    """The lying adapter, and the guarantee that it breaks."""

    liar: Callable[[VenueAdapter], Any]
    breaks: Callable[[VenueHarness], None]


def _positions(**more: Any) -> Callable[[AccountSnapshot], dict[str, Any]]:
    return lambda seen: {"positions": tuple(replace(it, **more) for it in seen.positions or ())}


def _rules(**more: Any) -> Callable[[AccountSnapshot], dict[str, Any]]:
    return lambda seen: {"instruments": tuple(replace(it, **more) for it in seen.instruments or ())}


LIES: Mapping[str, Lie] = {
    "the last good reading": Lie(
        RepeatsTheLastGoodSnapshot,
        lambda harness: GUARANTEES.test_a_failed_snapshot_is_never_an_empty_or_an_old_account(harness, "garbled"),
    ),
    "another worth": Lie(
        lambda it: Changed(it, lambda seen: {"equity": Decimal(1)}),
        GUARANTEES.test_an_empty_account_is_reported_flat,
    ),
    "another mark": Lie(
        lambda it: Changed(it, _positions(mark_price=Decimal(1))),
        GUARANTEES.test_every_position_is_shown_with_its_side_and_size,
    ),
    "the other side": Lie(
        lambda it: Changed(it, _positions(side="long")), GUARANTEES.test_every_position_is_shown_with_its_side_and_size
    ),
    "an old time": Lie(
        lambda it: Changed(it, lambda seen: {"observed_at": (seen.observed_at or seen) - timedelta(days=365)}),  # type: ignore[operator] # an ok one is dated
        GUARANTEES.test_a_snapshot_fits_the_public_format,
    ),
    "a first page": Lie(
        lambda it: Changed(it, lambda seen: {"positions": (seen.positions or ())[:100]}),
        GUARANTEES.test_a_book_of_several_pages_is_complete,
    ),
    "other rules": Lie(
        lambda it: Changed(it, _rules(contract_size=Decimal(77))),
        GUARANTEES.test_positions_carry_their_trading_rules,
    ),
    "orders at the market": Lie(DropsPrices, GUARANTEES.test_our_limit_and_stop_orders_rest_as_they_were_sent),
    "other prices of fills": Lie(InventsPrices, GUARANTEES.test_an_order_executes_once_and_is_found_by_its_client_id),
    "nonsense is flat": Lie(TakesNonsenseForFlat, GUARANTEES.test_a_wrong_field_is_never_a_wrong_number),
    "a second sending": Lie(
        SendsTwice, lambda harness: GUARANTEES.test_a_failed_submission_has_the_right_error(harness, "lost")
    ),
}  # fmt: skip


class LyingHarness(WireHarness):
    """Kraken Futures behind a lying adapter."""

    def __init__(self, liar: Callable[[VenueAdapter], Any]) -> None:
        super().__init__(WIRES["krakenfutures"])
        self.mutations = 24
        self._liar = liar

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False, watch: bool = False) -> VenueAdapter:
        liar: VenueAdapter = self._liar(await super().open(book, hedge=hedge, watch=watch))
        return liar

    async def connect(self, change: Change) -> VenueAdapter:
        liar: VenueAdapter = self._liar(await super().connect(change))
        return liar


@pytest.mark.parametrize("name", LIES)
def test_a_lie_breaks_its_guarantee(name: str) -> None:
    """The honest adapter keeps the same guarantee."""
    lie = LIES[name]
    lie.breaks(WireHarness(WIRES["krakenfutures"]))
    with pytest.raises(AssertionError):
        lie.breaks(LyingHarness(lie.liar))
