"""The retention of a run: when it is due, what it waits for, and that it never outlives the run's end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from killswitch.audit.log_files import AuditError, verify_log, verify_source
from killswitch.audit.retention_clock import retained_at, retained_blob
from killswitch.audit.retention_settings import read_retention_settings
from killswitch.audit.retention_worker import COMMAND, LONGEST, RETRIED_AFTER, RetentionWorker
from killswitch.cli.live.run_outputs import declared_retention
from killswitch.model.alert import Alerts
from killswitch.model.record_entry import RecordEntry
from killswitch.model.store import RETAINED
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
DECLARED = 'clock_within = "3d"\nevery = "1d"\n[store]\nkeep = "10d"\narchive = "audit"\n'
NO_CLOSE = SimpleNamespace(snapshot=SimpleNamespace(closings=()))
A_CLOSE = SimpleNamespace(snapshot=SimpleNamespace(closings=(SimpleNamespace(status="closing"),)))
WITHIN = 30.0


class Site:
    """A store, a declaration, a clock that the test sets, and a worker whose command the test gives."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.now, self.seconds = folder, folder / "ks.sqlite", NOW, 0.0
        self.declared = folder / "retention.toml"
        self.declared.write_text(DECLARED)
        self.store: SqlStore = open_store(str(self.path))

    def worker(self, program: str | None = None) -> RetentionWorker:
        command = COMMAND if program is None else (sys.executable, "-c", program)
        settings = read_retention_settings(self.declared)
        return RetentionWorker(
            self.declared, settings, self.path, self.store, lambda: self.now, lambda: self.seconds, command
        )

    def retained(self, ago: timedelta) -> None:
        self.store.put_live(RETAINED, retained_blob(NOW - ago))


@pytest.fixture
def site(tmp_path: Path) -> Any:
    made = Site(tmp_path)
    yield made
    made.store.close()


def until(is_so: Callable[[], object]) -> None:
    ends = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)


def test_it_is_due_an_interval_after_the_last_one_of_any_run(site: Site) -> None:
    """At once where there was none, or where what the store has of it cannot be read."""
    worker = site.worker()
    assert worker.due_in() == 0.0
    site.retained(timedelta(hours=20))
    assert worker.due_in() == 4 * 3600
    site.retained(timedelta(days=40))
    assert worker.due_in() < 0
    site.store.put_live(RETAINED, b"\xff")
    assert worker.due_in() == 0.0


def test_a_clock_that_was_set_back_postpones_it_by_an_interval_at_most(site: Site) -> None:
    """By the clock that does not jump: the last one seems to lie in a year."""
    worker = site.worker()
    site.retained(-timedelta(days=365))
    assert worker.due_in() == 86_400
    site.seconds = 86_401.0
    assert worker.due_in() < 0


def test_it_waits_while_a_close_is_in_progress(site: Site) -> None:
    """And while nothing is known of closes, before the first tick."""
    program = f"open({str(site.folder / 'ran')!r}, 'w')"
    worker = site.worker(program)
    assert worker.retain_if_due() == 10.0
    worker.ticked(A_CLOSE)
    assert worker.finish()
    assert not (site.folder / "ran").exists()


def test_a_retention_that_fails_is_a_warning_until_one_succeeds(site: Site) -> None:
    """With its message; tried again after a while."""
    right = site.folder / "right"
    program = f"import sys, os; sys.exit(0 if os.path.exists({str(right)!r}) else 'nothing is removed: the clock')"
    worker = site.worker(program)
    assert worker.alerts.unknown == ("retention",)
    worker.ticked(NO_CLOSE)
    until(lambda: worker.alerts.found)
    (alert,) = worker.alerts.found
    assert (alert.key, alert.severity) == ("retention/failed", "warning")
    assert alert.text == "the declared retention of the store was not carried out: nothing is removed: the clock"
    assert worker.due_in() == RETRIED_AFTER
    right.touch()
    site.seconds = RETRIED_AFTER
    worker.retain_if_due()
    assert worker.alerts.found == worker.alerts.unknown == ()
    worker.finish()


def test_one_that_hangs_ends_with_the_run(site: Site) -> None:
    """It is killed, and reports nothing; another one goes on with what it has left."""
    worker = site.worker(f"import time; open({str(site.folder / 'began')!r}, 'w'); time.sleep(600)")
    worker.ticked(NO_CLOSE)
    until((site.folder / "began").exists)
    assert worker.finish()
    assert worker.alerts.found == ()


def test_one_that_does_not_end_is_a_warning_that_names_its_process(site: Site) -> None:
    """The folder of the archive may not answer any more; the warning ends with the process."""
    may_end = site.folder / "may-end"
    program = f"import os, time\nwhile not os.path.exists({str(may_end)!r}): time.sleep(0.01)"
    worker = site.worker(f"open({str(site.folder / 'began')!r}, 'w')\n{program}")
    worker.ticked(NO_CLOSE)
    until((site.folder / "began").exists)
    site.seconds = LONGEST - 1
    assert worker.alerts == Alerts((), ("retention",))
    site.seconds = LONGEST
    (alert,) = worker.alerts.found
    assert (alert.key, alert.severity, worker.alerts.unknown) == ("retention/failed", "warning", ())
    assert "began 2 h ago or earlier, and has not ended" in alert.text
    may_end.touch()
    until(lambda: not worker.alerts.found)
    assert worker.finish()


def test_no_file_of_the_folder_of_the_run_is_taken_for_a_module(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk may have a `secrets.py` where it starts `ksctl run`."""
    (site.folder / "secrets.py").write_text("raise SystemExit('a file of the desk was run')")
    monkeypatch.chdir(site.folder)
    worker = site.worker()
    worker.ticked(NO_CLOSE)
    until(lambda: worker.alerts.unknown == ())
    assert worker.alerts.found == ()
    worker.finish()


def test_the_text_of_a_process_that_failed_is_one_line_without_control_characters(site: Site) -> None:
    """It may name a file that somebody else has named, and a defect prints many lines."""
    worker = site.worker(r"import sys; sys.exit('Error: \x1b[2Jfile\n  in line 2')")
    worker.ticked(NO_CLOSE)
    until(lambda: worker.alerts.found)
    assert worker.alerts.found[0].text.endswith(r"was not carried out: Error: \x1b[2Jfile\n  in line 2")
    worker.finish()


def test_a_step_that_breaks_is_a_warning_too(site: Site) -> None:
    """Otherwise nobody would learn that nothing is removed."""
    worker = site.worker()
    site.store.close()
    (site.folder / "ks.sqlite").write_bytes(b"no store any more, and no database either" * 100)
    worker.ticked(NO_CLOSE)
    until(lambda: worker.alerts.found)
    assert worker.alerts.found[0].text.startswith("retention failed and is repeated: ")
    worker.finish()


def test_the_process_removes_what_is_older_while_the_run_writes(site: Site) -> None:
    """By the machine's clock, as the program itself: on record with who did it, and verified."""
    now = datetime.now(UTC)
    entries = [RecordEntry("cut", now - timedelta(days=each), {"size": 1}) for each in range(20, 0, -1)]
    site.store.add_to_record(entries)
    worker = site.worker()
    worker.ticked(NO_CLOSE)
    until(lambda: site.store.live(RETAINED) or site.store.add_to_record([RecordEntry("cut", now, {"size": 2})]))
    until(lambda: worker.alerts.unknown == ())
    assert worker.alerts.found == ()
    worker.finish()
    report = verify_source(site.store)
    assert (report.verdict, report.removed) == ("verified", 12), "the line of the chain, and eleven of ten days ago"
    assert verify_log(site.folder / "audit").last == 12
    last = retained_at(site.store.live(RETAINED))
    assert last is not None and abs(last - now) < timedelta(minutes=5)
    (announced,) = (line for line in site.store.record_lines() if b'"result":"announced"' in line.text)
    values = {value for _, _, value in site.store.record_values()}
    assert json.loads(announced.text)["what"] == "store" and b"ksctl run --retain" in values


def test_a_declaration_without_a_schedule_is_an_error_of_the_start(tmp_path: Path) -> None:
    """It would never be carried out; and with --journal nothing is removed."""
    file = tmp_path / "retention.toml"
    file.write_text(DECLARED.replace('every = "1d"\n', ""))
    with pytest.raises(AuditError, match='does not declare how often a run does it: add `every = "1d"`'):
        declared_retention(file, None)
    file.write_text(DECLARED)
    assert declared_retention(file, "memory") is None
    assert declared_retention(None, None) is None
    found = declared_retention(file, None)
    assert found is not None and found.settings.interval == timedelta(days=1)
