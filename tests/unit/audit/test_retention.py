"""Retention: what is removed, what is kept, and that the rest of the record stays provable, whatever the order."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from killswitch.audit import checker, retaining
from killswitch.audit.exporting import export_segments
from killswitch.audit.log_files import AuditError, LineSource, segments_of, sole_writer, verify_log, verify_source
from killswitch.audit.proving import check_proof, prove_from_log, prove_from_source
from killswitch.audit.retaining import Removal, Retainer
from killswitch.audit.retention_needs import needs_of
from killswitch.audit.retention_settings import RetentionSettings, read_retention_settings
from killswitch.audit.statement import encode_statement, make_statement
from killswitch.cli import ksctl
from killswitch.journal.codec import encode
from killswitch.journal.entries import Finished, PlannedWork
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.instant import to_micros
from killswitch.model.record_entry import RecordEntry, private, with_known
from killswitch.model.snapshot import Event
from killswitch.model.store import LIVE_DRILLS, RUNNER_VIEW, MachineState, Outgoing, TickRecord
from killswitch.record.anchors import Anchor, FetchedAnchor
from killswitch.record.checkpoint import RemovedLines, read_checkpoint
from killswitch.record.line import leaf_of
from killswitch.record.tree import TreeEdge
from killswitch.record.verification import RecordReport
from killswitch.store.recorded import server_record_of
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
DECLARED = """
clock_within = "30d"
[store]
keep = "30d"
archive = "audit"
"""
PLACE = ("main", "BTC/USDT:USDT", "long")


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


class Site:
    """A store, and the file that declares how long it is kept."""

    def __init__(self, folder: Path, declared: str = DECLARED) -> None:
        self.folder, self.path = folder, folder / "ks.sqlite"
        (folder / "retention.toml").write_text(declared)
        self.anchors: list[FetchedAnchor] = []

    @property
    def settings(self) -> RetentionSettings:
        return read_retention_settings(self.folder / "retention.toml")

    def opened(self) -> closing[SqlStore]:
        return closing(open_store(str(self.path)))

    def fire(self, id_: str, at: datetime, *, closes: bool = True, **more: object) -> None:
        """A stage fires at a time; its close ends a minute later, unless it does not."""
        values: dict[str, object] = {"policy": "p", "scope": "account/main", "stage": "close", "level": 1, **more}
        decision = Decision(id=id_, as_of=at, policy_set="s", mode="enforce", previous_level=0, **values)  # type: ignore[arg-type] # by their names
        with self.opened() as store:
            planned = encode(PlannedWork(id_, at, *PLACE))
            store.commit_tick(TickRecord(at, "s", (), (), (decision,), (), (planned,), None, (), 0))
            if closes:
                store.append(encode(Finished(id_, at + timedelta(minutes=1), "main", status="flat")))

    def note(self, at: datetime, text: str = "") -> None:
        with self.opened() as store:
            store.add_to_record([RecordEntry("cut", at, {"size": 1}, with_known({"text": private(text or None)}))])

    def anchor(self) -> FetchedAnchor:
        with self.opened() as store:
            tip = store.record_tip()
        assert tip is not None
        self.anchors.append(FetchedAnchor(Anchor(tip.chain, tip.number, tip.root.hex()), "a test"))
        return self.anchors[-1]

    def retain(self, now: datetime = NOW, *, dry_run: bool = False) -> tuple[Removal, ...]:
        return Retainer(self.path, self.settings, now, "ingrid", dry_run=dry_run).retain()

    def report(self) -> RecordReport:
        with self.opened() as store:
            return verify_source(store, self.anchors)

    def ids(self) -> list[str]:
        with self.opened() as store:
            return [each.decision.id for each in reversed(store.decisions(99))]

    def spoil(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path)) as raw, raw:
            raw.execute(statement, values)


@pytest.fixture(autouse=True)
def _confirmed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of these records are weeks apart. What they say of the clock is the subject of test_retention_clock.py."""
    monkeypatch.setattr(retaining, "doubt_of_clock", lambda *_: None)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Four closes with their notes, two of them older than a month."""
    made = Site(tmp_path)
    for number, days in enumerate((60, 40, 20, 1)):
        made.fire(f"decision-{number}", ago(days))
        made.note(ago(days), f"of {number}")
    return made


def test_what_is_older_is_removed_and_the_rest_is_still_verified(site: Site) -> None:
    """Lines, decisions, journal and erasable values; with the anchors before and after it."""
    site.anchor()
    before = site.report()
    (removal,) = site.retain()
    assert (removal.through, removal.kept_because) == (9, None), "the line of the chain, and four of each close"
    assert (removal.counts["lines"], removal.counts["decisions"]) == (9, 2)
    assert site.ids() == ["decision-2", "decision-3"]
    with site.opened() as store:
        assert {each.decision for each in store.journal()} == {"decision-2", "decision-3"}
        assert {value for _digest, _salt, value in store.record_values()} == {b"of 2", b"of 3", b"ingrid"}
    site.anchor()
    report = site.report()
    assert (report.verdict, report.first, report.removed, report.chain) == ("verified", 10, 9, before.chain)
    assert [each.state for each in report.anchors] == ["confirmed", "confirmed"]
    assert verify_log(site.folder / "audit").last == 9


def test_the_record_states_what_was_removed_and_its_digest(site: Site) -> None:
    """Announced before it happens, answered afterwards; the digest is that of the lines in the archive."""
    with site.opened() as store:
        lines = b"".join(line.text + b"\n" for line in store.record_lines(1, 9))
    site.retain()
    with site.opened() as store:
        announced, answered = (json.loads(line.text) for line in store.record_lines(report_end(store) - 1))
        checkpoint = store.record_checkpoint()
    assert (announced["kind"], announced["what"], announced["through"], announced["lines"]) == (
        "retention", "store", 9, 9,
    )  # fmt: skip
    assert announced["announces"] and answered["answers"] == announced["seq"]
    assert (answered["result"], answered["details"]["lines"]) == ("removed", 9)
    assert checkpoint is not None and announced["body"]["sha256"] == sha256(checkpoint).hexdigest()
    assert json.loads(checkpoint)["deleted"] == sha256(lines).hexdigest()
    assert announced["declared"] == sha256((site.folder / "retention.toml").read_bytes()).hexdigest()
    archived = b"".join(each.path.read_bytes() for each in segments_of(site.folder / "audit"))
    assert archived == lines


def report_end(store: SqlStore) -> int:
    tip = store.record_tip()
    assert tip is not None
    return tip.number


def test_a_second_retention_removes_what_the_first_one_kept(site: Site) -> None:
    """Also the line that stated the first removal: the newest one states all of it."""
    site.retain()
    site.fire("decision-4", NOW)
    site.retain(NOW + timedelta(days=40))
    report = site.report()
    assert (report.verdict, report.breaks, site.ids()) == ("verified", 0, [])
    assert report.removed > 20
    assert report.removal is not None and report.removal > report.removed
    archive = verify_log(site.folder / "audit")
    assert (archive.verdict, archive.last, len(archive.segments)) == ("verified", report.removed, 2)


def test_nothing_is_removed_that_is_young(site: Site) -> None:
    """And nothing is written but a line about it: it shows how time goes on."""
    before = site.report().last
    assert before is not None
    (removal,) = site.retain(ago(31))
    assert (removal.counts, removal.through) == ({}, None)
    assert (site.report().last, site.report().removed) == (before + 1, 0)
    assert not (site.folder / "audit").exists()
    with site.opened() as store:
        line = json.loads(next(iter(store.record_lines(before + 1))).text)
    assert (line["kind"], line["what"], line["result"], line["at"]) == (
        "retention",
        "all",
        "nothing",
        "2026-01-30T09:30:00Z",
    )


def test_a_dry_run_names_what_would_be_removed_and_writes_nothing(site: Site) -> None:
    """Neither to the store nor to the archive."""
    content = site.path.read_bytes()
    (removal,) = site.retain(dry_run=True)
    assert (removal.counts, removal.through) == ({"lines": 9}, 9)
    assert site.path.read_bytes() == content
    assert not (site.folder / "audit").exists()


NEEDED: dict[str, str] = {
    "a close that has not ended": "its close has not ended",
    "a lock in force": "its lock is in force",
    "a stage that was not reset": "its stage was not reset",
    "a state that names it": "a restart remembers it",
}


@pytest.mark.parametrize("case", NEEDED)
def test_what_a_restart_or_a_person_needs_is_kept_with_all_that_follows(tmp_path: Path, case: str) -> None:
    """However old it is; the removal says why. What is older than that goes."""
    site = Site(tmp_path)
    site.fire("decision-0", ago(60), kind="manual", policy="manual")
    manual = {"kind": "manual", "policy": "manual", "scope": "account/other"}
    if case == "a stage that was not reset":
        manual = {}
        with site.opened() as store:
            state = MachineState("p", "account/main", b"{}")
            store.commit_tick(TickRecord(ago(51), "s", (state,), (), (), (), (), None, (), 0))
    lock = LockOrder("account/main", "all", None) if case == "a lock in force" else None
    site.fire("decision-1", ago(50), closes=case != "a close that has not ended", lock=lock, **manual)
    if case == "a state that names it":
        with site.opened() as store:
            store.put_live("routing", b'{"open":["decision-1"]}')
    site.fire("decision-2", ago(40), kind="manual", policy="manual")
    (removal,) = site.retain()
    assert removal.kept_because == f"decision decision-1 is needed: {NEEDED[case]}"
    assert site.ids() == ["decision-1", "decision-2"]
    assert site.report().verdict == "verified"
    with site.opened() as store:
        assert "decision-1" in next(iter(store.record_lines())).text.decode() or case == "a stage that was not reset"


def test_a_reset_ends_the_need_of_a_stage(tmp_path: Path) -> None:
    """Its incident is over."""
    site = Site(tmp_path)
    with site.opened() as store:
        state = MachineState("p", "account/main", b"{}")
        store.commit_tick(TickRecord(ago(61), "s", (state,), (), (), (), (), None, (), 0))
    site.fire("decision-1", ago(60))
    reset = Decision(
        id="decision-2", as_of=ago(59), policy="p", policy_set="s", scope="account/main", mode="enforce", stage=None,
        level=0, previous_level=1, kind="reset",
    )  # fmt: skip
    with site.opened() as store:
        store.commit_tick(TickRecord(ago(59), "s", (), (), (reset,), (), (), None, (), 0))
    site.note(NOW)
    (removal,) = site.retain()
    assert (removal.kept_because, site.ids()) == (None, [])


@pytest.mark.parametrize("level", [0, 1])
def test_a_machine_at_rest_does_not_keep_its_last_firing(tmp_path: Path, level: int) -> None:
    """It names it until the next one, for years: all that came since would be kept. Nor does the view of a tick."""
    site = Site(tmp_path)
    blob = json.dumps({"engine": {"level": level}, "decision": "decision-1", "costs": {"decision-1": "0"}}).encode()
    site.fire("decision-1", ago(60), kind="manual", policy="manual")
    with site.opened() as store:
        states = (MachineState("p", "account/main", blob),)
        store.commit_tick(TickRecord(ago(59), "s", states, (), (), (), (), None, (), 0))
        store.put_live(RUNNER_VIEW, b'{"closings":[{"decision":"decision-1"}]}')
    site.note(NOW)
    (removal,) = site.retain()
    assert site.ids() == ([] if level == 0 else ["decision-1"])
    assert removal.kept_because == (
        None if level == 0 else f"decision decision-1 is needed: {NEEDED['a state that names it']}"
    )


@pytest.mark.parametrize(("state", "is_kept"), [("closed", False), ("left", True), ("closing", True)])
def test_a_live_drill_keeps_its_close_while_something_may_be_left(tmp_path: Path, state: str, is_kept: bool) -> None:
    """Its approvals stay spent in any case: they are in the memory itself."""
    site = Site(tmp_path)
    site.fire("decision-1", ago(60), kind="manual", policy="manual")
    blob = json.dumps([{"drill": "d", "decision": "decision-1", "state": state, "spent": ["a"]}]).encode()
    with site.opened() as store:
        store.put_live(LIVE_DRILLS, blob)
    site.note(NOW)
    site.retain()
    assert site.ids() == ["decision-1"] * is_kept
    with site.opened() as store:
        assert store.live(LIVE_DRILLS) == blob


def test_a_notification_that_waits_keeps_the_line_that_announced_it(tmp_path: Path) -> None:
    """Its delivery is to answer that line."""
    site = Site(tmp_path)
    site.note(ago(50))
    with site.opened() as store:
        message = Outgoing("m1", to_micros(ago(45)), "desk", "t", b"{}")
        store.commit_tick(TickRecord(ago(45), "s", (), (), (), (), (), None, (), 0, (message,)))
    site.note(NOW)
    assert site.retain()[0].through == 2
    with site.opened() as store:
        store.settle("m1", to_micros(NOW), None)
        assert json.loads(next(iter(store.record_lines(report_end(store)))).text)["answers"] == 3
    assert site.report().verdict == "verified"


def test_what_a_later_line_names_too_is_kept(tmp_path: Path) -> None:
    """A body is kept once, by its digest: the young line still has it."""
    site = Site(tmp_path)
    bodies = ((ago(45), b"shared"), (ago(44), b"alone"), (NOW, b"shared"))
    with site.opened() as store:
        store.add_to_record([RecordEntry("cut", at, body=body) for at, body in bodies])
    assert site.retain()[0].counts == {"lines": 3, "bodies": 1}
    report = site.report()
    assert (report.verdict, report.withheld.count) == ("verified", 0)


def test_a_transaction_removes_few_decisions_because_a_tick_waits_for_it(tmp_path: Path) -> None:
    """Each may have a megabyte that SQLite overwrites, and a run that waits for half a second goes on in memory."""
    site = Site(tmp_path)
    for number in range(23):
        site.fire(f"decision-{number}", ago(60))
    site.fire("young", ago(1))
    left: list[int] = []

    def count(_: object) -> None:
        with closing(sqlite3.connect(site.path)) as raw:
            left.append(raw.execute("SELECT count(*) FROM decisions").fetchone()[0])

    event.listen(Engine, "commit", count)
    try:
        site.retain()
    finally:
        event.remove(Engine, "commit", count)
    steps = [before - after for before, after in pairwise(left) if before != after]
    assert site.ids() == ["young"]
    assert sum(steps) == 23 and max(steps) <= 5


def test_a_record_whose_beginning_was_removed_began_no_earlier_than_what_is_left(site: Site) -> None:
    """Approvals from before a store are not counted as unspent because retention has removed its first line."""
    with site.opened() as store:
        assert store.record_began_at() == ago(60)
    site.retain()
    with site.opened() as store:
        assert store.record_began_at() == ago(20)


def test_a_run_goes_on_writing_while_old_lines_are_removed(site: Site) -> None:
    """Every line that it writes is in the chain, and those of the removal are between them."""

    def write() -> None:
        with site.opened() as store:
            for number in range(80):
                store.add_to_record([RecordEntry("cut", NOW, {"size": number}, body=b"of a run")])

    writer = threading.Thread(target=write)
    writer.start()
    site.retain()
    writer.join()
    report = site.report()
    assert (report.verdict, report.removed, report.withheld.count) == ("verified", 9, 0)
    assert report.last == 17 + 80 + 2, "none was refused"


class Meanwhile:
    """A store from which retention removes lines when its reader asks for `moment` the first time."""

    def __init__(self, site: Site, store: SqlStore, moment: str) -> None:
        self._site, self._store, self._moment = site, store, moment

    def __getattr__(self, name: str) -> object:
        if name == self._moment:
            self._moment = ""
            self._site.retain()
        return getattr(self._store, name)


@pytest.mark.parametrize("moment", ["record_tip", "record_lines"])
def test_a_verification_during_a_retention_finds_no_tampering(site: Site, moment: str) -> None:
    """It begins again where the record does by then."""
    with site.opened() as store:
        meanwhile: LineSource = Meanwhile(site, store, moment)  # type: ignore[assignment] # it has what the store has
        report = verify_source(meanwhile)
    assert (report.verdict, report.removed) == ("verified", 9)


def test_an_export_during_a_retention_leaves_no_gap_in_a_log(site: Site) -> None:
    """It ends with an error before the first line that is gone; the next one begins where the record does."""
    with site.opened() as store:
        with pytest.raises(AuditError, match="retention has removed line 1 of the store meanwhile"):
            export_segments(Meanwhile(site, store, "record_lines"), site.folder / "log")  # type: ignore[arg-type] # as above
        assert segments_of(site.folder / "log") == ()
        export_segments(store, site.folder / "log")
    assert verify_log(site.folder / "log").verdict == "verified"


def test_a_command_that_no_tick_has_consumed_is_kept(site: Site) -> None:
    """One that was consumed goes with its line."""
    with site.opened() as store:
        for number in (1, 2):
            store.put_event(Event(f"e{number}", ago(55), "reset", author="bo"))
    site.spoil("UPDATE events SET consumed_at = ? WHERE id = 'e1'", to_micros(ago(55)))
    assert site.retain()[0].counts["commands"] == 1
    with site.opened() as store:
        assert [each.id for each in store.pending_events()] == ["e2"]


def test_a_cut_that_no_line_states_is_found(site: Site) -> None:
    """Also with a checkpoint that fits: it is not the one that the record names."""
    with site.opened() as store:
        forged = RemovedLines().add_all(line.text for line in store.record_lines(1, 9)).checkpoint()
    site.spoil("DELETE FROM record WHERE number <= 9")
    assert site.report().verdict == "contradicted"
    site.spoil("INSERT INTO record_start (one, body) VALUES (1, ?)", forged)
    report = site.report()
    assert report.verdict == "contradicted"
    assert report.first_break is not None and "no line states that retention removed them" in report.first_break.what


def test_a_record_that_was_written_again_behind_its_newest_anchor_is_not_verified(site: Site) -> None:
    """Its own line names the forged checkpoint, and every anchor is of a line that is gone: nothing holds the rest."""
    site.anchor()
    forged = RemovedLines().add_all(b"anything" for _ in range(40))
    forged.chain = site.anchors[0].anchor.chain
    content = forged.checkpoint()
    site.spoil("DELETE FROM record")
    site.spoil("INSERT INTO record_start (one, body) VALUES (1, ?)", content)
    leaf, edge = leaf_of(b"anything"), TreeEdge(forged.number, read_checkpoint(content).hashes).encode()
    site.spoil("UPDATE record_tip SET number = ?, leaf = ?, edge = ?", forged.number, leaf, edge)
    with site.opened() as store:
        store.add_to_record([RecordEntry("retention", NOW, {"what": "store"}, body=content)])
    report = site.report()
    assert [each.state for each in report.anchors] == ["removed"]
    assert (report.breaks, report.removal, report.verdict) == (0, 41, "could not tell")


def test_a_cut_behind_a_retention_is_found(site: Site) -> None:
    """The lines between the checkpoint and the first one that is left."""
    site.retain()
    site.spoil("DELETE FROM record WHERE number BETWEEN 10 AND 12")
    assert site.report().verdict == "contradicted"


def test_a_removal_that_was_interrupted_is_finished_by_the_next_one(site: Site) -> None:
    """Its lines are not in the record any more, and verification does not see them."""
    with site.opened() as store:
        lines = [(line.number, line.text) for line in store.record_lines(1, 9)]
    site.retain()
    for number, text in lines:
        site.spoil("INSERT INTO record (number, line) VALUES (?, ?)", number, text)
    report = site.report()
    assert (report.verdict, report.first) == ("verified", 10)
    assert site.retain()[0].counts == {"lines": 9}
    assert site.report().verdict == "verified"


def test_an_export_begins_where_the_store_begins(site: Site) -> None:
    """A log of a folder of its own is verified from the checkpoint too; an older one cannot go on."""
    with site.opened() as store:
        export_segments(store, site.folder / "behind", until=5)
    (removal,) = site.retain()
    with site.opened() as store:
        with pytest.raises(AuditError, match="retention has removed the lines up to 9"):
            export_segments(store, site.folder / "behind")
        fresh = site.folder / "fresh"
        export_segments(store, fresh)
    assert verify_log(fresh).verdict == "verified"
    assert verify_log(fresh).removed == removal.through


def test_a_segment_that_another_export_began_is_ended_before_its_lines_leave(site: Site) -> None:
    """That export goes on in the next one."""
    with site.opened() as store:
        export_segments(store, site.folder / "audit")
    (removal,) = site.retain()
    (first,) = segments_of(site.folder / "audit")
    site.note(NOW)
    with site.opened() as store:
        export_segments(store, site.folder / "audit")
    assert (removal.through, first.path.name) == (9, "record-000000000001-to-000000000017.jsonl")
    assert [each.first for each in segments_of(site.folder / "audit")] == [1, 18]
    assert verify_log(site.folder / "audit").verdict == site.report().verdict == "verified"


def test_an_archive_that_was_changed_keeps_everything_in_the_store(site: Site) -> None:
    """Nothing leaves it that is nowhere else."""
    with site.opened() as store:
        export_segments(store, site.folder / "audit", until=9, ends_segment=True)
    (segment,) = segments_of(site.folder / "audit")
    segment.path.write_bytes(segment.path.read_bytes().replace(b'"size":1', b'"size":2', 1))
    with pytest.raises(AuditError, match="nothing is removed: the archive"):
        site.retain()
    assert (site.report().verdict, site.report().removed, len(site.ids())) == ("verified", 0, 4)


def test_segments_of_the_archive_are_removed_when_they_are_older_than_declared(site: Site) -> None:
    """And no earlier than their lines have left the store. Its rest is verified from the checkpoint."""
    site = Site(site.folder, DECLARED + '[archive]\nkeep = "90d"\n')
    assert [each.counts.get("segments", 0) for each in site.retain()] == [0, 0]
    later = NOW + timedelta(days=70)
    site.note(later)
    of_store, of_archive = site.retain(later)
    assert (of_archive.counts, of_archive.through) == ({"segments": 1, "lines": 9}, 9)
    assert of_store.through is not None and of_store.through > 9
    report = verify_log(site.folder / "audit")
    assert (report.verdict, report.removed, report.breaks) == ("verified", 9, 0)
    (segment, *_) = segments_of(site.folder / "audit")
    content = segment.path.read_bytes().splitlines(keepends=True)
    segment.path.write_bytes(b"".join(content[1:]))
    assert verify_log(site.folder / "audit").verdict != "verified"


@pytest.mark.parametrize("spoilt", ["a segment is gone", "a line is changed"])
def test_an_archive_that_was_changed_is_evidence_and_nothing_of_it_is_removed(site: Site, spoilt: str) -> None:
    """A checkpoint of what is left there would let the rest look whole."""
    for days in (0, 40, 80):
        site.fire(f"later-{days}", NOW + timedelta(days=days), kind="manual", policy="manual")
        site.note(NOW + timedelta(days=days))
        site.retain(NOW + timedelta(days=days))
    first, second, *_ = segments_of(site.folder / "audit")
    if spoilt == "a segment is gone":
        second.path.unlink()
    else:
        first.path.write_bytes(first.path.read_bytes().replace(b'"size":1', b'"size":2', 1))
    before = verify_log(site.folder / "audit").verdict
    assert before != "verified"
    site = Site(site.folder, DECLARED + '[archive]\nkeep = "31d"\n')
    with pytest.raises(AuditError, match="nothing is removed: the archive"):
        site.retain(NOW + timedelta(days=80))
    assert first.path.exists()
    assert verify_log(site.folder / "audit").verdict == before


def test_two_retentions_at_once_write_no_line_twice(site: Site) -> None:
    """One of them does everything, and the others say that it is under way, or find nothing to do."""
    refused: list[str] = []

    def retain() -> None:
        try:
            site.retain()
        except AuditError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=retain) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all("run this again when it has ended" in each for each in refused)
    assert (verify_log(site.folder / "audit").verdict, verify_log(site.folder / "audit").last) == ("verified", 9)
    assert (site.report().verdict, site.report().removed, site.ids()) == ("verified", 9, ["decision-2", "decision-3"])


def test_an_export_to_a_folder_that_is_written_is_refused(site: Site) -> None:
    """Also one of another process; nothing is changed there."""
    with site.opened() as store:
        export_segments(store, site.folder / "audit", until=4)
        with sole_writer(site.folder / "audit"), pytest.raises(AuditError, match="another export or retention"):
            export_segments(store, site.folder / "audit")
        assert verify_log(site.folder / "audit").last == 4
        export_segments(store, site.folder / "audit")
    assert verify_log(site.folder / "audit").last == 17


def test_without_a_store_nothing_is_removed_and_none_is_made(tmp_path: Path) -> None:
    """Its name was mistyped: removals would be on record where nobody looks."""
    site = Site(tmp_path, 'clock_within = "30d"\n[events]\nkeep = "30d"\nfiles = "events/*.jsonl"\n')
    file = tmp_path / "events" / "old.jsonl"
    file.parent.mkdir()
    file.write_text("{}")
    os.utime(file, (ago(31).timestamp(), ago(31).timestamp()))
    with pytest.raises(AuditError, match="there is no store at"):
        site.retain()
    assert file.exists() and not site.path.exists()


def test_proofs_of_lines_that_are_left_still_work(site: Site) -> None:
    """From the store by its checkpoint, and of the others from the archive."""
    site.anchor()
    whole = site.anchors[0].anchor.number
    with site.opened() as store:
        export_segments(store, site.folder / "audit", until=9, ends_segment=True)
    site.retain()
    with site.opened() as store:
        proof = prove_from_source(store, "12", whole)
        with pytest.raises(
            AuditError, match="no line of the first 17 lines of the record, which --size names, is number 3"
        ):
            prove_from_source(store, "3", whole)
    assert check_proof(proof, site.anchors).why is None
    assert prove_from_log(site.folder / "audit", "3", 9).number == 3


def test_files_are_removed_by_the_time_of_their_last_write(site: Site) -> None:
    """With name and digest on record; a link, and a file that is younger, stay."""
    site = Site(site.folder, 'clock_within = "30d"\n[recordings]\nkeep = "30d"\nfiles = "tapes/*.jsonl"\n')
    (site.folder / "tapes").mkdir()
    for name, days in (("old", 31), ("young", 29)):
        file = site.folder / "tapes" / f"{name}.jsonl"
        file.write_text(name)
        os.utime(file, (ago(days).timestamp(), ago(days).timestamp()))
    (site.folder / "tapes" / "link.jsonl").symlink_to(site.folder / "tapes" / "old.jsonl")
    assert site.retain(dry_run=True)[0].counts == {"files": 1}
    assert site.retain()[0].counts == {"files": 1}
    assert sorted(each.name for each in (site.folder / "tapes").iterdir()) == ["link.jsonl", "young.jsonl"]
    with site.opened() as store:
        announced = json.loads(next(iter(store.record_lines(report_end(store) - 1))).text)
        (row,) = (
            body for digest, body in [(announced["body"]["sha256"], store_body(store, announced))] if digest
        )  # fmt: skip
    assert json.loads(row) == [["old.jsonl", 3, sha256(b"old").hexdigest()]]


INCIDENTS = 'clock_within = "30d"\n[incidents]\nkeep = "30d"\n'


def reported(site: Site, name: str, days: float) -> Path:
    """The runbook and the report of an incident, last written so many days ago."""
    folder = site.folder / "ks.sqlite.incidents" / name
    folder.mkdir(parents=True)
    for file in ("report.md", "runbook-close.md"):
        (folder / file).write_text(name)
        os.utime(folder / file, (ago(days).timestamp(), ago(days).timestamp()))
    return folder


def test_files_of_incidents_go_as_whole_folders_with_their_digests_on_record(site: Site) -> None:
    """The store may still have the incident: `ksctl report` renders it again."""
    site = Site(site.folder, INCIDENTS)
    old, young = reported(site, "decision-0", 31), reported(site, "decision-1", 29)
    partly = reported(site, "decision-2", 31)
    (partly / "report.md").write_text("written again today")
    os.utime(partly / "report.md", (NOW.timestamp(), NOW.timestamp()))
    assert [each.counts for each in site.retain(dry_run=True)] == [{"files": 2}]
    (removal,) = site.retain()
    assert (removal.what, removal.counts) == ("incidents", {"files": 2})
    assert [each.exists() for each in (old, young, partly)] == [False, True, True]
    with site.opened() as store:
        announced = json.loads(next(iter(store.record_lines(report_end(store) - 1))).text)
    digest = sha256(b"decision-0").hexdigest()
    names = ("decision-0/report.md", "decision-0/runbook-close.md")
    assert json.loads(store_body(store, announced)) == [[name, 10, digest] for name in names]


def test_the_files_of_an_incident_that_goes_on_are_kept(tmp_path: Path) -> None:
    """Its close has not ended, or its stage was not reset: somebody reads them."""
    site = Site(tmp_path, INCIDENTS)
    site.fire("decision-1", ago(60), kind="manual", policy="manual", closes=False)
    with site.opened() as store:
        store.commit_tick(
            TickRecord(ago(51), "s", (MachineState("p", "account/main", b"{}"),), (), (), (), (), None, (), 0)
        )
    site.fire("decision-2", ago(50))
    site.fire("decision-3", ago(49))
    site.fire("decision-4", ago(48), kind="manual", policy="manual")
    folders = [reported(site, f"decision-{number}", 40) for number in (1, 2, 4)]
    site.retain()
    assert [each.exists() for each in folders] == [True, True, False]


def test_what_no_run_has_written_among_the_incidents_is_kept(site: Site) -> None:
    """A folder with other folders or links in it, and a link to a folder."""
    site = Site(site.folder, INCIDENTS)
    nested, linked, target = (reported(site, name, 31) for name in ("nested", "linked", "target"))
    (nested / "more").mkdir()
    (linked / "else.md").symlink_to(site.folder / "retention.toml")
    (site.folder / "ks.sqlite.incidents" / "link").symlink_to(target)
    site.retain()
    assert [each.exists() for each in (nested / "report.md", linked / "report.md", target)] == [True, True, False]
    assert (site.folder / "retention.toml").exists()


def test_what_is_kept_with_an_incident_goes_with_its_decision(site: Site) -> None:
    """The books of its tick, and corrections of values: nobody else names them."""
    with site.opened() as store:
        for name in ("books/decision-0", "restating/decision-1", "books/decision-2", "books/xdecision-0"):
            store.put_live(name, b"{}")
    site.retain()
    with site.opened() as store:
        assert set(store.live_under("books/")) == {"decision-2", "xdecision-0"}
        assert set(store.live_under("restating/")) == set()


def test_the_decisions_of_a_long_record_are_read_in_pages_and_in_order(tmp_path: Path) -> None:
    """A need of the last one is found as one of the first."""
    site = Site(tmp_path)
    with site.opened() as store:
        for number in range(130):
            decision = Decision(
                id=f"decision-{number:03}", as_of=ago(200 - number), policy="manual", policy_set="s", mode="enforce",
                scope="account/main", stage="close", level=1, previous_level=0, kind="manual",
            )  # fmt: skip
            store.commit_tick(TickRecord(decision.as_of, "s", (), (), (decision,), (), (), None, (), 0))
        store.put_live("routing", b'{"open":["decision-002","decision-129"]}')
        assert [each.id for each in store.decisions_in_order()] == [f"decision-{number:03}" for number in range(130)]
        assert sorted(each.incident for each in needs_of(store, NOW)) == ["decision-002", "decision-129"]


def test_a_file_whose_name_is_no_text_is_removed_with_its_name_escaped_on_record(site: Site) -> None:
    site = Site(site.folder, 'clock_within = "30d"\n[recordings]\nkeep = "30d"\nfiles = "tapes/*.jsonl"\n')
    (site.folder / "tapes").mkdir()
    file = os.fsencode(site.folder / "tapes") + b"/\xff.jsonl"
    with open(file, "wb"):  # noqa: PTH123 # the name is bytes
        os.utime(file, (ago(31).timestamp(), ago(31).timestamp()))
    assert site.retain()[0].counts == {"files": 1}
    assert list((site.folder / "tapes").iterdir()) == []


OTHER_FILES: dict[str, tuple[str, str, str]] = {
    "the archive": ("audit/record-000000000001-to-000000000009.jsonl", "*/*.jsonl*", "which is in the archive"),
    "another log": ("log/record-000000000010.jsonl", "log/*", "which is a segment of a record"),
    "the record of the server": ("ks.sqlite.server", "*", "which belongs to the store"),
    "commands that wait": ("ks.sqlite.commands/0-tighten-a.json", "*/*", "which belongs to the store"),
    "another store": ("other/drill.sqlite", "other/*", "which is a database"),
    "a lock in force": ("locks/portfolio.json", "locks/*", "which is a lock file"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_a_pattern_that_also_names_what_no_run_has_recorded_removes_nothing(site: Site, case: str) -> None:
    """Neither that file nor any other one: the archive is all that is left of the lines in it."""
    name, pattern, why = OTHER_FILES[case]
    site.retain()
    file, old = site.folder / name, site.folder / "ks.events.jsonl"
    file.parent.mkdir(exist_ok=True)
    with site.opened() as store:
        if case == "another log":
            export_segments(store, file.parent)
    if case == "another store":
        open_store(str(file)).close()
    elif case == "a lock in force":
        file.write_text('{\n  "locked": true, "scope": "portfolio"}')
    elif not file.exists():
        file.write_text("{}")
    old.write_text("{}")
    for each in (file, old):
        os.utime(each, (ago(100).timestamp(), ago(100).timestamp()))
    site = Site(site.folder, f'{DECLARED}[events]\nkeep = "30d"\nfiles = "{pattern}"\n')
    for dry_run in (True, False):
        with pytest.raises(AuditError, match=f"nothing is removed: .*{why}"):
            site.retain(NOW + timedelta(days=30), dry_run=dry_run)
    assert file.exists() and old.exists() and len(site.ids()) == 2


def store_body(store: SqlStore, announced: dict[str, dict[str, str]]) -> bytes:
    from killswitch.record.line import content_of

    line = next(iter(store.record_lines(int(str(announced["seq"])))))
    content = content_of(line.text)
    assert content is not None
    body = store.record_body(announced["body"]["sha256"], content)
    assert body is not None
    return body


def test_files_of_a_run_may_begin_with_the_name_of_the_store(site: Site) -> None:
    """What belongs to the store next to it has no lines of JSON."""
    site = Site(site.folder, 'clock_within = "30d"\n[events]\nkeep = "30d"\nfiles = "ks.sqlite*/*.jsonl"\n')
    file = site.folder / "ks.sqlite-events" / "old.jsonl"
    file.parent.mkdir()
    file.write_text("{}")
    os.utime(file, (ago(31).timestamp(), ago(31).timestamp()))
    assert site.retain()[0].counts == {"files": 1}
    assert not file.exists()


def test_the_record_of_the_server_is_kept_as_long(site: Site) -> None:
    """In a folder of its own below the archive; its removals are in its own chain."""
    with closing(open_store(str(server_record_of(site.path)))) as server:
        server.add_to_record([RecordEntry("login", ago(50), {"result": "ok"}), RecordEntry("login", NOW)])
    _, removal = site.retain()
    assert (removal.what, removal.through) == ("server record", 2)
    with closing(open_store(str(server_record_of(site.path)))) as server:
        assert verify_source(server).verdict == "verified"
    assert verify_log(site.folder / "audit" / "server").last == 2


CLOCK = 'clock_within = "1d"\n'


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        (CLOCK, "declares nothing that may be removed"),
        (CLOCK + '[store]\nkeep = "1h"\narchive = "a"\n', "shorter than a day"),
        (CLOCK + '[store]\nkeep = "30d"\n', "archive"),
        (CLOCK + '[store]\nkeep = "30d"\narchive = "a"\nvacuum = true\n', "vacuum"),
        (CLOCK + '[store]\nkeep = "30d"\narchive = "a"\n[archive]\nkeep = "7d"\n', "no longer"),
        (CLOCK + '[archive]\nkeep = "7d"\n', "declares nothing"),
        (CLOCK + '[events]\nkeep = "soon"\nfiles = "*"\n', "soon"),
        (CLOCK + "digest = 1", "digest"),
        ('[store]\nkeep = "30d"\narchive = "a"\n', "missing required field `clock_within`"),
        ('clock_within = "31d"\n[incidents]\nkeep = "30d"\n', "longer than the shortest `keep`"),
        (CLOCK + 'every = "2d"\n[incidents]\nkeep = "30d"\n', "every = '2d' is not from 10 min to `clock_within`"),
        (CLOCK + 'every = "1m"\n[incidents]\nkeep = "30d"\n', "every = '1m' is not from 10 min to `clock_within`"),
    ],
)
def test_a_mistake_in_the_declaration_is_named_with_its_file(tmp_path: Path, declared: str, wanted: str) -> None:
    """And nothing is removed."""
    with pytest.raises(AuditError, match=wanted) as error:
        _ = Site(tmp_path, declared).settings
    assert "retention.toml" in str(error.value)


def test_the_verb_shows_what_it_removed_and_why_not_more(site: Site) -> None:
    """A dry run first; then verification from the checkpoint."""

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(ksctl, [*map(str, arguments)], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.stdout

    declared = ("--declared", site.folder / "retention.toml", "--store", site.path)
    assert "Would be removed" in run("store", "retain", *declared, "--dry-run")
    assert "Removed" in run("store", "retain", *declared)
    output = run("audit", "verify", "--store", site.path)
    assert "by retention" in output and "verdict" in output


STEPS = st.lists(st.sampled_from(["old", "young", "retain", "anchor", "later"]), min_size=1, max_size=12)


@given(steps=STEPS, cut=st.integers(1, 30))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_any_sequence_the_record_is_verified_and_a_cut_is_found(
    steps: list[str], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Appends, anchors and retentions in any order; then one line is removed that retention did not remove."""
    site, now = Site(tmp_path_factory.mktemp("site")), NOW
    site.note(ago(100))
    for number, step in enumerate(steps):
        if step == "old":
            site.fire(f"decision-{number}", now - timedelta(days=40), kind="manual", policy="manual")
        elif step == "young":
            site.note(now, f"note {number}")
        elif step == "retain":
            site.retain(now)
        elif step == "anchor":
            site.anchor()
        else:
            now += timedelta(days=25)
    report = site.report()
    is_covered = not site.anchors or any(each.state == "confirmed" for each in report.anchors)
    assert report.verdict == ("verified" if is_covered else "could not tell"), report
    assert report.first is not None and report.last is not None
    victim = report.first + cut % (report.last - report.first + 1)
    site.spoil("DELETE FROM record WHERE number = ?", victim)
    assert site.report().verdict == "contradicted"


def test_a_removal_of_segments_that_was_interrupted_is_finished_and_contradicts_nobody(site: Site) -> None:
    """Its segments lie before the beginning of the log: no verification reads them, and the next retention deletes
    them with the bodies that only they name."""
    site = Site(site.folder, DECLARED + '[archive]\nkeep = "90d"\n')
    site.retain()
    archive, later = site.folder / "audit", NOW + timedelta(days=70)
    before = {each: each.read_bytes() for each in archive.rglob("*") if each.is_file()}
    site.note(later)
    site.retain(later)
    removed = {each: content for each, content in before.items() if not each.exists()}
    assert {each.suffix for each in removed} == {"", ".jsonl"}
    for path, content in removed.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert verify_log(archive).verdict == "verified"
    with site.opened() as store:
        export_segments(store, archive)
        statement = json.loads(encode_statement(make_statement(store, later, later + timedelta(days=1))))
    verdict, why, _ = checker.check(statement, checker.segments(str(archive)), [], checker.checkpoint_of(str(archive)))
    assert (verdict, [each for each in why if "anchor" not in each]) == ("could not tell", [])
    site.retain(later)
    assert [each for each in removed if each.exists()] == []
