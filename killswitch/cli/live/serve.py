"""`ksctl serve`: the HTTP API in a process of its own, and the tokens that it accepts."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import options
from killswitch.cli.options import RECORD_TEXT, UncheckedPath, option
from killswitch.cli.terminal import print_json, print_note, print_page, print_text, start_log

if TYPE_CHECKING:
    from datetime import datetime

    from killswitch.server.access import Role, TokenRecord

ROLES = ("viewer", "trader", "risk", "admin")


@click.group(
    invoke_without_command=True,
    epilog=options.example_text("ksctl serve --store ks.sqlite --tokens tokens.json"),
)
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner. It is only read.")  # fmt: skip
@click.option("--tokens", "tokens_at", type=UncheckedPath(dir_okay=False), help="The file of the tokens.")
@options.sentinel
@option("--listen", default="127.0.0.1:8600", metavar="ADDRESS:PORT", help="Where to listen.")
@click.option("--host-name", "host_names", multiple=True, metavar="HOST[:PORT]",
              help="A further Host that requests may name, as behind a proxy. Repeatable.")  # fmt: skip
@click.option("--tls-certificate", type=UncheckedPath(dir_okay=False), help="The certificate chain, for TLS.")
@click.option("--tls-key", type=UncheckedPath(dir_okay=False), help="Its private key.")
@click.option("--settings", "settings_at", type=UncheckedPath(dir_okay=False),
              help="A file with proxies, path prefix and logins by JWT; docs/api.md shows one.")  # fmt: skip
@click.option("--ends-with-stdin", is_flag=True, hidden=True, help="End as soon as stdin does: its run has ended.")
@click.option("--behind-proxy", is_flag=True,
              help="Listen on an address that is not loopback without TLS, because a proxy has it.")  # fmt: skip
@options.log_format
@click.pass_context
def serve(
    context: click.Context, store_at: str | None, tokens_at: Path | None, sentinel_at: Path | None, listen: str,
    host_names: tuple[str, ...], tls_certificate: Path | None, tls_key: Path | None, settings_at: Path | None,
    ends_with_stdin: bool, behind_proxy: bool,
) -> None:  # fmt: skip
    """Serve the HTTP API /v1: status, heartbeats and operator commands.

    A process of its own, next to `ksctl run`. It opens the store for reading only: a command becomes a synced file next
    to the store, which the runner takes at once. Every request but /healthz and /readyz needs a token: see `ksctl serve
    token`. The description is at /v1/openapi.json.

    It listens on loopback unless --listen names another address, which it refuses without TLS or --behind-proxy.
    """
    if context.invoked_subcommand is not None:
        return
    if store_at is None or tokens_at is None:
        raise click.UsageError("name the store with --store and the tokens with --tokens")
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key belong together")
    address, port = _address(listen)
    if not (_is_loopback(address) or tls_certificate is not None or behind_proxy):
        raise click.UsageError(
            f"{address} is reached from other machines, and tokens would travel unencrypted: add --tls-certificate and "
            "--tls-key, or --behind-proxy where a proxy has TLS"
        )
    from killswitch.server.access import TokenFileError
    from killswitch.server.alert_routes import WebhookSecretError
    from killswitch.server.app import ServerFileError
    from killswitch.server.jwt_login import JwtSettingsError
    from killswitch.store.errors import StoreError

    try:
        _serve(
            store_at,
            tokens_at,
            address,
            port,
            host_names,
            tls_certificate,
            tls_key,
            settings_at,
            sentinel_at,
            ends_with_stdin=ends_with_stdin,
            is_secure=tls_certificate is not None or behind_proxy,
        )
    except (TokenFileError, ServerFileError, JwtSettingsError, WebhookSecretError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def _serve(
    store_at: str, tokens_at: Path, address: str, port: int, host_names: tuple[str, ...], certificate: Path | None,
    key: Path | None, settings_at: Path | None, sentinel_at: Path | None, *, ends_with_stdin: bool,
    is_secure: bool,
) -> None:  # fmt: skip
    start_log()
    from datetime import UTC, datetime
    from time import monotonic

    from killswitch.cli.session import opened_store
    from killswitch.server.app import ServerFile, ServerSettings, create_app, read_server_file
    from killswitch.server.connections import ListenSettings, listening_sockets, loaded_server, run_server
    from killswitch.server.rates import ServerCounters
    from killswitch.server.server_record import ServerRecord
    from killswitch.store.command_spool import CommandSpool, spool_of

    store = Path(store_at.removeprefix("sqlite:///"))
    with opened_store(store_at, read_only=True):
        pass  # a misspelled path would take commands that no runner ever finds
    with options.file_errors(f"no folder for commands can be created next to {store}"):
        CommandSpool(spool_of(store)).prepare()
    names = {f"{host}:{port}" for host in (address, "127.0.0.1", "localhost")} | set(host_names)
    file = ServerFile() if settings_at is None else read_server_file(settings_at)
    counters = ServerCounters()
    record = ServerRecord(store, lambda: datetime.now(UTC), monotonic, counters)
    settings = ServerSettings(store, tokens_at, tuple(sorted(names)), file, sentinel_at, is_secure)
    app = create_app(settings, counters, record=record)
    listen = ListenSettings(address, port, certificate, key)
    with options.file_errors(f"the certificate {certificate} or its key {key} cannot be used"):
        server = loaded_server(app, listen, counters)
    with options.file_errors(f"cannot listen on {address}:{port}, name another place with --listen"):
        sockets = listening_sockets(listen)
    print_note(f"listening on {'https' if certificate else 'http'}://{address}:{port}/v1, pid {os.getpid()}")
    try:
        run_server(server, sockets, ends_with_stdin=ends_with_stdin)
    finally:
        record.finish()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{listen} is not ADDRESS:PORT, as in 127.0.0.1:8600", param_hint="--listen")
    return host.strip("[]"), int(port)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


@options.verb(
    "ksctl serve token --tokens tokens.json --principal maker --role trader --scope account/main", group=serve
)
@click.option("--tokens", "tokens_at", type=UncheckedPath(dir_okay=False), required=True, help="The file of tokens.")
@click.option("--principal", type=RECORD_TEXT, required=True, help="Whose it is: the author of its commands.")
@click.option("--role", type=click.Choice(ROLES), required=True,
              help="viewer reads; trader also closes, locks and beats; risk also unlocks and resets.")  # fmt: skip
@click.option("--scope", "scopes", type=RECORD_TEXT, multiple=True, required=True,
              help="account/NAME, venue/NAME, …; portfolio is everything. May be given more than once.")  # fmt: skip
@click.option("--for", "length", type=options.DURATION, help="How long it is valid. Default: until it is revoked.")
@options.output
def token(
    tokens_at: Path, principal: str, role: Role, scopes: tuple[str, ...], length: float | None, output: str
) -> None:
    """Issue a token, which is printed once. The file has its hash only.

    A server reads the file again when it changes. `ksctl serve tokens` lists the tokens of the file, and ends one that
    is lost: to exchange a token, issue another one and end the old one.
    """
    from datetime import UTC, datetime, timedelta

    from msgspec.structs import replace

    from killswitch.server.access import TokenFile, TokenFileError, issue, no_scope, read_tokens, write_tokens

    for why in filter(None, map(no_scope, scopes)):
        raise click.BadParameter(why, param_hint="--scope")
    now = datetime.now(UTC)
    secret, record = issue(principal, role, scopes, now, None if length is None else now + timedelta(seconds=length))
    try:
        with options.file_errors(f"{tokens_at} cannot be written"):
            before = read_tokens(tokens_at) if tokens_at.exists() else TokenFile()
            write_tokens(tokens_at, replace(before, tokens=(*before.tokens, record)))
    except TokenFileError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        print_json({"token": secret, "id": record.id, "principal": principal, "role": role, "scopes": list(scopes)})
    else:
        print_text(secret)
        print_note(f"token {record.id} of {principal} ({role}): it is shown this once")


@options.verb("ksctl serve tokens --tokens tokens.json",
              "ksctl serve tokens --tokens tokens.json --revoke 3f0c2a91", group=serve)  # fmt: skip
@click.option("--tokens", "tokens_at", type=UncheckedPath(dir_okay=False), required=True, help="The file of tokens.")
@click.option("--revoke", "ids", type=RECORD_TEXT, multiple=True,
              help="End the token of this id at once. May be given more than once.")  # fmt: skip
@options.output
def tokens(tokens_at: Path, ids: tuple[str, ...], output: str) -> None:
    """List the tokens of a file, or end some of them.

    The file has no secrets, only hashes: a token that is lost cannot be shown again. One that was ended stays in the
    file with its end. A server refuses it within a request, and ends its streams within a minute.
    """
    from datetime import UTC, datetime

    from killswitch.render.document import Page, Table, section
    from killswitch.render.formats import instant
    from killswitch.server.access import TokenFileError, Tokens, ended_by

    now = datetime.now(UTC)
    try:
        with options.file_errors(f"{tokens_at} cannot be written"):
            file = Tokens(tokens_at)
            if ids:
                file.change(lambda before: ended_by(before, ids, now))
            records = file.records
    except TokenFileError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        print_json([_shown(each, now) for each in records])
        return
    head = ("id", "principal", "role", "scopes", "issued", "ends", "valid")
    rows = tuple(
        (
            it.id, it.principal, it.role, " ".join(it.scopes), instant(it.created),
            "until it is revoked" if it.expires is None else instant(it.expires),
            "yes" if it.is_valid_at(now) else "no",
        )
        for it in records
    )  # fmt: skip
    print_page(Page("Tokens", sections=tuple(section(str(tokens_at), Table(head, rows, ids=(0,))))))


def _shown(token: TokenRecord, now: datetime) -> dict[str, object]:
    from killswitch.model.instant import rfc3339

    return {
        "id": token.id, "principal": token.principal, "role": token.role, "scopes": list(token.scopes),
        "created": rfc3339(token.created), "expires": None if token.expires is None else rfc3339(token.expires),
        "is_valid": token.is_valid_at(now),
    }  # fmt: skip
