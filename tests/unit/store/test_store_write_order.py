"""The order of concurrent writes: trading writes go before background writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from killswitch.model.instant import to_micros
from killswitch.model.store import Outgoing, TickRecord
from killswitch.store.errors import StoreError
from killswitch.store.handle import WriteQueue
from killswitch.store.sqlite import open_store
from tests.outboxes import START, waiting

PATIENCE = 30.0


def until(seen: Callable[[], bool]) -> None:
    """Wait for the progress of another thread; the timeout is no expectation."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if seen():
            return
        pause.wait(0.01)
    raise AssertionError("it was never seen")


@pytest.mark.parametrize("_again", range(10))
def test_an_urgent_write_overtakes_waiting_background_writes(_again: int) -> None:
    """Three background writers came first; the urgent one that came last writes before them.

    Ten times, because the system may wake the right one by chance.
    """
    turns, order = WriteQueue(), list[str]()

    def write(name: str, *, background: bool) -> None:
        with turns.acquire(background=background):
            order.append(name)

    with turns.acquire():
        background_writers = [
            threading.Thread(target=write, args=("tell",), kwargs={"background": True}) for _ in range(3)
        ]
        for thread in background_writers:
            thread.start()
        until(lambda: turns.waiting["background"] == 3)
        acting = threading.Thread(target=write, args=("act",), kwargs={"background": False})
        acting.start()
        until(lambda: turns.waiting["urgent"] == 1)
    for thread in (*background_writers, acting):
        thread.join(PATIENCE)
    assert order == ["act", "tell", "tell", "tell"]
    assert turns.waiting.total() == 0


def test_a_write_that_fails_releases_its_turn(tmp_path: Path) -> None:
    """A store whose tables are gone refuses with a message, as often as it is called, and blocks nobody."""
    store = open_store(str(tmp_path / "store.sqlite"))
    try:
        with closing(sqlite3.connect(tmp_path / "store.sqlite")) as shell:
            shell.execute("DROP TABLE outbox")
        for _ in range(2):
            with pytest.raises(StoreError, match="no such table"):
                store.forget(0)
        store.commit_tick(TickRecord(START, "sha256:0", (), (), (), (), (), None, (), 0))
    finally:
        store.close()


def test_many_concurrent_targets_lose_no_message_and_claim_none_twice(tmp_path: Path) -> None:
    """Eight threads claim and settle while ticks are committed in parallel: every message is claimed exactly once."""
    store = open_store(str(tmp_path / "store.sqlite"))
    targets = [f"t{number}" for number in range(8)]
    claimed: list[str] = []

    def send(target: str) -> None:
        while (delivery := store.claim(target, to_micros(START))) is not None:
            claimed.append(delivery.message.id)
            store.settle(delivery.message.id, to_micros(START), None)

    try:
        for target in targets:
            waiting(store, [f"{target}-{number}" for number in range(10)], target)
        threads = [threading.Thread(target=send, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for number in range(20):
            message = Outgoing(f"late-{number}", to_micros(START), "desk", "nobody", b"{}")
            store.commit_tick(TickRecord(START, "sha256:0", (), (), (), (), (), None, (), 0, (message,)))
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(claimed) == sorted(f"{target}-{number}" for target in targets for number in range(10))
        assert {count.target: (count.pending, count.delivered) for count in store.outbox()} == {
            **dict.fromkeys(targets, (0, 10)), "nobody": (20, 0),
        }  # fmt: skip
    finally:
        store.close()
