"""A kill -9 at every durable write and at every request of a close in batches: nothing is lost, nothing done twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from killswitch.store.sqlite import open_store
from tests.faults.exchange import ZERO
from tests.faults.killed_batch import BOOK, BTC, LEFT, venue_in
from tests.virtual_time import VirtualTime


def run(repository: Path, folder: Path, *arguments: str) -> Mapping[str, list[str]]:
    """Moment → how its children ended."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_batch", folder, *arguments],
        capture_output=True, text=True, check=False, cwd=repository,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "adapters")])},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    ends_by_moment = (line.split(" ") for line in ended.stdout.splitlines())
    return {moment: [" ".join(pair) for pair in pairs(words)] for moment, *words in ends_by_moment}


def pairs(words: list[str]) -> list[list[str]]:
    """`killed` is one word, `exit 0` is two."""
    found: list[list[str]] = []
    for word in words:
        if word.isdigit():
            found[-1].append(word)
        else:
            found.append([word])
    return found


def wrong_in(folder: Path) -> list[str]:
    """What is wrong at the end, in the venue's truth and in the journal."""
    venue = venue_in(folder, VirtualTime())
    store = open_store(str(folder / "store.sqlite"), read_only=True)
    journal = store.journal("d1")
    store.close()
    sent = {entry.client_order_id for entry in journal if entry.kind in ("sending", "protected")}
    ours = [order for order in venue.orders.values() if order.by == "ours"]
    closed = {
        key: sum((deed.closed for deed in venue.deeds if deed.key == key and deed.actor == "ours"), ZERO)
        for key in BOOK
    }
    stops = [order.amount for order in venue.resting() if order.symbol == "BTC"]
    ends = [entry.data["status"] for entry in journal if entry.kind == "finished"]
    found = {
        "left": {key: venue.held[key] for key in BOOK} != LEFT,
        "closed": closed != {key: BOOK[key] - LEFT[key] for key in BOOK},
        "turned": bool(venue.turned),
        "unwritten orders": any(order.name not in sent for order in ours),
        "the stop over the rest of BTC": stops != [LEFT[BTC]],
        "the entry": any(order.symbol == "ETH" for order in venue.resting()),
        "ends": ends != ["flat"],
    }
    return [f"{folder.name}: {what}" for what, is_wrong in found.items() if is_wrong]


def test_kill_9_at_any_moment_of_a_batch_does_not_change_the_end(repository: Path, tmp_path: Path) -> None:
    """Before and after each write and each request: the same quantities, one stop, and a journal that ends flat."""
    ends_by_moment = run(repository, tmp_path)
    assert len(ends_by_moment) > 30
    assert {moment: ends for moment, ends in ends_by_moment.items() if ends != ["killed", "exit 0"]} == {}
    assert [wrong for moment in ["undisturbed", *ends_by_moment] for wrong in wrong_in(tmp_path / moment)] == []


def test_kill_9_during_recovery_of_a_batch_does_not_change_the_end(repository: Path, tmp_path: Path) -> None:
    """Every fifth first death, and after each of them every tenth second one."""
    ends_by_moment = run(repository, tmp_path, "10", "3")
    assert len(ends_by_moment) > 30
    assert {moment: ends for moment, ends in ends_by_moment.items() if ends != ["killed", "killed", "exit 0"]} == {}
    assert [wrong for moment in ends_by_moment for wrong in wrong_in(tmp_path / moment)] == []
