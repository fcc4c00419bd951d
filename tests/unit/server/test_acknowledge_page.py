"""The page with one button: opening it changes nothing, and the button acknowledges what it showed."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from killswitch.graph.routing import Escalation, MessageAttributes
from killswitch.incident.notify.acknowledge_link import KEY_BYTES, key_file, read_key, seals_of
from killswitch.incident.notify.message import encode_message
from killswitch.model.decision import Decision
from killswitch.model.store import ROUTING, TickRecord
from killswitch.planning.routing.state import Announcement, OpenPage, RoutingState, encode_routing
from killswitch.runner.tick_inputs import SpoolIntake
from killswitch.store.sqlite import open_store
from tests.outboxes import START, message
from tests.unit.server.conftest import Served
from tests.unit.server.test_commands import taken


def page_of(served: Served, store_path: Path, *decisions: str) -> str:
    """The address of the page of the first decision, whose firings have the numbers from 1 on."""
    store = open_store(str(store_path))
    pages = tuple(
        OpenPage(
            number,
            Announcement(
                each, 1, MessageAttributes("fired", "page", "p", "account/main", 3), f"firing/p/{number}",
                encode_message(message(each)), True, True, escalates=True, decision=each,
            ),
            "root", 1, (Escalation(1, "phone"),),
        )
        for number, each in enumerate(decisions, start=1)
    )  # fmt: skip
    made = tuple(Decision(each, START, "p", "sha256:0", "account/main", "enforce", "close", 3, 0) for each in decisions)
    live = {ROUTING: encode_routing(RoutingState(len(pages), pages=pages))}
    store.commit_tick(TickRecord(START, "sha256:0", (), (), made, (), (), None, (), 0, live=live))
    store.close()
    return f"http://{served.host}/ack/{seals_of(str(store_path)).sealed_id(decisions[0])}"


def test_opening_the_page_changes_nothing_and_its_button_acknowledges_what_it_showed(
    served: Served, store_path: Path
) -> None:
    address = page_of(served, store_path, "d1")
    seen = requests.get(address, headers={"Sec-Fetch-Site": "cross-site"}, timeout=10)
    assert (seen.status_code, seen.text.count("<button>")) == (200, 1)
    assert "[page] d1" in seen.text
    assert "script" not in seen.text
    assert taken(served, store_path) == []
    form = dict(re.findall(r'name="(number|seal)" value="([^"]+)"', seen.text)) | {"name": "Bob"}
    sent = requests.post(address, data=form, timeout=10)
    assert sent.status_code == 200, sent.text
    (event,) = taken(served, store_path)
    assert (event.kind, event.decision, event.number, event.author) == ("acknowledge", "d1", 1, "Bob (by link)")
    requests.post(address, data=form, timeout=10)
    assert len(taken(served, store_path)) <= 1, "the same click twice is one command"


def test_a_form_with_another_number_and_a_link_with_another_seal_are_refused(served: Served, store_path: Path) -> None:
    address = page_of(served, store_path, "d1", "d2")
    found = requests.get(address, timeout=10).text
    form = dict(re.findall(r'name="(number|seal)" value="([^"]+)"', found))
    assert requests.post(address, data={**form, "number": "9"}, timeout=10).status_code == 403
    assert requests.get(address[:-1] + ("0" if address[-1] != "0" else "1"), timeout=10).status_code == 404
    foreign = requests.post(address, data=form, headers={"Origin": "https://evil.example"}, timeout=10)
    assert foreign.status_code == 403
    assert taken(served, store_path) == []


def test_the_key_of_the_links_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    seals = seals_of(str(tmp_path / "ks.sqlite"))
    assert seals.about(seals.sealed_id("d1")) == "d1"
    assert seals.about("d1-" + "0" * 32) is None
    assert key_file(str(tmp_path / "ks.sqlite")).stat().st_mode & 0o777 == 0o600


def test_whoever_is_logged_in_to_the_board_acknowledges_by_link_as_everybody_does(
    served: Served, store_path: Path
) -> None:
    """The browser sends the cookie of the session with the form, which has no script to prove the session with."""
    address = page_of(served, store_path, "d1")
    browser = requests.Session()
    token = {"token": served.tokens["viewer portfolio"]}
    assert browser.post(f"http://{served.host}/board/login", json=token, timeout=10).status_code == 204
    form = dict(re.findall(r'name="(number|seal)" value="([^"]+)"', browser.get(address, timeout=10).text))
    sent = browser.post(address, data=form, timeout=10)
    assert sent.status_code == 200, sent.text
    assert [event.kind for event in taken(served, store_path)] == ["acknowledge"]


def test_an_acknowledgement_waits_for_a_run_however_long_that_takes(served: Served, store_path: Path) -> None:
    """It covers no firing that its page did not show, so that it does not grow old."""
    address = page_of(served, store_path, "d1")
    form = dict(re.findall(r'name="(number|seal)" value="([^"]+)"', requests.get(address, timeout=10).text))
    assert requests.post(address, data=form, timeout=10).status_code == 200
    store = open_store(str(store_path))
    try:
        SpoolIntake(served.spool, store, lambda: datetime.now(UTC) + timedelta(minutes=30)).take()
        assert [event.kind for event in store.pending_events()] == ["acknowledge"]
    finally:
        store.close()


def test_a_firing_that_several_nodes_took_waits_once() -> None:
    """A route of its own and the root escalate both; it is one firing on the page, on the board and in the count."""
    announcement = Announcement(
        "d1", 1, MessageAttributes("fired", "page", "p", "account/main", 3), "firing/p/1",
        encode_message(message("d1")), True, True, escalates=True, decision="d1",
    )  # fmt: skip
    pages = tuple(OpenPage(1, announcement, node, 1, (Escalation(1, "phone"),)) for node in ("root", "desk"))
    assert len(RoutingState(1, pages=pages).unacknowledged) == 1


def test_what_a_killed_process_has_left_of_the_key_prevents_no_later_one(tmp_path: Path) -> None:
    """In a container each process has the number of the one before."""
    (tmp_path / f".ks.sqlite.ack-key.{os.getpid()}").write_bytes(b"")
    assert len(read_key(str(tmp_path / "ks.sqlite"))) == KEY_BYTES
