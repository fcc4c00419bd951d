"""The background writer: writes to a sink in order, never blocks the caller, and reports lost or late lines."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Filled,
    OrderDetached,
    OrderSending,
    PlannedWork,
    Recorded,
    Rejected,
    Unknown,
)
from killswitch.model.alert import NO_ALERTS, Alerts
from killswitch.runner.event_emitter import EventEmitter
from killswitch.telemetry import background_writer
from killswitch.telemetry.background_writer import BackgroundWriter
from killswitch.telemetry.events import (
    OrderChanged,
    OrderStateName,
    RunEvent,
    Shutdown,
    decode_event,
    encode_event,
    event_schema,
)
from killswitch.telemetry.provider import ExportStatus, LogCapture
from tests import worlds


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait until another thread has made a condition true; fails after half a minute."""
    tick = threading.Event()
    for _ in range(3000):
        if is_true():
            return
        tick.wait(0.01)
    raise AssertionError("the condition never became true")


def test_whether_events_are_written_is_unknown_before_the_first_line(tmp_path: Path) -> None:
    """After a restart, an alert of the run before is over only when a line of this run is in the file."""
    writer = BackgroundWriter(str(tmp_path / "events"), "events")
    emitter = EventEmitter(writer, str)
    assert emitter.alerts == Alerts(unknown=("events",))
    writer.put(b"a line\n")
    assert writer.close()
    assert emitter.alerts == NO_ALERTS


def test_whether_telemetry_arrives_is_unknown_before_the_first_export() -> None:
    """Also after one that failed; an export that arrives is the end of it."""
    status = ExportStatus("traces", LogCapture(), str)
    assert not status.has_exported
    status.watch(lambda: False)
    assert not status.has_exported
    status.watch(lambda: True)
    assert status.has_exported


STATES: tuple[tuple[type[Recorded], dict[str, Any], str], ...] = (
    (OrderSending, {"side": "sell", "amount": Decimal(5), "price": Decimal(99)}, "sending"),
    (Acknowledged, {"order": "v1", "filled": Decimal(0)}, "acknowledged"),
    (Unknown, {"text": "no answer; key SECRET"}, "unknown"),
    (OrderDetached, {"text": "the position goes on"}, "set aside"),
    (Absent, {"text": "no such order"}, "absent"),
    (Abandoned, {"text": "no answer for a day"}, "abandoned"),
    (Rejected, {"reason": "margin", "text": "too little margin"}, "rejected"),
    (Filled, {"order": "v1", "filled": Decimal(5), "price": Decimal(98)}, "filled"),
)


def test_every_state_of_an_order_is_a_line_as_it_was_journaled(tmp_path: Path) -> None:
    """In their order, under the client order id, without secrets; what is of no order is no line."""
    path = tmp_path / "events"
    writer = BackgroundWriter(str(path), "events")
    emitter = EventEmitter(writer, lambda text: text.replace("SECRET", "***"))
    place: dict[str, Any] = {
        "decision": "d" * 20, "at": worlds.START, "account": "main", "symbol": "BTC", "position_side": "long",
    }  # fmt: skip
    emitter.wrote(PlannedWork(**place, target=Decimal(0)))
    for kind, fields, _ in STATES:
        emitter.wrote(kind(**place, client_order_id="ks1", **fields))
    assert writer.close()
    found = [decode_event(line) for line in path.read_bytes().splitlines()]
    assert all(isinstance(each, OrderChanged) for each in found)
    orders = [each for each in found if isinstance(each, OrderChanged)]
    assert [each.state for each in orders] == [state for _, _, state in STATES]
    assert {state for _, _, state in STATES} == set(get_args(OrderStateName))
    assert {(each.order, each.decision, each.account) for each in orders} == {("ks1", "d" * 20, "main")}
    assert (orders[0].side, orders[0].amount, orders[-1].filled) == ("sell", Decimal(5), Decimal(5))
    assert orders[2].text == "no answer; key ***"


def test_a_file_is_appended_to_in_order(tmp_path: Path) -> None:
    """Existing content stays; every line is in the file once the stream is closed."""
    path = tmp_path / "events"
    path.write_bytes(b"old\n")
    writer = BackgroundWriter(str(path), "events")
    for number in range(1000):
        assert writer.put(b"%d\n" % number) == 0
    assert writer.close()
    assert path.read_bytes() == b"old\n" + b"".join(b"%d\n" % number for number in range(1000))
    assert writer.problem is None


def test_a_missing_folder_is_an_error_at_once(tmp_path: Path) -> None:
    """The error comes at the start of a run, not at the first tick."""
    with pytest.raises(FileNotFoundError):
        BackgroundWriter(str(tmp_path / "nowhere" / "events"), "events")


def test_an_unread_pipe_loses_lines_and_counts_them(tmp_path: Path) -> None:
    """No `put` blocks; the next line with room returns the number of lost lines, and the problem lasts until then."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = BackgroundWriter(str(pipe), "events", most=5)
    line = b"x" * 100_000 + b"\n"
    put = [writer.put(line) for _ in range(20)]
    lost = put.count(None)
    assert lost == 15
    assert writer.problem == f"events to {pipe} are late or lost: the reader is too slow, or the disk hangs"
    got = bytearray()

    def drain() -> bool:
        try:
            while part := os.read(reader, 1 << 16):
                got.extend(part)
        except BlockingIOError:
            pass
        return writer.problem is None

    eventually(drain)
    assert writer.put(b"last\n") == lost
    assert writer.close()
    eventually(lambda: drain() and got.endswith(b"last\n"))
    os.close(reader)
    assert bytes(got) == line * (20 - lost) + b"last\n"


def test_a_pipe_without_a_reader_is_awaited_in_the_background(tmp_path: Path) -> None:
    """The stream opens and closes at once; lines without a reader are not written."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = BackgroundWriter(str(pipe), "events")
    assert writer.put(b"line\n") == 0
    assert not writer.close(0.01)
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_a_full_disk_is_reported_with_the_systems_reason() -> None:
    """The line is lost, the reason is the system's, and the stream continues."""
    writer = BackgroundWriter("/dev/full", "events")
    writer.put(b"line\n")
    eventually(lambda: writer.problem is not None)
    assert writer.problem == "events are not written to /dev/full: No space left on device"
    assert not writer.close()


def test_a_stalled_sink_is_a_problem_before_a_line_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported while all lines still fit into the queue; over as soon as the sink is read, and no line is missing."""
    monkeypatch.setattr(background_writer, "STALLED_AFTER", 0.0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = BackgroundWriter(str(pipe), "events")
    line = b"x" * 100_000 + b"\n"
    assert writer.put(line) == 0
    late = f"events to {pipe} are late or lost: the reader is too slow, or the disk hangs"
    eventually(lambda: writer.problem == late)
    got = bytearray()
    eventually(lambda: not _drained(reader, got) and writer.problem is None)
    assert bytes(got) == line
    assert writer.close()
    os.close(reader)


def test_closing_does_not_wait_for_a_stalled_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its timeout: a sink that stalled for so long would not accept the last lines either."""
    monkeypatch.setattr(background_writer, "STALLED_AFTER", 0.0)
    os.mkfifo(tmp_path / "pipe")
    writer = BackgroundWriter(str(tmp_path / "pipe"), "events")
    writer.put(b"line\n")
    eventually(lambda: writer.problem is not None)
    assert not writer.close(timeout=3600.0)


class FullDisk:
    """Accepts some bytes of each write and is then full for the rest of it, for `full_for` writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_for: int) -> None:
        self._write = os.write
        self._full_for = full_for
        self._partly = False
        monkeypatch.setattr(background_writer.os, "write", self.write)
        monkeypatch.setattr(background_writer, "RETRY_AFTER", 0.0)

    def write(self, descriptor: int, data: memoryview) -> int:
        if not self._partly and self._full_for:
            self._partly = True
            return self._write(descriptor, data[:3])
        if self._full_for:
            self._full_for -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(descriptor, data)


def test_a_line_interrupted_by_a_full_disk_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three bytes fit, then none for a while, then all: the file holds every line once, and no torn one."""
    FullDisk(monkeypatch, full_for=5)
    writer = BackgroundWriter(str(tmp_path / "events"), "events")
    writer.put(b"first\n")
    writer.put(b"second\n")
    eventually(lambda: (tmp_path / "events").read_bytes() == b"first\nsecond\n")
    assert writer.close()


def test_an_abandoned_line_leaves_no_part_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the end too: the file ends with the last whole line."""
    (tmp_path / "events").write_bytes(b"old\n")
    FullDisk(monkeypatch, full_for=1 << 60)
    writer = BackgroundWriter(str(tmp_path / "events"), "events")
    writer.put(b"first\n")
    eventually(lambda: writer.problem is not None)
    assert not writer.close()
    assert (tmp_path / "events").read_bytes() == b"old\n"


def test_a_reader_that_disconnects_and_returns_gets_the_later_lines(tmp_path: Path) -> None:
    """A closed pipe is a problem; with a new reader lines arrive again, and the problem is over."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = BackgroundWriter(str(pipe), "events")
    writer.put(b"one\n")
    eventually(lambda: _read(first) == b"one\n")
    os.close(first)
    writer.put(b"two\n")
    eventually(lambda: writer.problem == f"events are not written to {pipe}: its reader has closed it")
    second = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer.put(b"three\n")
    eventually(lambda: writer.problem is None)
    assert os.read(second, 100) == b"three\n"
    assert writer.close()
    os.close(second)


def _read(pipe: int) -> bytes:
    """Everything that waits in a pipe."""
    try:
        return os.read(pipe, 100)
    except BlockingIOError:
        return b""


def test_the_schema_requires_every_field_of_every_event() -> None:
    """One case for each `kind`; all fields are required, and null if unknown."""
    schema: dict[str, Any] = event_schema()
    event = Shutdown(at=worlds.START, why="stopped by SIGTERM", ticks=3, latched=(), unfinished=())
    line = json.loads(encode_event(event))
    assert decode_event(encode_event(event)) == event
    cases = schema["discriminator"]["mapping"]
    assert set(cases) == {kind.__struct_config__.tag for kind in get_args(RunEvent)}
    case = schema["$defs"][cases["shutdown"].rsplit("/", 1)[1]]
    assert sorted(case["required"]) == sorted(case["properties"]) == sorted(line)
    assert case["properties"]["format"] == {"enum": ["killswitch.event/v1"], "default": "killswitch.event/v1"}


def test_an_interrupted_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    """The reader disconnects within a long line: the next line starts on a new line."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = BackgroundWriter(str(pipe), "events")
    writer.put(b"x" * 1_000_000 + b"\n")
    eventually(lambda: len(_read(first)) == 100)
    os.close(first)
    eventually(lambda: writer.problem is not None)
    second = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    got = bytearray()
    eventually(lambda: not _drained(second, got))
    writer.put(b"next\n")
    eventually(lambda: bool(_drained(second, got) and got.endswith(b"next\n")))
    assert writer.close()
    os.close(second)
    broken, last, rest = got.split(b"\n")
    assert (set(broken) <= {ord("x")}, last, rest) == (True, b"next", b"")


def _drained(pipe: int, into: bytearray) -> bool:
    """Read what waits in a pipe into a buffer; returns whether there was anything."""
    found = _read(pipe)
    into += found
    return bool(found)
