"""Recordings: what is written is read back, and an unreadable file is an error that names the place."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.lab.recording import BackgroundRecorder, RecordingError, RecordingWriter, read, replay
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import AccountSnapshot, Snapshot, decode_snapshot
from tests import worlds
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.runner_world import crash_policy
from tests.unit.telemetry.test_background_writer import eventually
from tests.worlds import after

LINE = '{"format":"killswitch.snapshot/v1","as_of":"2024-01-01T00:0%d:00Z","accounts":[]}\n'


def _snapshots(count: int, first: int = 0) -> list[Snapshot]:
    account = AccountSnapshot("main", "paper", "swap", "USDT", "down", reason="é")
    return [
        Snapshot(as_of=after(minutes=first + minute), accounts=(account,), format="killswitch.snapshot/v1")
        for minute in range(count)
    ]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst"])
def test_a_written_recording_is_read_back(tmp_path: Path, name: str) -> None:
    """Plain and compressed, also when a second writer appends to the file of the first."""
    path = tmp_path / name
    for first in (0, 3):
        with RecordingWriter(path, append=first > 0) as writer:
            for snapshot in _snapshots(3, first):
                writer.write(snapshot)
    assert list(read(path)) == _snapshots(6)


def test_without_append_a_recording_is_replaced(tmp_path: Path) -> None:
    """The old content is gone."""
    path = tmp_path / "r.jsonl"
    for count in (3, 1):
        with RecordingWriter(path) as writer:
            for snapshot in _snapshots(count):
                writer.write(snapshot)
    assert list(read(path)) == _snapshots(1)


def test_a_written_snapshot_can_be_read_before_the_end(tmp_path: Path) -> None:
    """A plain recording is flushed: another process sees each line as soon as it is written."""
    path = tmp_path / "r.jsonl"
    with RecordingWriter(path) as writer:
        writer.write(_snapshots(1)[0])
        assert list(read(path)) == _snapshots(1)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (LINE % 1 + "{}\n", 2, "missing required field"),
        (LINE % 1 + "\n" + LINE % 2 + "nonsense\n", 4, "not a snapshot"),
        (
            LINE % 2 + LINE % 1,
            2,
            "before 2024-01-01T00:02:00+00:00 of the previous line; snapshots must be in order of time",
        ),
        (LINE % 1 + (LINE % 2)[:40], 2, "the last line is cut off"),
        (LINE.replace("snapshot/v1", "snapshot/v9") % 1, 1, "not a killswitch.snapshot/v1 snapshot"),
        (LINE.replace('"format":"killswitch.snapshot/v1",', "") % 1, 1, "missing required field `format`"),
        (LINE.replace("Z", "") % 1, 1, "as_of"),
    ],
)
def test_an_invalid_line_is_reported_with_its_place(tmp_path: Path, text: str, line: int, expected: str) -> None:
    """File, line, and cause."""
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError) as caught:
        list(read(path))
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert expected in str(caught.value)


def test_two_snapshots_may_have_the_same_time(tmp_path: Path) -> None:
    """A push within the clock's resolution is in order."""
    path = tmp_path / "r.jsonl"
    path.write_text(LINE % 1 + LINE % 1)
    assert len(list(read(path))) == 2


def test_a_truncated_or_invalid_compressed_file_is_an_error(tmp_path: Path) -> None:
    """Half a gzip, and text under the name of a compressed file."""
    half = tmp_path / "half.gz"
    half.write_bytes(gzip.compress((LINE % 1 * 500).encode())[:-20])
    with pytest.raises(RecordingError, match="cut off inside its compressed data"):
        list(read(half))
    for name in ("text.gz", "text.zst"):
        (tmp_path / name).write_text(LINE % 1)
        with pytest.raises(RecordingError, match=name):
            list(read(tmp_path / name))


def test_a_truncated_zstd_file_is_an_error(tmp_path: Path) -> None:
    """The unfinished block of a killed writer is not taken for the end."""
    path = tmp_path / "r.zst"
    with RecordingWriter(path) as writer:
        for snapshot in _snapshots(2000):
            writer.write(snapshot)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RecordingError):
        list(read(path))


def test_a_missing_file_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    """A missing file cannot be read; an empty one has no snapshot."""
    with pytest.raises(RecordingError, match="No such file"):
        list(read(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    assert list(read(tmp_path / "empty.jsonl")) == []


def test_damage_deep_nesting_and_impossible_times_are_errors(tmp_path: Path) -> None:
    """A damaged archive, a line nested a hundred thousand deep, and the year 9999: no traceback."""
    import gzip

    whole = gzip.compress(b'{"format": "killswitch.snapshot/v1"}\n' * 5000)
    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(whole[:40] + b"\x00\xff" * 20 + whole[80:])
    deep = tmp_path / "deep.jsonl"
    deep.write_bytes(b"[" * 100_000 + b"\n")
    late = tmp_path / "late.jsonl"
    late.write_text('{"format": "killswitch.snapshot/v1", "as_of": "9999-12-31T23:59:59Z", "accounts": []}\n', "utf-8")
    for path in (damaged, deep, late):
        with pytest.raises(RecordingError) as refused:
            list(read(path))
        assert str(path) in str(refused.value)


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst"])
def test_the_background_recorder_writes_what_a_writer_writes(tmp_path: Path, name: str) -> None:
    """Every snapshot, in order, also when a second run appends to the recording of the first."""
    for first in (0, 3):
        recorder = BackgroundRecorder(tmp_path / name)
        for snapshot in _snapshots(3, first):
            recorder.write(snapshot)
        assert recorder.close()
    assert list(read(tmp_path / name)) == _snapshots(6)


def test_a_recording_marks_missing_snapshots(tmp_path: Path) -> None:
    """Nobody reads the pipe, and memory holds two: of six, the last four are left out, and the seventh says so."""
    pipe = tmp_path / "r.jsonl"
    os.mkfifo(pipe)
    recorder = BackgroundRecorder(pipe, most=2)
    for snapshot in _snapshots(6):
        recorder.write(snapshot)
    assert recorder.problem == f"snapshots to {pipe} are late or lost: the reader is too slow, or the disk hangs"
    reader = os.open(pipe, os.O_RDONLY)
    seen = _lines(reader, 2)
    eventually(lambda: recorder.problem is None)
    recorder.write(_snapshots(7)[6])
    seen += _lines(reader, 1)
    os.close(reader)
    recorder.close()
    assert [each.missing for each in seen] == [0, 0, 4]
    assert [each.as_of for each in seen] == [each.as_of for each in (*_snapshots(2), _snapshots(7)[6])]


def _lines(pipe: int, count: int) -> list[Snapshot]:
    """Read so many snapshots from a pipe."""
    received = b""
    while received.count(b"\n") < count:
        received += os.read(pipe, 65_536)
    return [decode_snapshot(line) for line in received.splitlines()]


def test_a_replay_warns_of_missing_snapshots() -> None:
    """A warning with their number comes before any decision on the next snapshot."""
    first, second, third = _snapshots(3)
    gaps = [first, replace(second, missing=4), replace(third, missing=1)]
    notices = [each for each in replay(policy_set(crash_policy()), gaps) if isinstance(each, Notice)]
    found = [(each.as_of, each.severity, each.text.partition(":")[0]) for each in notices if each.scope == "recording"]
    assert found == [
        (second.as_of, "warning", "4 snapshots are missing here"),
        (third.as_of, "warning", "1 snapshot is missing here"),
    ]


def test_a_damaged_line_keeps_no_decision_of_the_lines_before_it() -> None:
    """The replay of a fall by 26% fires at its own line, before the next one is read and found damaged."""

    def damaged() -> Iterator[Snapshot]:
        for minute, mark in enumerate((100, 74)):
            pnl = 1000 * (mark - 100)
            held = worlds.position("L", "long", str(pnl), contracts="1000", mark_price=str(mark), notional="100000")
            account = worlds.account(str(100_000 + pnl), [held], instruments=[worlds.rules("L")])
            yield worlds.snapshot(after(minutes=minute), account)
        raise ValueError("the next line is damaged")

    out = stage("out", 3, 0, actions=(close("both"),))
    decisions = []
    with pytest.raises(ValueError, match="damaged"):
        for each in replay(policy_set(graph((FALL_15M,), (trigger("fall", 0, 0.1),), (out,))), damaged()):
            decisions += [each.stage] if isinstance(each, Decision) else []
    assert decisions == ["out"]
