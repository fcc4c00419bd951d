"""Routes of other programs: notifications of a monitoring system, and the webhook of a git host.

An alert is never a command: it is a fact that a trigger may read (`alert.active`). The webhook only brings the next
poll of the source forward: it takes nothing that a poll would not take, and its content is not read.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Header, HTTPException, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from killswitch.model.snapshot import Event, ExternalAlert
from killswitch.operations.policy_sources import source_state
from killswitch.server.command_routes import CommandRoutes
from killswitch.server.entrance import Identified, source_of, too_many
from killswitch.server.rates import RateTable, RequestRate
from killswitch.server.received_writer import ReceivedWriter
from killswitch.server.store_reads import StoreReads
from killswitch.store.command_spool import SpooledCommand
from killswitch.store.received import TooManyAlertsError

SHORTEST_SECRET: Final = 32
"""Bytes of the secret of a webhook."""
KNOWN_EXAMPLES: Final = (
    b"changeme", b"secret", b"password", b"example", b"It's a Secret to Everybody", b"my-secret",
    b"your-256-bit-secret", b"a-string-secret-at-least-256-bits-long",
)  # fmt: skip
"""Secrets of documentations: GitHub's, that of jwt.io, and what people write at first, however often repeated."""
POLLS: Final = RequestRate(0.1, 2.0)
"""Polls that a webhook may bring forward; what comes more often is answered as accepted, and is one poll."""
_BEFORE_EPOCH: Final = 1970

Labels = dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=1000)]]


class AlertBody(BaseModel):
    """An alert of a notification. Keys that are not named here are ignored."""

    status: Literal["firing", "resolved"]
    labels: Annotated[Labels, Field(min_length=1, max_length=100)]
    startsAt: AwareDatetime | None = None  # noqa: N815 - Alertmanager's names
    endsAt: AwareDatetime | None = None  # noqa: N815 - as above


class AlertmanagerBody(BaseModel):
    """A notification of Alertmanager's webhook, version 4, as Grafana sends it too."""

    version: Literal["4", "1"]
    alerts: Annotated[list[AlertBody], Field(max_length=1000)]
    truncatedAlerts: Annotated[int, Field(ge=0)] = 0  # noqa: N815 - as above


class WebhookSecretError(Exception):
    """The secret of the webhook cannot be used; the message has the cause and the way out."""


def read_secret(path: Path) -> bytes:
    """The secret in a file, without white space around it. WebhookSecretError for one that protects nothing."""
    try:
        found = path.read_bytes().strip()
    except OSError as error:
        raise WebhookSecretError(f"the secret of the webhook cannot be read from {path}: {error.strerror}") from error
    if len(found) < SHORTEST_SECRET:
        raise WebhookSecretError(f"{path}: a secret has at least {SHORTEST_SECRET} bytes: `openssl rand -hex 32`")
    if len(set(found)) < 8 or any(re.fullmatch(rb"(%s)+" % re.escape(each), found, re.I) for each in KNOWN_EXAMPLES):
        raise WebhookSecretError(f"{path}: this secret is an example that everybody knows: `openssl rand -hex 32`")
    return found


class AlertRoutes:
    """Takes notifications and webhooks."""

    def __init__(
        self, received: ReceivedWriter, commands: CommandRoutes, reads: StoreReads, secret: bytes | None,
        times: tuple[Callable[[], datetime], Callable[[], float]],
    ) -> None:  # fmt: skip
        """`secret`: of the webhook; None: there is none. `times`: the wall clock, and monotonic seconds."""
        self._received = received
        self._commands = commands
        self._reads = reads
        self._secret = secret
        self._now, monotonic = times
        self._polls = RateTable(monotonic)
        self._failures = RateTable(monotonic)

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        app.add_api_route(
            "/v1/alerts/alertmanager", self.notified, methods=["POST"], status_code=204,
            summary="Take a notification of Alertmanager",
        )  # fmt: skip
        app.add_api_route("/v1/alerts", self.listed, methods=["GET"], summary="The alerts that were received")
        app.add_api_route(
            "/v1/webhooks/source", self.pushed, methods=["POST"], status_code=202,
            summary="Bring the next poll of the source forward",
        )  # fmt: skip

    async def notified(self, body: AlertmanagerBody, caller: Identified) -> Response:
        """Keep the alerts of a notification, on disk when this answers. It may come late, twice, and in any order."""
        caller.require("report")
        if body.truncatedAlerts:
            raise HTTPException(422, "alerts are left out of the notification: remove `max_alerts` of the receiver")
        now = self._now()
        found = [_alert(each, now) for each in body.alerts]
        try:
            await self._received.alerts(found)
        except (TooManyAlertsError, OSError) as error:
            raise HTTPException(503, f"the notification is not kept: {error}") from error
        return Response(status_code=204)

    async def listed(self, caller: Identified) -> dict[str, Any]:
        """Each alert by its last notification, and when any notification arrived last."""
        caller.require("read", is_scoped=False)
        state = self._received.state
        shown = [
            {"name": each.name, "status": each.status, "labels": each.labels, "received_at": each.received_at}
            for each in state.alerts
        ]
        return {"alerts_as_of": state.alerts_as_of, "alerts": shown}

    async def pushed(
        self, request: Request, x_hub_signature_256: Annotated[str | None, Header(max_length=200)] = None
    ) -> dict[str, bool]:
        """Bring the next poll of the source forward. It is signed: HMAC-SHA256 of the body by the secret.

        GitHub, Gitea, Forgejo and Bitbucket send the header; no token is needed. `poll` is false where a poll was
        brought forward a moment ago.
        """
        body, source = await request.body(), source_of(request.scope)
        if self._secret is None:
            raise HTTPException(404, "this server has no webhook: name its secret in the settings")
        expected = f"sha256={hmac.digest(self._secret, body, 'sha256').hex()}"
        if not hmac.compare_digest(expected.encode(), (x_hub_signature_256 or "").encode()):
            wait = self._failures.take(source, RequestRate(0.2, 20.0))
            raise too_many("too many wrong signatures", wait) if wait else HTTPException(401, "the signature is wrong")
        if await self._reads.read(lambda store, _: source_state(store)) is None:
            raise HTTPException(409, "no run on this store follows a source: there is nothing to poll")
        if self._polls.take("source", POLLS):
            return {"poll": False}
        now = self._now()
        # The id is that of the moment: a request that is sent again is another look at the source, which costs nothing.
        id_ = sha256(f"{now.timestamp():.6f}".encode() + body).hexdigest()[:16]
        event = Event(f"hand-{id_}", now, "reload", None, None, "webhook of the source")
        await self._commands.spool(SpooledCommand(event, sha256(body).hexdigest()), "1-loosen", None)
        return {"poll": True}


def _alert(body: AlertBody, now: datetime) -> ExternalAlert:
    name = body.labels.get("alertname")
    if not name:
        raise HTTPException(422, "an alert has no label `alertname`, by which triggers name it")
    return ExternalAlert(name, body.status, now, body.labels, _known(body.startsAt), _known(body.endsAt))


def _known(at: datetime | None) -> datetime | None:
    """A time of Alertmanager, which writes an unknown one as the year 1."""
    return None if at is None or at.year < _BEFORE_EPOCH else at
