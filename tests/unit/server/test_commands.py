"""Commands over HTTP: on disk when they are accepted, given once, and taken by a runner."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from killswitch.model.snapshot import Event
from killswitch.model.store import StoreTroubleError
from killswitch.operations.commands import answer_to, operator_event
from killswitch.runner.tick_inputs import SpoolIntake
from killswitch.store.command_spool import (
    MOST,
    MOST_KEYS,
    CommandSpool,
    SpooledCommand,
    SpooledPage,
    SpoolFullError,
    spool_of,
)
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.runner_world import ScriptedVenue, World, book
from tests.unit.server.conftest import CREATED, Served

FOR_EVER = {"lock", "halt", "pause"}
"""What only keeps risk out, and waits for a runner for ever."""


def taken(served: Served, store_path: Path) -> list[Event]:
    """The commands in the store once a runner has taken them."""
    store = open_store(str(store_path))
    try:
        SpoolIntake(served.spool, store, lambda: datetime.now(UTC)).take()
        return list(store.pending_events())
    finally:
        store.close()


def test_a_command_is_on_disk_when_it_is_accepted_and_an_event_when_it_is_taken(
    served: Served, store_path: Path
) -> None:
    """Its author is the principal of the token, whatever the body says."""
    answer = served.give("trader account/main", "close-it-now", kind="close", scope="account/main", reason="feed lost")
    assert answer.status_code == 202
    body = answer.json()
    assert (body["state"], body["effect"], body["is_replay"]) == ("accepted", "tighten", False)
    (event,) = taken(served, store_path)
    assert (event.id, event.kind, event.scope, event.author, event.reason, event.cause, event.lock) == (
        body["id"], "close", "account/main", "trader of account/main", "feed lost", "operator", "reduce_only",
    )  # fmt: skip
    again = served.ask("GET", f"/v1/commands/{body['id']}", "viewer account/main").json()
    assert again["state"] == "taken"


def test_a_retry_is_the_same_command_with_its_present_state(served: Served, store_path: Path) -> None:
    """A client that lost the answer sends it again, also at the same moment: it is given once."""
    command = {"kind": "close", "scope": "account/main", "reason": "feed lost"}
    answers: list[str] = []

    def give() -> None:
        answers.append(served.give("trader account/main", "one-key-of-many", **command).json()["id"])

    threads = [threading.Thread(target=give) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(taken(served, store_path)) == 1
    replay = served.give("trader account/main", "one-key-of-many", **command).json()
    assert (replay["is_replay"], replay["state"]) == (True, "taken")
    assert len(taken(served, store_path)) == 1


def test_a_key_that_was_used_with_another_body_is_refused_and_one_of_another_principal_is_another(
    served: Served, store_path: Path
) -> None:
    """A key names one request of one principal."""
    first = served.give("trader account/main", "the-same-key", kind="close", scope="account/main", reason="a")
    other = served.give("trader account/main", "the-same-key", kind="close", scope="account/main", reason="b")
    theirs = served.give("risk portfolio", "the-same-key", kind="close", scope="account/main", reason="a")
    assert (first.status_code, other.status_code, theirs.status_code) == (202, 422, 202)
    assert first.json()["id"] != theirs.json()["id"]
    assert len(taken(served, store_path)) == 2


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ({"kind": "close"}, "reason"),
        ({"kind": "close", "reason": ""}, "reason"),
        ({"kind": "reset", "scope": "account/main", "reason": " \t "}, "the reason is blank"),
        ({"kind": "acknowledge", "incident": "48d4ba2ec34e", "reason": "  "}, "the reason is blank"),
        ({"kind": "sell", "reason": "x"}, "kind"),
        ({"kind": "close", "reason": "x", "author": "me"}, "author"),
        ({"kind": "flag", "reason": "x"}, "a flag needs"),
        ({"kind": "pause", "scope": "policy/a", "reason": "x"}, "a pause of a policy needs"),
        ({"kind": "lock", "reason": "x", "seconds": -1}, "seconds"),
        ({"kind": "lock", "reason": "x", "seconds": 1e9}, "seconds"),
    ],
)
def test_a_command_that_is_incomplete_is_refused_with_the_way_out(
    served: Served, command: dict[str, object], why: str
) -> None:
    """As problem+json."""
    answer = served.ask("POST", "/v1/commands", "risk portfolio", json=command, headers={"Idempotency-Key": "12345678"})
    assert answer.status_code == 422
    assert why in answer.json()["detail"]
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_command_without_an_idempotency_key_is_refused(served: Served) -> None:
    """Without one, a retry closes twice."""
    command = {"kind": "close", "reason": "x"}
    assert served.ask("POST", "/v1/commands", "risk portfolio", json=command).status_code == 422


def test_a_full_folder_refuses_what_loosens_first(tmp_path: Path) -> None:
    """Nothing that reduces risk waits for anything that does not."""
    spool = CommandSpool(tmp_path)
    spool.prepare()
    for number in range(500):
        spool.put(SpooledCommand(Event(f"hand-{number:016x}", CREATED, "unlock"), ""), "1-loosen")
    with pytest.raises(SpoolFullError, match="wait for the runner"):
        spool.put(SpooledCommand(Event("hand-more", CREATED, "unlock"), ""), "1-loosen")
    spool.put(SpooledCommand(Event("hand-close", CREATED, "close"), ""), "0-tighten")


def test_a_full_memory_of_keys_refuses_only_what_loosens(tmp_path: Path) -> None:
    """A close that is given twice closes once; an unlock of yesterday must not be given again."""
    spool = CommandSpool(tmp_path)
    spool.prepare()
    for number in range(MOST_KEYS):
        (tmp_path / "done" / f"1-loosen-hand-{number:016x}.json").touch()
    with pytest.raises(SpoolFullError, match="remembered, for 48 h"):
        spool.put(SpooledCommand(Event("hand-more", CREATED, "unlock"), ""), "1-loosen")
    assert spool.put(SpooledCommand(Event("hand-close", CREATED, "close"), ""), "0-tighten")


def test_what_tightens_is_taken_first_and_a_damaged_file_is_paged(store: SqlStore, tmp_path: Path) -> None:
    """A runner that finds hundreds of commands takes the close with the first."""
    spool = CommandSpool(tmp_path / "spool")
    spool.prepare()
    for number in range(150):
        spool.put(SpooledCommand(Event(f"hand-{number:016x}", CREATED, "unlock"), ""), "1-loosen")
    spool.put(SpooledCommand(Event("hand-ffffffffffffffff", CREATED, "close"), ""), "0-tighten")
    (spool.folder / "0-tighten-broken.json").write_text("{")
    intake, calls = SpoolIntake(spool, store, lambda: CREATED), []
    intake.call_tick = lambda: calls.append(1)
    intake.take()
    kinds = [event.kind for event in store.pending_events()]
    assert kinds[0] == "close"
    assert len(kinds) == 99
    assert calls == [1]
    assert [each.key for each in intake.alerts.found] == ["spool/damaged"]
    intake.take()
    assert len(store.pending_events()) == 151


def test_a_crash_between_the_event_and_the_file_stores_it_once(store: SqlStore, tmp_path: Path) -> None:
    """The file is there again, and counts once."""
    spool = CommandSpool(tmp_path / "spool")
    spool.prepare()
    command = SpooledCommand(Event("hand-0000000000000001", CREATED, "close"), "")
    for _ in range(2):
        spool.put(command, "0-tighten")
        SpoolIntake(spool, store, lambda: CREATED).take()
    assert len(store.pending_events()) == 1


@pytest.mark.parametrize(
    ("minutes", "carried_out"),
    [
        (1, {"unlock", "resume", "close", "cancel", *FOR_EVER}),
        (5, {"close", "cancel", *FOR_EVER}),
        (11, FOR_EVER),
        (100_000, FOR_EVER),
    ],
)
def test_what_waited_too_long_for_a_runner_is_not_carried_out_and_paged(
    served: Served, store: SqlStore, minutes: int, carried_out: set[str]
) -> None:
    """An unlock of yesterday was meant for the book of yesterday; a lock keeps risk out, and waits for ever."""
    given = {
        kind: served.give(
            "risk portfolio", f"{kind}-long-ago", kind=kind, scope="account/main", reason="x", ids=[]
        ).json()["id"]
        for kind in ("unlock", "close", "lock", "halt", "pause", "resume", "cancel")
    }
    intake = SpoolIntake(served.spool, store, lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    intake.take()
    assert {event.kind for event in store.pending_events()} == carried_out
    for kind, id_ in given.items():
        state = served.ask("GET", f"/v1/commands/{id_}", "risk portfolio").json()["state"]
        assert (state == "expired") is (kind not in carried_out), kind
    assert bool(intake.alerts.found) is (minutes > 1)


def test_a_file_that_cannot_be_taken_holds_no_other_one_up(store: SqlStore, tmp_path: Path) -> None:
    """It is tried again, and paged meanwhile; what it holds counts once."""
    spool = CommandSpool(tmp_path / "spool")
    spool.prepare()
    (spool.folder / "0-tighten-aaa.json").mkdir()  # reads as a folder: an error of the file system for this one alone
    spool.put(SpooledCommand(Event("hand-0000000000000002", CREATED, "close"), ""), "0-tighten")
    intake = SpoolIntake(spool, store, lambda: CREATED)
    intake.take()
    assert [event.kind for event in store.pending_events()] == ["close"]
    assert [each.key for each in intake.alerts.found] == ["spool/unreadable"]
    (spool.folder / "0-tighten-aaa.json").rmdir()
    intake.take()
    assert intake.alerts.found == ()


def test_the_server_changes_no_byte_of_the_store(served: Served, store_path: Path) -> None:
    """It only reads, whatever it is asked."""
    before = store_path.read_bytes()
    served.give("risk portfolio", "any-command", kind="close", reason="x")
    assert served.ask("GET", "/v1/status", "viewer portfolio").status_code == 200
    assert store_path.read_bytes() == before


def test_a_store_that_is_gone_is_answered_with_503(served: Served, store_path: Path) -> None:
    """Not ready, and alive."""
    store_path.unlink()
    assert served.ask("GET", "/readyz").status_code == 503
    assert served.ask("GET", "/healthz").status_code == 200
    assert served.ask("GET", "/v1/status", "viewer portfolio").status_code == 503


@pytest.mark.parametrize(
    ("who", "status"),
    [("trader account/main", 204), ("risk account/main", 204), ("viewer portfolio", 403), ("admin portfolio", 403)],
)
def test_a_heartbeat_has_no_scope_and_takes_the_token_of_a_bot(served: Served, who: str, status: int) -> None:
    """A name belongs to no account: whoever reports may beat for any, and who only reads or administers for none."""
    for name in ("maker", "of-another-bot"):
        assert served.ask("POST", f"/v1/heartbeats/{name}", who, json={}).status_code == status


def test_heartbeats_have_an_age_and_a_progress(served: Served) -> None:
    """A server that was sent none says so."""
    assert served.ask("GET", "/v1/heartbeats/maker", "viewer account/main").status_code == 404
    assert served.ask("POST", "/v1/heartbeats/maker", "trader account/main", json={"progress": 7}).status_code == 204
    found = served.ask("GET", "/v1/heartbeats/maker", "viewer account/main").json()
    assert found["progress"] == 7
    assert 0 <= found["age"] < 60


def test_spool_of_a_store_is_next_to_it(tmp_path: Path) -> None:
    """Runner and server find the same folder."""
    assert spool_of(tmp_path / "ks.sqlite") == tmp_path / "ks.sqlite.commands"


def test_a_halt_of_everything_creates_the_sentinel_and_one_of_a_part_does_not(served: Served, store_path: Path) -> None:
    """Bots and the gate are halted before any tick, also where no runner lives."""
    path = store_path.with_name(f"{store_path.name}.halt")
    part = served.give("trader account/main", "halt-a-part", kind="halt", scope="account/main", reason="seen").json()
    timed = served.give("risk portfolio", "halt-an-hour", kind="halt", reason="seen", seconds=3600).json()
    assert (part["effect"], part["sentinel"], timed["sentinel"], path.exists()) == ("tighten", None, None, False)
    whole = served.give("risk portfolio", "halt-everything", kind="halt", reason="seen").json()
    assert (whole["sentinel"], path.exists()) == (str(path), True)
    path.unlink()
    again = served.give("risk portfolio", "halt-everything", kind="halt", reason="seen").json()
    assert (again["is_replay"], again["sentinel"], path.exists()) == (True, str(path), True), "no tick has taken it yet"
    events = {event.id: event for event in taken(served, store_path)}
    path.unlink()  # a tick has taken the halt, whose lock may be lifted since
    lifted = served.give("risk portfolio", "halt-everything", kind="halt", reason="seen").json()
    assert (lifted["is_replay"], lifted["sentinel"], path.exists()) == (True, None, False), (
        "its lock may be lifted since"
    )
    assert (events[whole["id"]].kind, events[whole["id"]].lock) == ("halt", "reduce_only")


def test_a_trader_ends_what_the_same_person_ordered_by_hand_and_nothing_else(world: World, tmp_path: Path) -> None:
    """Not what another one, or a stage, has ordered; and none who names nothing. The answer lists what is there."""
    store = world.open()
    venue = ScriptedVenue(book("1000"))

    async def run() -> list[str]:
        runner, events = world.runner(store, [venue]), []
        await runner.start()
        for author in ("trader of account/main", "ann"):
            events.append(operator_event("halt", "account/main", author, "seen", world.clock.now(), lock="reduce_only"))
            store.put_event(events[-1])
            await world.clock.sleep(1.0)
            await runner.tick()
        await runner.finish()
        return [answer_to(store, event).decisions[0].id for event in events]

    own, of_ann = asyncio.run(run())
    served = Served(world.folder / "store.sqlite", tmp_path)
    try:
        unnamed = served.give("trader account/main", "unlock-nothing", kind="unlock", scope="account/main", reason="x")
        assert unnamed.status_code == 409
        assert own in unnamed.json()["detail"]
        assert of_ann in unnamed.json()["detail"]
        wanted = {(own,): 202, (of_ann,): 403, (own, of_ann): 403}
        for ids, status in wanted.items():
            given = {"kind": "unlock", "scope": "account/main", "reason": "x", "ids": list(ids)}
            assert served.give("trader account/main", f"unlock-{'-'.join(ids)}", **given).status_code == status
            assert served.give("risk account/main", f"unlock-{'-'.join(ids)}", **given).status_code == 202
        wrong = served.give("risk portfolio", "unlock-wrong", kind="unlock", reason="x", ids=[own])
        assert (wrong.status_code, "names nothing there" in wrong.json()["detail"]) == (409, True)
    finally:
        served.stop()


def test_the_files_of_commands_are_removed_after_two_days(served: Served, store_path: Path) -> None:
    """Until then a retry is recognised; what waits is never removed."""
    given = served.give("trader account/main", "long-ago", kind="close", scope="account/main", reason="x").json()
    taken(served, store_path)
    (done,) = (served.spool.folder / "done").iterdir()
    waiting = served.give("trader account/main", "it-waits", kind="lock", scope="account/main", reason="x").json()
    for hours, is_kept in ((47, True), (49, False)):
        at = datetime.now(UTC).timestamp() - hours * 3600
        os.utime(done, (at, at))
        served.spool.forget()
        assert (served.spool.find(given["id"]) is not None) is is_kept
    assert served.spool.find(waiting["id"]) is not None


def test_a_halt_is_taken_while_the_store_cannot_be_read_and_a_reset_is_not(served: Served, store_path: Path) -> None:
    """The tick compares its scope. What loosens must name what is there, which nobody knows."""
    store_path.unlink()
    given = served.give("trader portfolio", "halt-without-store", kind="halt", reason="seen")
    assert given.status_code == 202, given.text
    assert given.json()["sentinel"] is not None
    assert served.give("trader account/main", "lock-without-store", kind="lock", scope="account/main", reason="x").ok
    refused = served.give("risk portfolio", "reset-without-store", kind="reset", reason="x", ids=[])
    assert refused.status_code == 503


def test_a_halt_of_everything_halts_the_gate_also_where_no_command_is_taken(served: Served, store_path: Path) -> None:
    """A thousand commands wait for a runner that is gone."""
    for number in range(MOST):
        (served.spool.folder / f"0-tighten-hand-{number}.json").touch()
    refused = served.give("risk portfolio", "halt-everything", kind="halt", reason="seen")
    assert refused.status_code == 503
    assert "halts everything" in refused.json()["detail"]
    assert store_path.with_name(f"{store_path.name}.halt").exists()


def test_a_page_of_the_server_is_not_lost_with_an_error_of_the_store(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is found before the command that the store does not take."""
    spool = CommandSpool(tmp_path / "spool")
    spool.prepare()
    page = SpooledPage("token/1", "bob has issued a token")
    spool.put(SpooledCommand(Event("hand-1", CREATED, "approve", None, "bob", "x"), "", page), "0-tighten")
    spool.put(SpooledCommand(Event("hand-2", CREATED, "lock", None, "bob", "x"), ""), "0-tighten")

    def busy(_event: Event) -> None:
        raise StoreTroubleError("the store is busy")

    with monkeypatch.context() as broken:
        broken.setattr(store, "put_event", busy)
        with pytest.raises(StoreTroubleError):
            spool.take(store, CREATED)
    assert spool.take(store, CREATED).pages == (page,)
    assert not spool.is_waiting


def test_commands_in_scopes_of_others_are_limited_and_slow_nobodys_own(served: Served) -> None:
    """Each is refused, some only after the store was read: after a burst they are refused unread, the own are not."""
    found = [
        served.give("trader account/main", f"not-mine-{each:03}", kind="close", scope="account/other", reason="x")
        for each in range(60)
    ]
    assert {each.status_code for each in found[:20]} <= {403, 409}
    assert found[-1].status_code == 429
    own = served.give("trader account/main", "my-own-halt", kind="halt", scope="account/main", reason="seen")
    assert own.status_code == 202
