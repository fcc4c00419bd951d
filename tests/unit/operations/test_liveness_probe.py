"""`ksctl status --probe`: the liveness and readiness of a runner for a supervisor, from the store alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from killswitch.cli.live.status import status
from killswitch.model.instant import SECOND, to_micros
from killswitch.operations.liveness_probe import Probe, ProbeResult, probe_of
from killswitch.runner.lease import this_process
from killswitch.store.sql import SqlStore

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
ELSEWHERE = "host-7/0b5e4f1a/4026531836/1/8127"
"""A runner on another machine: nothing here can prove that its process is dead."""


def record_tick(
    store: SqlStore, age: float, *, owner: str = ELSEWHERE, holder: str = ELSEWHERE, interval: float = 1.0,
    lease_left: float = 25.0, now: datetime = NOW,
) -> None:  # fmt: skip
    """Record a runner whose last tick is `age` seconds old and whose lease expires in `lease_left`."""
    as_of = (now - timedelta(seconds=age)).isoformat()
    body = {"owner": owner, "as_of": as_of, "ticks": 7, "interval": interval, "of another version": [1]}
    store.put_live("runner", json.dumps(body).encode())
    begun = to_micros(now) - 60 * SECOND
    store.acquire(holder, begun, 60 * SECOND + round(lease_left * SECOND))


@pytest.mark.parametrize(
    ("probe", "age", "interval", "passed"),
    [
        ("live", 59.0, 1.0, True),
        ("live", 61.0, 1.0, False),
        ("ready", 19.0, 1.0, True),
        ("ready", 21.0, 1.0, False),
        ("ready", 39.0, 10.0, True),  # four intervals of 10 s
        ("ready", 41.0, 10.0, False),
        ("live", 61.0, 10.0, False),
        ("live", 79.0, 20.0, True),  # four intervals of 20 s
        ("live", -59.0, 1.0, True),  # a small clock difference
        ("live", -61.0, 1.0, True),  # a clock that was set back: a new process would not help
        ("ready", -21.0, 1.0, False),
    ],
)
def test_a_probe_passes_by_the_age_of_the_last_tick(
    store: SqlStore, probe: Probe, age: float, interval: float, passed: bool
) -> None:
    """60 s for live, 20 s for ready, or four intervals where that is longer."""
    record_tick(store, age, interval=interval)
    assert probe_of(store, probe, NOW).passed is passed


def test_within_replaces_the_default_bound(store: SqlStore) -> None:
    """`within` replaces the bound by intervals, and the reason names both numbers."""
    record_tick(store, 31.0, interval=20.0)
    assert probe_of(store, "live", NOW, 32.0).passed
    assert probe_of(store, "live", NOW, 30.0) == ProbeResult(
        False, "the last tick 7 at 2024-01-01T11:59:29Z is 31 s old, over 30 s"
    )


def test_a_runner_with_an_expired_lease_is_live_but_not_ready(store: SqlStore) -> None:
    """A slow tick of a living process is no reason to kill it; another runner may already have the store."""
    record_tick(store, 10.0, lease_left=-1.0)
    assert probe_of(store, "live", NOW).passed
    assert probe_of(store, "ready", NOW) == ProbeResult(
        False, "the lease expired at 2024-01-01T11:59:59Z without renewal"
    )


def test_the_tick_of_an_earlier_runner_does_not_count(store: SqlStore) -> None:
    """A runner that has just started has not ticked, however fresh the last tick on its store is."""
    record_tick(store, 1.0, owner="host-6/0b5e4f1a/4026531836/1/11")
    result = probe_of(store, "live", NOW)
    assert result == ProbeResult(
        False, f"{ELSEWHERE} has not ticked yet; the last tick is by host-6/0b5e4f1a/4026531836/1/11"
    )


def test_a_store_without_a_lease_or_a_tick_is_not_live(store: SqlStore) -> None:
    """Nobody holds the lease; or its holder has not ticked yet."""
    assert probe_of(store, "live", NOW) == ProbeResult(False, "no runner holds the lease of this store")
    store.acquire(ELSEWHERE, to_micros(NOW), 30 * SECOND)
    assert probe_of(store, "live", NOW) == ProbeResult(False, f"{ELSEWHERE} has not ticked yet")


def test_a_process_that_is_proven_dead_is_not_live(store: SqlStore) -> None:
    """The kernel's process table outweighs a fresh tick and a lease in force."""
    dead = this_process().rpartition("/")[0] + "/1"  # this process id with another start time
    record_tick(store, 1.0, owner=dead, holder=dead)
    assert probe_of(store, "live", NOW) == ProbeResult(False, f"the process that holds the lease is dead: {dead}")


def test_a_tick_that_cannot_be_read_is_not_live(store: SqlStore) -> None:
    """The status blob of another version proves nothing, and the reason says so."""
    store.acquire(ELSEWHERE, to_micros(NOW), 30 * SECOND)
    store.put_live("runner", b'{"owner": 1}')
    result = probe_of(store, "ready", NOW)
    assert (result.passed, "written by another version of ksctl" in result.why) == (False, True)


def invoke(*arguments: str) -> Result:
    """Run the verb; the command's return value is its exit code."""
    return CliRunner().invoke(status, list(arguments), standalone_mode=False)


def test_the_verb_answers_with_one_line_and_its_exit_code(store: SqlStore, tmp_path: Path) -> None:
    """0 and `ready: …`, or 1 and `not ready: …`; as JSON one object."""
    store_path = str(tmp_path / "store.sqlite")
    record_tick(store, 1.0, owner=this_process(), holder=this_process(), now=datetime.now(UTC))
    passed = invoke("--store", store_path, "--probe", "ready")
    assert (passed.return_value, passed.stdout[:14], passed.stdout.count("\n")) == (0, "ready: tick 7 ", 1)
    failed = invoke("--store", store_path, "--probe", "live", "--within", "500ms")
    assert (failed.return_value, failed.stdout[:25]) == (1, "not live: the last tick 7")
    as_json = json.loads(invoke("--store", store_path, "--probe", "live", "--output", "json").stdout)
    assert (as_json["probe"], as_json["passed"]) == ("live", True)


def test_a_missing_store_fails_the_probe_with_one_line(tmp_path: Path) -> None:
    """Before the first start there is no store: the probe prints a reason, no traceback, and creates none."""
    failed = invoke("--store", str(tmp_path / "store.sqlite"), "--probe", "live")
    assert (failed.return_value, failed.stdout) == (1, f"not live: there is no store at {tmp_path}/store.sqlite\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--within", "10s"), "add --probe, or leave out --within"), (("--probe", "live", "--watch"), "use one of them")],
)
def test_options_that_exclude_each_other_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """The usage error comes before anything is read."""
    refused = invoke("--store", str(tmp_path / "store.sqlite"), *arguments)
    assert isinstance(refused.exception, click.UsageError)
    assert message in refused.exception.message
