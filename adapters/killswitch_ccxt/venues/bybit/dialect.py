"""Bybit, API v5, unified accounts: swaps, futures and spot; several orders in one request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from msgspec.structs import replace

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import Row, object_at, rows_at, value_at
from killswitch.model.venue import (
    AccountSpec,
    ClientIdRule,
    ConditionalOrderRule,
    DeadManRule,
    FateUnknownError,
    MalformedAnswerError,
    OrderLife,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    SentTransfer,
    TransferFate,
    VenueDescription,
    VenueError,
)
from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import BatchResults, PositionMode, TransferCalls
from killswitch_ccxt.dialect.transfers import FATES, fate_among
from killswitch_ccxt.venues.bybit import codes as bybit_codes
from killswitch_ccxt.venues.bybit.dead_man import LONGEST, SHORTEST, DisconnectProtection
from killswitch_ccxt.venues.bybit.rows import order_of_executions, rights_of, row_report
from killswitch_ccxt.venues.bybit.snapshot_reader import BybitSnapshots


class Bybit(TransferCalls, BybitSnapshots):
    """One account at Bybit. Each symbol has its own position mode: the row of a position states how an order names
    it."""

    more_options = ("main_uid", "uid")
    limits = bybit_codes.LIMITS
    costs = bybit_codes.COSTS
    client_ids = ClientIdRule(longest=36)
    batch = bybit_codes.BATCH
    dead_man = DeadManRule("account", shortest=SHORTEST, longest=LONGEST)
    conditional_orders = ConditionalOrderRule(("mark", "index", "last"))
    # ccxt signs every request with the same window, so an order cannot have its own.
    order_life = OrderLife(names="ever")
    window = 5_000
    streams = ("orders", "positions", "balance")
    capabilities = bybit_codes.CAPABILITIES
    tried = "a local server with the v5 API (USDT contracts, one-way and hedge), and recorded answers"

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        super().__init__(client, spec)
        self._protection = DisconnectProtection(client, "SPOT" if spec.market == "spot" else "DERIVATIVES")
        self._uids = _declared_uids(spec)

    @classmethod
    def traits_for(cls, spec: AccountSpec) -> VenueDescription:
        """The traits, without a dead-man timer in demo trading and where its stream would connect to another system."""
        found = super().traits_for(spec)
        has_no_timer = spec.environment == "demo" or (spec.endpoint is not None and spec.endpoint_ws is None)
        return replace(found, dead_man=None) if has_no_timer else found

    # Orders

    def order_params(self, request: OrderRequest, mode: PositionMode) -> dict[str, Any]:
        """In hedge mode with the side of the position and reduce-only: Bybit checks both."""
        params: dict[str, Any] = {"clientOrderId": request.client_order_id}
        if request.time_in_force == "ioc":
            params["timeInForce"] = "IOC"
        if request.trigger_price is not None:
            params["triggerPrice"] = str(request.trigger_price)
        if self.is_spot:
            return params
        default_index = 0 if mode == "one_way" else 1 if request.position_side == "long" else 2
        params["positionIdx"] = self._position_indices.get((request.symbol, request.position_side), default_index)
        if request.reduce_only:
            params["reduceOnly"] = True
        if request.trigger_price is not None:
            params["triggerDirection"] = "ascending" if request.trigger_when == "rises" else "descending"
            params["triggerBy"] = f"{request.trigger_by.capitalize()}Price"
        return params

    async def submit_batch(self, requests: Sequence[OrderRequest], mode: PositionMode) -> BatchResults:
        """One request for each category, which Bybit does not mix. A failure of the only request is raised."""
        found: dict[str, OrderReport | VenueError] = {}
        by_category: dict[str, list[tuple[OrderRequest, dict[str, Any]]]] = {}
        for request in requests:
            try:
                arguments = self.create_arguments(request, mode)
            except VenueError as error:
                found[request.client_order_id] = error
                continue
            body = dict(self.client.ccxt.create_order_request(*arguments))
            by_category.setdefault(str(body.pop("category")), []).append((request, body))
        for category, rows in by_category.items():
            try:
                found |= await self._send_batch(category, rows)
            except VenueError as error:
                if len(by_category) == 1 and not found:
                    raise
                found |= {request.client_order_id: error for request, _ in rows}
        return [found[request.client_order_id] for request in requests]

    async def _send_batch(
        self, category: str, rows: Sequence[tuple[OrderRequest, dict[str, Any]]]
    ) -> dict[str, OrderReport | VenueError]:
        """Client order id → result of the order, for one request."""
        params = {"category": category, "request": [body for _, body in rows]}
        answer = await self.client.call("privatePostV5OrderCreateBatch", params, places=True)
        results, codes = (value_at(answer, name, "list") or [] for name in ("result", "retExtInfo"))
        if len(results) != len(rows) or len(codes) != len(rows):
            raise MalformedAnswerError(
                f"a batch of {len(rows)} orders has {len(results)} rows and {len(codes)} codes in the answer"
            )
        return {
            request.client_order_id: row_report(request, row, code)
            for (request, _), row, code in zip(rows, results, codes, strict=True)
        }

    async def find(self, symbol: str, client_order_id: str) -> Row | None:
        """Search open orders, the last 500 ended ones, the history, and executions; an order that is in none does not
        exist.

        Bybit finds ended orders among the open ones, too, but forgets them at a restart, and its history is late: only
        executions may show an order that has just been filled.
        """
        query = {**self._symbol_params(symbol), "orderLinkId": client_order_id}
        queries: list[tuple[str, dict[str, Any]]] = [
            ("privateGetV5OrderRealtime", query),
            ("privateGetV5OrderRealtime", {**query, "openOnly": 1}),
            ("privateGetV5OrderHistory", query),
        ]
        if self.is_spot:
            queries.insert(1, ("privateGetV5OrderRealtime", {**query, "orderFilter": "StopOrder"}))
        for method, params in queries:
            rows = await self._pages(method, params, 50)
            if rows:
                return self.order_of(rows[0])
        rows = await self._pages("privateGetV5ExecutionList", query, 100)
        rows = [row for row in rows if row.get("orderLinkId") == client_order_id]
        return self.order_of(order_of_executions(rows)) if rows else None

    async def cancel(self, symbol: str, order_id: str, *, conditional: bool) -> None:
        params = {"trigger": True} if conditional and self.is_spot else {}
        await self.client.call("cancel_order", order_id, symbol, params, changes=True)

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        await self._protection.arm(seconds)

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await self._protection.disarm()

    # Transfers between the unified accounts of one main account and its sub-accounts

    @property
    def transfer_place(self) -> tuple[str, str] | None:
        """By the declared user ids: each account has a key of its own, which shows them only on request."""
        if self._uids is None or self.spec.environment == "demo":
            return None
        main, own = self._uids
        return f"bybit {self.spec.environment} {main}", own

    async def check_owner(self) -> None:
        """Compare the user ids of the key with the declared ones: money for a mistyped id would go to another one."""
        row = object_at(await self.client.call("privateGetV5UserQueryApi"), "result")
        own, parent = str(row.get("userID")), str(row.get("parentUid") or "0")
        found = (own if parent == "0" else parent, own)
        if found != self._uids:
            raise OrderRejectedError(
                "permission",
                f"the key of account {self.spec.account} is of user {found[1]} under the main account {found[0]}, and "
                "its document declares others: correct `uid` and `main_uid` in its options",
            )

    async def transfer(self, to: str, amount: Decimal, transfer: str) -> None:
        """A universal transfer, which the venue carries out once for each id."""
        own = self._uids[1] if self._uids is not None else ""
        params = {
            "transferId": transfer_uuid(transfer), "coin": self.spec.currency, "amount": format(amount, "f"),
            "fromMemberId": int(own), "toMemberId": int(to), "fromAccountType": "UNIFIED", "toAccountType": "UNIFIED",
        }  # fmt: skip
        body = await self.client.call("privatePostV5AssetTransferUniversalTransfer", params, changes=True)
        state = str(object_at(body, "result").get("status"))
        if state == "FAILED":
            raise OrderRejectedError("other", f"bybit: transfer {transfer} is {state}")
        if FATES.get(state) != "moved":
            raise FateUnknownError(f"bybit: transfer {transfer} is {state}")

    async def find_transfer(self, sent: SentTransfer) -> TransferFate:
        """By its id. The venue does not document how late the list is, so that its absence proves nothing."""
        name = transfer_uuid(sent.id)
        answer = await self.client.call("privateGetV5AssetTransferQueryUniversalTransferList", {"transferId": name})
        rows = [row for row in rows_at(object_at(answer, "result"), "list") if row.get("transferId") == name]
        return fate_among(rows, sent.amount, ("amount", "status", "transferId"))

    # Inspection

    async def rights(self) -> KeyRights:
        answer = await self.client.call("privateGetV5UserQueryApi")
        return rights_of(answer.get("result") or {}, spot=self.is_spot)

    async def margin_mode(self) -> str | None:
        answer = await self.client.call("privateGetV5AccountInfo")
        mode = str((answer.get("result") or {}).get("marginMode"))
        return {"REGULAR_MARGIN": "cross", "ISOLATED_MARGIN": "isolated", "PORTFOLIO_MARGIN": "portfolio"}.get(mode)


def transfer_uuid(transfer: str) -> str:
    """The id of a transfer in the form that Bybit requires: the same after a restart."""
    return str(uuid5(NAMESPACE_URL, transfer))


def _declared_uids(spec: AccountSpec) -> tuple[str, str] | None:
    """The user ids of the main account and of this one; None where none are declared. ValueError for half of them."""
    found = [str(spec.options.get(name, "")) for name in ("main_uid", "uid")]
    if not any(found):
        return None
    if not all(it.isascii() and it.isdecimal() for it in found):
        raise ValueError("`main_uid` and `uid` are the numbers of the main account and of this one; write both")
    return found[0], found[1]
