"""Inspection of accounts: one inspection and one snapshot each. Changes nothing at the venue.

Accounts of one venue are inspected in sequence, within the polling share of its limits, so that a check does not take
the budget of a runner at the same address; venues are inspected in parallel.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.credentials import CredentialError
from killswitch.accounts.opening import open_accounts
from killswitch.accounts.plug_ins import AdapterError
from killswitch.accounts.poll.poller import Polls
from killswitch.accounts.poll.shared_adapter import AdapterView
from killswitch.model.clock import Clock
from killswitch.model.inspection import Inspection
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import (
    CredentialsRefusedError,
    VenueAdapter,
    VenueError,
)
from killswitch.policy.schema.account import AccountDocument, venue_of
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets

T = TypeVar("T")
MAX_ROOM_WAIT = 90.0
"""Maximum seconds to wait for room in the limits of the venue, which count minutes at most."""


class InspectedAccount(Struct, frozen=True):
    """Result of the inspection of one account.

    `refused`: why there is no adapter; nothing else is known then. `inspection`: None if the adapter has none, or if it
    failed (`inspection_error` has the cause). `rejection`: the error of the venue if it rejects the credentials.
    `account`: as opened; its connections are closed.
    """

    document: AccountDocument
    refused: str | None = None
    inspection: Inspection | None = None
    inspection_error: str | None = None
    snapshot: AccountSnapshot | None = None
    request_seconds: float | None = None
    used: Mapping[str, int] | None = None
    rejection: str | None = None
    account: ArmedAccount | None = None
    failure: VenueError | None = None
    """The error of the venue for which there is no sound snapshot, where it was one."""

    @property
    def name(self) -> str:
        return self.document.metadata.name

    @property
    def venue(self) -> str:
        return venue_of(self.document.spec)

    @property
    def adapter(self) -> VenueAdapter:
        """The adapter, whose connections are closed. Only where it is not `refused`."""
        assert self.account is not None  # refused
        return self.account.adapter

    @property
    def known(self) -> AccountSnapshot | None:
        """The snapshot, if it is sound."""
        return self.snapshot if self.snapshot is not None and self.snapshot.quality == "ok" else None


async def inspect_accounts(
    documents: Sequence[AccountDocument], within: float, clock: Clock
) -> tuple[InspectedAccount, ...]:
    """Inspect every account, in the order of the documents. A failure of one does not affect the others.

    `within`: seconds that one answer may take.
    """
    venues: dict[str, list[AccountDocument]] = defaultdict(list)
    for document in documents:
        venues[venue_of(document.spec)].append(document)
    budgets = RequestBudgets()

    async def one_after_another(here: Iterable[AccountDocument]) -> list[InspectedAccount]:
        return [await _inspect(document, budgets, within, clock) for document in here]

    found = await asyncio.gather(*(one_after_another(here) for here in venues.values()))
    by_name = {each.name: each for here in found for each in here}
    return tuple(by_name[document.metadata.name] for document in documents)


async def _inspect(document: AccountDocument, budgets: RequestBudgets, within: float, clock: Clock) -> InspectedAccount:
    name, spec = document.metadata.name, document.spec
    try:
        account = open_accounts([document], live=False)[name]
    except (AdapterError, CredentialError) as error:
        return InspectedAccount(document, refused=str(error))
    adapter = account.adapter
    try:
        budget = budgets.of(name, venue_of(spec), adapter.traits, spec.closing_share)
        recorder = _RejectionRecorder(adapter)
        inspection, failure = None, None
        if adapter.inspect is not None:
            await _wait_for_room(budget, clock)
            inspection, failure = await call_adapter(adapter.inspect, within, recorder.record)
        await _wait_for_room(budget, clock)
        began = clock.monotonic()
        snapshot = await _snapshot(replace(account, adapter=recorder), within)
        seconds = clock.monotonic() - began
        return InspectedAccount(
            document,
            inspection=inspection,
            inspection_error=failure,
            snapshot=snapshot,
            request_seconds=_request_seconds(snapshot, seconds),
            used=_used(adapter),
            rejection=recorder.denied,
            account=account,
            failure=recorder.failure,
        )
    except ValueError as error:  # each limit is valid by itself, or there would be no adapter
        why = f"it contradicts another account of {venue_of(spec)} on their limits: {error}"
        return InspectedAccount(document, refused=why)
    finally:
        await close_adapter(adapter, within)


async def call_adapter(
    call: Callable[[], Awaitable[T]], within: float, note: Callable[[VenueError], None] = lambda _: None
) -> tuple[T | None, str | None]:
    """The answer of an adapter's call, or why there is none. `note` gets the VenueError."""
    try:
        async with asyncio.timeout(within):
            return await call(), None
    except TimeoutError:
        return None, f"no answer within {within:g} s"
    except VenueError as error:
        note(error)
        return None, error_text(error)
    except Exception as error:  # noqa: BLE001 - a defect of the adapter fails one account
        return None, legible(f"the adapter failed: {type(error).__name__}: {error}")


def error_text(error: VenueError) -> str:
    """The error of a venue, for people."""
    return legible(str(error) or type(error).__name__)


class _RejectionRecorder(AdapterView):
    """The adapter for one snapshot.

    It records the error: the reason of a snapshot distinguishes neither rejected credentials nor a rate limit from an
    outage.
    """

    def __init__(self, adapter: VenueAdapter) -> None:
        super().__init__(adapter)
        self.denied: str | None = None
        self.failure: VenueError | None = None
        """The error of the snapshot."""

    async def snapshot(self) -> AccountSnapshot:
        try:
            return await super().snapshot()
        except VenueError as error:
            self.record(error)
            self.failure = error
            raise

    def record(self, error: VenueError) -> None:
        """Record the first rejection of the credentials."""
        if isinstance(error, CredentialsRefusedError) and self.denied is None:
            self.denied = error_text(error)


async def _snapshot(account: ArmedAccount, within: float) -> AccountSnapshot:
    polls = Polls({account.name: account}, within)
    try:
        return (await polls.gather())[0]
    finally:
        await polls.abandon()


async def _wait_for_room(budget: RequestBudget, clock: Clock) -> None:
    """Wait until the polling budget has room, and take it; an inspection counts as one snapshot.

    After a long wait the request is sent once anyway: the venue itself rejects what exceeds its limits.
    """
    deadline = clock.monotonic() + MAX_ROOM_WAIT
    while (wait := budget.wait(clock.monotonic(), "snapshot", purpose="reading")) > 0.0:
        if clock.monotonic() + wait > deadline:
            return
        await clock.sleep(wait)
    now = clock.monotonic()
    budget.answered(now, budget.reserve(now, "snapshot", purpose="reading"))


async def close_adapter(adapter: VenueAdapter, within: float) -> None:
    """Close the connections of the adapter and ignore errors."""
    await call_adapter(adapter.close, within)


def _request_seconds(snapshot: AccountSnapshot, seconds: float) -> float | None:
    """Seconds of one request: as measured by the adapter, else the time of the whole snapshot."""
    if snapshot.quality == "down":
        return None
    measured = None if snapshot.health is None else snapshot.health.latency_ms
    return seconds if measured is None else measured / 1000


def _used(adapter: VenueAdapter) -> Mapping[str, int] | None:
    if adapter.used is None:
        return None
    with suppress(Exception):  # a defect in counting does not affect the check
        return dict(adapter.used())
    return None
