"""The statement of a period, and the file with which a stranger checks it: in an isolated process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from killswitch.audit.exporting import export_segments
from killswitch.audit.log_files import AuditError, LinesOfLog, segments_of
from killswitch.audit.retaining import Retainer
from killswitch.audit.retention_settings import read_retention_settings
from killswitch.audit.statement import CHECKER, PeriodStatement, checker_text, encode_statement, make_statement
from killswitch.cli import ksctl
from killswitch.model.decision import Decision
from killswitch.model.instant import rfc3339, to_micros
from killswitch.model.record_entry import RecordEntry
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry, Outgoing, TickRecord
from killswitch.record.anchors import Anchor, anchor_text
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


class Site:
    """A store with a day of record, its log, and the anchors as a stranger fetches them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: SqlStore = open_store(str(folder / "ks.sqlite"))
        self.anchors: list[str] = []

    def anchor(self, minutes: float) -> None:
        """Publish an anchor, and put it on record."""
        tip = self.store.record_tip()
        assert tip is not None
        self.anchors.append(anchor_text(Anchor(tip.chain, tip.number, tip.root.hex())))
        entry = RecordEntry("anchor", at(minutes), {"place": "git", "number": tip.number, "result": "published"})
        self.store.add_to_record([entry])

    def watched(self, begin: float, end: float) -> None:
        fields = {"account": "main", "from": rfc3339(at(begin)), "to": rfc3339(at(end))}
        self.store.add_to_record([RecordEntry("watched", at(end), dict(fields))])

    def day(self) -> None:
        """A run that fires, closes and dies; a second one that ends."""
        store = self.store
        store.acquire("first", to_micros(at(0)), 10)
        self.anchor(1)
        self.watched(2, 30)
        fired = Decision(
            id="d1", as_of=at(31), policy="drawdown", policy_set="sha256:0", scope="account/main", mode="enforce",
            stage="close", level=1, previous_level=0,
        )  # fmt: skip
        message = Outgoing("m1", to_micros(at(31)), "desk", "t", b"{}")
        store.commit_tick(TickRecord(at(31), "s", (), (), (fired,), (), (), None, (), 0, (message,)))
        store.settle("m1", to_micros(at(31.5)), None)
        store.append(JournalEntry("d1", "planned", at(31), "main"))
        store.append(JournalEntry("d1", "finished", at(32), "main", data={"status": "flat"}))
        for number, refused in enumerate((frozenset[str](), frozenset({"e1"}))):
            store.put_event(Event(f"e{number}", at(40), "reset", author="ingrid"))
            store.commit_tick(
                TickRecord(
                    at(40), "s", (), (), (), (), (), None, (f"e{number}",), 0, refused_events=refused
                )
            )  # fmt: skip
        store.acquire("second", to_micros(at(50)), 10)
        self.watched(52, 62)
        store.release("second", to_micros(at(62)))
        self.anchor(63)
        store.acquire("third", to_micros(at(90)), 10)

    def statement(self, begin: float = 2, end: float = 62) -> PeriodStatement:
        return make_statement(self.store, at(begin), at(end))

    def written(self, statement: PeriodStatement) -> Path:
        """The statement, the log and the anchors in files, as a stranger has them."""
        export_segments(self.store, self.folder / "log", segment_lines=7)
        (self.folder / "anchors.txt").write_text("".join(self.anchors))
        file = self.folder / "statement.json"
        file.write_bytes(encode_statement(statement))
        return file

    def check(self, *anchors: str) -> tuple[int, str]:
        """Exit code and output of the file that a stranger runs: an isolated Python without our packages."""
        program = self.folder / "checker.py"
        program.write_text(checker_text())
        fetched = [part for name in anchors for part in ("--anchors", self.folder / name)]
        command = [sys.executable, "-I", "-S", program, self.folder / "statement.json", "--log", self.folder / "log"]
        done = subprocess.run([str(part) for part in (*command, *fetched)], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.day()
    yield made
    made.store.close()


def test_the_figures_are_those_of_the_day(site: Site) -> None:
    """Worked by hand: 28 of 61 minutes and 10 more are watched, one start follows an unclean end."""
    found = site.statement()
    figures = found.figures
    assert (found.first, found.anchored) == (3, (2, found.last))
    assert (found.begins, found.ends) == ("2026-03-02T09:01:00Z", "2026-03-02T10:02:00Z")
    assert figures["seconds of the period"] == 61 * 60
    assert figures["seconds watched by account"] == {"main": 38 * 60}
    assert figures["share of time watched by account"] == {"main": round(38 / 61, 6)}
    assert figures["decisions by policy and stage"] == {"drawdown/close/stage": 1}
    assert figures["closes by result"] == {"flat": 1}
    assert figures["commands by verb and result"] == {"reset/carried out": 1, "reset/refused": 1}
    assert figures["loosenings by class and result"] == {"reset/granted": 1, "reset/refused": 1}
    assert (figures["runs started"], figures["unclean ends"]) == (1, 1)
    assert figures["notifications by state"] == {"announced": 1, "delivered": 1}
    assert (figures["slowest delivery in seconds"], figures["announcements without an answer"]) == (30.0, 0)
    assert figures["times not watched by account"] == {
        "main": [
            ["2026-03-02T09:01:00Z", "2026-03-02T09:02:00Z", "no usable snapshot"],
            ["2026-03-02T09:30:00Z", "2026-03-02T09:52:00Z", "a run ended without a line about it, or had not begun"],
        ]
    }
    assert (figures["seconds with no way to page"], figures["times in memory only"]) == (0.0, [])
    assert figures["firings without a notification"] == 0
    assert "ingrid" not in encode_statement(found).decode()
    assert found.checker == sha256(CHECKER.read_bytes()).hexdigest()


def test_a_stranger_with_the_anchors_verifies_it(site: Site) -> None:
    """Exit code 0; every figure is shown as claimed and as found."""
    site.written(site.statement())
    code, output = site.check("anchors.txt")
    assert (code, output.splitlines()[-1]) == (0, "verdict: verified")
    assert output.count("claimed") == output.count("found") == len(site.statement().figures)


def test_the_time_with_no_way_to_page_is_what_no_delivery_interrupts(site: Site) -> None:
    """One waits 10 minutes, one that is sent meanwhile is given up; from the first until something is delivered."""

    def message(name: str, minutes: float) -> None:
        waiting = Outgoing(name, to_micros(at(minutes)), "desk", "t", b"{}")
        site.store.commit_tick(TickRecord(at(minutes), "s", (), (), (), (), (), None, (), 0, (waiting,)))

    message("m2", 100)
    message("m3", 104)
    site.store.give_up("t", to_micros(at(101)), to_micros(at(106)), "too old")
    site.store.settle("m3", to_micros(at(110)), None)
    message("m4", 120)
    site.store.settle("m4", to_micros(at(120.5)), None)
    figures = site.statement(99, 121).figures
    assert figures["times with no way to page"] == [["2026-03-02T10:40:00Z", "2026-03-02T10:50:00Z"]]
    assert figures["seconds with no way to page"] == 600.0


def test_a_firing_without_a_notification_and_entries_in_memory_are_figures(site: Site) -> None:
    """Nobody was to be paged; and what was made at 100 was stored at 105."""
    fired = Decision(
        id="d2", as_of=at(100), policy="drawdown", policy_set="sha256:0", scope="account/main", mode="enforce",
        stage="close", level=1, previous_level=0,
    )  # fmt: skip
    site.store.commit_tick(TickRecord(at(100), "s", (), (), (fired,), (), (), None, (), 0))
    site.store.add_to_record([RecordEntry("cut", at(101), {"size": 1})], rfc3339(at(105)))
    figures = site.statement(99, 121).figures
    assert figures["firings without a notification"] == 1
    assert figures["times in memory only"] == [["2026-03-02T10:41:00Z", "2026-03-02T10:45:00Z"]]


def test_a_log_that_was_written_again_under_another_chain_is_contradicted(site: Site, tmp_path: Path) -> None:
    """Its statement is true of it, and no anchor that was published is of its chain."""
    (tmp_path / "again").mkdir()
    forged = Site(tmp_path / "again")
    forged.day()
    forged.written(forged.statement())
    forged.store.close()
    assert forged.check("anchors.txt")[0] == 0, "with anchors of whoever wrote it"
    (forged.folder / "anchors.txt").write_text("".join(site.anchors))
    code, output = forged.check("anchors.txt")
    assert code == 1
    assert "the log was written again, or is that of another store" in output


def test_after_retention_a_statement_begins_where_the_record_does(site: Site) -> None:
    """A stranger verifies it with what is left, and with the whole log; a cut that no line states is contradicted."""
    whole = site.folder / "whole"
    site.anchor(95)
    declared = "clock_within = '1d'\n[store]\nkeep = '1d'\narchive = 'archive'\n"
    (site.folder / "retention.toml").write_text(declared)
    settings = read_retention_settings(site.folder / "retention.toml")
    site.store.add_to_record([RecordEntry("cut", at(1500), {"size": 1})])
    export_segments(site.store, whole)
    Retainer(site.folder / "ks.sqlite", settings, at(24 * 60 + 63), "ingrid").retain()
    assert site.store.record_start().number == 16, "the line of the anchor at 63 minutes is the first one kept"
    site.anchor(1505)
    found = site.statement(80, 1504)
    assert (found.lines_from, found.first) == (17, 17)
    site.written(found)
    code, output = site.check("anchors.txt")
    assert (code, output.splitlines()[-1]) == (0, "verdict: verified")
    kept = (site.folder / "log" / "kept.json").read_bytes()
    (site.folder / "log" / "kept.json").write_bytes(kept.replace(b'"deleted": "', b'"deleted": "0'))
    assert site.check("anchors.txt")[0] == 1
    (site.folder / "log" / "kept.json").write_text("[]")
    assert site.check("anchors.txt")[0] == 4
    (site.folder / "log" / "kept.json").write_bytes(kept)
    claimed(site, lambda it: it.update(first=3))
    code, output = site.check("anchors.txt")
    assert code == 1, "both ends are anchored, and 14 lines of the period are left out"
    assert "the period begins at line 3, and the statement was made from line 17 on" in output
    claimed(site, lambda it: it.update(first=17))
    export_segments(site.store, whole)
    (site.folder / "log").rename(site.folder / "unused")
    whole.rename(site.folder / "log")
    assert site.check("anchors.txt")[0] == 0


@pytest.mark.parametrize("form", ["a folder", "half a line at its end", "a beginning that retention removed"])
def test_a_statement_of_an_exported_log_is_that_of_the_store(site: Site, form: str) -> None:
    """Byte for byte, made without the store; and what is not whole makes none."""
    if form == "a beginning that retention removed":
        (site.folder / "retention.toml").write_text("clock_within = '1d'\n[store]\nkeep = '1d'\narchive = 'archive'\n")
        site.store.add_to_record([RecordEntry("cut", at(1500), {"size": 1})])
        settings = read_retention_settings(site.folder / "retention.toml")
        Retainer(site.folder / "ks.sqlite", settings, at(24 * 60 + 63), "ingrid").retain()
        site.anchor(1505)
    begin, end = (80, 1504) if "beginning" in form else (2, 62)
    of_store = site.statement(begin, end)
    site.written(of_store)
    if form == "half a line at its end":
        with segments_of(site.folder / "log")[-1].path.open("ab") as file:
            file.write(b'{"prev":"00')
    assert make_statement(LinesOfLog(site.folder / "log"), at(begin), at(end)) == of_store
    assert of_store.lines_from == (17 if "beginning" in form else 1)


def test_a_statement_of_a_log_without_a_segment_is_an_error(site: Site) -> None:
    """It names what is missing, and where to look."""
    site.written(site.statement())
    segments_of(site.folder / "log")[1].path.unlink()
    with pytest.raises(AuditError, match="line 15 follows line 7; see `ksctl audit verify`"):
        make_statement(LinesOfLog(site.folder / "log"), at(2), at(62))


def test_the_verb_states_the_period_of_a_log_without_any_store(site: Site) -> None:
    """And a stranger verifies what it printed."""
    site.written(site.statement())
    arguments = ["audit", "statement", "--from", rfc3339(at(2)), "--to", rfc3339(at(62))]
    written = ["--log", str(site.folder / "log"), "--out", str(site.folder / "statement.json")]
    (site.folder / "statement.json").unlink()
    assert CliRunner().invoke(ksctl, [*arguments, *written]).exit_code == 0
    assert site.check("anchors.txt")[0] == 0
    assert "Name a record: --store FILE, or --log PATH" in CliRunner().invoke(ksctl, arguments).output


def claimed(site: Site, change: Callable[[dict[str, Any]], object]) -> None:
    file = site.folder / "statement.json"
    statement = json.loads(file.read_text())
    change(statement)
    file.write_text(json.dumps(statement))


@pytest.mark.parametrize(
    "name", ["unclean ends", "closes by result", "seconds watched by account", "policy sets in force"]
)
def test_a_figure_that_differs_is_contradicted(site: Site, name: str) -> None:
    """Exit code 1, with what was claimed and what was found next to each other."""
    site.written(site.statement())
    claimed(site, lambda it: it["figures"].update({name: "better"}))
    code, output = site.check("anchors.txt")
    assert code == 1
    assert f'! {name}\n      claimed "better"' in output
    assert f"{name}: claimed and found differ" in output


LOGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "a line is changed": (lambda it: [line.replace(b'"flat"', b'"left"') for line in it], 1),
    "the end is cut": (lambda it: it[:-8], 1),
    "a line is removed": (lambda it: it[:9] + it[10:], 1),
    "the log is empty": (lambda _: [], 1),
}


@pytest.mark.parametrize("spoil", LOGS)
def test_a_log_that_was_changed_is_contradicted(site: Site, spoil: str) -> None:
    """By its chain, or by an anchor that it is shorter than."""
    site.written(site.statement())
    change, code = LOGS[spoil]
    lines = b"".join(segment.path.read_bytes() for segment in segments_of(site.folder / "log")).splitlines(True)
    for segment in segments_of(site.folder / "log"):
        segment.path.unlink()
    (site.folder / "log" / "a.jsonl").write_bytes(b"".join(change(lines)))
    assert site.check("anchors.txt")[0] == code


def test_a_missing_segment_could_not_tell(site: Site) -> None:
    """Exit code 4, also where a figure differs because of it."""
    site.written(site.statement())
    segments_of(site.folder / "log")[1].path.unlink()
    code, output = site.check("anchors.txt")
    assert code == 4
    assert "lines 8 to 14 are missing" in output


def test_without_the_anchors_own_source_it_is_at_best_could_not_tell(site: Site) -> None:
    """Whoever wrote the log can write anchors; one end without one is not enough either."""
    site.written(site.statement())
    assert site.check()[0] == 4
    (site.folder / "one.txt").write_text(site.anchors[1])
    code, output = site.check("one.txt")
    assert code == 4
    assert "you have no anchor of number 2, at an end of the period" in output


def test_a_false_anchor_contradicts_whichever_comes_first(site: Site) -> None:
    """Two roots of one number."""
    site.written(site.statement())
    root = site.anchors[1].splitlines()[3]
    (site.folder / "false.txt").write_text(site.anchors[1].replace(root, f"root {'ab' * 32}"))
    assert site.check("anchors.txt", "false.txt")[0] == site.check("false.txt", "anchors.txt")[0] == 1


def test_an_unknown_format_and_a_restore_inside_could_not_tell(site: Site) -> None:
    """A later version may count otherwise; what a restore lost is in no figure."""
    site.written(site.statement())
    claimed(site, lambda it: it.update(format="killswitch.statement/v9"))
    assert site.check("anchors.txt")[0] == 4
    tip = site.store.record_tip()
    assert tip is not None
    fields = {"chain": "77" * 16, "before": tip.chain, "format": "killswitch.audit/v1"}
    site.store.add_to_record([RecordEntry("epoch", at(95), {**fields, "number": tip.number})])
    site.anchor(96)
    site.written(site.statement(80, 96))
    assert site.check("anchors.txt")[0] == 4


def test_a_period_without_an_anchor_behind_it_ends_at_the_last_entry(site: Site) -> None:
    """Nothing is claimed behind it, and nobody can verify that end."""
    site.store.append(JournalEntry("d1", "verified", at(100), "main"))
    found = site.statement(2, 100)
    assert (found.last, found.anchored) == (site.store.record_tip().number, (2,))  # type: ignore[union-attr] # there is one
    site.written(found)
    assert site.check("anchors.txt")[0] == 4


def test_an_anchor_of_lines_that_come_after_its_own_ends_no_period(site: Site) -> None:
    """Nobody can have published it; a forged or damaged line that names it is no defect of the program."""
    site.store.add_to_record([RecordEntry("anchor", at(95), {"number": 10**9, "result": "published"})])
    stated = site.statement(2, 96)
    tip = site.store.record_tip()
    assert tip is not None and stated.last == tip.number


def test_a_period_without_entries_is_an_error(site: Site) -> None:
    """And not a statement of nothing."""
    with pytest.raises(AuditError, match="the record has no entry from 2026-03-09"):
        make_statement(site.store, at(10_080), at(20_000))
