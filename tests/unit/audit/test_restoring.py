"""Backups and restores: an epoch in the record, no client order id twice, and positions that are verified first."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.audit.log_files import AuditError, verify_source
from killswitch.audit.restoring import SKIPPED, back_up, check_store, restore
from killswitch.cli import ksctl
from killswitch.execution.client_order_id import client_order_id
from killswitch.journal.codec import decode, encode
from killswitch.journal.entries import Filled, OrderSending, PlannedWork, Restored, Verified
from killswitch.journal.lifecycle import TargetState
from killswitch.model.decision import Decision
from killswitch.model.store import EPOCH, JournalEntry, TickRecord
from killswitch.operations.status import store_status
from killswitch.record.anchors import Anchor, FetchedAnchor
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store, record_trouble
from tests.unit.audit.kills import killed_at_each_write
from tests.unit.execution.test_position_target import target_of

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
PLACE = ("main", "BTC/USDT:USDT", "long")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A store with a close under way that has sent three orders."""
    with closing(open_store(str(tmp_path / "ks.sqlite"))) as store:
        decision = Decision(
            id="0123456789abcdefghij", as_of=NOW, policy="p", policy_set="s", scope="account/main", mode="enforce",
            stage="close", level=1, previous_level=0,
        )  # fmt: skip
        planned = encode(PlannedWork(decision.id, NOW, *PLACE))
        store.commit_tick(TickRecord(NOW, "s", (), (), (decision,), (), (planned,), None, (), 0))
        for attempt in (1, 2, 3):
            send(store, attempt)
    yield tmp_path


def send(store: SqlStore, attempt: int) -> None:
    name = client_order_id("0123456789abcdefghij", 0, attempt)
    store.append(JournalEntry("0123456789abcdefghij", "sending", NOW, *PLACE, name, attempt))


def anchor_of(path: Path) -> FetchedAnchor:
    with closing(open_store(str(path), read_only=True)) as store:
        tip = store.record_tip()
    assert tip is not None
    return FetchedAnchor(Anchor(tip.chain, tip.number, tip.root.hex()), "a test")


def restored(site: Path, anchors: list[FetchedAnchor]) -> Path:
    """A backup, five more orders that it does not have, and the restore of it."""
    assert back_up(site / "ks.sqlite", site / "backup.sqlite").is_whole
    with closing(open_store(str(site / "ks.sqlite"))) as store:
        for attempt in range(4, 9):
            send(store, attempt)
    anchors.append(anchor_of(site / "ks.sqlite"))
    done = restore(site / "backup.sqlite", site / "new.sqlite", "ingrid", "the disk failed", NOW, anchors)
    assert (done.lost, done.unfinished) == (5, 1)
    return site / "new.sqlite"


def test_a_restore_is_an_epoch_that_names_what_it_lost(site: Path) -> None:
    """Anchors of the lost time are superseded: that could not be told, and is no tampering."""
    before = anchor_of(site / "ks.sqlite")
    anchors = [before]
    with closing(open_store(str(restored(site, anchors)), read_only=True)) as store:
        report = verify_source(store, anchors)
    assert [each.state for each in report.anchors] == ["confirmed", "superseded"]
    assert [each.lost for each in report.epochs] == [4], "the mark of the unfinished work is a line too"
    assert (report.breaks, report.verdict) == (0, "could not tell")


def test_without_an_epoch_the_record_is_contradicted(site: Path) -> None:
    """A backup that was copied back by hand and written on."""
    back_up(site / "ks.sqlite", site / "backup.sqlite")
    with closing(open_store(str(site / "ks.sqlite"))) as store:
        send(store, 4)
    newest = anchor_of(site / "ks.sqlite")
    with closing(open_store(str(site / "backup.sqlite"))) as store:
        send(store, 9)
        assert verify_source(store, [newest]).verdict == "contradicted"


def test_no_client_order_id_of_the_lost_time_is_used_again(site: Path) -> None:
    """The next attempt is far behind any that the backup does not have."""
    with closing(open_store(str(restored(site, [])), read_only=True)) as store:
        (mark,) = (decode(row) for row in store.journal() if row.kind == "restored")
    assert isinstance(mark, Restored)
    assert (mark.attempt, mark.place) == (3 + SKIPPED, PLACE)
    again = restore(site / "new.sqlite", site / "third.sqlite", "ingrid", "again", NOW)
    assert again.unfinished == 1
    with closing(open_store(str(site / "third.sqlite"), read_only=True)) as store:
        attempts = [row.attempt for row in store.journal() if row.kind == "restored"]
    assert attempts == [3 + SKIPPED, 3 + 2 * SKIPPED]


def test_a_restore_leaves_its_epoch_for_the_ids_of_catastrophe_stops(site: Path) -> None:
    """Their numbers of the lost time are not in the backup; the next restore has another epoch."""
    found = []
    restored(site, [])
    restore(site / "new.sqlite", site / "third.sqlite", "ingrid", "again", NOW)
    for name in ("new", "third"):
        with closing(open_store(str(site / f"{name}.sqlite"), read_only=True)) as store:
            tip, epoch = store.record_tip(), store.live(EPOCH)
        assert tip is not None and epoch == tip.chain.encode()
        found.append(epoch)
    assert len(set(found)) == 2


def test_a_restore_that_is_killed_at_any_write_leaves_no_store_without_its_epoch(site: Path) -> None:
    """A run would take a plain copy for a store, and use client order ids twice. The next restore needs no cleaning."""
    assert back_up(site / "ks.sqlite", site / "backup.sqlite").is_whole
    new = site / "new.sqlite"

    def restore_it() -> None:
        restore(site / "backup.sqlite", new, "ingrid", "the disk failed", NOW)

    kills = 0
    for _ in killed_at_each_write(restore_it):
        kills += 1
        if new.exists():
            with closing(open_store(str(new), read_only=True)) as store:
                tip = store.record_tip()
                assert tip is not None and store.live(EPOCH) == tip.chain.encode()
                assert [row.kind for row in store.journal()].count("restored") == 1
            new.unlink()
    assert kills > 5, "copy, mark, epoch, link"
    assert check_store(new).record.epochs
    assert not (site / ".new.sqlite.restoring").exists()


def test_a_record_began_with_its_chain_or_with_the_last_restore(site: Path) -> None:
    """From then on the store remembers which approvals are spent."""
    with closing(open_store(str(site / "ks.sqlite"), read_only=True)) as store:
        assert store.record_began_at() == NOW
    assert back_up(site / "ks.sqlite", site / "backup.sqlite").is_whole
    for number, backup in enumerate(("backup", "new-1"), start=1):
        later = NOW + timedelta(days=number)
        restore(site / f"{backup}.sqlite", site / f"new-{number}.sqlite", "ingrid", '"kind":"epoch"', later)
        with closing(open_store(str(site / f"new-{number}.sqlite"), read_only=True)) as store:
            assert store.record_began_at() == later
    with closing(open_store(str(site / "empty.sqlite"))) as store:
        assert store.record_began_at() is None


@pytest.mark.parametrize("is_link", [True, False])
def test_a_restore_deletes_no_file_of_a_folder_that_it_has_not_made(site: Path, is_link: bool) -> None:
    """Whoever may write next to the store could otherwise name any folder, by a link with the name of the place."""
    assert back_up(site / "ks.sqlite", site / "backup.sqlite").is_whole
    place, precious = site / ".new.sqlite.restoring", site / "precious"
    folder = precious if is_link else place
    folder.mkdir()
    (folder / ("new.sqlite" if is_link else "notes.txt")).write_text("of somebody else")
    if is_link:
        place.symlink_to(precious)
    with pytest.raises(AuditError, match=r"\.new\.sqlite\.restoring is not what a restore has left: move it away"):
        restore(site / "backup.sqlite", site / "new.sqlite", "ingrid", "disk", NOW)
    assert [each.read_text() for each in folder.iterdir()] == ["of somebody else"]
    assert not (site / "new.sqlite").exists()


@pytest.mark.parametrize("companion", ["-wal", "-shm", "-journal"])
def test_a_restore_next_to_the_log_of_the_store_before_is_refused(site: Path, companion: str) -> None:
    """SQLite would write that log into the restored store."""
    assert back_up(site / "ks.sqlite", site / "backup.sqlite").is_whole
    (site / f"new.sqlite{companion}").write_bytes(b"")
    with pytest.raises(AuditError, match=f"new.sqlite{companion} exists: move it away first"):
        restore(site / "backup.sqlite", site / "new.sqlite", "ingrid", "the disk failed", NOW)


@pytest.mark.parametrize("spoilt", ["emptied", "an anchor that is not genuine"])
def test_a_store_that_no_anchor_confirms_is_not_whole(site: Path, spoilt: str) -> None:
    """Where anchors are given: they are what shows that its end is there."""
    anchor = anchor_of(site / "ks.sqlite")
    assert check_store(site / "ks.sqlite", [anchor]).is_whole
    if spoilt == "emptied":
        with closing(sqlite3.connect(site / "ks.sqlite")) as raw, raw:
            raw.execute("DELETE FROM record")
            raw.execute("DELETE FROM record_tip")
    else:
        anchor = replace(anchor, refused="no key of ours has signed it")
    assert not check_store(site / "ks.sqlite", [anchor]).is_whole


def test_an_anchor_that_is_not_genuine_counts_no_lost_entries(site: Path) -> None:
    """Whoever can write it would have the record state a loss that there was not."""
    back_up(site / "ks.sqlite", site / "backup.sqlite")
    anchor = anchor_of(site / "ks.sqlite")
    forged = FetchedAnchor(replace(anchor.anchor, number=999), "a test", refused="no key of ours has signed it")
    done = restore(site / "backup.sqlite", site / "new.sqlite", "ingrid", "the disk failed", NOW, [anchor, forged])
    assert done.lost == 0


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM record WHERE number = (SELECT max(number) FROM record)",
        "UPDATE record SET line = CAST(replace(line, 'main', 'niam') AS BLOB) WHERE number = 6",
        "INSERT INTO record SELECT number + 1, line, subject FROM record WHERE number = 6",
        "DELETE FROM record_tip",
        "UPDATE record_tip SET edge = x'00'",
    ],
    ids=["cut", "changed", "written on", "no end", "damaged end"],
)
def test_a_changed_end_of_the_record_is_a_problem_at_a_start_and_in_status(site: Path, change: str) -> None:
    """The whole chain is verified by `ksctl audit verify`; the end costs one line."""
    path = site / "ks.sqlite"
    assert record_trouble(str(path)) is None
    with closing(open_store(str(path), read_only=True)) as store:
        assert not any("record" in each for each in store_status(store, NOW, 0).problems)
        tip = store.record_tip()
    assert tip is not None and tip.number == 6
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(change)
    why = record_trouble(str(path))
    assert why is not None and f"run `ksctl audit verify --store {path}`" in why
    with closing(open_store(str(path), read_only=True)) as store:
        assert why in store_status(store, NOW, 0).problems


def test_a_store_that_is_not_there_has_no_trouble_with_its_record(tmp_path: Path) -> None:
    """The first start creates it, and a new store has no line."""
    assert record_trouble(str(tmp_path / "none.sqlite")) is None
    open_store(str(tmp_path / "new.sqlite")).close()
    assert record_trouble(str(tmp_path / "new.sqlite")) is None


def test_a_restored_target_is_verified_before_it_sends_and_skips_attempts() -> None:
    """An order in flight is still queried; an ended target stays ended."""
    ready = target_of()
    ready.replay(Restored(ready.decision, NOW, *PLACE, attempt=SKIPPED))
    assert (ready.state, ready.attempt, ready.is_id_used) == (TargetState.SETTLED, SKIPPED, True)
    assert ready.cost is None, "what the lost time has cost is unknown"
    flying = target_of()
    flying.replay(OrderSending(flying.decision, NOW, *PLACE, "ks-1", 1))
    flying.replay(Restored(flying.decision, NOW, *PLACE, attempt=1 + SKIPPED))
    assert flying.state is TargetState.SENDING
    flying.replay(Filled(flying.decision, NOW, *PLACE, "ks-1", 1))
    flying.replay(Verified(flying.decision, NOW, *PLACE))
    assert flying.attempt == 1 + SKIPPED


def test_nothing_is_overwritten_and_a_damaged_backup_is_refused(site: Path) -> None:
    """By their names, with the way out."""
    back_up(site / "ks.sqlite", site / "backup.sqlite")
    with pytest.raises(AuditError, match="a backup overwrites nothing"):
        back_up(site / "ks.sqlite", site / "backup.sqlite")
    with pytest.raises(AuditError, match="move it away first"):
        restore(site / "backup.sqlite", site / "ks.sqlite", "ingrid", "why", NOW)
    with closing(sqlite3.connect(site / "backup.sqlite")) as raw, raw:
        raw.execute("UPDATE record SET line = CAST(replace(line, 'main', 'niam') AS BLOB) WHERE number = 3")
    assert not check_store(site / "backup.sqlite").is_whole
    with pytest.raises(AuditError, match="its record is contradicted"):
        restore(site / "backup.sqlite", site / "new.sqlite", "ingrid", "why", NOW)
    assert not (site / "new.sqlite").exists()


def test_the_verbs_say_what_they_did(site: Path) -> None:
    """Backup, verify, restore."""

    def run(*arguments: object) -> tuple[object, str]:
        done = CliRunner().invoke(ksctl, ["store", *map(str, arguments)], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.return_value, done.stdout + done.stderr

    assert run("backup", "--store", site / "ks.sqlite", "--to", site / "b.sqlite")[0] == 0
    code, output = run("verify", "--store", site / "b.sqlite")
    assert code == 0
    assert "verdict    verified" in output
    _, output = run("restore", site / "b.sqlite", "--store", site / "n.sqlite", "--reason", "the disk failed")
    assert "entries lost: unknown, name --anchors" in output
    assert "1 unfinished positions are verified at the venue" in output


def test_a_store_is_restored_onto_a_file_system_without_hard_links(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as SMB, whose `link` is not supported."""

    def refused(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    assert back_up(site / "ks.sqlite", site / "backup.sqlite").is_whole
    monkeypatch.setattr(os, "link", refused)
    restore(site / "backup.sqlite", site / "new.sqlite", "ingrid", "the disk failed", NOW)
    assert check_store(site / "new.sqlite").record.epochs
