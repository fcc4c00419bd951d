"""Every route of the description for every role: in a scope of its own, with everything, and without a token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.server.conftest import ROLES, Served

WITHOUT_TOKEN = {("GET", "/healthz"), ("GET", "/readyz")}
PUBLIC = ("GET", "/v1/openapi.json")
CASES: dict[tuple[str, str], tuple[dict[str, Any] | None, tuple[int, ...], tuple[int, ...]]] = {
    # route and what is done: its body, and the statuses for viewer, trader, risk and admin with a token of account/main
    # and with one of the portfolio
    ("GET", "/v1/heartbeats/maker"): (None, (404, 404, 404, 404), (404, 404, 404, 404)),
    ("POST", "/v1/heartbeats/maker"): ({"progress": 1}, (403, 204, 204, 403), (403, 204, 204, 403)),
    ("GET", "/v1/status"): (None, (403, 403, 403, 403), (200, 200, 200, 200)),
    ("GET", "/metrics"): (None, (403, 403, 403, 403), (200, 200, 200, 403)),
    ("GET", "/v1/board"): (None, (200, 200, 200, 403), (200, 200, 200, 403)),
    ("POST", "/v1/preview"): ({"kind": "lock", "scope": "account/main", "reason": "x"}, (403, 409, 409, 403),
                              (403, 409, 409, 403)),
    ("GET", "/v1/events"): (None, (200, 200, 200, 403), (200, 200, 200, 403)),
    ("GET", "/v1/metrics"): (None, (200, 200, 200, 200), (200, 200, 200, 200)),
    ("POST", "/v1/commands close"): ({}, (403, 202, 202, 403), (403, 202, 202, 403)),
    ("POST", "/v1/commands lock"): ({}, (403, 202, 202, 403), (403, 202, 202, 403)),
    ("POST", "/v1/commands halt"): ({}, (403, 202, 202, 403), (403, 202, 202, 403)),
    ("POST", "/v1/commands cancel"): ({}, (403, 202, 202, 403), (403, 202, 202, 403)),
    ("POST", "/v1/commands cancel all-orders"): ({"all_orders": True}, (403, 403, 202, 403), (403, 403, 202, 403)),
    ("POST", "/v1/commands pause"): ({}, (403, 202, 202, 403), (403, 202, 202, 403)),
    ("POST", "/v1/commands resume"): ({"ids": []}, (403, 403, 202, 403), (403, 403, 202, 403)),
    ("POST", "/v1/commands resume unnamed"): ({}, (403, 409, 409, 403), (403, 409, 409, 403)),
    ("POST", "/v1/commands unlock"): ({"ids": []}, (403, 403, 202, 403), (403, 403, 202, 403)),
    ("POST", "/v1/commands reset"): ({"ids": []}, (403, 403, 202, 403), (403, 403, 202, 403)),
    ("POST", "/v1/commands flag"): ({"flag": "stopped", "set": True}, (403, 403, 202, 403), (403, 403, 202, 403)),
    ("GET", "/v1/commands/hand-0123456789abcdef"): (None, (404, 404, 404, 404), (404, 404, 404, 404)),
    # 503: there is no run, so that no view; who may not ask is told apart once there is a question
    ("POST", "/v1/pretrade"): ({}, (422, 422, 422, 422), (422, 422, 422, 422)),
    ("POST", "/v1/pretrade right"): (
        {"id": "q", "account": "main", "orders": [{"symbol": "BTC/USDT:USDT", "side": "buy", "amount": "1",
         "unit": "contracts", "type": "market"}]},
        (403, 503, 503, 403), (403, 503, 503, 403),
    ),
    ("POST", "/v1/pretrade/main/result"): ({"question": "q", "outcome": "sent"}, (403, 204, 204, 403),
                                           (403, 204, 204, 403)),
    ("POST", "/v1/commands restate loss"): ({"change": "change-0", "as": "loss"}, (403, 202, 202, 403),
                                            (403, 202, 202, 403)),
    ("POST", "/v1/commands restate flow"): ({"change": "change-0", "as": "flow"}, (403, 403, 202, 403),
                                            (403, 403, 202, 403)),
    ("POST", "/v1/commands give_up"): ({"decision": "none"}, (403, 409, 409, 403), (403, 409, 409, 403)),
    ("POST", "/v1/commands apply"): ({"plan": "none"}, (403, 422, 422, 403), (403, 422, 422, 403)),
    ("GET", "/v1/decisions"): (None, (200, 200, 200, 403), (200, 200, 200, 403)),
    ("GET", "/v1/reports"): (None, (200, 200, 200, 403), (200, 200, 200, 403)),
    ("GET", "/v1/reports/0123456789"): (None, (404, 404, 404, 403), (404, 404, 404, 403)),
    ("GET", "/v1/policies"): (None, (200, 200, 200, 200), (200, 200, 200, 200)),
    ("GET", "/v1/approvals"): (None, (200, 200, 200, 200), (200, 200, 200, 200)),
    ("POST", "/v1/approvals/preview"): ({"statement": "none"}, (422, 422, 422, 422), (422, 422, 422, 422)),
    ("POST", "/v1/approvals"): ({"statement": "none"}, (422, 422, 422, 422), (422, 422, 422, 422)),
    ("POST", "/v1/source/pause"): ({"reason": "x"}, (403, 403, 403, 403), (403, 403, 409, 403)),
    ("POST", "/v1/source/resume"): ({"reason": "x"}, (403, 403, 403, 403), (403, 409, 409, 403)),
    ("GET", "/v1/plan"): (None, (403, 403, 403, 403), (409, 409, 409, 403)),
    ("POST", "/v1/plan"): ({"kind": "close", "scope": "account/main", "reason": "x"}, (403, 409, 409, 403),
                           (403, 409, 409, 403)),
    ("POST", "/v1/size"): (
        {"symbol": "BTC/USDT:USDT", "leverage_cap": "3", "equity": "100", "price": "10", "contract_size": "1",
         "step": "1", "others": "0", "size_by": {"method": "fixed-notional", "fraction": "1"}},
        (200, 200, 200, 403), (200, 200, 200, 403),
    ),
    ("GET", "/v1/alerts"): (None, (200, 200, 200, 200), (200, 200, 200, 200)),
    ("POST", "/v1/alerts/alertmanager"): ({"version": "4", "alerts": []}, (403, 403, 403, 403), (403, 204, 204, 403)),
    # a webhook is known by its signature, and this server has none
    ("POST", "/v1/webhooks/source"): ({}, (404, 404, 404, 404), (404, 404, 404, 404)),
    ("GET", "/v1/tokens"): (None, (403, 403, 403, 200), (403, 403, 403, 200)),
    ("POST", "/v1/tokens"): ({"principal": "x", "role": "viewer", "scopes": ["account/main"]},
                             (403, 403, 403, 201), (403, 403, 403, 201)),
    ("POST", "/v1/tokens/00000000/revoke"): ({}, (403, 403, 403, 404), (403, 403, 403, 404)),
}  # fmt: skip


def send(served: Served, route: tuple[str, str], body: dict[str, Any] | None, who: str | None) -> int:
    """The status of the answer. A command is named behind the path of its route."""
    method, (path, *kind) = route[0], route[1].split()
    headers = (
        {} if method == "GET" else {"Idempotency-Key": f"{'-'.join(kind)}-of-{'-'.join((who or 'nobody').split())}"}
    )
    if path == "/v1/commands" and body is not None:
        body = {"kind": kind[0], "scope": "account/main", "reason": "test", **body}
    more: dict[str, Any] = {"stream": True} if method == "GET" else {"json": body}
    return served.ask(method, path, who, headers=headers, **more).status_code


@pytest.mark.parametrize("route", CASES, ids=" ".join)
def test_each_role_may_do_what_the_table_says(served: Served, route: tuple[str, str]) -> None:
    """In the scope of its token, and with a token of everything. Without one, nothing."""
    body, in_account, in_portfolio = CASES[route]
    for scope, statuses in (("account/main", in_account), ("portfolio", in_portfolio)):
        found = tuple(send(served, route, body, f"{role} {scope}") for role in ROLES)
        assert found == statuses, scope
    assert send(served, route, body, None) == (404 if "/webhooks/" in route[1] else 401)


def test_the_table_has_every_route(served: Served) -> None:
    """A route that somebody adds is in it, or this fails; and only what is listed here is for everybody."""
    answer = served.ask("GET", "/v1/openapi.json")
    assert answer.status_code == 200
    described = {
        (method.upper(), path) for path, each in json.loads(answer.text)["paths"].items() for method in each
    } - WITHOUT_TOKEN
    tried = [(method, path.split()[0].split("/")) for method, path in CASES]
    for method, path in described:
        parts = path.split("/")
        assert any(
            method == tried_method
            and len(parts) == len(other)
            and all(part == wanted or part.startswith("{") for part, wanted in zip(parts, other, strict=True))
            for tried_method, other in tried
        ), f"{method} {path}"
    for method, path in (*WITHOUT_TOKEN, PUBLIC):
        assert served.ask(method, path).status_code == 200


def test_an_admin_reads_without_positions(served: Served) -> None:
    """Which keys are missing is part of the answer."""
    whole = served.ask("GET", "/v1/status", "viewer portfolio").json()
    shown = served.ask("GET", "/v1/status", "admin portfolio").json()
    assert {"closings", "by_hand", "stops", "notices", "suspicions", "active_alerts"} <= set(shown["left_out"])
    assert set(shown) - {"left_out"} == set(whole) - set(shown["left_out"])
