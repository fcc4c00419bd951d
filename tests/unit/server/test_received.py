"""What other programs report: alerts in any order, heartbeats, and a signed webhook; and what a run reads of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from killswitch.gate.files import replace_file
from killswitch.model.snapshot import ExternalAlert
from killswitch.runner.tick_inputs import beat, last_heartbeats
from killswitch.server import received_writer
from killswitch.server.alert_routes import WebhookSecretError, read_secret
from killswitch.server.app import ServerFile
from killswitch.server.rates import ServerCounters
from killswitch.server.received_writer import ReceivedWriter
from killswitch.source.sync_state import SOURCE_STATE, SourceState, encode_source
from killswitch.store.received import (
    MOST_ALERTS,
    ReceivedInput,
    ReceivedState,
    TooManyAlertsError,
    encode_received,
    read_received,
    received_at,
    received_file,
    with_alerts,
    with_beat,
)
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.unit.server.conftest import Served
from tests.unit.server.test_commands import taken

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECRET = "c0ffee0123456789deadbeef98765432c0ffee"


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def alert(status: str, starts: float = 0, host: str = "a", ends: float | None = None, at: float = 0) -> ExternalAlert:
    return ExternalAlert(
        "HostDown", status, NOW + minutes(at), {"alertname": "HostDown", "host": host},  # type: ignore[arg-type] # literal
        NOW + minutes(starts), None if ends is None else NOW + minutes(ends),
    )  # fmt: skip


def fold(*alerts: ExternalAlert) -> tuple[ExternalAlert, ...]:
    state = ReceivedState()
    for each in alerts:
        state = with_alerts(state, [each], NOW)
    return state.alerts


def statuses(*alerts: ExternalAlert) -> list[str]:
    return [each.status for each in fold(*alerts)]


def test_a_resolution_that_overtakes_its_alert_is_not_undone_by_it() -> None:
    """Alertmanager sends again what failed, behind what it has sent since."""
    firing, resolved = alert("firing"), alert("resolved", ends=3)
    assert (
        statuses(firing, resolved) == statuses(resolved, firing) == statuses(firing, resolved, firing) == ["resolved"]
    )


def test_an_alert_that_fires_again_is_another_start_and_counts() -> None:
    """A late resolution of the earlier one does not hide it."""
    old, again = alert("resolved", starts=0, ends=3), alert("firing", starts=5)
    assert statuses(old, again) == statuses(again, old) == ["firing"]


def test_alerts_with_other_labels_are_other_alerts() -> None:
    """One host that is up again says nothing of another."""
    assert sorted(statuses(alert("firing", host="a"), alert("firing", host="b"), alert("resolved", host="a"))) == [
        "firing", "resolved",
    ]  # fmt: skip


states = st.builds(
    alert, st.sampled_from(["firing", "resolved"]), st.integers(0, 3), st.sampled_from("ab"),
    st.none() | st.integers(0, 3), st.integers(0, 5),
)  # fmt: skip


@given(st.lists(states, max_size=12), st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_notifications_change_nothing(
    found: list[ExternalAlert], chance: random.Random
) -> None:
    """Whatever was delayed, sent twice, or both."""
    mixed = [*found, *chance.choices(found, k=5)] if found else []
    chance.shuffle(mixed)
    assert set(map(repr, fold(*found))) == set(map(repr, fold(*mixed)))


def test_too_many_alerts_are_refused_and_change_nothing() -> None:
    """The sender tries again, and pages if it cannot."""
    state = with_alerts(ReceivedState(), [alert("firing", host=str(n)) for n in range(MOST_ALERTS)], NOW)
    with pytest.raises(TooManyAlertsError):
        with_alerts(state, [alert("firing", host="more")], NOW)
    assert with_alerts(state, [alert("resolved", host="3")], NOW + minutes(1)).alerts_as_of == NOW + minutes(1)


def test_resolved_alerts_are_forgotten_after_a_day_and_firing_ones_never() -> None:
    """A notification that was lost must not end an alert."""
    state = with_alerts(ReceivedState(), [alert("firing", host="a"), alert("resolved", host="b")], NOW)
    state = with_alerts(state, [], NOW + timedelta(days=400))
    assert [each.labels["host"] for each in state.alerts] == ["a"]


def test_a_heartbeat_whose_progress_stays_is_of_the_time_when_it_moved() -> None:
    """A thread may go on beating next to a loop that hangs."""
    state = with_beat(ReceivedState(), "maker", 7, NOW)
    state = with_beat(state, "maker", 7, NOW + minutes(1))
    assert state.heartbeats["maker"].moved_at == NOW
    state = with_beat(state, "maker", 8, NOW + minutes(2))
    assert state.heartbeats["maker"].moved_at == NOW + minutes(2)
    assert with_beat(state, "maker", None, NOW + minutes(3)).heartbeats["maker"].moved_at == NOW + minutes(3)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"format": "killswitch.received/v9"}', b"\xff\xfe"])
def test_a_file_that_is_gone_or_damaged_is_nothing_received(tmp_path: Path, content: bytes | None) -> None:
    """So that alerts are unknown, which their triggers decide about; never resolved."""
    path = tmp_path / "ks.sqlite.received.json"
    source = ReceivedInput(path)
    path.write_bytes(encode_received(with_alerts(ReceivedState(), [alert("firing")], NOW)))
    assert source.at_tick(NOW).alerts_as_of == NOW
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert source.at_tick(NOW + minutes(1)) == ReceivedState()


def test_a_server_whose_clock_is_ahead_makes_nothing_newer_than_the_tick_that_first_has_it(tmp_path: Path) -> None:
    """Else a receiver that died would look alive until that time is reached."""
    path = tmp_path / "received.json"
    path.write_bytes(encode_received(with_alerts(ReceivedState(), [], NOW + timedelta(hours=5))))
    source = ReceivedInput(path)
    assert source.at_tick(NOW).alerts_as_of == NOW
    assert source.at_tick(NOW + minutes(10)).alerts_as_of == NOW


def test_of_a_heartbeat_in_the_store_and_one_of_the_server_the_later_counts(store: SqlStore) -> None:
    """A bot may change from one way to the other."""
    beat(store, "maker", NOW, 5)
    later = with_beat(ReceivedState(), "maker", 6, NOW + minutes(1))
    earlier = with_beat(ReceivedState(), "maker", 4, NOW - minutes(1))
    assert last_heartbeats(store, later)["maker"].progress == 6
    assert last_heartbeats(store, earlier)["maker"].progress == 5
    assert set(last_heartbeats(store, with_beat(later, "taker", None, NOW))) == {"maker", "taker"}


# Over HTTP

NOTIFICATION: dict[str, Any] = {
    # As docs of Alertmanager 0.28 show it.
    "version": "4", "groupKey": "{}:{alertname=\"HostDown\"}", "truncatedAlerts": 0, "status": "firing",
    "receiver": "killswitch", "groupLabels": {"alertname": "HostDown"}, "commonLabels": {"alertname": "HostDown"},
    "commonAnnotations": {}, "externalURL": "http://alertmanager:9093",
    "alerts": [
        {"status": "firing", "labels": {"alertname": "HostDown", "host": "maker-1"}, "annotations": {},
         "startsAt": "2026-11-25T11:58:00.123Z", "endsAt": "0001-01-01T00:00:00Z",
         "generatorURL": "http://prometheus:9090/graph", "fingerprint": "0f1e2d3c4b5a6978"},
    ],
}  # fmt: skip


def notify(served: Served, **more: Any) -> int:
    body = NOTIFICATION | more
    return served.ask("POST", "/v1/alerts/alertmanager", "trader portfolio", json=body).status_code


def test_a_notification_is_on_disk_when_it_is_answered_and_a_tick_has_it(served: Served, store_path: Path) -> None:
    """Firing, then resolved; the end in the year 1 is none."""
    assert notify(served) == 204
    (found,) = received_at(str(store_path), datetime.now(UTC)).alerts
    assert (found.name, found.status, found.labels["host"], found.ends_at) == ("HostDown", "firing", "maker-1", None)
    resolved = NOTIFICATION["alerts"][0] | {"status": "resolved", "endsAt": "2026-11-25T12:05:00Z"}
    assert notify(served, alerts=[resolved]) == 204
    (found,) = received_at(str(store_path), datetime.now(UTC)).alerts
    assert found.status == "resolved"
    shown = served.ask("GET", "/v1/alerts", "viewer portfolio").json()
    assert [each["status"] for each in shown["alerts"]] == ["resolved"]


@pytest.mark.parametrize(
    "more",
    [
        {"truncatedAlerts": 3},
        {"version": "5"},
        {"alerts": [{"status": "firing", "labels": {"host": "x"}}]},
        {"alerts": [{"status": "pending", "labels": {"alertname": "x"}}]},
        {"alerts": [{"status": "firing", "labels": {"alertname": "x"}, "startsAt": "yesterday"}]},
        {"alerts": [{"status": "firing", "labels": {"alertname": "x"}, "startsAt": "2026-11-25T11:58:00"}]},
        {"alerts": None},
    ],
)
def test_a_notification_that_is_not_whole_is_refused_and_counts_as_none(
    served: Served, store_path: Path, more: dict[str, Any]
) -> None:
    """Whether its alerts fire is unknown, so that the receiver is not known to work by it."""
    assert notify(served, **more) == 422
    assert read_received(received_file(store_path)) is None


def test_a_server_that_starts_again_knows_what_it_has_received(
    served: Served, store_path: Path, tmp_path: Path
) -> None:
    """Alertmanager repeats after hours."""
    assert notify(served) == 204
    assert served.ask("POST", "/v1/heartbeats/maker", "trader portfolio", json={"progress": 3}).status_code == 204
    (tmp_path / "again").mkdir()
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while not received_at(str(store_path), datetime.now(UTC)).heartbeats and datetime.now(UTC) < deadline:
        pass
    again = Served(store_path, tmp_path / "again")
    try:
        assert len(again.ask("GET", "/v1/alerts", "viewer portfolio").json()["alerts"]) == 1
        assert again.ask("GET", "/v1/heartbeats/maker", "viewer portfolio").json()["progress"] == 3
    finally:
        again.stop()


# The webhook


@pytest.fixture
def hooked(store_path: Path, tmp_path: Path) -> Iterator[Served]:
    """A server with a webhook, on the store of a run that follows a source."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    store = open_store(str(store_path))
    store.put_live(SOURCE_STATE, encode_source(SourceState(source="desk")))
    store.close()
    server = Served(store_path, tmp_path, ServerFile(webhook_secret=str(tmp_path / "secret")))
    try:
        yield server
    finally:
        server.stop()


def push(served: Served, signature: str | None, body: bytes = b'{"ref": "refs/heads/main"}') -> requests.Response:
    headers = {"Content-Type": "application/json"} | ({} if signature is None else {"X-Hub-Signature-256": signature})
    return served.ask("POST", "/v1/webhooks/source", headers=headers, data=body)


def signature_of(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_a_signed_webhook_brings_one_poll_forward_and_is_no_operator(hooked: Served, store_path: Path) -> None:
    """A reload by nobody, which accepts nothing that would fire on arrival; a storm of pushes is two polls."""
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    found = [push(hooked, signature_of(body), body) for _ in range(20)]
    assert {each.status_code for each in found} == {202}
    assert [each.json()["poll"] for each in found].count(True) == 2
    events = taken(hooked, store_path)
    assert [(each.kind, each.author) for each in events] == [("reload", None)] * 2


@pytest.mark.parametrize(
    "signature",
    [None, "", "sha256=", "sha256=" + "0" * 64, signature_of(b"other"), signature_of(b"{}", "x" * 40),
     signature_of(b"{}").upper(), "sha1=" + "0" * 40, "sha256=ä"],
)  # fmt: skip
def test_a_webhook_that_is_not_signed_by_the_secret_is_refused(hooked: Served, signature: str | None) -> None:
    """A token does not help, and there is nothing to learn from the time."""
    encoded = None if signature is None else signature.encode().decode("latin-1")
    assert push(hooked, encoded, b"{}").status_code == 401
    assert not hooked.spool.is_waiting


def test_a_webhook_for_a_run_without_a_source_is_refused(hooked: Served, store_path: Path) -> None:
    """There a reload would read the policy files again, which a push must not do."""
    store = open_store(str(store_path))
    store.put_live(SOURCE_STATE, b"")
    store.close()
    assert push(hooked, signature_of(b"{}"), b"{}").status_code == 409
    assert not hooked.spool.is_waiting


@pytest.mark.parametrize(
    "secret",
    ["short", "x" * 40, "changeme" * 8, "It's a Secret to Everybody" * 2, "your-256-bit-secretyour-256-bit-secret",
     "a-string-secret-at-least-256-bits-long", "SECRET" * 10],
)  # fmt: skip
def test_a_secret_that_everybody_knows_is_refused_at_the_start(tmp_path: Path, secret: str) -> None:
    """GitHub's documentation, jwt.io, and what people type first."""
    (tmp_path / "secret").write_text(secret)
    with pytest.raises(WebhookSecretError):
        read_secret(tmp_path / "secret")
    with pytest.raises(WebhookSecretError, match="cannot be read"):
        read_secret(tmp_path / "none")


def test_a_failed_write_takes_back_nothing_that_came_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two notifications at the same moment, and a disk that refuses the first write: the second is on disk."""
    writer = ReceivedWriter(tmp_path / "ks.sqlite", lambda: NOW, ServerCounters())
    writes: list[Path] = []

    def failing_once(path: Path, content: bytes) -> None:
        writes.append(path)
        if len(writes) == 1:
            raise OSError(5, "Input/output error")
        replace_file(path, content)

    monkeypatch.setattr(received_writer, "replace_file", failing_once)

    async def notify() -> tuple[BaseException | None, BaseException | None]:
        return await asyncio.gather(
            writer.alerts([alert("firing", host="a")]), writer.alerts([alert("firing", host="b")]),
            return_exceptions=True,
        )  # fmt: skip

    first, second = asyncio.run(notify())
    assert isinstance(first, OSError)
    assert second is None
    kept = read_received(received_file(tmp_path / "ks.sqlite"))
    assert kept is not None
    assert "b" in {each.labels["host"] for each in kept.alerts}


def test_a_heartbeat_that_comes_during_a_write_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comes during the first write, and one during that of a second later; nobody beats after them."""
    monkeypatch.setattr(received_writer, "BEATS_EVERY", 0.0)
    writer = ReceivedWriter(tmp_path / "ks.sqlite", lambda: NOW, ServerCounters())
    names = ["second", "third"]

    async def beats() -> None:
        loop = asyncio.get_running_loop()

        async def beat_next() -> None:
            writer.beat(names.pop(0), None)

        def beating(path: Path, content: bytes) -> None:
            if names:
                asyncio.run_coroutine_threadsafe(beat_next(), loop).result(10)
            replace_file(path, content)

        monkeypatch.setattr(received_writer, "replace_file", beating)
        writer.beat("first", None)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(beats())
    kept = read_received(received_file(tmp_path / "ks.sqlite"))
    assert kept is not None
    assert set(kept.heartbeats) == {"first", "second", "third"}
