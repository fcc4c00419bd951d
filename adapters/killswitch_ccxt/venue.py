"""One account at a ccxt exchange, as a VenueAdapter, with optional methods only where the venue supports them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from killswitch.model.fitting import WrittenAccount, check_no_credentials, check_option_names
from killswitch.model.inspection import Inspection, KeyRights
from killswitch.model.parsing import UnreadableError, identifier, positive
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    AccountSpec,
    Batching,
    CredentialsRefusedError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    Prices,
    Push,
    RuleKeeping,
    SentTransfer,
    TransferFate,
    Transfers,
    VenueAdapter,
    VenueError,
    VenueTimer,
)
from killswitch_ccxt import orders
from killswitch_ccxt.answers import UNKNOWN_SHAPE, failure_text
from killswitch_ccxt.client import Client
from killswitch_ccxt.client_factory import timeout_of
from killswitch_ccxt.dialect import BatchResults, Dialect, PositionMode, TransferCalls
from killswitch_ccxt.errors import AlreadySoError, GoneError, ModeChangedError
from killswitch_ccxt.instruments import book_price, valuation_price
from killswitch_ccxt.rules import Rules
from killswitch_ccxt.snapshot_reader import SnapshotReader
from killswitch_ccxt.stream import StreamListener
from killswitch_ccxt.unpriced import unpriced_bounds
from killswitch_ccxt.validation import OFFERED, Offered, misfits_of

T = TypeVar("T")
OPTIONS = ("timeout", "ccxt", "ignore_assets", "unpriced")
"""Keys of an Account's `options` at every exchange."""


class CcxtVenue(VenueAdapter):
    """One account. No connection is opened before the first request.

    Its parts: `client`, the connection to the venue; `dialect`, what this venue does differently; `rules` of its
    instruments; `reader`, which makes the snapshots.
    """

    def __init__(self, spec: AccountSpec, dialect: type[Dialect]) -> None:
        """ValueError for a market, an environment or credentials that the venue does not have."""
        _check_account(spec, dialect)
        self.account = spec.account
        self.traits = described = dialect.traits_for(spec)
        self._spec = spec
        self.client = Client(spec, dialect)
        self.dialect = dialect(self.client, spec)
        self.rules = Rules(self.client, self.dialect, spec)
        self.reader = SnapshotReader(self.client, self.dialect, spec, self.rules)
        if (submit_batch := self.dialect.submit_batch) is not None and described.batch > 1:
            self.batches = Batching(described.batch, partial(self._submit_batch, submit_batch))
        if (close_book := self.dialect.close_book) is not None and described.whole_book:
            self.close_book = partial(self._close_book, close_book)
        arm, disarm = self.dialect.arm_dead_man, self.dialect.disarm_dead_man
        if arm is not None and disarm is not None and described.dead_man is not None:
            arm, disarm = partial(self._arm_dead_man, arm), partial(self._disarm_dead_man, disarm)
            self.dead_man = VenueTimer(described.dead_man, arm, disarm)
        self.transfers = _transfers(self.dialect)
        # With an endpoint for requests and none for streams, a stream would connect to the venue itself.
        if dialect.streams and (spec.endpoint is None or spec.endpoint_ws is not None):
            self.listen = self._listen
        self.kept_rules = RuleKeeping(self._rules_to_keep, self.rules.use_kept)

    def used(self) -> Mapping[str, int]:
        """The venue's own count in its last answers."""
        return self.client.used

    async def snapshot(self) -> AccountSnapshot:
        return await self.reader.snapshot()

    async def submit(self, request: OrderRequest) -> OrderReport:
        await self.rules.ready()
        mode = await self.reader.mode()
        self.reader.note_activity(request.symbol)
        try:
            report: OrderReport = await _valid_answer(self.dialect.submit(request, mode))
        except VenueError as error:
            self._note_mode_change(error)
            raise with_amount_reason(error, request, self.dialect.rules.get(request.symbol)) from error.__cause__
        self.reader.known_orders.sent(request, report)
        return report

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        await self.rules.ready()
        return await _valid_answer(self._found(symbol, client_order_id))

    async def _found(self, symbol: str, client_order_id: str) -> OrderReport | None:
        row = await self.dialect.find(symbol, client_order_id)
        if row is None:
            return None
        if row.get("status") is None:
            raise MalformedAnswerError(f"order {client_order_id} has no known state at the venue")
        found = orders.report(row, symbol, self._spec.currency)
        if found.client_order_id not in (client_order_id, None):
            raise MalformedAnswerError(f"queried order {client_order_id}, the answer is about {found.client_order_id}")
        return found

    async def open_orders(self) -> tuple[Order, ...]:
        await self.rules.ready()
        found = await _valid_answer(self.dialect.orders())
        self.reader.record_orders(found)
        return found

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        await self.rules.ready()
        return await _valid_answer(self._fills_of(symbol, client_order_id))

    async def _fills_of(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        row = await self.dialect.find(symbol, client_order_id)
        if row is None:
            return ()
        return await self.dialect.order_fills(symbol, identifier(row.get("id"), f"order {client_order_id}"))

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self.rules.ready()
        self.reader.note_activity()
        for conditional in self.reader.kinds_of(order_id):
            try:
                await _as_venue_answer(self.dialect.cancel(symbol, order_id, conditional=conditional))
            except (GoneError, AlreadySoError):
                continue
            return

    def remember(self, symbols: Collection[str], since: datetime | None = None) -> None:
        self.reader.remember(symbols, since)

    def _rules_to_keep(self) -> bytes | None:
        return self.rules.to_keep(self.reader.recently_held())

    async def prices(self, symbols: Collection[str]) -> Mapping[str, Prices]:
        await self.rules.ready()
        known = sorted(symbol for symbol in set(symbols) if symbol in self.dialect.rules)
        quote_name = f"/{self._spec.currency}"
        assets = sorted(it.removesuffix(quote_name) for it in {*symbols} - {*known} if it.endswith(quote_name))
        positions, others = await asyncio.gather(self._position_prices(known), self._asset_prices(assets))
        return {**positions, **{f"{asset}{quote_name}": price for asset, price in others.items()}}

    async def _position_prices(self, symbols: Sequence[str]) -> dict[str, Prices]:
        """Prices of positions. A holding is valued at its last price, and held against the index, or the order book."""
        found = await _valid_answer(self.dialect.prices(symbols)) if symbols else {}
        if not self.dialect.is_spot:
            return {it: Prices(quote.mark, quote.index, quote.last, quote.at) for it, quote in found.items()}
        return {
            it: Prices(valuation_price(quote), quote.index or book_price(quote), quote.last, quote.at)
            for it, quote in found.items()
        }

    async def _asset_prices(self, assets: Sequence[str]) -> dict[str, Prices]:
        """Prices of assets in the balances; those of positions are known without them."""
        try:
            found = await _valid_answer(self.dialect.asset_prices(assets)) if assets else {}
        except VenueError:
            return {}
        return {it: Prices(quote.mark, quote.index, quote.last, quote.at) for it, quote in found.items()}

    async def inspect(self) -> Inspection:
        await self.rules.ready()
        return await inspection(self.client, self.dialect)

    async def key_rights(self) -> KeyRights:
        return await _valid_answer(self.dialect.rights())

    async def close(self) -> None:
        await self.rules.wait_for_renewal()
        await self.client.close()

    async def _submit_batch(
        self, submit: Callable[[Sequence[OrderRequest], PositionMode], Awaitable[BatchResults]],
        requests: Sequence[OrderRequest],
    ) -> BatchResults:  # fmt: skip
        await self.rules.ready()
        mode = await self.reader.mode()
        self.reader.note_activity(*(request.symbol for request in requests))
        answers = await _valid_answer(submit(requests, mode))
        if len(answers) != len(requests):
            raise MalformedAnswerError(f"{len(answers)} answers to {len(requests)} orders")
        rules = self.dialect.rules
        for request, answer in zip(requests, answers, strict=True):
            self._note_mode_change(answer)
            if isinstance(answer, OrderReport):
                self.reader.known_orders.sent(request, answer)
        return [
            with_amount_reason(answer, request, rules.get(request.symbol)) if isinstance(answer, VenueError) else answer
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _note_mode_change(self, answer: object) -> None:
        """After a refusal because of the position mode, the known mode is wrong."""
        if isinstance(answer, ModeChangedError):
            self.reader.forget_mode()

    async def _close_book(self, close: Callable[[], Awaitable[None]]) -> None:
        await self.rules.ready()
        self.reader.note_activity()
        await _valid_answer(close())

    async def _arm_dead_man(
        self, arm: Callable[[float, Collection[str]], Awaitable[None]], seconds: float, symbols: Collection[str]
    ) -> None:
        await self.rules.ready()
        await _valid_answer(arm(seconds, symbols))

    async def _disarm_dead_man(
        self, disarm: Callable[[Collection[str]], Awaitable[None]], symbols: Collection[str]
    ) -> None:
        await self.rules.ready()
        try:
            await _as_venue_answer(disarm(symbols))
        except (GoneError, AlreadySoError):
            return

    async def _listen(self, on_push: Callable[[Push], None]) -> None:
        await StreamListener(self.client, self.dialect, self.rules.ready, self.reader.note_activity).listen(on_push)


def _transfers(dialect: Dialect) -> Transfers | None:
    """The transfers of an account whose dialect has them; None where it reaches no other account."""
    if not isinstance(dialect, TransferCalls) or dialect.transfer_place is None:
        return None

    async def send(to: str, amount: Decimal, transfer: str) -> None:
        await _valid_answer(dialect.transfer(to, amount, transfer))

    async def find(sent: SentTransfer) -> TransferFate:
        return await _valid_answer(dialect.find_transfer(sent))

    async def check() -> None:
        await _valid_answer(dialect.check_owner())

    place, name = dialect.transfer_place
    return Transfers(place, name, send, find, check)


def _check_account(spec: AccountSpec, dialect: type[Dialect]) -> None:
    """ValueError for the first thing of the account that the exchange does not have."""
    name = dialect.exchange
    offered = OFFERED.get(name) or Offered(name, dialect.markets, dialect.environments, dialect.credentials)
    account = WrittenAccount(name, spec.market, spec.currency, spec.environment, tuple(spec.credentials))
    for misfit in misfits_of(account, name, offered):
        raise ValueError(f"{misfit.message}; {misfit.fix}")
    check_option_names(spec, name, (*OPTIONS, *dialect.more_options))
    check_no_credentials(spec, "ccxt")
    unpriced_bounds(spec)
    timeout_of(spec)


async def _as_venue_answer(request: Awaitable[T]) -> T:
    """The answer to a request; every failure is a VenueError."""
    try:
        return await request
    except VenueError:
        raise
    except Exception as error:
        # From a dialect that met an unknown shape, or from ccxt where it is used outside `Client.call`.
        raise MalformedAnswerError(failure_text(error)) from error


async def _valid_answer(request: Awaitable[T]) -> T:
    """The answer to a request for which "gone" and "already so" are no valid answers."""
    try:
        return await _as_venue_answer(request)
    except (GoneError, AlreadySoError) as error:
        raise MalformedAnswerError(str(error)) from error


async def inspection(client: Client, dialect: Dialect) -> Inspection:
    """Inspect the account by concurrent requests; what cannot be read is None, with a note that states why.

    CredentialsRefusedError where the key may not read the account; one refused request is only a note.
    """
    notes: list[str] = []
    refused: list[CredentialsRefusedError] = []

    async def result_or_note(what: str, request: Awaitable[T]) -> T | None:
        try:
            return await request
        except (VenueError, UnreadableError, *UNKNOWN_SHAPE) as error:
            if isinstance(error, CredentialsRefusedError):
                refused.append(error)
            notes.append(f"{what}: {error}")
            return None

    skew, status, rights, position_mode, margin_mode = await asyncio.gather(
        result_or_note("clock", client.measure_skew()),
        result_or_note("status", dialect.status()),
        result_or_note("key rights", dialect.rights()),
        result_or_note("position mode", dialect.position_mode()),
        result_or_note("margin mode", dialect.margin_mode()),
    )
    if refused and not await _can_read(dialect):
        raise refused[0]
    return Inspection(
        status=status,
        clock_skew_ms=skew,
        rights=rights or KeyRights(note="could not be read"),
        position_mode=position_mode,
        margin_mode=margin_mode,
        capabilities=dialect.capabilities,
        notes=tuple(notes),
    )


async def _can_read(dialect: Dialect) -> bool:
    """Whether the credentials may read the account; other failures do not count against them."""
    try:
        await dialect.account()
    except (VenueError, UnreadableError, *UNKNOWN_SHAPE) as error:
        return not isinstance(error, CredentialsRefusedError)
    return True


def with_amount_reason(error: VenueError, request: OrderRequest, rule: Mapping[str, Any] | None) -> VenueError:
    """The error, with a reason where the venue gave none and the amount violates the symbol's rules.

    Several venues have one code for every wrong amount; closing skips amounts that are too small and splits those that
    are too large.
    """
    if not isinstance(error, OrderRejectedError) or error.reason != "other" or rule is None:
        return error
    limits = (rule.get("limits") or {}).get("amount") or {}
    least, most = positive(limits.get("min")), positive(limits.get("max"))
    if least is not None and request.amount < least:
        return OrderRejectedError("below_minimum", str(error))
    if most is not None and request.amount > most:
        return OrderRejectedError("above_maximum", str(error))
    return error
