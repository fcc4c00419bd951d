"""Routes of operator commands: each becomes a synced file that the runner takes, or is refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi import Path as PathParam
from msgspec import structs

from killswitch.gate.sentinel import create_sentinel
from killswitch.model.flags import OF_POLICY
from killswitch.model.snapshot import Event
from killswitch.operations.commands import (
    RefusedScopeError,
    SpentPlanError,
    account_scopes,
    answer_to,
    apply_event,
    operator_event,
    require_known_or_symbol,
    require_policy,
    watched_scopes,
)
from killswitch.operations.lifting import ScopeHold, UnnamedError, holds_of, named
from killswitch.operations.notifying import Acknowledgeable, UnknownPageError, acknowledgeable
from killswitch.operations.status import runner_state, store_status
from killswitch.planning.operator.flags import FLAG_CHANGE
from killswitch.planning.operator.pauses import PAUSE_CHANGE
from killswitch.planning.operator.plan_file import PlanFileError, decode_plan
from killswitch.runner.clock import SystemClock
from killswitch.runner.give_up_commands import accounts_closing
from killswitch.runner.status_blob import RunnerView, tick_time
from killswitch.server.access import class_of
from killswitch.server.bodies import Accepted, CommandBody, CommandState
from killswitch.server.entrance import Caller, Identified
from killswitch.server.store_reads import StoreReads
from killswitch.store.command_spool import (
    CommandSpool,
    SpooledCommand,
    SpoolFullError,
    SpoolState,
    Urgency,
    digest_of,
)
from killswitch.store.sql import SqlStore

ID_BEGINS = ("hand-", FLAG_CHANGE, PAUSE_CHANGE)
"""How the ids of operator commands begin."""
CommandId = Annotated[str, PathParam(pattern=r"^[a-z0-9-]{8,80}$")]
Key = Annotated[str, Header(min_length=8, max_length=200, pattern=r"^[\x21-\x7e]+$")]
CLOCK = SystemClock()


def request_id(caller: Caller, request: Request, key: str) -> str:
    """What a request with an idempotency key is known by: of one principal, on one route."""
    return sha256(f"{caller.principal}\n{request.url.path}\n{key}".encode()).hexdigest()[:16]


class CommandRoutes:
    """What gives commands, and what became of them."""

    def __init__(self, spool: CommandSpool, reads: StoreReads, sentinel: Path) -> None:
        """`sentinel`: the file whose existence halts everything."""
        self._spool = spool
        self._reads = reads
        self._sentinel = sentinel

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route(
            "/v1/commands", self.command, methods=["POST"], status_code=202, summary="Give an operator command"
        )
        app.add_api_route("/v1/commands/{id}", self.outcome, methods=["GET"], summary="What became of a command")

    async def command(
        self, request: Request, command: CommandBody, idempotency_key: Key, caller: Identified
    ) -> Accepted:
        """Leave a command for the runner. It is on disk when this answers, and applied by the next tick.

        The same key with the same body is the same command; with another body it is refused.
        """
        body, id_ = digest_of(await request.body()), request_id(caller, request, idempotency_key)
        if self._find(id_) is not None:
            return await self._replayed(id_, body)
        event = await self.event(command, caller, id_)
        urgency: Urgency = "0-tighten" if class_of(event) == "tighten" else "1-loosen"
        done = await self._halted() if halts_everything(event) else {}
        try:
            is_new = await self.spool(SpooledCommand(event, body), urgency, caller)
        except HTTPException as error:
            if "sentinel" not in done:
                raise
            why = f"{error.detail}; but {self._sentinel} is there, and halts everything"
            raise HTTPException(error.status_code, why) from error
        if not is_new:
            return await self._replayed(id_, body)
        return (await self._outcome(event, state="waiting", is_replay=False)).model_copy(update=done)

    async def _halted(self) -> dict[str, Any]:
        """Create the sentinel, and what the answer says of that.

        First of all: bots and the gate obey it before any tick does, also where the folder of commands takes no more.
        """
        try:
            await anyio.to_thread.run_sync(create_sentinel, self._sentinel)
        except OSError as error:
            return {"remarks": [f"{self._sentinel} could not be created: {error.strerror}"]}
        return {"sentinel": str(self._sentinel)}

    async def spool(self, command: SpooledCommand, urgency: Urgency, caller: Caller | None) -> bool:
        """Leave a command on disk; False if one with its id is there. 503 where no more is taken.

        What lets risk in again is on record before. `caller`: None where a signature of another kind was verified.
        """
        if caller is not None:
            await caller.recorded()
        try:
            return await anyio.to_thread.run_sync(self._spool.put, command, urgency)
        except (SpoolFullError, OSError) as error:
            raise HTTPException(503, f"the command is not accepted: {error}") from error

    async def _replayed(self, id_: str, body: str) -> Accepted:
        """The present state of the command that this key has given; 422 if the body was another one."""
        known = self._find(id_)
        if known is None or known[0].body != body:
            raise HTTPException(422, "this idempotency key was used with another body: use a new key")
        event, state = known[0].event, known[1]
        # Once a tick has taken the halt, the lock is its own: a sentinel then would be a halt that nobody has given.
        done = await self._halted() if halts_everything(event) and state == "waiting" else {}
        return (await self._outcome(event, state=state, is_replay=True)).model_copy(update=done)

    async def outcome(self, id: CommandId, caller: Identified) -> Accepted:  # noqa: A002 - in the path
        """What became of a command: whether a tick has applied it, and what it decided."""
        known = self._spool.find(id)
        if known is None:
            raise HTTPException(404, f"no command {id} was given to this server")
        caller.require("read", known[0].event.scope)
        return await self._outcome(known[0].event, state=known[1], is_replay=False)

    def _find(self, digest: str) -> tuple[SpooledCommand, SpoolState] | None:
        return next((found for begin in ID_BEGINS if (found := self._spool.find(begin + digest)) is not None), None)

    async def event(self, command: CommandBody, caller: Caller, digest: str) -> Event:
        """The event of a command that the caller may give.

        HTTPException if it is incomplete, if it names what is not there, and if the caller may not do that. Who may
        tighten may also end what the same person has ordered by hand.
        """
        if not caller.may("tighten", is_scoped=False):  # who may give no command at all reads nothing either
            caller.require("tighten", is_scoped=False)
        if command.kind == "acknowledge":
            return await self._acknowledgement(command, caller, digest)
        caller.slow_outside(command.scope)
        if command.kind != "apply" and not caller.may("tighten", command.scope):
            caller.require("tighten", command.scope)  # before anything is read: an answer names what is there
        is_of_policy = (command.scope or "").startswith(OF_POLICY)
        if command.kind == "pause" and is_of_policy and command.seconds is None:
            raise HTTPException(422, "a pause of a policy needs `seconds`: what lasts longer is an edit of the policy")
        if command.kind == "flag" and (command.flag is None or command.set is None):
            raise HTTPException(422, "a flag needs `flag`, its name, and `set`, true or false")
        if command.kind == "apply":
            event = await self._plan_event(command, caller)
            caller.require("tighten", event.scope)
            return structs.replace(event, id=f"hand-{digest}")
        if command.kind == "restate" and (command.change is None or command.restated_as is None):
            raise HTTPException(422, "a restatement needs `change`, its id, and `as`, loss or flow")
        if command.kind == "give_up":
            await self._require_close(command)
        ended = await self._ended(command, caller)
        view, at = await self._present(command)
        _require_scope(command, view, lambda scope: caller.may("read", scope))
        is_paused = command.kind == "pause" and not is_of_policy
        until = None if command.seconds is None else at + timedelta(seconds=command.seconds)
        more: dict[str, Any] = {
            "cause": (command.cause or "operator") if command.kind == "close" else None,
            "force": command.force, "flag": command.flag, "is_set": command.set, "until": until,
            "lock": command.mode or ("reduce_only" if command.kind in ("close", "halt", "lock") or is_paused else None),
            "side": command.side, "symbols": None if command.symbols is None else tuple(sorted(set(command.symbols))),
            "all_orders": command.all_orders, "decision": command.decision, "change": command.change,
            "restated_as": command.restated_as, "ids": None if ended is None else tuple(it.decision for it in ended),
        }  # fmt: skip
        event = operator_event(command.kind, command.scope, caller.principal, command.reason, at, **more)
        is_own = bool(ended) and all(it.kind != "stage" and it.author == caller.principal for it in ended or ())
        caller.require("tighten" if is_own else class_of(event), event.scope)
        return structs.replace(event, id=event.id[:-16] + digest)

    async def _present(self, command: CommandBody) -> tuple[RunnerView | None, datetime]:
        """What the last tick has seen, and the time as ticks are dated.

        A halt or a lock does not wait for a store that does not answer: the tick refuses a scope that is not there.
        """
        try:
            return await self._reads.read(
                lambda store, now: (store_status(store, now, 0).view, tick_time(store, CLOCK))
            )
        except HTTPException:
            if command.kind not in ("halt", "lock"):
                raise
            return None, CLOCK.now()

    async def _ended(self, command: CommandBody, caller: Caller) -> tuple[ScopeHold, ...] | None:
        """What the command ends; None for one that ends nothing of a scope. 409 with the list if it names nothing."""
        is_of_policy = (command.scope or "").startswith(OF_POLICY)
        if command.kind not in ("unlock", "reset", "resume") or (command.kind == "resume" and is_of_policy):
            return None
        caller.require("read", command.scope)  # an answer lists what holds the scope
        scope = command.scope or "portfolio"

        def read(store: SqlStore, now: datetime) -> tuple[ScopeHold, ...]:
            return holds_of(store, store_status(store, now, 0).view, scope, tick_time(store, CLOCK))

        there = await self._reads.read(read)
        ids = _named(command, there)
        return tuple(each for each in there if each.decision in ids)

    async def _plan_event(self, command: CommandBody, caller: Caller) -> Event:
        """The event that applies a saved plan, in whose every scope the caller may tighten."""
        try:
            plan = decode_plan(command.plan or "")
        except PlanFileError as error:
            raise HTTPException(422, f"`plan` is no saved plan: {error}") from error
        for scope in sorted({each.scope for each in plan.decisions}):
            caller.require("tighten", scope)
        try:
            return await self._reads.read(
                lambda store, _: apply_event(store, plan, caller.principal, tick_time(store, CLOCK))
            )
        except SpentPlanError as error:
            raise HTTPException(409, str(error)) from error

    async def _require_close(self, command: CommandBody) -> None:
        """409 unless the decision is being closed on an account of the scope."""
        if command.decision is None:
            raise HTTPException(422, "to give up a close, name its `decision`")
        decision = command.decision
        if not await self._reads.read(lambda store, _: accounts_closing(store, decision, command.scope)):
            raise HTTPException(409, f"nothing is being closed for {decision} on {command.scope or 'any account'}")

    async def _acknowledgement(self, command: CommandBody, caller: Caller, digest: str) -> Event:
        """The event of an acknowledgement, in scopes where the caller may tighten; of firings in others it knows
        nothing. HTTPException if nothing waits for it."""
        if command.incident is None:
            raise HTTPException(422, "an acknowledgement needs `incident`, as the message has it")
        if command.scope is not None:
            caller.require("tighten", command.scope)
        incident = command.incident

        def read(store: SqlStore, _now: datetime) -> tuple[Acknowledgeable, datetime]:
            found = acknowledgeable(store, incident, lambda scope: caller.may("tighten", scope))
            return found, tick_time(store, CLOCK)

        try:
            found, at = await self._reads.read(read)
        except UnknownPageError as error:
            raise HTTPException(409, str(error)) from error
        scopes = sorted({page.announcement.attributes.scope for page in found.pages})
        # without a decision it covers every firing up to its number
        for scope in scopes if found.about is not None else (None,):
            caller.require("tighten", scope)
        event = operator_event(
            "acknowledge", command.scope if caller.may("tighten") else scopes[0], caller.principal, command.reason, at,
            decision=found.about, number=min(command.number or found.number, found.number),
        )  # fmt: skip
        return structs.replace(event, id=f"hand-{digest}")

    async def _outcome(self, event: Event, *, state: SpoolState, is_replay: bool) -> Accepted:
        def read(store: SqlStore, now: datetime) -> tuple[str, bool, list[str], list[str]]:
            answer = answer_to(store, event)
            is_stored = any(each.id == event.id for each in store.pending_events())
            found = [each.id for each in answer.decisions], [each.text for each in answer.notices]
            return runner_state(store.lease(), now).liveness, is_stored, *found

        try:
            runner, is_stored, decisions, notices = await self._reads.read(read)
        except HTTPException:
            runner, is_stored, decisions, notices = "unknown", True, [], []
        is_applied = state == "taken" and bool(decisions or notices or not is_stored)
        shown: CommandState = "applied" if is_applied else "accepted" if state == "waiting" else state
        return Accepted(
            id=event.id, kind=event.kind, scope=event.scope, effect=class_of(event), state=shown, is_replay=is_replay,
            runner=runner, decisions=decisions, notices=notices,
        )  # fmt: skip


def _named(command: CommandBody, there: tuple[ScopeHold, ...]) -> tuple[str, ...]:
    """The decisions that a command ends; 409 with the list of what is there if it names none, or another one."""
    scope = command.scope or "portfolio"
    assert command.kind in ("resume", "unlock", "reset")
    if command.ids is None:
        unnamed = UnnamedError(command.kind, scope, "name the decisions that it ends as `ids`", there)
        raise HTTPException(409, str(unnamed))
    try:
        return named(command.kind, scope, command.ids, there)
    except UnnamedError as error:
        raise HTTPException(409, str(error)) from error


def halts_everything(event: Event) -> bool:
    """Whether the command is a halt of everything, without a part and without an end."""
    is_part = event.side is not None or event.symbols is not None or event.until is not None
    return event.kind == "halt" and event.scope in (None, "portfolio") and not is_part


def _require_scope(command: CommandBody, view: RunnerView | None, may_see: Callable[[str], bool]) -> None:
    """409 for a scope that the runner does not have. Before its first tick nothing is known, and the tick refuses.

    `may_see`: whether a scope may be named to the caller, who sees the one that the command names.
    """
    if view is None:
        return
    try:
        if command.kind in ("pause", "resume") and (command.scope or "").startswith(OF_POLICY):
            policies = {each.policy for each in view.machines}
            require_policy(command.scope, {each for each in policies if may_see(f"{OF_POLICY}{each}")})
        elif command.scope is not None:
            known = account_scopes((each.account, each.venue) for each in view.accounts) | watched_scopes(view)
            require_known_or_symbol(command.scope, set(filter(may_see, known | set(view.strategies or ()))))
    except RefusedScopeError as error:
        raise HTTPException(409, str(error)) from error
