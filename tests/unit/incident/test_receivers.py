"""Real receivers on loopback, shaped like SMTP, Slack, Telegram, PagerDuty and an SMS gateway; and loss (W4).

Each gets the same storm: a firing while it is down, more while it is slow, and the process ends in between. Nothing is
lost, and nothing arrives twice but with the same id.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from msgspec.structs import replace

from killswitch.graph.routing import RouteTarget
from killswitch.incident.notify.custom_target import custom_sender, register_target
from killswitch.incident.notify.message import Message, decode_message
from killswitch.incident.notify.targets import NotSentError, RejectedError
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.store import Suppression, TickRecord
from killswitch.runner.notify.target_check import sender
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.outboxes import START, lane, message, through, waiting
from tests.webhooks import free_port

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NAMES = ["m1", "m2", "m3", "m4"]


class Received:
    """What a receiver has got, as texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 # the name of aiosmtpd
        self.texts.append(envelope.content.decode())
        return "250 OK"


@contextmanager
def smtp(received: Received, port: int) -> Iterator[None]:
    controller = Controller(received, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


@contextmanager
def http(received: Received, port: int, answer: str = "ok") -> Iterator[None]:
    """Answers every POST with 200 and `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.texts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def on_loopback(kind: str, port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Apprise URL of a service whose own address is this port, in the form that the service documents."""
    here = f"http://127.0.0.1:{port}"
    for plugin in (
        "slack.NotifySlack",
        "telegram.NotifyTelegram",
        "pagerduty.NotifyPagerDuty",
        "email.base.NotifyEmail",
    ):
        monkeypatch.setattr(f"apprise.plugins.{plugin}.request_rate_per_sec", 0)  # it would sleep in real time
    if kind == "smtp":
        return f"mailto://127.0.0.1:{port}?from=ks@desk.example&to=ada@desk.example&mode=insecure"
    if kind == "slack":
        monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", f"{here}/services")
        return "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#desk"
    if kind == "telegram":
        monkeypatch.setattr("apprise.plugins.telegram.NotifyTelegram.notify_url", f"{here}/bot")
        return "tgram://123456789:abcdefg_hijklmnop/12315544/"
    monkeypatch.setitem(__import__("apprise.plugins.pagerduty").plugins.pagerduty.PAGERDUTY_API_LOOKUP, "us", here)
    return "pagerduty://AbCdEfGhIjKlMnOpQrStUvWxYz012345@ABCDEF0123456789/"


def sms_gateway(port: int) -> Callable[[Message], None]:
    """A target of the user's own: a gateway that takes 160 characters."""
    import requests

    def send(each: Message) -> None:
        body = {"to": "+49301234", "text": each.title[:160], "id": each.id, "members": each.members}
        try:
            answer = requests.post(f"http://127.0.0.1:{port}/sms", json=body, timeout=5)
        except requests.RequestException as error:
            raise NotSentError("no answer") from error
        if answer.status_code == 400:
            raise RejectedError("not a number")

    return send


@pytest.mark.parametrize("kind", ["smtp", "slack", "telegram", "pagerduty", "sms"])
def test_a_receiver_that_was_down_gets_everything_in_two_messages(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was tried, and one of all that waited behind it."""
    port, received, clock = free_port(), Received(), VirtualClock(START)
    store = open_store(str(tmp_path / "ks.sqlite"))
    if kind == "sms":
        register_target("sms", sms_gateway(port))
        to = custom_sender("sms")
    else:
        monkeypatch.setenv("SERVICE", on_loopback(kind, port, monkeypatch))
        to = sender(RouteTarget("apprise", "env:SERVICE"))
    waiting(store, NAMES)
    work = lane(store, to, clock)
    asyncio.run(through(work, clock, 20.0))
    assert received.texts == []
    answer = json.dumps({"ok": True, "status": "success", "message": "Event processed"})
    with smtp(received, port) if kind == "smtp" else http(received, port, "ok" if kind == "slack" else answer):
        asyncio.run(through(work, clock, 60.0))
    assert len(received.texts) == 2, store.deliveries(9)
    assert "m1" in received.texts[0]
    assert "3 stages have fired" in received.texts[1]
    if kind != "sms":
        assert all(name in received.texts[1] for name in NAMES[1:])
    assert {each.state for each in store.deliveries(9)} == {"delivered"}
    store.close()


def test_w4_a_process_that_dies_between_sending_and_its_record_repeats_a_batch_with_its_id(tmp_path: Path) -> None:
    """W4 of `failures.md`: nothing is dropped under load, and what arrives twice has the same id and members."""
    store = open_store(str(tmp_path / "ks.sqlite"))
    waiting(store, NAMES)
    arrived: list[Message] = []

    class Dying:
        """Fails once, then accepts; with its second message the process dies before the record."""

        def send(self, each: Message) -> None:
            if not arrived and not self.has_failed:
                self.has_failed = True
                raise NotSentError("down")
            arrived.append(each)
            if len(arrived) == 2:
                raise KeyboardInterrupt

        has_failed = False

        def check(self) -> None:
            pass

    clock = VirtualClock(START)
    first = lane(store, Dying(), clock)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(through(first, clock, 60.0))
    store.close()
    again = open_store(str(tmp_path / "ks.sqlite"))
    waiting(again, ["m5"])

    class Accepting:
        def send(self, each: Message) -> None:
            arrived.append(each)

        def check(self) -> None:
            pass

    asyncio.run(through(lane(again, Accepting(), clock), clock, 60.0))
    assert [each.id for each in arrived] == ["m1", "m2-and-others", "m2-and-others", "m5"]
    assert arrived[1] == arrived[2]
    assert {id_ for each in arrived for id_ in each.members or (each.id,)} == {*NAMES, "m5"}
    again.close()


def test_w4_a_suppressed_message_leaves_its_reason(tmp_path: Path) -> None:
    store: SqlStore = open_store(str(tmp_path / "ks.sqlite"))
    why = Suppression(1, "alert/outage/a", "m1", "root/desk", "desk", "silenced", "silence upgrade by ada")
    store.commit_tick(TickRecord(START, "sha256:0", (), (), (), (), (), None, (), 0, (), (why,)))
    store.close()
    again = open_store(str(tmp_path / "ks.sqlite"))
    assert again.suppressions(9) == [why]
    again.close()


def test_a_message_that_joins_others_is_decoded_with_their_ids() -> None:
    from killswitch.incident.notify.joining import joined
    from killswitch.incident.notify.message import encode_message

    one = joined([message(name) for name in NAMES], "all")
    assert decode_message(encode_message(one)).members == tuple(NAMES)


def pager(received: Received, port: int, monkeypatch: pytest.MonkeyPatch, url: str = "") -> Any:
    monkeypatch.setenv("SERVICE", f"{on_loopback('pagerduty', port, monkeypatch)}{url}")
    return sender(RouteTarget("apprise", "env:SERVICE"))


def test_a_pager_gets_the_key_of_the_page_and_its_end_resolves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the Events API v2 has it: `trigger` and `resolve` with one `dedup_key`."""
    port, received = free_port(), Received()
    page = replace(message("m1"), key="outage")
    update, over = replace(page, id="m2"), replace(page, id="m3", key="", resolves=("outage", "close"))
    to = pager(received, port, monkeypatch)
    with http(received, port, json.dumps({"status": "success", "message": "Event processed"})):
        for each in (page, update, over, message("m4")):
            to.send(each)
    events = [json.loads(body) for body in received.texts]
    assert [(each["event_action"], each["dedup_key"]) for each in events] == [
        ("trigger", "outage"), ("trigger", "outage"), ("resolve", "outage"), ("resolve", "close"), ("trigger", "m4"),
    ]  # fmt: skip


def test_a_pager_whose_url_has_a_key_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    port, received = free_port(), Received()
    to = pager(received, port, monkeypatch, "?dedup=mine")
    with http(received, port, json.dumps({"status": "success", "message": "Event processed"})):
        to.send(replace(message("m1"), key="outage"))
    assert json.loads(received.texts[0])["dedup_key"] == "mine"
