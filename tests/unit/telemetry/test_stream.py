"""The event stream's writer: in order, never waiting, and telling what is lost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from killswitch.telemetry.events import KINDS, Shutdown, decode_event, encode_event, event_schema
from killswitch.telemetry.stream import Stream
from tests import worlds


def eventually(seen: Callable[[], bool]) -> None:
    """Wait for what another thread will do; fails after half a minute."""
    tick = threading.Event()
    for _ in range(3000):
        if seen():
            return
        tick.wait(0.01)
    raise AssertionError("it never came about")


def test_a_file_is_appended_to_in_order(tmp_path: Path) -> None:
    """What was there stays; every line that was put is there once the stream is closed."""
    path = tmp_path / "events"
    path.write_bytes(b"old\n")
    stream = Stream(str(path))
    for number in range(1000):
        assert stream.put(b"%d\n" % number) == 0
    assert stream.close()
    assert path.read_bytes() == b"old\n" + b"".join(b"%d\n" % number for number in range(1000))
    assert stream.problem is None


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    """Who starts a run is told, not the first tick."""
    with pytest.raises(FileNotFoundError):
        Stream(str(tmp_path / "nowhere" / "events"))


def test_a_pipe_that_is_not_read_loses_lines_and_counts_them(tmp_path: Path) -> None:
    """No `put` waits; the next line that finds room says how many were lost, and the problem lasts until then."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stream = Stream(str(pipe), most=5)
    line = b"x" * 100_000 + b"\n"
    put = [stream.put(line) for _ in range(20)]
    lost = put.count(None)
    assert 13 <= lost <= 15
    assert stream.problem == f"events to {pipe} are lost: nobody reads them"
    got = bytearray()

    def drain() -> bool:
        try:
            while part := os.read(reader, 1 << 16):
                got.extend(part)
        except BlockingIOError:
            pass
        return stream.problem is None

    eventually(drain)
    assert stream.put(b"last\n") == lost
    assert stream.close()
    eventually(lambda: drain() and got.endswith(b"last\n"))
    os.close(reader)
    assert bytes(got) == line * (20 - lost) + b"last\n"


def test_a_pipe_without_a_reader_is_waited_for_in_the_background(tmp_path: Path) -> None:
    """The stream opens and closes at once; what nobody was there to read is not written."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    stream = Stream(str(pipe))
    assert stream.put(b"line\n") == 0
    assert not stream.close(0.01)
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_a_full_disk_is_told_in_words() -> None:
    """The line is lost, the reason is the system's, and the stream goes on."""
    stream = Stream("/dev/full")
    stream.put(b"line\n")
    eventually(lambda: stream.problem is not None)
    assert stream.problem == "events are not written to /dev/full: No space left on device"
    assert not stream.close()


def test_a_reader_that_goes_away_and_comes_back_gets_what_is_written_then(tmp_path: Path) -> None:
    """A closed pipe is told; with a new reader lines arrive again, and the problem is over."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stream = Stream(str(pipe))
    stream.put(b"one\n")
    eventually(lambda: _read(first) == b"one\n")
    os.close(first)
    stream.put(b"two\n")
    eventually(lambda: stream.problem == f"events are not written to {pipe}: nobody reads it any more")
    second = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stream.put(b"three\n")
    eventually(lambda: stream.problem is None)
    assert os.read(second, 100) == b"three\n"
    assert stream.close()
    os.close(second)


def _read(pipe: int) -> bytes:
    """What waits in a pipe."""
    try:
        return os.read(pipe, 100)
    except BlockingIOError:
        return b""


def test_the_schema_asks_for_every_part_of_every_event() -> None:
    """One case for each kind, told apart by `kind`; all fields are required, null where they are not known."""
    schema: dict[str, Any] = event_schema()
    event = Shutdown(at=worlds.START, why="stopped by SIGTERM", ticks=3, latched=(), unfinished=())
    line = json.loads(encode_event(event))
    assert decode_event(encode_event(event)) == event
    cases = schema["discriminator"]["mapping"]
    assert set(cases) == {kind.__struct_config__.tag for kind in KINDS}
    case = schema["$defs"][cases["shutdown"].rsplit("/", 1)[1]]
    assert sorted(case["required"]) == sorted(case["properties"]) == sorted(line)
    assert case["properties"]["format"] == {"enum": ["killswitch.event/v1"], "default": "killswitch.event/v1"}


def test_a_line_that_broke_off_is_ended_before_the_next_one(tmp_path: Path) -> None:
    """The reader goes away in the middle of a long line: the one after it stands on a line of its own."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stream = Stream(str(pipe))
    stream.put(b"x" * 1_000_000 + b"\n")
    eventually(lambda: len(_read(first)) == 100)
    os.close(first)
    eventually(lambda: stream.problem is not None)
    second = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    got = bytearray()
    eventually(lambda: not _drained(second, got))
    stream.put(b"next\n")
    eventually(lambda: bool(_drained(second, got) and got.endswith(b"next\n")))
    assert stream.close()
    os.close(second)
    broken, last, rest = got.split(b"\n")
    assert (set(broken) <= {ord("x")}, last, rest) == (True, b"next", b"")


def _drained(pipe: int, into: bytearray) -> bool:
    """Take what waits in a pipe; whether there was anything."""
    found = _read(pipe)
    into += found
    return bool(found)
