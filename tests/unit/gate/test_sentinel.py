"""The sentinel: whatever is at its path halts everything, and nothing of it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.client.gate import PretradeAnswer, PretradeGate, is_halted
from killswitch.client.heartbeat import monotonic_seconds
from killswitch.gate.sentinel import SentinelWatch, create_sentinel, sentinel_at, sentinel_of
from tests.e2e.processes import until


def _file(path: Path) -> None:
    path.write_text("this is not parsed")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


THERE: tuple[Callable[[Path], object], ...] = (_file, Path.touch, Path.mkdir, _dangling, os.mkfifo, create_sentinel)


@pytest.mark.parametrize("make", THERE)
def test_anything_at_the_path_is_the_sentinel(make: Callable[[Path], object], tmp_path: Path) -> None:
    """A person in a hurry makes something of that name; a pipe is not waited for."""
    path = tmp_path / "ks.sqlite.halt"
    assert (sentinel_at(path), is_halted(str(path))) == (None, False)
    make(path)
    assert sentinel_at(path) == f"{path} is there"
    assert is_halted(str(path))


def test_what_cannot_be_looked_for_counts_as_there(tmp_path: Path) -> None:
    """A component that is no folder, and a name that no file system takes."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "halt", tmp_path / ("x" * 300)):
        assert "cannot be looked for" in (sentinel_at(path) or "")
        assert is_halted(str(path))


def test_it_is_next_to_the_store_unless_named_otherwise() -> None:
    """By the path of the store or its URL."""
    assert sentinel_of("/var/ks.sqlite") == sentinel_of("sqlite:////var/ks.sqlite") == Path("/var/ks.sqlite.halt")


def test_creating_it_twice_changes_nothing(tmp_path: Path) -> None:
    """A halt of everything may find one that a person has made."""
    path = tmp_path / "halt"
    path.write_text("why")
    create_sentinel(path)
    assert path.read_text() == "why"


def test_a_watch_knows_it_from_its_start_and_calls_a_tick_when_it_appears(tmp_path: Path) -> None:
    """Its removal calls none: nothing is lifted by it."""
    path, calls = tmp_path / "halt", []
    watch = SentinelWatch(path)
    watch.call_tick = lambda: calls.append(1)
    watch.start()
    assert watch.present is None
    path.touch()
    until(lambda: bool(calls), "a tick is called")
    assert watch.present == f"{path} is there"
    assert [each.key for each in watch.alerts.found] == ["sentinel/there"]
    path.unlink()
    until(lambda: watch.present is None, "the removal is seen")
    assert calls == [1]
    watch.stop()
    path.touch()
    later = SentinelWatch(path)
    later.start()
    later.stop()
    assert later.present == f"{path} is there"


def test_a_client_sends_no_entry_while_it_is_there_and_every_exit(tmp_path: Path) -> None:
    """It looks directly before an order is sent: a verdict may be two seconds old."""
    path = tmp_path / "halt"
    gate = PretradeGate("http://127.0.0.1:1", "none", sentinel=str(path))
    answer = PretradeAnswer("q", True, "allowed", "", True, monotonic_seconds() + 60)
    entry, exit_ = {"side": "buy"}, {"side": "sell", "reduce_only": True}
    assert gate.may_still_send(answer, entry)
    path.touch()
    assert not gate.may_still_send(answer, entry)
    assert gate.may_still_send(answer, exit_)
