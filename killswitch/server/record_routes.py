"""Routes of the record and of the source: decisions, reports, the policies in force, and commands to their source."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParam
from pydantic import BaseModel, ConfigDict, Field

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.incident_decisions import (
    IncidentDecisions,
    UnknownIncidentError,
    find_incident,
    read_incidents,
)
from killswitch.model.decision import Decision, decision_record
from killswitch.model.snapshot import Event
from killswitch.operations.policy_sources import (
    UnknownSetError,
    delivered,
    set_named,
    source_command,
    source_state,
    source_status,
)
from killswitch.runner.status_blob import last_tick, started_as, tick_time
from killswitch.server.access import EffectClass
from killswitch.server.bodies import RecordedReason
from killswitch.server.command_routes import CLOCK, CommandRoutes, Key, request_id
from killswitch.server.entrance import Caller, Identified
from killswitch.server.store_reads import StoreReads
from killswitch.store.command_spool import CommandSpool, SpooledCommand, SpooledDelivery, digest_of
from killswitch.store.sql import SqlStore

MOST_SHOWN: Final = 200
_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")
Limit = Annotated[int, Query(ge=1, le=MOST_SHOWN)]
IncidentId = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9-]{4,80}$")]
SourceVerb = Literal["rollback", "pin", "pause", "resume"]


class SourceBody(BaseModel):
    """A command to the source. `set`: for a rollback or a pin, how the digest or commit of a set that was in force
    begins."""

    model_config = ConfigDict(extra="forbid")
    reason: RecordedReason
    seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 86400.0
    set: Annotated[str | None, Field(min_length=4, max_length=100)] = None
    forget: Annotated[str | None, Field(max_length=100)] = None


class Carried(BaseModel):
    """What is on its way to the runner. `state` as of a command; what became of it is in `GET /v1/policies`."""

    id: str
    state: Literal["waiting", "taken", "expired"]
    is_replay: bool


class RecordRoutes:
    """What has happened, and what brings the policies forward or holds them."""

    def __init__(self, reads: StoreReads, spool: CommandSpool, commands: CommandRoutes) -> None:
        self._reads = reads
        self._spool = spool
        self._commands = commands

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route("/v1/decisions", self.decisions, methods=["GET"], summary="The newest decisions")
        app.add_api_route("/v1/reports", self.reports, methods=["GET"], summary="The incidents")
        app.add_api_route("/v1/reports/{id}", self.report, methods=["GET"], summary="The report of an incident")
        app.add_api_route("/v1/policies", self.policies, methods=["GET"], summary="How the source of the policies is")
        app.add_api_route(
            "/v1/source/{verb}", self.command, methods=["POST"], status_code=202, summary="Command the source"
        )

    async def decisions(self, caller: Identified, limit: Limit = 50) -> Response:
        """The newest decisions in the scopes of the caller, newest first (`killswitch.decision/v1` each)."""
        caller.require("positions", is_scoped=False)

        def read(store: SqlStore, _: object) -> bytes:
            found = (each.decision for each in store.decisions(MOST_SHOWN))
            shown = [decision_record(each) for each in found if caller.may("positions", each.scope)]
            return _ENCODER.encode({"decisions": shown[:limit]})

        return Response(await self._reads.read(read), media_type="application/json")

    async def reports(self, caller: Identified, limit: Limit = 50) -> Response:
        """The incidents in the scopes of the caller, newest first: what `GET /v1/reports/ID` shows in full."""
        caller.require("positions", is_scoped=False)

        def read(store: SqlStore, _: object) -> bytes:
            found = [each for each in reversed(read_incidents(store)) if caller.may("positions", _of(each).scope)]
            shown = [{"id": each.id, "policy": _of(each).policy, "scope": _of(each).scope} for each in found[:limit]]
            return _ENCODER.encode({"reports": shown})

        return Response(await self._reads.read(read), media_type="application/json")

    async def report(self, id: IncidentId, caller: Identified) -> Response:  # noqa: A002 - in the path
        """The report of the incident whose id begins so (`killswitch.incident/v1`)."""
        caller.require("positions", is_scoped=False)

        def read(store: SqlStore, _: object) -> tuple[str, bytes] | None:
            try:
                found = find_incident(store, id)
            except UnknownIncidentError:
                return None
            started = started_as(store, str(self._reads.store))
            return _of(found).scope, _ENCODER.encode(incident_of(store, found, started, last_tick(store)))

        found = await self._reads.read(read)
        if found is None or not caller.may("positions", found[0]):
            raise HTTPException(404, f"no single incident {id} in the scopes of the token")
        return Response(found[1], media_type="application/json")

    async def policies(self, caller: Identified) -> Response:
        """What `ksctl source status` shows (`killswitch.source/v1`); null where no run has followed a source."""
        caller.require("read", is_scoped=False)
        body = await self._reads.read(lambda store, _: _ENCODER.encode(source_status(store, tick_time(store, CLOCK))))
        return Response(body, media_type="application/json")

    async def command(
        self, request: Request, verb: SourceVerb, body: SourceBody, idempotency_key: Key, caller: Identified
    ) -> Carried:
        """Roll back, pin, pause or resume the source, for `seconds`. All but a plain resume loosen.

        A set that is put in force again needs no approval: it had those it needed.
        """
        effect: EffectClass = "tighten" if verb == "resume" and body.forget is None else "loosen"
        caller.require(effect)
        digest, at = await self._set_of(verb, body)
        id_ = request_id(caller, request, idempotency_key)
        found = source_command(
            verb, caller.principal, body.reason, at, lasts=body.seconds, remind=body.seconds / 6, digest=digest,
            forget=body.forget,
        )  # fmt: skip
        name, blob = delivered(msgspec.structs.replace(found, id=f"{verb}-{id_}"))
        event = Event(f"hand-{id_}", at, "reload", None, caller.principal, body.reason)
        delivery = SpooledDelivery(name, blob.decode())
        return await self.carried(SpooledCommand(event, digest_of(await request.body()), delivery), effect, caller)

    async def _set_of(self, verb: SourceVerb, body: SourceBody) -> tuple[str | None, Any]:
        """The digest of the set that is named, and the time of ticks. 409 where there is no source or no such set."""

        def read(store: SqlStore, _: object) -> tuple[str | None, Any] | str:
            if source_state(store) is None:
                return "no runner on this store has followed a source of policies"
            try:
                named = None if body.set is None or verb in ("pause", "resume") else set_named(store, body.set)
            except UnknownSetError as error:
                return str(error)
            return named, tick_time(store, CLOCK)

        if verb == "rollback" and body.set is None:
            raise HTTPException(422, "a rollback needs `set`, the beginning of the digest or commit to go back to")
        found = await self._reads.read(read)
        if isinstance(found, str):
            raise HTTPException(409, found)
        return found

    async def carried(self, command: SpooledCommand, effect: EffectClass, caller: Caller) -> Carried:
        """Leave it for the runner, once; 422 if its key was used with another body."""
        known = self._spool.find(command.event.id)
        is_new = known is None and await self._commands.spool(
            command, "0-tighten" if effect == "tighten" else "1-loosen", caller
        )
        known = None if is_new else self._spool.find(command.event.id)
        if known is not None and known[0].body != command.body:
            raise HTTPException(422, "this idempotency key was used with another body: use a new key")
        return Carried(id=command.event.id, state="waiting" if known is None else known[1], is_replay=not is_new)


def _of(incident: IncidentDecisions) -> Decision:
    """The decision that opened the incident, whose policy and scope are its own."""
    return incident.decisions[0]
