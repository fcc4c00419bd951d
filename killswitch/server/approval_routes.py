"""Routes of approvals: what waits for one, what a key signs for it, and the way of a signed statement to the runner.

Nobody approves here. A token reads, and carries; the runner verifies the signature by its own trust set.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.operations.policy_sources import source_state
from killswitch.operations.waiting_approvals import (
    NO_SOURCE,
    OPENPGP_KEY,
    SSH_KEY,
    WaitingApproval,
    matching,
    signing_text,
    waiting_approvals,
)
from killswitch.render.formats import count_of, instant
from killswitch.runner.status_blob import last_view, tick_time
from killswitch.server.command_routes import CLOCK
from killswitch.server.entrance import Caller, Identified
from killswitch.server.record_routes import Carried, RecordRoutes
from killswitch.server.store_reads import StoreReads
from killswitch.source.statements import DELIVERED, SignedStatement, StatementError, read_approval
from killswitch.store.command_spool import SpooledCommand, SpooledDelivery
from killswitch.store.sql import SqlStore

Fingerprint = Annotated[str | None, Query(pattern=rf"^(?:{SSH_KEY}|{OPENPGP_KEY})$")]
MOST_KEPT: Final = 4 << 20
"""Bytes of delivered statements, which a runner keeps for ever and reads at each tick: some 2,000 approvals. Anybody
with a token may carry one, and nobody may slow the ticks with that."""
RUNNER_JUDGES: Final = "whether the signature counts is judged by the runner, by its trust set; this server has no keys"


class ApprovalBody(BaseModel):
    """The text of the file of an approval, as `ksctl approve --out` writes it: a statement and its signature."""

    model_config = ConfigDict(extra="forbid")
    statement: Annotated[str, Field(min_length=1, max_length=40_000)]


class WaitingBody(BaseModel):
    """Something that waits for approvals. `text`, `command`: what the key of the request signs, and how."""

    key: str
    purpose: str
    scope: str
    title: str
    lines: list[str]
    missing: int
    given: list[str]
    not_counted: list[str]
    confirm: str
    problem: str | None
    text: str | None = None
    command: str | None = None


class WaitingList(BaseModel):
    """Everything that waits, in the scopes of the caller."""

    approvals: list[WaitingBody]


class ApprovalPreview(BaseModel):
    """What a signed statement approves. `confirm`: what whoever carries it types, to show that it was read."""

    summary: list[str]
    warnings: list[str]
    confirm: str
    key: str
    effect: Literal["carry"] = "carry"


class ApprovalRoutes:
    """What waits for approvals, and the statements that are carried to the runner."""

    def __init__(self, reads: StoreReads, record: RecordRoutes) -> None:
        self._reads = reads
        self._record = record

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        path = "/v1/approvals"
        app.add_api_route(path, self.waiting, methods=["GET"], summary="What waits for an approval")
        app.add_api_route(path, self.approve, methods=["POST"], status_code=202, summary="Carry a signed statement")
        app.add_api_route(f"{path}/preview", self.preview, methods=["POST"], summary="What a statement approves")

    async def waiting(self, caller: Identified, fingerprint: Fingerprint = None) -> WaitingList:
        """What waits for approvals. With the `fingerprint` of an SSH or OpenPGP key also the text it signs."""
        caller.require("read", is_scoped=False)
        now, found = await self._found(caller)
        return WaitingList(approvals=[_body(each, fingerprint, now) for each in found])

    async def preview(self, body: ApprovalBody, caller: Identified) -> ApprovalPreview:
        """What a signed statement approves of what waits; 409 where nothing waits for it, or its time is over."""
        caller.require("carry", is_scoped=False)
        statement = _signed(body).statement
        now, found = await self._found(caller)
        about = matching(statement, found)
        if about is None:
            raise HTTPException(409, f"nothing waits for this statement: {_why(statement.purpose, found)}")
        if not statement.given <= to_micros(now) < statement.expires:
            times = f"from {instant(from_micros(statement.given))} to {instant(from_micros(statement.expires))}"
            raise HTTPException(409, f"the statement is valid {times}, and it is {instant(now)}: sign it again")
        left = about.missing - 1
        then = f"{count_of(left, 'approval')} of other people are missing then" if left > 0 else "it is the last one"
        shown = about.statement is not None and about.statement.shown != statement.shown
        return ApprovalPreview(
            summary=[f"approves {about.title}; {then}", *about.lines],
            warnings=[
                f"signed by the key {statement.key}, until {instant(from_micros(statement.expires))}",
                *([f"it was signed as {statement.shown}, and the runner finds another class"] if shown else []),
                RUNNER_JUDGES,
            ],
            confirm=about.confirm,
            key=about.key,
        )

    async def approve(self, body: ApprovalBody, caller: Identified) -> Carried:
        """Carry an approval to the runner, which verifies it. A token says who carried it, and approves nothing.

        A statement is known by what is signed: to send it again is the same approval, so that no key is needed.
        """
        caller.require("carry", is_scoped=False)
        signed = _signed(body)

        def read(store: SqlStore, _: object) -> tuple[datetime, bool, bool]:
            kept = store.live_under(DELIVERED)
            is_full = signed.id not in kept and sum(map(len, kept.values())) >= MOST_KEPT
            return tick_time(store, CLOCK), source_state(store) is not None, is_full

        at, is_verified, is_full = await self._reads.read(read)
        if not is_verified:
            raise HTTPException(409, f"nothing verifies the approval: {NO_SOURCE}")
        if is_full:
            why = f"the runner keeps {MOST_KEPT >> 20} MiB of statements already, and takes none from here"
            raise HTTPException(409, f"{why}: give it by `ksctl approve` where the store is, or with the policies")
        event = Event(f"hand-{signed.id[:16]}", at, "approve", None, caller.principal, signed.statement.purpose)
        delivery = SpooledDelivery(f"{DELIVERED}{signed.id}", body.statement)
        return await self._record.carried(SpooledCommand(event, signed.id, delivery), "carry", caller)

    async def _found(self, caller: Caller) -> tuple[datetime, tuple[WaitingApproval, ...]]:
        """The time of ticks, and what waits in the scopes of the caller. Policies are of everybody who reads them, the
        orders that they would place of those who see the positions."""

        def may_see(scope: str) -> bool:
            return caller.may("positions", scope)

        now, found = await self._reads.read(
            lambda store, _: (tick_time(store, CLOCK), waiting_approvals(store, last_view(store), may_see))
        )
        return now, tuple(
            each for each in found if each.purpose not in ("recovery", "reset") or caller.may("read", each.scope)
        )


def _body(waiting: WaitingApproval, key: str | None, now: datetime) -> WaitingBody:
    signs = None if key is None else signing_text(waiting, key, now)
    return WaitingBody(
        key=waiting.key, purpose=waiting.purpose, scope=waiting.scope, title=waiting.title, lines=list(waiting.lines),
        missing=waiting.missing, given=list(waiting.given), not_counted=list(waiting.not_counted),
        confirm=waiting.confirm, problem=waiting.problem, text=None if signs is None else signs.text,
        command=None if signs is None else signs.command,
    )  # fmt: skip


def _why(purpose: str, waiting: Sequence[WaitingApproval]) -> str:
    """What waits instead, where a statement fits nothing."""
    if not waiting:
        return "nothing waits for an approval in the scopes of the token"
    is_other = any(each.purpose == purpose for each in waiting)
    why = "it is of an earlier state, because its base, result or step is another one" if is_other else "its purpose"
    return f"{why}; what waits: {'; '.join(each.title for each in waiting)}"


def _signed(body: ApprovalBody) -> SignedStatement:
    """The statement of a body; 422 where it is none."""
    try:
        return read_approval(body.statement.encode())
    except StatementError as error:
        raise HTTPException(422, f"`statement` is no approval: {error}") from error
