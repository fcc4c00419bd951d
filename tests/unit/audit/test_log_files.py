"""Logs in files: exports that continue, torn ends, rotation, tables, and proofs from them."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from killswitch.audit.exporting import COLUMNS, cut_entry, export_csv, export_parquet, export_segments
from killswitch.audit.log_files import AuditError, segments_of, verify_log, verify_source
from killswitch.audit.proving import check_proof, fetched_anchors, lines_of_source, prove, prove_from_log, size_for
from killswitch.model.decision import Decision
from killswitch.model.record_entry import RecordEntry
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.record.anchors import Anchor, FetchedAnchor, anchor_text
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """A store with a chain of 31 lines: its beginning, and 30 orders."""
    opened = open_store(str(tmp_path / "store.sqlite"))
    orders(opened, 0, 30)
    yield opened
    opened.close()


def orders(store: SqlStore, first: int, many: int) -> None:
    for number in range(first, first + many):
        data: dict[str, str | None] = {"amount": f"{number}.0"}
        store.append(JournalEntry("d1", "verified", NOW, "main", "BTC/USDT:USDT", "long", data=data))


def anchor_of(store: SqlStore) -> FetchedAnchor:
    tip = store.record_tip()
    assert tip is not None
    return FetchedAnchor(Anchor(tip.chain, tip.number, tip.root.hex()), "a test")


def bytes_of(log: Path) -> bytes:
    return b"".join(segment.path.read_bytes() for segment in segments_of(log))


def test_an_export_has_the_bytes_of_the_store_and_goes_on_where_it_ended(store: SqlStore, tmp_path: Path) -> None:
    """In segments of a fixed number of lines; the files of several exports are those of one."""
    log, at_once = tmp_path / "log", tmp_path / "once"
    assert export_segments(store, log, segment_lines=12).lines == 31
    orders(store, 30, 9)
    again = export_segments(store, log, segment_lines=12)
    assert (again.lines, again.last, again.segments) == (9, 40, 4)
    export_segments(store, at_once, segment_lines=12)
    assert bytes_of(log) == bytes_of(at_once) == b"".join(line.text + b"\n" for line in store.record_lines())
    assert [segment.first for segment in segments_of(log)] == [1, 13, 25, 37]
    report = verify_log(log, [anchor_of(store)], needs_anchor=True)
    assert (report.verdict, report.entries, report.uncovered) == ("verified", 40, None)


@pytest.mark.parametrize("left", [0, 1, 57, 200])
def test_a_torn_end_is_cut_and_written_again_from_the_store(store: SqlStore, tmp_path: Path, left: int) -> None:
    """Length and hash of what was cut are for the record; also of a segment that has nothing else."""
    log = tmp_path / "log"
    export_segments(store, log, segment_lines=30)
    newest = segments_of(log)[-1].path
    torn = newest.read_bytes()[:left]
    newest.write_bytes(torn)
    done = export_segments(store, log, segment_lines=30)
    assert done.cut == ((left, sha256(torn).hexdigest()) if left else None)
    assert bytes_of(log) == b"".join(line.text + b"\n" for line in store.record_lines())
    if done.cut is not None:
        store.add_to_record([cut_entry(done.cut, NOW)])
        assert json.loads(list(store.record_lines())[-1].text)["size"] == left


def test_a_log_of_another_history_is_never_overwritten(store: SqlStore, tmp_path: Path) -> None:
    """A restored store has other lines: the files stay as they are."""
    log = tmp_path / "log"
    export_segments(store, log)
    before = bytes_of(log)
    other = open_store(str(tmp_path / "other.sqlite"))
    orders(other, 0, 40)
    with pytest.raises(AuditError, match="ends with line 31, of which the store has another line"):
        export_segments(other, log)
    other.close()
    assert bytes_of(log) == before


def test_renamed_and_copied_segments_are_verified_in_their_order(store: SqlStore, tmp_path: Path) -> None:
    """By their first numbers; a missing one is a missing range."""
    log = tmp_path / "log"
    export_segments(store, log, segment_lines=10)
    for number, segment in enumerate(segments_of(log)):
        segment.path.rename(log / f"{9 - number}.jsonl")
    assert verify_log(log, [anchor_of(store)]).verdict == "verified"
    (log / "8.jsonl").unlink()
    report = verify_log(log)
    assert (report.verdict, report.missing) == ("could not tell", ((11, 20),))


def test_a_link_is_not_followed_into_another_file(store: SqlStore, tmp_path: Path) -> None:
    """The message names the segment."""
    log = tmp_path / "log"
    export_segments(store, log)
    shutil.move(segments_of(log)[0].path, tmp_path / "elsewhere")
    (log / "a.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match="cannot be read"):
        verify_log(log)


def test_bodies_are_exported_next_to_the_lines_and_verified_with_them(store: SqlStore, tmp_path: Path) -> None:
    """A missing body is withheld, another one is tampering."""
    decision = Decision(
        id="d7", as_of=NOW, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce", stage="close",
        level=1, previous_level=0,
    )  # fmt: skip
    store.commit_tick(TickRecord(NOW, "p", (), (), (decision,), (), (), None, (), 0))
    log = tmp_path / "log"
    export_segments(store, log, with_bodies=True)
    assert verify_log(log).verdict == "verified"
    (body,) = (path for path in (log / "bodies").rglob("*") if path.is_file())
    content = body.read_bytes()
    body.write_bytes(content.replace(b"close", b"hedge"))
    assert (verify_log(log).verdict, verify_log(log).altered.first) == ("contradicted", [32])
    body.unlink()
    assert (verify_log(log).verdict, verify_log(log).withheld.first) == ("could not tell", [32])


def test_the_end_of_the_chain_in_the_store_is_held_against_its_lines(store: SqlStore, tmp_path: Path) -> None:
    """A changed last line, which no other line names, and a cut tail."""
    assert verify_source(store).verdict == "verified"
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as raw, raw:
        raw.execute("UPDATE record SET line = CAST(replace(line, '29.0', '92.0') AS BLOB) WHERE number = 31")
    report = verify_source(store)
    assert report.verdict == "contradicted"
    assert report.first_break is not None
    assert "the store's own end of the chain is number 31" in report.first_break.what
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as raw, raw:
        raw.execute("DELETE FROM record WHERE number > 20")
    assert verify_source(store).verdict == "contradicted"


def test_tables_have_every_line_with_its_leaf(store: SqlStore, tmp_path: Path) -> None:
    """CSV and Parquet agree with the lines; a text that a spreadsheet would compute is disarmed in CSV."""
    store.add_to_record([RecordEntry("notice", NOW, {"scope": "=1+1", "policy": "\r=2"})])
    assert export_csv(store, tmp_path / "r.csv") == export_parquet(store, tmp_path / "r.parquet") == 32
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert tuple(rows[0]) == tuple(table[0]) == COLUMNS
    texts = [line.text for line in store.record_lines()]
    assert [row["line"].encode() for row in table] == [row["line"].encode() for row in rows] == texts
    assert [row["leaf"] for row in rows] == [sha256(b"\0" + text).hexdigest() for text in texts]
    assert (rows[-1]["scope"], table[-1]["scope"]) == ("'=1+1", "=1+1")
    assert (rows[-1]["policy"], table[-1]["policy"]) == ("'\r=2", "\r=2")
    assert (table[5]["entry"], table[5]["account"], table[5]["seq"]) == ("verified", "main", 6)


def test_a_proof_from_a_log_is_that_from_the_store_and_needs_an_anchor_only(store: SqlStore, tmp_path: Path) -> None:
    """For the size of an anchor; the record grows on behind it."""
    anchor = anchor_of(store)
    orders(store, 30, 10)
    log = tmp_path / "log"
    export_segments(store, log, segment_lines=7)
    size = size_for([anchor.anchor], 5)
    proof = prove(lines_of_source(store), "5", size)
    assert (proof, size) == (prove_from_log(log, "5", size), 31)
    assert check_proof(proof, [anchor]).why is None
    file = tmp_path / "anchors.txt"
    file.write_text(anchor_text(anchor.anchor))
    assert check_proof(proof, fetched_anchors(file)).why is None
    other = FetchedAnchor(Anchor(anchor.anchor.chain, 31, "00" * 32), "a test")
    assert check_proof(proof, [other]).why == "the path leads to another root than that of the anchor"
    assert check_proof(proof, [anchor, other]).why == "there are anchors of number 31 with different roots"
    whole = prove(lines_of_source(store), "5")
    assert "there is no anchor" in (check_proof(whole, [anchor]).why or "")


@pytest.mark.parametrize(
    ("wanted", "size", "why"),
    [("99", None, "no line of the record is number 99"), ("5", 40, "a proof for 40 cannot be made"), ("d", None, "d")],
)
def test_what_cannot_be_proved_is_refused_with_the_reason(
    store: SqlStore, wanted: str, size: int | None, why: str
) -> None:
    """No such line, more lines than there are, no such decision."""
    with pytest.raises(AuditError, match=why):
        prove(lines_of_source(store), wanted, size)


def test_a_file_that_has_no_anchor_is_refused_by_its_place(tmp_path: Path) -> None:
    """So is a folder without anchors."""
    file = tmp_path / "a.anchor"
    file.write_text("hello\n")
    with pytest.raises(AuditError, match=r"a\.anchor is no file of anchors: line 1"):
        fetched_anchors(file)
    with pytest.raises(AuditError, match="there is no anchor in"):
        (tmp_path / "empty").mkdir()
        fetched_anchors(tmp_path / "empty")
