"""JWTs, failed logins, rates, proxies, the path prefix, and the tokens that an admin manages."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from killswitch.model.alert import Alert
from killswitch.runner.tick_inputs import SpoolIntake
from killswitch.server.access import Tokens
from killswitch.server.app import ServerFile, ServerFileError, read_server_file
from killswitch.server.jwt_login import Grant, JwtSettings, JwtSettingsError, JwtVerifier, RefusedJwtError
from killswitch.server.rates import OF_PRINCIPAL, RateTable, RequestRate, RequestRates
from killswitch.store.sql import SqlStore
from tests.unit.server.conftest import Served

ISSUER, AUDIENCE = "https://id.example/realms/desk", "killswitch"
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
GRANTS = (
    Grant("groups", "risk-desk", "risk", ("portfolio",)),
    Grant("groups", "traders", "trader", ("account/main",)),
)


def public(key: Ed25519PrivateKey, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
    return found | more


def settings(folder: Path, *keys: dict[str, Any], **more: Any) -> JwtSettings:
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": keys or [public(KEY, kid="one")]}))
    known: dict[str, Any] = {
        "issuer": ISSUER, "audience": AUDIENCE, "keys": str(path), "algorithms": ("EdDSA",), "grants": GRANTS,
    }  # fmt: skip
    return JwtSettings(**(known | more))


def signed(key: Any = KEY, algorithm: str = "EdDSA", headers: dict[str, Any] | None = None, **more: Any) -> str:
    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "groups": ["staff", "risk-desk"], "iat": now,
        "exp": now + timedelta(minutes=5),
    }  # fmt: skip
    claims |= more
    kept = {key_: value for key_, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={"kid": "one"} if headers is None else headers)


def test_a_jwt_of_the_issuer_gives_the_first_grant_that_fits(tmp_path: Path) -> None:
    """The name of the person is the author of commands."""
    found = JwtVerifier(settings(tmp_path)).identity(signed(), datetime.now(UTC))
    assert (found.principal, found.role, found.scopes) == ("ann", "risk", ("portfolio",))
    found = JwtVerifier(settings(tmp_path)).identity(signed(groups="traders"), datetime.now(UTC))
    assert (found.role, found.scopes) == ("trader", ("account/main",))


LATER = datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    "token",
    [
        lambda: signed(iss="https://id.example/realms/desk/"),
        lambda: signed(iss="https://id.example/realms/desk2"),
        lambda: signed(iss=None),
        lambda: signed(aud="killswitch2"),
        lambda: signed(aud=["killswitch", "other"]),
        lambda: signed(aud=None),
        lambda: signed(exp=datetime.now(UTC) - timedelta(seconds=1)),
        lambda: signed(exp=None),
        lambda: signed(exp="soon"),
        lambda: signed(exp=float("nan")),
        lambda: signed(iat=None),
        lambda: signed(nbf=LATER),
        lambda: signed(sub=None),
        lambda: signed(sub=""),
        lambda: signed(sub="ann\n"),
        lambda: signed(sub=["ann"]),
        lambda: signed(groups=["staff"]),
        lambda: signed(groups=None),
        lambda: signed(groups={"risk-desk": True}),
        lambda: signed(OTHER),
        lambda: signed(headers={"kid": "two"}),
        lambda: signed(OTHER, headers={"kid": "one", "jwk": public(OTHER)}),
        lambda: signed(OTHER, headers={"kid": "one", "jku": "https://evil.example/keys"}),
        lambda: signed("", "none"),
        lambda: signed("x" * 64, "HS256"),
        lambda: signed()[:-4] + "AAAA",
        lambda: signed() + "." ,
        lambda: "e30.e30.",
        lambda: "a" * 9_000,
        lambda: "ä.b.c",
    ],
)  # fmt: skip
def test_a_jwt_that_is_not_exactly_as_configured_is_refused(tmp_path: Path, token: Callable[[], str]) -> None:
    """Issuer, audience, times, key, algorithm and name; a key that the JWT itself brings is none."""
    with pytest.raises(RefusedJwtError):
        JwtVerifier(settings(tmp_path)).identity(token(), datetime.now(UTC))


def test_the_public_key_is_no_secret_that_a_symmetric_signature_can_use(tmp_path: Path) -> None:
    """The classic confusion of RS256 and HS256: PyJWT refuses to sign so, and an attacker does not use PyJWT."""
    import base64
    import hmac

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    found = json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": "one", "alg": "RS256"}
    verifier = JwtVerifier(settings(tmp_path, found, algorithms=("RS256",)))
    assert verifier.identity(signed(key, "RS256"), datetime.now(UTC)).principal == "ann"
    _, body, _ = signed(key, "RS256").split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).rstrip(b"=").decode()
    mac = hmac.digest(json.dumps(found).encode(), f"{head}.{body}".encode(), "sha256")
    with pytest.raises(RefusedJwtError):
        verifier.identity(f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}", datetime.now(UTC))


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
        (json.loads(OKPAlgorithm.to_jwk(KEY)), "private key"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, "published"),
        ({"kty": "RSA", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEPsf"}, "published"),
        ({"kty": "XYZ"}, "cannot be used"),
    ],
)
def test_a_key_that_protects_nothing_is_refused_at_the_start(tmp_path: Path, key: dict[str, Any], why: str) -> None:
    """The private parts of RFC 8037 and RFC 7517 are in every copy of them."""
    with pytest.raises(JwtSettingsError, match=why):
        JwtVerifier(settings(tmp_path, key))


def test_a_jwt_is_accepted_by_the_server_until_it_expires_and_only_from_its_header(
    store_path: Path, tmp_path: Path
) -> None:
    """As Authorization, or in the header of a declared proxy, which nobody else can use."""
    server = Served(store_path, tmp_path, ServerFile(jwt=settings(tmp_path)))
    try:
        answer = server.ask("GET", "/v1/status", headers={"Authorization": f"Bearer {signed()}"})
        assert answer.status_code == 200
        old = signed(exp=datetime.now(UTC) - timedelta(seconds=1))
        assert server.ask("GET", "/v1/status", headers={"Authorization": f"Bearer {old}"}).status_code == 401
        assert server.ask("GET", "/v1/status", "viewer portfolio").status_code == 200
    finally:
        server.stop()
    for number, (proxies, status) in enumerate([((), 401), (("127.0.0.1/32",), 200), (("10.0.0.0/8",), 401)]):
        file = ServerFile(jwt=settings(tmp_path, header="X-Auth-Token"), proxies=proxies)
        (folder := tmp_path / str(number)).mkdir()
        server = Served(store_path, folder, file)
        try:
            assert server.ask("GET", "/v1/status", headers={"X-Auth-Token": signed()}).status_code == status
            assert server.ask("GET", "/v1/status", headers={"Authorization": f"Bearer {signed()}"}).status_code == 401
        finally:
            server.stop()


def test_failed_logins_slow_their_source_and_never_a_valid_token(served: Served) -> None:
    """Whoever shares a machine with the desk cannot keep it from its close."""
    found = [served.ask("GET", "/v1/status", headers={"Authorization": f"Bearer kst_{'A' * 43}"}) for _ in range(40)]
    assert [each.status_code for each in found[:20]] == [401] * 20
    assert found[-1].status_code == 429
    assert int(found[-1].headers["Retry-After"]) >= 1
    assert served.give("trader account/main", "still-works", kind="close", scope="account/main", reason="x").ok


def test_a_reader_in_a_loop_uses_up_its_reads_and_keeps_its_share_of_tightening() -> None:
    """By the rates that docs/api.md states: 100 reads at once, then 20 a second."""
    now = [0.0]
    rates = RequestRates(lambda: now[0])
    assert sum(rates.wait("ann", "10.0.0.1", "read") == 0 for _ in range(500)) == 100
    assert rates.wait("ann", "10.0.0.1", "read") == pytest.approx(0.05)
    assert rates.wait("ann", "10.0.0.1", "tighten") == 0
    assert rates.wait("bob", "10.0.0.1", "read") == 0
    now[0] = 1.0
    assert sum(rates.wait("ann", "10.0.0.1", "read") == 0 for _ in range(500)) == 20


def test_a_source_with_many_principals_is_bounded_but_for_tightening() -> None:
    """A stolen list of tokens reads no faster than an address may."""
    rates = RequestRates(lambda: 0.0)
    reads = sum(rates.wait(f"p{n}", "10.0.0.1", "read") == 0 for n in range(3_000))
    assert reads == 1_000
    assert all(rates.wait(f"p{n}", "10.0.0.1", "tighten") == 0 for n in range(3_000))
    assert rates.wait("p0", "10.0.0.2", "read") == 0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.floats(0.5, 50), st.integers(1, 20))
def test_no_bucket_ever_gives_more_than_its_rate_and_burst(pauses: list[float], rate: float, burst: int) -> None:
    """In any time t at most burst + rate × t."""
    now = [0.0]
    table, given_out = RateTable(lambda: now[0]), 0
    for pause in pauses:
        now[0] += pause
        given_out += sum(table.take("x", RequestRate(rate, burst)) == 0 for _ in range(30))
        assert given_out <= burst + rate * now[0] + 1e-6


def test_the_memory_of_names_is_bounded() -> None:
    """A flood of addresses is forgotten, the oldest first."""
    table = RateTable(lambda: 0.0, most=100)
    for number in range(1_000):
        table.take(number, OF_PRINCIPAL["read"])
    assert len(table) == 100


@pytest.mark.parametrize(
    ("proxies", "forwarded", "slowed"),
    [
        ((), "203.0.113.9", False),
        (("127.0.0.1/32",), "203.0.113.9", True),
        (("127.0.0.1/32",), "198.51.100.1, 203.0.113.9", True),
        (("127.0.0.1/32", "203.0.113.0/24"), "198.51.100.7, 203.0.113.9", False),
    ],
)
def test_a_forwarded_address_counts_from_a_declared_proxy_only(
    store_path: Path, tmp_path: Path, proxies: tuple[str, ...], forwarded: str, slowed: bool
) -> None:
    """The client is the last address that is no proxy: what stands before it anybody can write."""
    server = Served(store_path, tmp_path, ServerFile(proxies=proxies))
    try:
        bad = {"Authorization": "Bearer no"}
        for _ in range(30):
            server.ask("GET", "/v1/status", headers=bad | {"X-Forwarded-For": forwarded})
        same = server.ask("GET", "/v1/status", headers=bad | {"X-Forwarded-For": "203.0.113.9"})
        other = server.ask("GET", "/v1/status", headers=bad | {"X-Forwarded-For": "192.0.2.1"})
        assert same.status_code == (429 if slowed or not proxies else 401)
        assert other.status_code == (401 if proxies else 429)
    finally:
        server.stop()


def test_a_forwarded_host_counts_from_a_declared_proxy_only(store_path: Path, tmp_path: Path) -> None:
    """It must be one of ours, as every Host."""
    file = ServerFile(host_names=("ks.example",), proxies=("127.0.0.1/32",), path_prefix="/killswitch")
    server = Served(store_path, tmp_path, file)
    try:
        for path in ("/v1/status", "/killswitch/v1/status"):
            for host, status in (("ks.example", 200), ("evil.example", 421)):
                headers = {"X-Forwarded-Host": host, "Host": "upstream:8600"}
                assert server.ask("GET", path, "viewer portfolio", headers=headers).status_code == status
        assert server.ask("GET", "/killswitch/healthz", headers={"Host": "probe"}).status_code == 200
        assert server.ask("POST", "/killswitch/v1/pretrade", "trader portfolio", json={}).status_code == 422
        paths = server.ask("GET", "/killswitch/v1/openapi.json").json()
        assert paths["servers"] == [{"url": "/killswitch"}]
    finally:
        server.stop()
    (tmp_path / "plain").mkdir()
    plain = Served(store_path, tmp_path / "plain", ServerFile(host_names=("ks.example",)))
    try:
        headers = {"X-Forwarded-Host": "ks.example", "Host": "evil.example"}
        assert plain.ask("GET", "/v1/status", "viewer portfolio", headers=headers).status_code == 421
    finally:
        plain.stop()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "no settings"),
        ('{"proxies": ["10.0.0.1/8"]}', "no network"),
        ('{"path_prefix": "ks/"}', "begins with /"),
        ('{"proxys": []}', "proxys"),
        ('{"format": "killswitch.server/v9"}', "v9"),
        ('{"jwt": {"issuer": "x"}}', "audience"),
        ('{"jwt": {"issuer": "x", "audience": "x", "keys": "k", "algorithms": ["HS256"], "grants": []}}', "HS256"),
    ],
)
def test_settings_that_are_wrong_name_the_place(tmp_path: Path, content: str, why: str) -> None:
    """A misspelt key is never a protection that is not there."""
    path = tmp_path / "server.json"
    path.write_text(content)
    with pytest.raises(ServerFileError, match=why):
        read_server_file(path)


def issued(served: Served, key: str, **body: Any) -> requests.Response:
    return served.ask("POST", "/v1/tokens", "admin portfolio", json=body, headers={"Idempotency-Key": key})


def test_an_admin_issues_and_revokes_a_token_which_is_shown_once(served: Served) -> None:
    """A retry gets the same token, without its secret."""
    body: dict[str, Any] = {"principal": "bob", "role": "trader", "scopes": ["account/main"], "seconds": 3600}
    first = issued(served, "token-for-bob", **body)
    assert first.status_code == 201
    secret, id_ = first.json()["token"], first.json()["id"]
    bearer = {"Authorization": f"Bearer {secret}"}
    assert served.ask("GET", "/v1/heartbeats/x", headers=bearer).status_code == 404
    again = issued(served, "token-for-bob", **body).json()
    assert (again["id"], again["token"], again["is_replay"]) == (id_, None, True)
    assert issued(served, "token-for-bob", **(body | {"role": "risk"})).status_code == 422
    listed = served.ask("GET", "/v1/tokens", "admin portfolio")
    assert secret not in listed.text
    assert "hash" not in listed.json()[0]
    assert [each["id"] for each in listed.json()].count(id_) == 1
    for _ in range(2):
        assert served.ask("POST", f"/v1/tokens/{id_}/revoke", "admin portfolio", json={}).status_code == 204
    assert served.ask("GET", "/v1/heartbeats/x", headers=bearer).status_code == 401
    assert not next(each for each in served.ask("GET", "/v1/tokens", "admin portfolio").json() if each["id"] == id_)[
        "is_valid"
    ]
    assert issued(served, "token-for-bob", **body).json()["is_replay"]


@pytest.mark.parametrize(("role", "pages"), [("viewer", 0), ("trader", 0), ("risk", 1), ("admin", 1)])
def test_a_token_that_may_loosen_is_paged_once(served: Served, store: SqlStore, role: str, pages: int) -> None:
    """And one that may issue such a token."""
    assert issued(served, "a-new-token", principal="bob", role=role, scopes=["portfolio"]).status_code == 201
    intake = SpoolIntake(served.spool, store, lambda: datetime.now(UTC) + timedelta(hours=1))
    intake.take()
    intake.take()
    found: tuple[Alert, ...] = intake.alerts.found
    assert [(each.severity, each.lasts) for each in found] == [("page", False)] * pages
    assert all("bob" in each.text and "admin of portfolio" in each.text for each in found)
    assert store.pending_events() == []


def test_two_processes_that_issue_tokens_lose_none(served: Served) -> None:
    """Each waits for the other: the file is replaced as a whole."""
    import threading

    tables = [Tokens(served.tokens_at) for _ in range(4)]
    before = len(tables[0].records)

    def add(table: Tokens) -> None:
        for _ in range(10):
            table.change(lambda records: (*records, records[0]))

    threads = [threading.Thread(target=add, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Tokens(served.tokens_at).records) == before + 40
