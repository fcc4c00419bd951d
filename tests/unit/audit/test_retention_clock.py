"""A clock that is wrong removes nothing: the record shows how time went on, and retention waits where it does not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.audit.log_files import AuditError, LinesOfLog, verify_log, verify_source
from killswitch.audit.retaining import Removal, Retainer
from killswitch.audit.retention_clock import doubt_of_clock
from killswitch.audit.retention_settings import read_retention_settings
from killswitch.model.record_entry import RecordEntry
from killswitch.record.line import content_of
from killswitch.store.record_chain import RecordTip
from killswitch.store.recorded import StoredLine
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.unit.audit.kills import killed_at_each_write

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
WITHIN = timedelta(days=3)
DECLARED = """
clock_within = "3d"
[store]
keep = "10d"
archive = "audit"
[archive]
keep = "10d"
[incidents]
keep = "10d"
[events]
keep = "10d"
files = "events/*.jsonl"
"""


def days(number: float) -> datetime:
    return NOW + timedelta(days=number)


class Site:
    """A store with lines at these days before or after NOW, and the declaration."""

    def __init__(self, folder: Path, *at: float) -> None:
        self.folder, self.path = folder, folder / "ks.sqlite"
        (folder / "retention.toml").write_text(DECLARED)
        with self.opened() as store:
            store.add_to_record([RecordEntry("cut", days(each), {"size": 1}) for each in at])

    def opened(self) -> closing[SqlStore]:
        return closing(open_store(str(self.path)))

    def retain(self, now: datetime = NOW, *, dry_run: bool = False) -> tuple[Removal, ...]:
        settings = read_retention_settings(self.folder / "retention.toml")
        return Retainer(self.path, settings, now, "ingrid", dry_run=dry_run).retain()

    def doubt(self, now: datetime = NOW) -> str | None:
        with self.opened() as store:
            found = doubt_of_clock(store, now, WITHIN)
        return None if found is None else found.why

    def lines(self) -> list[dict[str, object]]:
        with self.opened() as store:
            return [json.loads(line.text) for line in store.record_lines()]


DOUBTED: dict[str, tuple[tuple[float, ...], str]] = {
    "the clock is a year ahead of the newest line": ((-370, -368, -365), "365 d after line 4, the newest"),
    "a run has written lines since it leapt": ((-367, -365, -2, -1, 0), "the lines 3 and 4 of the record are 363 d"),
    "the clock is behind": ((-4, -2, 40), "line 4, the newest of the record, was written at 2026-04-11T09:30:00Z"),
    "the run was down for a week": ((-12, -10, -2, 0), "the lines 3 and 4 of the record are 8 d apart"),
    "the record is a day old": ((-1, 0), "the record begins at 2026-03-01T09:30:00Z"),
}  # fmt: skip
CONFIRMED: dict[str, tuple[float, ...]] = {
    "a line a day": (-5, -4, -3, -2, -1, 0),
    "exactly as far apart as declared": (-6, -3, 0),
    "what was before does not matter": (-400, -30, -4, -2, 0),
    "lines of a clock that was ahead for a while": (-5, -3, 90, 91, -2, 0),
    "one that was stored late": (-5, -3, -4, -1, 0),
}


@pytest.mark.parametrize("case", DOUBTED)
def test_a_record_with_a_gap_confirms_no_clock(tmp_path: Path, case: str) -> None:
    """The reason has the lines, and when retention goes on."""
    at, wanted = DOUBTED[case]
    found = Site(tmp_path, *at).doubt()
    assert found is not None and wanted in found
    assert "retention goes on" in found


@pytest.mark.parametrize("case", CONFIRMED)
def test_a_record_that_goes_on_confirms_the_clock(tmp_path: Path, case: str) -> None:
    """From before `clock_within` until now."""
    assert Site(tmp_path, *CONFIRMED[case]).doubt() is None


def test_a_store_without_a_record_confirms_no_clock(tmp_path: Path) -> None:
    """Its first retention leaves the first line."""
    site = Site(tmp_path)
    assert "the record has no line" in (site.doubt() or "")
    (removal,) = site.retain()
    assert (removal.counts, "the record has no line" in (removal.kept_because or "")) == ({}, True)
    assert [each["kind"] for each in site.lines()] == ["chain", "retention"]


def test_a_clock_that_is_a_year_ahead_removes_nothing_and_is_on_record(tmp_path: Path) -> None:
    """A dry run writes nothing. With the right clock again a line by it comes first, and then what is old goes."""
    site = Site(tmp_path, -20, -5, -4, -2, 0)
    for dry_run in (True, False):
        with pytest.raises(AuditError, match="nothing is removed: the clock shows 2027-03-02T09:30:00Z, 365 d after"):
            site.retain(days(365), dry_run=dry_run)
    refused = site.lines()[-1]
    assert (len(site.lines()), refused["what"], refused["result"]) == (7, "all", "refused")
    details = refused["details"]
    assert isinstance(details, dict) and "365 d after line 6" in str(details["why"])
    assert not (tmp_path / "audit").exists()
    with pytest.raises(
        AuditError, match="was written at 2027-03-02T09:30:00Z, and the clock shows 2026-03-02T11:54:00Z"
    ):
        site.retain(days(0.1))
    site.retain(days(0.2))
    assert verify_log(tmp_path / "audit").last == 2


def test_a_retention_a_day_confirms_the_clock_of_a_record_in_which_nothing_happens(tmp_path: Path) -> None:
    """Refused after weeks without a line, and carried out once the lines of the retentions reach back far enough."""
    site = Site(tmp_path, -40, -39)
    outcomes = []
    for day in range(5):
        try:
            outcomes.append(site.retain(days(day))[0].through)
        except AuditError:
            outcomes.append(-1)
    assert outcomes == [-1, -1, -1, -1, 3]


@given(gaps=st.lists(st.floats(0.01, 8), min_size=1, max_size=30), ahead=st.floats(3.01, 5_000))
def test_a_leap_of_the_clock_is_doubted_until_the_declared_time_is_over(gaps: list[float], ahead: float) -> None:
    """Whatever was written before and since: until then no line by the new clock is older than `clock_within`."""
    at, times = 0.0, []
    for gap in gaps:
        times.append(at)
        at += gap
    leapt = times[-1] + ahead
    since = [leapt + each for each in (0.0, 0.9, 1.8, 2.7) if each < 2.9]
    for many in range(1, len(since) + 1):
        now = days(since[many - 1] + 0.1)
        assert doubt_of_clock(_Lines([*times, *since[:many]]), now, WITHIN) is not None  # type: ignore[arg-type] # it has what is needed


class _Lines:
    """A record of lines at these days."""

    def __init__(self, at: list[float]) -> None:
        self._texts = [
            b'{"prev":"%s","seq":%d,"at":"%s","kind":"cut"}' % (b"0" * 64, number, days(each).isoformat().encode())
            for number, each in enumerate(at, start=1)
        ]

    def record_tip(self) -> RecordTip:
        return RecordTip("c", len(self._texts), b"", ())

    def record_start(self) -> object:
        return _Start

    def record_lines(self, first: int, last: int) -> list[StoredLine]:
        return [StoredLine(number, self._texts[number - 1]) for number in range(first, last + 1)]


class _Start:
    number = 0


def test_a_retention_that_is_killed_at_any_write_loses_nothing(tmp_path: Path) -> None:
    """Every line is in the archive or in the store, every file that is gone was announced with its digest, both records
    are verified, and the next retention ends as any other."""
    before, folder = tmp_path / "before", tmp_path / "site"
    before.mkdir()
    made = Site(before)
    with made.opened() as store:
        old = RecordEntry("cut", days(-30.5), {"size": 2}, body=b"an old body")
        store.add_to_record([old, *(RecordEntry("cut", days(each), {"size": 1}) for each in range(-30, 1))])
    written = _lines_of_store(made)
    files = {
        "events/old.jsonl": b"{}",
        "ks.sqlite.incidents/abc/report.md": b"# it",
        "ks.sqlite.incidents/abc/b.md": b"b",
    }
    for name, content in files.items():
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        (before / name).write_bytes(content)
        os.utime(before / name, (days(-11).timestamp(), days(-11).timestamp()))
    kills = 0
    site = _copy(before, folder)
    for _ in killed_at_each_write(lambda: Site(folder).retain(days(0.5))):
        kills += 1
        found = _lines_of_store(site) | _lines_of_archive(site)
        assert written.items() <= found.items(), f"killed at write {kills}"
        for name, content in files.items():
            assert (folder / name).exists() or _announced(site, content), f"{name}, killed at write {kills}"
        Site(folder).retain(days(0.5))
        _require_done(site)
        assert written.items() <= (_lines_of_store(site) | _lines_of_archive(site)).items()
        site = _copy(before, folder)
    assert kills > 25, "archive, bodies, state line, rows, files"
    _require_done(site)


def _announced(site: Site, content: bytes) -> bool:
    """Whether a line about a removal names a file with this content."""
    digest = sha256(content).hexdigest()
    with site.opened() as store:
        found = [content_of(line.text) for line in store.record_lines()]
        of_files = [each for each in found if each is not None and each.kind == "retention" and each.body]
        bodies = [store.record_body(str((each.body or {})["sha256"]), each) for each in of_files]
    return any(digest in (each or b"").decode() for each in bodies)


def _copy(of: Path, to: Path) -> Site:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(of, to)
    return Site(to)


def _require_done(site: Site) -> None:
    """The line of the chain, and those that are older than ten days, have left the store; not the file either."""
    with site.opened() as store:
        assert store.record_start().number == 23
    with closing(sqlite3.connect(site.path)) as raw:
        assert raw.execute("SELECT min(number) FROM record").fetchone() == (24,)
    assert not list(site.folder.glob("events/*")) and not list(site.folder.glob("ks.sqlite.incidents/*/*"))


def _lines_of_store(site: Site) -> dict[int, bytes]:
    with site.opened() as store:
        report = verify_source(store)
        assert (report.verdict, report.breaks, report.withheld.count) == ("verified", 0, 0), report
        return {line.number: line.text for line in store.record_lines()}


def _lines_of_archive(site: Site) -> dict[int, bytes]:
    archive = site.folder / "audit"
    if not any(archive.glob("*.jsonl")):
        return {}
    report = verify_log(archive)
    assert report.breaks == 0, report
    return {line.number: line.text for line in LinesOfLog(archive).record_lines()}
