"""Locks of a side or a symbol in an account's file: readers of today see a lock, newer ones only its part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from killswitch.gate.changes import LockChanges, LockRequest
from killswitch.gate.lock_reader import read_lock
from killswitch.model.decision import LockOrder
from killswitch.model.snapshot import LockPart
from tests.lock_turns import LockFolder

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)
MAIN = "account/main"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def part(minutes: float | None = None, mode: Any = "reduce_only", side: Any = None, *symbols: str) -> LockPart:
    """A lock of one side (None: both) in these symbols (none: all), until so many minutes after NOW."""
    return LockPart(mode, None if minutes is None else at(minutes), side, symbols or None)


LONG = part(30, "reduce_only", "long")
BTC = part(240, "all", None, "BTC_USDT")


@pytest.fixture
def folder(tmp_path: Path) -> LockFolder:
    return LockFolder(tmp_path / "locks", tmp_path / "union.json", generation=1, alive_for=15)


def ordered(folder: LockFolder, now: datetime, *parts: LockPart, scope: str = MAIN, decision: str = "d1") -> None:
    order = LockOrder.of(scope, parts)
    folder.write(order, "trim", "fell", decision, now)


def is_locked_for_v6(path: Path, now: datetime) -> bool:
    """The reader of version 6: a boolean, and an end that must exist and lie in the future."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return bool(content.get("locked")) and float(content.get("expires_ts") or 0) > now.timestamp()


@pytest.mark.parametrize(
    "parts",
    [(LONG,), (BTC,), (LONG, BTC), (part(None, "reduce_only", "short"),), (part(5, "all", "long", "BTC_USDT"),)],
    ids=["a side", "a symbol", "both", "without end", "a side of a symbol"],
)
def test_l6_the_v6_reader_sees_every_partial_lock_as_locked(folder: LockFolder, parts: Sequence[LockPart]) -> None:
    """In the account's file and in the union: with an end, whichever part is locked."""
    ordered(folder, NOW, *parts)
    assert folder.union is not None
    for path in (folder.path_of(MAIN), folder.union.path):
        assert is_locked_for_v6(path, at(4))
        verdict = read_lock(path, NOW)
        assert verdict.locked
        assert not verdict.allows(reduces_risk=False)


def test_a_reader_of_the_further_field_lets_the_rest_through(folder: LockFolder) -> None:
    """Long entries are locked, shorts are not; under mode `all` of a symbol its exits are forbidden, others are not."""
    ordered(folder, NOW, LONG, BTC)
    verdict = read_lock(folder.path_of(MAIN), NOW)
    assert not verdict.may_open("long", "ETH_USDT")
    assert verdict.may_open("short", "ETH_USDT")
    assert verdict.may_close("long", "ETH_USDT")
    assert not verdict.may_open("short", "BTC_USDT")
    assert not verdict.may_close("short", "BTC_USDT")
    assert (verdict.mode, verdict.allows(reduces_risk=True)) == ("all", False)


def test_the_file_names_the_parts_next_to_the_fields_of_today(folder: LockFolder) -> None:
    """`mode` is the strictest and `expires_ts` the latest of the parts in `only`."""
    ordered(folder, NOW, LONG, BTC)
    content = json.loads(folder.path_of(MAIN).read_text())
    assert (content["locked"], content["mode"], content["expires_ts"]) == (True, "all", at(240).timestamp())
    assert content["only"] == [
        {"mode": "all", "until": "2021-05-19T16:00:00Z", "symbols": ["BTC_USDT"]},
        {"mode": "reduce_only", "until": "2021-05-19T12:30:00Z", "side": "long"},
    ]


def test_each_part_ends_at_its_own_time(folder: LockFolder) -> None:
    """The long side opens after 30 minutes, the symbol after four hours; then the file is open."""
    ordered(folder, NOW, LONG, BTC)
    folder.renew(at(31))
    verdict = read_lock(folder.path_of(MAIN), at(31))
    assert verdict.may_open("long", "ETH_USDT")
    assert not verdict.may_open("long", "BTC_USDT")
    folder.renew(at(241))
    assert not read_lock(folder.path_of(MAIN), at(241)).locked


def test_l2_a_reader_does_not_end_a_part_by_its_own_clock(folder: LockFolder) -> None:
    """Past its end a part stays locked for every reader until the runner has written the file again."""
    ordered(folder, NOW, LONG, BTC)
    assert not read_lock(folder.path_of(MAIN), at(200)).may_open("long", "ETH_USDT")


def test_a_lock_of_everything_ends_before_that_of_a_symbol(folder: LockFolder) -> None:
    """The account was locked for 10 minutes, a symbol for four hours: after 10 minutes the others trade."""
    ordered(folder, NOW, BTC)
    ordered(folder, at(1), part(10), decision="d2")
    assert not read_lock(folder.path_of(MAIN), at(2)).may_open("long", "ETH_USDT")
    folder.renew(at(11))
    verdict = read_lock(folder.path_of(MAIN), at(11))
    assert verdict.may_open("long", "ETH_USDT")
    assert not verdict.may_open("long", "BTC_USDT")


def test_a_partial_lock_of_the_portfolio_is_in_the_files_of_its_accounts(tmp_path: Path) -> None:
    """With the account's own lock of another part next to it; a reset of the portfolio leaves that."""
    wider = {MAIN: ("portfolio",)}
    folder = LockFolder(tmp_path / "locks", None, generation=1, alive_for=600, wider=wider)
    own = LockRequest(LockOrder.of(MAIN, [BTC]), "trim", "fell", "d1")
    wide = LockRequest(LockOrder.of("portfolio", [LONG]), "stop", "fell", "d2")
    watch, known = frozenset({MAIN}), frozenset({"d1", "d2"})
    folder.settle(LockChanges((own, wide), watch=watch, known=known), NOW)
    verdict = read_lock(folder.path_of(MAIN), NOW)
    assert not verdict.may_open("long", "ETH_USDT")
    assert not verdict.may_open("short", "BTC_USDT")
    assert verdict.may_open("short", "ETH_USDT")
    folder.settle(LockChanges((own,), lift=frozenset({"portfolio"}), watch=watch, known=known), at(1))
    verdict = read_lock(folder.path_of(MAIN), at(1))
    assert verdict.may_open("long", "ETH_USDT")
    assert not verdict.may_open("short", "BTC_USDT")


@pytest.mark.parametrize("only", ['"long"', "{}", '[{"side": "up", "mode": "all", "until": null}]', "[1]", "[null]"])
def test_an_only_that_cannot_be_understood_locks_everything(folder: LockFolder, only: str) -> None:
    """Whatever stands there, nothing gets free by it."""
    ordered(folder, NOW, LONG)
    content = json.loads(folder.path_of(MAIN).read_text())
    content["only"] = json.loads(only)
    folder.path_of(MAIN).write_text(json.dumps(content))
    verdict = read_lock(folder.path_of(MAIN), NOW)
    assert verdict.locked
    assert not verdict.may_open("short", "ETH_USDT")
    assert verdict.may_close("long", "ETH_USDT")


def test_an_empty_only_locks_everything(folder: LockFolder) -> None:
    """`locked: true` without a part is a lock of the whole scope."""
    ordered(folder, NOW, LONG)
    content = json.loads(folder.path_of(MAIN).read_text()) | {"only": []}
    folder.path_of(MAIN).write_text(json.dumps(content))
    assert not read_lock(folder.path_of(MAIN), NOW).may_open("short", "ETH_USDT")


def test_without_the_guard_a_part_may_be_added_and_nothing_removed(folder: LockFolder) -> None:
    """As for modes and ends: a second writer may only tighten."""
    import fcntl

    ordered(folder, NOW, LONG)
    guard = folder.path_of(MAIN).with_name(".guard")
    with guard.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        request = LockRequest(LockOrder.of(MAIN, [BTC]), "trim", "fell", "d2")
        folder.settle(LockChanges((request,), known=frozenset({"d1", "d2"})), at(1))
        folder.settle(LockChanges(lift=frozenset({MAIN}), known=frozenset({"d1", "d2"})), at(2))
    verdict = read_lock(folder.path_of(MAIN), at(3))
    assert not verdict.may_open("long", "ETH_USDT")
    assert not verdict.may_open("short", "BTC_USDT")
