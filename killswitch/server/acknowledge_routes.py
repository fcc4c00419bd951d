"""The page on which a person acknowledges firings: one button, by the link of a message.

Opening the page changes nothing: programs that scan mail open links. The button sends a form with the number of the
newest firing that the page showed, and its seal. No token is needed, and none is in the address: the sealed id of the
link allows nothing but this, and an acknowledgement neither tightens nor loosens anything that trades.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParam

from killswitch.incident.notify.acknowledge_link import PAGE, Seals, seals_of
from killswitch.incident.notify.message import decode_message
from killswitch.model.snapshot import Event
from killswitch.model.store import decoded
from killswitch.operations.notifying import Acknowledgeable, UnknownPageError, acknowledgeable
from killswitch.render.formats import instant
from killswitch.server.command_routes import CommandRoutes
from killswitch.server.store_reads import StoreReads
from killswitch.store.command_spool import SpooledCommand

SealedId = Annotated[str, PathParam(pattern=r"^[0-9a-zA-Z-]{20,120}$")]
LONGEST_NAME: Final = 60
POLICY: Final = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""No script at all, and the form goes nowhere but here."""


class AcknowledgeRoutes:
    """What the routes of the page do."""

    def __init__(self, store: Path, reads: StoreReads, commands: CommandRoutes) -> None:
        self._seals: Seals = seals_of(str(store))
        self._reads = reads
        self._commands = commands

    def add_to(self, app: FastAPI) -> None:
        """Add both routes."""
        path = PAGE + "{sealed_id}"
        app.add_api_route(path, self.page, methods=["GET"], include_in_schema=False)
        app.add_api_route(path, self.acknowledge, methods=["POST"], include_in_schema=False)

    async def page(self, sealed_id: SealedId) -> Response:
        """What waits for an acknowledgement, and the button; it changes nothing."""
        about = self._about(sealed_id)
        try:
            found = await self._reads.read(lambda store, _now: acknowledgeable(store, about))
        except UnknownPageError:
            return _html("Nothing waits", "<p>No firing of this incident waits for an acknowledgement.</p>")
        number = str(found.number)
        seal = self._seals.seal("number", about, number)
        return _html("Acknowledge", f"{_listed(found)}{_form(number, seal)}")

    async def acknowledge(self, request: Request, sealed_id: SealedId) -> Response:
        """Leave the acknowledgement for the runner, up to the number that the page showed."""
        about = self._about(sealed_id)
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        number, seal = (form.get(key, [""])[0] for key in ("number", "seal"))
        if not number.isdigit() or not self._seals.is_seal(seal, "number", about, number):
            raise HTTPException(403, "this form is not one of ours: open the link again")
        name = " ".join(form.get("name", [""])[0].split())[:LONGEST_NAME]
        # The same click twice is one command.
        id_ = f"hand-{sha256(f'ack {about} {number}'.encode()).hexdigest()[:16]}"
        author = f"{name} (by link)" if name else "by link"
        event = Event(id_, datetime.now(UTC), "acknowledge", None, author, "seen", decision=about, number=int(number))
        await self._commands.spool(SpooledCommand(event, ""), "0-tighten", None)
        return _html(
            "Acknowledged",
            "<p>A run that is alive takes this within a second: then these firings no longer escalate. "
            "Later ones do, and reminders go on.</p>",
        )

    def _about(self, sealed_id: str) -> str:
        """The id of the link; 404 for one that is not ours."""
        try:
            about = self._seals.about(sealed_id)
        except OSError as error:
            raise HTTPException(503, f"the key of the links cannot be read: {error}") from error
        if about is None:
            raise HTTPException(404, "there is no such page: the link is not whole")
        return about


def _listed(found: Acknowledgeable) -> str:
    rows = []
    for page in found.pages:
        message = decoded(decode_message, page.announcement.content)
        title = page.announcement.alert if message is None else f"{instant(message.at)} {message.title}"
        rows.append(f"<li>{escape(title)}</li>")
    return f"<ul>{''.join(rows)}</ul>"


def _form(number: str, seal: str) -> str:
    return (
        '<form method="post">'
        f'<input type="hidden" name="number" value="{escape(number)}">'
        f'<input type="hidden" name="seal" value="{escape(seal)}">'
        '<label for="name">Your name</label>'
        f'<input id="name" name="name" maxlength="{LONGEST_NAME}" autocomplete="name">'
        "<button>Acknowledge</button></form>"
    )


def _html(title: str, body: str) -> Response:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="../board/board.css"></head>'
        f'<body class="login"><main><h1>{escape(title)}</h1>{body}</main></body></html>'
    )
    headers = {"content-security-policy": POLICY, "referrer-policy": "same-origin"}  # a form needs an Origin
    return Response(page, headers=headers, media_type="text/html")
