"""A run with its server over HTTP, as a desk uses it: a plan, a dry run, a size, a close, and what is on record."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from killswitch.server.access import Role, TokenFile, issue, write_tokens
from tests.e2e.processes import POLICY, Site, paper, until
from tests.unit.server.conftest import CREATED

ALERTED = POLICY.replace(
    "  stages:\n",
    """    host: {when: 'alert.active("HostDown", "any")', on_unknown: hold}
  stages:
    - name: host-down
      level: 1
      any: [host]
      cooldown: 6h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only}}]
""",
).replace("level: 1\n      any: [loss]", "level: 2\n      any: [loss]")
"""With a stage that locks while a host is down."""


class Desk:
    """A run at the paper venue with the book of the demo, and its server."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.site = site
        roles: tuple[Role, ...] = ("viewer", "risk")
        issued = {role: issue(f"a {role}", role, ("portfolio",), CREATED, None) for role in roles}
        self.tokens = {role: secret for role, (secret, _) in issued.items()}
        self.tokens_at = folder / "tokens.json"
        write_tokens(self.tokens_at, TokenFile(tuple(record for _, record in issued.values())))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        options = ("--live", "--unnotified", "--serve", str(self.tokens_at), "--listen", f"127.0.0.1:{self.port}")
        with self.site.running(*options):
            until(self.is_up, "the server answers")
            yield

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/v1/status").status_code == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, role: Role = "viewer", **body: Any) -> requests.Response:
        headers = {
            "Authorization": f"Bearer {self.tokens[role]}",
            "Idempotency-Key": f"{method}-{path}-{body.get('kind')}",
        }
        more: dict[str, Any] = {} if method == "GET" else {"json": body}
        return requests.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=60, **more)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with paper("--crash", "7", "--speed", "0") as address:
        found = Desk(folder, Site(folder, address, policy=ALERTED))
        with found.running():
            yield found


def test_a_plan_shows_the_book_of_the_last_tick(desk: Desk) -> None:
    """As `ksctl plan` prints it; nothing is to be done."""
    answer = desk.ask("GET", "/v1/plan")
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["format"], plan["pending"], plan["unreadable"]) == ("killswitch.preview/v1", False, [])
    held = {each.symbol for each in desk.site.venue().positions or ()}
    assert {each["symbol"] for each in plan["positions"]} == held


def test_a_size_is_computed_from_the_account_of_the_run(desk: Desk) -> None:
    """The notional is a tenth of equity, whatever rounds it down."""
    answer = desk.ask(
        "POST", "/v1/size", symbol=_largest(desk), account="main", leverage_cap="3",
        size_by={"method": "fixed-notional", "fraction": "0.1"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    (size,) = answer.json()["sizes"]
    equity = next(float(each["value"]) for each in size["inputs"] if each["name"] == "equity")
    assert float(size["notional"]) <= 0.1 * equity
    assert float(size["notional"]) >= 0.08 * equity
    assert desk.ask("POST", "/v1/size", symbol="X", account="none", leverage_cap="3",
                    size_by={"method": "fixed-notional", "fraction": "0.1"}).status_code == 409  # fmt: skip


def _largest(desk: Desk) -> str:
    """The symbol of the position with the most notional, in which a step is small."""
    held = desk.site.venue().positions or ()
    return max(held, key=lambda each: each.contracts * (each.mark_price or 0)).symbol


def test_a_dry_run_names_each_order_and_changes_nothing(desk: Desk) -> None:
    """Then the close that was shown is given, and is on record; a viewer may do neither."""
    close: dict[str, Any] = {"kind": "close", "scope": "account/main", "reason": "feed lost", "mode": "reduce_only"}
    assert desk.ask("POST", "/v1/plan", **close).status_code == 403
    answer = desk.ask("POST", "/v1/plan", "risk", **close)
    assert answer.status_code == 200, answer.text
    (decision,) = answer.json()["decisions"]
    assert answer.json()["follows"] == [], "no reset, so that no loss is accepted"
    held = {each.symbol: each.contracts for each in desk.site.venue().positions or ()}
    assert {each["symbol"]: Decimal(each["contracts"]) for each in decision["intents"]} == held
    assert desk.ask("GET", "/v1/decisions").json()["decisions"] == []
    assert desk.ask("POST", "/v1/commands", **close).status_code == 403
    given = desk.ask("POST", "/v1/commands", "risk", **close).json()
    until(lambda: desk.ask("GET", f"/v1/commands/{given['id']}").json()["state"] == "applied", "a tick closes")
    (stored,) = desk.ask("GET", "/v1/decisions").json()["decisions"]
    assert (stored["author"], stored["reason"], stored["scope"]) == ("a risk", "feed lost", "account/main")
    (shown,) = desk.ask("GET", "/v1/reports").json()["reports"]
    assert shown["id"] == stored["id"]
    report = desk.ask("GET", f"/v1/reports/{stored['id'][:12]}").json()
    assert report["id"] == stored["id"]
    # The market does not move, so that the close goes on until somebody gives it up.
    ended = desk.ask("POST", "/v1/commands", "risk", kind="give_up", decision=stored["id"], reason="x")
    assert ended.status_code == 202, ended.text
    until(lambda: desk.ask("GET", f"/v1/commands/{ended.json()['id']}").json()["state"] == "applied", "it is ended")


def test_a_run_without_a_source_says_so(desk: Desk) -> None:
    """There is nothing to pause, and nothing to approve."""
    assert desk.ask("GET", "/v1/policies").json() is None
    assert desk.ask("POST", "/v1/source/pause", "risk", reason="x").status_code == 409


def test_a_heartbeat_over_http_reaches_the_run(desk: Desk) -> None:
    """`ksctl status` shows heartbeats of the store; the run reads this one from the file."""
    assert desk.ask("POST", "/v1/heartbeats/maker", "risk", progress=1).status_code == 204
    assert desk.ask("GET", "/v1/heartbeats/maker").json()["progress"] == 1


def test_an_alert_fires_the_stage_that_reads_it_and_one_of_another_host_does_not(desk: Desk) -> None:
    """Unknown before the first notification, then false, then true: nothing fires before the alert does."""

    def fired() -> list[str | None]:
        return [each["stage"] for each in desk.ask("GET", "/v1/decisions").json()["decisions"] if each["stage"]]

    def notify(name: str) -> None:
        alert = {"status": "firing", "labels": {"alertname": name}, "startsAt": "2026-11-25T11:58:00Z"}
        answer = desk.ask("POST", "/v1/alerts/alertmanager", "risk", version="4", alerts=[alert])
        assert answer.status_code == 204, answer.text

    assert fired() == []
    notify("Watchdog")
    ticks = desk.ask("GET", "/v1/status").json()["view"]["ticks"]
    until(lambda: desk.ask("GET", "/v1/status").json()["view"]["ticks"] > ticks + 3, "three more ticks")
    assert fired() == []
    notify("HostDown")
    until(fired, "the stage fires")
    assert fired() == ["host-down"]
