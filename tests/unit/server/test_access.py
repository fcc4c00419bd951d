"""Tokens of every wrong kind, and requests that are no request of ours."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.model.snapshot import Event, EventKind
from killswitch.operations.commands import is_covered
from killswitch.server.access import (
    TokenFile,
    TokenFileError,
    Tokens,
    class_of,
    ended_by,
    issue,
    write_tokens,
)
from tests.unit.server.conftest import CREATED, Served


def test_a_token_of_one_account_reaches_no_other_and_not_the_portfolio(served: Served) -> None:
    """Also where the scope is left out, which is the portfolio."""
    for number, scope in enumerate(("portfolio", "venue/paper", "symbol/BTC", None)):
        answer = served.give("risk account/main", f"of-another-{number}", kind="close", scope=scope, reason="test")
        assert answer.status_code == 403, scope
        answer = served.give("risk portfolio", f"of-everything-{number}", kind="close", scope=scope, reason="test")
        assert answer.status_code == 202, scope


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer secret",
        "Basic YTpi",
        f"Bearer kst_{'A' * 43}",
        f"Bearer kst_{'A' * 42}",
        "kst_",
    ],
)
def test_a_wrong_token_is_refused(served: Served, header: str) -> None:
    """Of the right form or not."""
    answer = served.ask("GET", "/v1/status", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_expired_and_a_revoked_token_are_refused(tmp_path: Path) -> None:
    """At the next request."""
    path = tmp_path / "tokens.json"
    secret, record = issue("ann", "risk", ("portfolio",), CREATED, CREATED + timedelta(hours=1))
    write_tokens(path, TokenFile((record,)))
    tokens = Tokens(path)
    assert tokens.find(secret, CREATED) == record
    assert tokens.find(secret, CREATED + timedelta(hours=1)) is None
    write_tokens(path, TokenFile())
    assert tokens.find(secret, CREATED) is None


def test_tokens_are_written_through_no_link_that_waits_at_the_name_of_a_temporary_file(tmp_path: Path) -> None:
    path, other = tmp_path / "tokens.json", tmp_path / "other"
    other.write_text("as it was")
    (tmp_path / f".tokens.json.{os.getpid()}.tmp").symlink_to(other)
    write_tokens(path, TokenFile())
    assert other.read_text() == "as it was"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("hours", [1, 30])
def test_a_revoked_token_stays_so_when_the_clock_is_set_back(tmp_path: Path, hours: int) -> None:
    """Revoked before its end or after it: an hour before the revocation nothing knows of it but the file."""
    path = tmp_path / "tokens.json"
    secret, record = issue("ann", "risk", ("portfolio",), CREATED, CREATED + timedelta(hours=24))
    write_tokens(path, TokenFile((record,)))
    tokens, revoked = Tokens(path), CREATED + timedelta(hours=hours)
    tokens.change(lambda before: ended_by(before, (record.id,), revoked))
    assert tokens.records[0].expires == min(revoked, CREATED + timedelta(hours=24))
    assert tokens.find(secret, min(revoked, CREATED + timedelta(hours=24)) - timedelta(hours=1)) is None


def test_the_file_has_no_token_and_is_its_owners_alone(tmp_path: Path) -> None:
    """Only hashes are at rest."""
    path = tmp_path / "tokens.json"
    secret, record = issue("ann", "risk", ("portfolio",), CREATED, None)
    write_tokens(path, TokenFile((record,)))
    assert secret not in path.read_text()
    assert secret.removeprefix("kst_") not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{}x", '{"tokens": 1}', '{"tokens": [], "format": "other"}'])
def test_a_damaged_file_of_tokens_is_an_error_with_its_path(tmp_path: Path, content: str) -> None:
    """Never an empty set of tokens that somebody takes for a locked door."""
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(TokenFileError, match=r"tokens\.json"):
        Tokens(path)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_a_request_of_a_foreign_page_is_refused_for_reads_as_well(
    served: Served, headers: dict[str, str], status: int
) -> None:
    """DNS rebinding ends at the Host, a page of another site at its origin."""
    answer = served.ask("GET", "/v1/status", "viewer portfolio", headers=headers)
    assert answer.status_code == status
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("key", ["token", "access_token", "TOKEN", "api_key"])
def test_a_token_in_a_query_is_refused(served: Served, key: str) -> None:
    """It would be in every log on the way."""
    assert served.ask("GET", f"/v1/status?{key}=kst_x", "viewer portfolio").status_code == 400


def test_a_form_of_a_page_is_no_command(served: Served) -> None:
    """An effect takes a POST of JSON, which no form can send without being asked."""
    for content in ("application/x-www-form-urlencoded", "text/plain", ""):
        answer = served.ask("POST", "/v1/commands", "risk portfolio", data='{"kind": "close", "reason": "x"}',
                            headers={"Content-Type": content, "Idempotency-Key": "from-a-form"})  # fmt: skip
        assert answer.status_code == 415
    assert served.ask("GET", "/v1/commands", "risk portfolio").status_code == 405


def test_a_body_of_ten_megabytes_is_refused(served: Served) -> None:
    """With its length declared, and in chunks without one."""
    large = b'{"reason": "' + b"x" * 10_000_000
    for data in (large, iter([large])):
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": "too-large"}
            answer = served.ask("POST", "/v1/commands", "risk portfolio", data=data, headers=headers)
        except OSError:
            continue  # the connection was closed while the body was still being sent
        assert answer.status_code == 413


def test_the_class_of_a_command_is_its_effect() -> None:
    """Whatever its verb: resuming a policy protects again, and pausing one disarms it."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    kinds: tuple[EventKind, ...] = ("close", "lock", "halt", "cancel", "unlock", "reset", "pause", "resume")
    found = {kind: class_of(Event("x", now, kind)) for kind in kinds}
    assert found == {
        "close": "tighten", "lock": "tighten", "halt": "tighten", "cancel": "tighten", "unlock": "loosen",
        "reset": "loosen", "pause": "loosen", "resume": "tighten",
    }  # fmt: skip
    of_stops = (class_of(Event("x", now, kind, all_orders=True)) for kind in kinds[2:4])
    assert set(of_stops) == {"loosen"}, "a position without its stop is more risk"
    assert not is_covered(None, ("account/main",))
    assert is_covered("account/main", ("portfolio",))


def test_the_tokens_of_a_file_are_listed_without_secrets_and_one_that_is_lost_is_ended(tmp_path: Path) -> None:
    """By `ksctl`: the other one stays valid, an unknown id is refused with those that there are."""
    at = tmp_path / "tokens.json"
    issue_by = ("serve", "token", "--tokens", str(at), "--role", "viewer", "--scope", "portfolio", "--principal")
    secrets = [CliRunner().invoke(ksctl, [*issue_by, name]).output.splitlines()[0] for name in ("ann", "bob")]
    lost, kept = Tokens(at).records
    shown = CliRunner().invoke(ksctl, ["serve", "tokens", "--tokens", str(at)])
    assert lost.id in shown.output and "ann" in shown.output
    assert not any(each in shown.output for each in secrets)
    wrong = CliRunner().invoke(ksctl, ["serve", "tokens", "--tokens", str(at), "--revoke", "00000000"])
    assert wrong.exit_code == 1 and kept.id in wrong.output
    done = CliRunner().invoke(ksctl, ["serve", "tokens", "--tokens", str(at), "--revoke", lost.id, "-o", "json"])
    assert [(each["id"], each["is_valid"]) for each in json.loads(done.output)] == [(lost.id, False), (kept.id, True)]
    now = datetime.now(UTC)
    assert (Tokens(at).find(secrets[0], now), Tokens(at).find(secrets[1], now)) == (None, kept)


def test_a_server_of_a_store_that_is_not_there_says_so_and_nothing_else(tmp_path: Path) -> None:
    """A misspelled path: no traceback, and no folder for commands that no runner would find."""
    at = tmp_path / "tokens.json"
    write_tokens(at, TokenFile())
    done = CliRunner().invoke(ksctl, ["serve", "--store", str(tmp_path / "no.sqlite"), "--tokens", str(at)])
    assert done.exit_code == 1
    assert done.output == f"Error: there is no store at {tmp_path / 'no.sqlite'}\n"
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.json"]


def serving(folder: Path, store_path: Path, *options: str) -> Result:
    write_tokens(folder / "tokens.json", TokenFile())
    tokens = ("--tokens", str(folder / "tokens.json"))
    return CliRunner().invoke(ksctl, ["serve", "--store", str(store_path), *tokens, *options])


def test_a_port_in_use_is_one_error_and_no_word_of_listening(tmp_path: Path, store_path: Path) -> None:
    """What is printed once it listens is true: somebody else's answers would be taken for those of this server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serving(tmp_path, store_path, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.exit_code == 1
    assert "name another place with --listen: Address already in use" in done.output
    assert "listening on" not in done.output


def test_a_certificate_that_is_none_is_an_error_with_its_path(tmp_path: Path, store_path: Path) -> None:
    """Read before anything is served, and no traceback."""
    (tmp_path / "tls.pem").write_text("no certificate")
    pair = ("--tls-certificate", str(tmp_path / "tls.pem"), "--tls-key", str(tmp_path / "tls.pem"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = serving(tmp_path, store_path, "--listen", f"127.0.0.1:{port}", *pair)
    assert done.exit_code == 1
    assert f"the certificate {tmp_path / 'tls.pem'}" in done.output and "listening on" not in done.output


@pytest.mark.parametrize("scope", ["nonsense", "main", "acount/main", "account/", "Portfolio"])
def test_a_token_for_what_is_no_scope_is_not_issued(tmp_path: Path, scope: str) -> None:
    """It would be refused everywhere, in the hour when somebody needs it."""
    at = tmp_path / "tokens.json"
    arguments = ("serve", "token", "--tokens", str(at), "--role", "risk", "--principal", "ann", "--scope", scope)
    done = CliRunner().invoke(ksctl, arguments)
    assert (done.exit_code, at.exists()) == (2, False)
    assert f"{scope} is no scope: write portfolio, or account/NAME" in done.output
