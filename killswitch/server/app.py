"""The application: its settings, its parts, and its errors as problem+json."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from msgspec import Struct
from starlette.exceptions import HTTPException as StarletteHTTPException

from killswitch.client.heartbeat import monotonic_seconds
from killswitch.gate.sentinel import sentinel_of
from killswitch.runner.locks.gate_view import gate_view_file
from killswitch.server.access import Tokens
from killswitch.server.acknowledge_routes import AcknowledgeRoutes
from killswitch.server.alert_routes import AlertRoutes, read_secret
from killswitch.server.approval_routes import ApprovalRoutes
from killswitch.server.board.routes import BoardRoutes
from killswitch.server.board.sessions import SessionDoor, Sessions
from killswitch.server.bodies import ERRORS
from killswitch.server.book_routes import BookRoutes
from killswitch.server.command_routes import CommandRoutes
from killswitch.server.entrance import Entrance
from killswitch.server.gate_routes import GateRoutes, PretradeRoute
from killswitch.server.guard import Guard, problem
from killswitch.server.jwt_login import JwtSettings, JwtVerifier
from killswitch.server.pretrade import Gate
from killswitch.server.preview_routes import PreviewRoutes
from killswitch.server.rates import RequestRates, ServerCounters
from killswitch.server.received_writer import ReceivedWriter
from killswitch.server.record_routes import RecordRoutes
from killswitch.server.server_record import AnsweredRequests, ServerRecord
from killswitch.server.store_reads import StoreReads
from killswitch.server.token_routes import TokenRoutes
from killswitch.store.command_spool import CommandSpool, spool_of

SETTINGS_FORMAT: Final = "killswitch.server/v1"


class ServerFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file of `ksctl serve --settings`: what a server behind a proxy needs. Paths are relative to the file.

    `proxies`: networks whose `X-Forwarded-*` headers count. `path_prefix`: the path below which a proxy serves it.
    """

    host_names: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    path_prefix: str = ""
    jwt: JwtSettings | None = None
    webhook_secret: str | None = None
    """A file with the secret that a git host signs its webhooks with."""
    format: str = SETTINGS_FORMAT


class ServerSettings(Struct, frozen=True):
    """Where the server finds its store and its tokens, which hosts are its own, and what its file says."""

    store: Path
    tokens: Path
    hosts: tuple[str, ...]
    file: ServerFile = ServerFile()
    sentinel: Path | None = None
    """Left out: next to the store."""

    @property
    def sentinel_at(self) -> Path:
        """The file whose existence halts everything."""
        return self.sentinel or sentinel_of(str(self.store))

    is_secure: bool = False
    """Whether browsers reach the server over TLS, its own or that of a proxy."""


class ServerFileError(Exception):
    """The settings cannot be used; the message has the path, the cause and the way out."""


def read_server_file(path: Path) -> ServerFile:
    """The settings in a JSON file. ServerFileError for anything else."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ServerFile)
    except OSError as error:
        raise ServerFileError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ServerFileError(f"{path} has no settings of a server: {error}; docs/api.md shows a whole file") from error
    if found.format != SETTINGS_FORMAT:
        raise ServerFileError(f"{path} has the format {found.format}, and this version reads {SETTINGS_FORMAT}")
    for network in found.proxies:
        try:
            ip_network(network)
        except ValueError as error:
            raise ServerFileError(f"{path}: `proxies` has {network}, which is no network: {error}") from error
    if found.path_prefix and (not found.path_prefix.startswith("/") or found.path_prefix.endswith("/")):
        raise ServerFileError(f"{path}: `path_prefix` begins with / and does not end with it, as in /killswitch")
    if found.webhook_secret is not None:
        found = msgspec.structs.replace(found, webhook_secret=str(path.parent / found.webhook_secret))
    if found.jwt is None:
        return found
    keys = str(path.parent / found.jwt.keys)
    return msgspec.structs.replace(found, jwt=msgspec.structs.replace(found.jwt, keys=keys))


def create_app(
    settings: ServerSettings, counters: ServerCounters, monotonic: Callable[[], float] = monotonic_seconds,
    record: ServerRecord | None = None,
) -> Guard:  # fmt: skip
    """The application behind its guard. `record`: its own record, which the caller finishes; left out: one of it.

    TokenFileError if the tokens cannot be read, JwtSettingsError for keys and WebhookSecretError for a secret that are
    not accepted.
    """
    file = settings.file
    verifier = None if file.jwt is None else JwtVerifier(file.jwt)
    record = record or ServerRecord(settings.store, _wall, monotonic, counters)
    entrance = Entrance(Tokens(settings.tokens), verifier, RequestRates(monotonic), counters, _wall, record)
    reads = StoreReads(settings.store, counters)
    sessions = Sessions(_wall, is_secure=settings.is_secure)
    gate = Gate(gate_view_file(str(settings.store)), settings.sentinel_at, _wall)
    spool = CommandSpool(spool_of(settings.store))
    # Whoever reads much, also with the weakest token, must not keep anybody from a halt.
    command_reads = StoreReads(settings.store, counters, "command_reads_under_way")
    commands = CommandRoutes(spool, command_reads, settings.sentinel_at)
    app = FastAPI(
        title="Killswitch", version="1", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json", responses=ERRORS
    )
    app.state.entrance = entrance
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    received = ReceivedWriter(settings.store, _wall, counters)
    secret = None if file.webhook_secret is None else read_secret(Path(file.webhook_secret))
    records = RecordRoutes(reads, spool, commands)
    for routes in (
        BookRoutes(reads, counters), GateRoutes(gate, received), commands,
        TokenRoutes(entrance.tokens, commands, _wall, record),
        AlertRoutes(received, commands, reads, secret, (_wall, monotonic)), records,
        ApprovalRoutes(reads, records), PreviewRoutes(reads, commands, counters),
        BoardRoutes(settings.store, entrance, sessions, commands, monotonic),
        AcknowledgeRoutes(settings.store, reads, commands),
    ):  # fmt: skip
        routes.add_to(app)
    answered = AnsweredRequests(app, record)
    inner = SessionDoor(PretradeRoute(answered, gate, entrance, file.path_prefix), sessions)
    return Guard(inner, settings.hosts + file.host_names, file.proxies, file.path_prefix)


def _wall() -> datetime:
    return datetime.now(UTC)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    body = problem(error.status_code, error.detail if error.status_code == 404 else "Refused", str(error.detail))
    return JSONResponse(body, error.status_code, error.headers, media_type="application/problem+json")


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:10])
    return JSONResponse(problem(422, "Unprocessable Content", found), 422, media_type="application/problem+json")
