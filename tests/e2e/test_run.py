"""`ksctl run` with real processes: a crashing paper venue, a runner, and operator commands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.gate.lock_reader import read_lock
from tests.e2e.processes import KSCTL, WAIT_LIMIT, Site, ksctl, paper, terminate, until

CRASHING = ("--crash", "7", "--skip", "238", "--speed", "600", "--begin-after-readings", "3")
"""Ten bars a second; the crash begins shortly after the runner's first ticks, however long it takes to start."""
FALLING = ("--crash", "7", "--skip", "240", "--speed", "90", "--begin-after-readings", "3")
"""A bar and a half a second: the fall lasts longer than the checks during it."""
UNMOVING = ("--crash", "7", "--speed", "0")
"""A market that does not move."""
SLOW = ("--crash", "7", "--speed", "40")
"""A bar every second and a half in a calm market: large orders wait for volume."""


def test_a_crash_fires_locks_closes_and_sigterm_exits_0(tmp_path: Path) -> None:
    """The main job: a decision in the fall, the lock written, the venue itself flat, and a clean exit."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        with site.running("--live", "--output", "json", "--record", str(tmp_path / "seen.jsonl")) as runner:
            until(lambda: "flat" in _close_statuses(site), "the closing ends flat")
            status, out, err = terminate(runner)
        assert status == 0, err
        (line,) = out.splitlines()
        decision = json.loads(line)
        assert (
            decision["format"], decision["stage"], decision["level"],
        ) == ("killswitch.decision/v1", "close-everything", 1)  # fmt: skip
        assert site.venue().positions == ()
        lock = json.loads((site.locks / "account__main.json").read_text(encoding="utf-8"))
        assert (lock["locked"], lock["mode"], lock["stage"]) == (True, "reduce_only", "close-everything")
        assert lock["details"]["decision"] == decision["id"]
        explained = ksctl("explain", decision["id"][:8], "--store", str(site.store))
        assert explained.returncode == 0
        assert "policy.yaml:12  - name: close-everything" in explained.stdout
        assert (
            "policy.yaml:10  loss: {signal: equity.loss_from_start, at_least: 2%, on_unknown: hold}" in explained.stdout
        )
        assert "flat: the venue itself shows every target of 0 reached" in explained.stdout
        assert "stopped after" in err
        assert site.status().runner.liveness == "gone"
        replayed = ksctl(
            "replay", "--policies", str(site.policies), "--snapshots", str(tmp_path / "seen.jsonl"), "--output", "json"
        )
        assert [decision["id"]] == [json.loads(line)["id"] for line in replayed.stdout.splitlines()], replayed.stderr
        # The latch outlives its policy's scope, its lock and its runner; a command that ticks once still finds it.
        policy = (
            (site.policies / "policy.yaml")
            .read_text(encoding="utf-8")
            .replace("match: {}", "match: {account: [other]}")
        )
        (site.policies / "policy.yaml").write_text(policy, encoding="utf-8")
        reset = ("reset", "account/main", "--reason", "looked at", "--policies", str(site.policies), "--live")
        reset_done = ksctl(*reset, "--store", str(site.store), "--lock-dir", str(tmp_path / "other"))
        assert reset_done.returncode == 0, reset_done.stderr


def test_c3_after_kill_9_in_mid_close_a_restart_completes_the_close(tmp_path: Path) -> None:
    """C3: after a kill while an order rests at the venue, the next runner closes exactly the rest and turns nothing."""
    with paper(*SLOW) as address:
        site = Site(tmp_path, address)
        with site.running("--live", fresh=True) as runner:
            held = {position.key: position.contracts for position in site.venue().positions or ()}
            sent = ksctl("close", "--store", str(site.store), "--reason", "operator: drill", "--wait", "1ms")
            assert "sent to the runner" in sent.stderr, "whether it has answered within 1 ms is chance"
            until(lambda: "sending" in {entry.kind for entry in site.journal()}, "an order is sent")
            runner.kill()
            runner.wait()
        assert site.status().runner.liveness == "silent"
        with site.running("--live", fresh=True) as runner:
            until(lambda: "flat" in _close_statuses(site), "the closing that was interrupted ends flat")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert site.venue().positions == ()
        assert held == _filled(site)


def test_a_second_runner_is_refused_by_name(tmp_path: Path) -> None:
    """One writer per store: the second runner names the first, and exits 69 without changing anything."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            second = ksctl("run", *site.place, "--live", "--ticks", "1")
            assert second.returncode == 69
            assert f"pid {runner.pid} on " in second.stderr
            assert "another runner holds this store" in second.stderr
            assert "Traceback" not in second.stderr
            assert site.status().runner.generation == 1
            assert terminate(runner)[0] == 0


def test_an_operator_reset_reaches_the_runner_at_its_next_tick(tmp_path: Path) -> None:
    """The runner processes the command: the stage ends, the lock is lifted, and the decision names the author."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            until(lambda: "flat" in _close_statuses(site), "the closing ends flat")
            reset = (
                "reset", "account/main", "--store", str(site.store), "--reason", "reviewed", "--author", "operator-1"
            )  # fmt: skip
            dry = ksctl(*reset, "--dry-run")
            assert dry.returncode == 0, dry.stderr
            assert "accepts the loss: losses are measured from the equity of that moment on" in dry.stdout
            assert f"{site.decisions()[0].id}  " in dry.stdout, "what it ends is named"
            assert _locked(site), "a dry run changes nothing"
            done = ksctl(*reset)
            assert done.returncode == 0, done.stderr
            assert "back to normal; the loss is accepted" in done.stdout
            newest = site.decisions()[0]
            assert (newest.kind, newest.author, newest.reason, newest.level) == ("reset", "operator-1", "reviewed", 0)
            until(lambda: _levels(site) == [0], "the machine is back at level 0")
            assert not _locked(site)
            wrong = ksctl("reset", "account/mian", "--store", str(site.store), "--reason", "reviewed")
            assert wrong.returncode == 1
            assert "did you mean account/main?" in wrong.stderr
            assert terminate(runner)[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_a_full_disk_under_its_output_does_not_keep_the_runner_from_closing(tmp_path: Path) -> None:
    """With stdout and stderr on a full disk the book is closed all the same, and SIGTERM still exits 0."""
    with paper(*FALLING) as address, Path("/dev/full").open("wb") as full:
        site = Site(tmp_path, address)
        arguments = [*KSCTL, "run", *site.place, "--interval", "100ms", "--live"]
        with subprocess.Popen(arguments, stdout=full, stderr=full) as runner:
            try:
                until(lambda: runner.poll() is not None or site.has_ticked(), "the runner ticks")
                until(lambda: runner.poll() is not None or "flat" in _close_statuses(site), "the closing ends flat")
                runner.send_signal(signal.SIGTERM)
                assert runner.wait(WAIT_LIMIT) == 0
            finally:
                runner.kill()
        assert site.venue().positions == ()


def test_a_reader_that_stops_reading_does_not_keep_the_runner_from_closing(tmp_path: Path) -> None:
    """With stdout a full pipe without a reader the book is closed, a notice reports it, and SIGTERM still exits 0."""
    read_end, write_end = full_pipe()
    try:
        with paper(*FALLING) as address:
            site = Site(tmp_path, address)
            arguments = [*KSCTL, "run", *site.place, "--interval", "100ms", "--live"]
            with subprocess.Popen(arguments, stdout=write_end, stderr=subprocess.PIPE, text=True) as runner:
                try:
                    until(lambda: runner.poll() is not None or site.has_ticked(), "the runner ticks")
                    until(lambda: runner.poll() is not None or "flat" in _close_statuses(site), "the closing ends flat")
                    until(
                        lambda: any("late or lost" in each.text for each in site.status().notices),
                        "it is reported",
                    )
                    status, _, err = terminate(runner)
                finally:
                    runner.kill()
            assert status == 0, err
            assert site.venue().positions == ()
    finally:
        os.close(read_end)
        os.close(write_end)


def test_observing_sends_nothing(tmp_path: Path) -> None:
    """Without --live the same crash is decided and recorded; no order is sent and no lock is written."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        with site.running() as runner:
            until(site.decisions, "the crash is decided")
            refused = ksctl("close", "--store", str(site.store), "--reason", "operator: drill")
            assert refused.returncode == 1
            assert "is armed for no account of the portfolio" in refused.stderr
            status, out, _ = terminate(runner)
        assert status == 0
        assert "observed only: no order is sent" in out
        assert len(site.venue().positions or ()) == 8
        assert site.journal() == []
        assert not site.locks.exists()


def test_c5_a_dry_run_changes_nothing_anywhere(tmp_path: Path) -> None:
    """C5: the store, the lock folder and the venue's account are the same, to the byte, before and after."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            assert terminate(runner)[0] == 0
        before, files = site.venue(), _bytes(tmp_path)
        done = ksctl("close", *site.place, "--reason", "operator: drill", "--dry-run")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Dry run: nothing is sent, nothing is changed.")
        assert done.stdout.count("leaves") == 1
        assert "3 more" in done.stdout
        assert len([line for line in done.stdout.splitlines() if " main " in line]) == 8
        after = site.venue()
        assert files == _bytes(tmp_path)
        assert (before.positions, before.orders, before.equity, before.fills) == (
            after.positions, after.orders, after.equity, after.fills,
        )  # fmt: skip


def test_c5_a_dry_run_at_a_live_runner_queues_no_operator_command(tmp_path: Path) -> None:
    """C5: the runner receives nothing."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            done = ksctl("close", *site.place, "--reason", "operator: drill", "--dry-run", "--output", "json")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["kind"] == "manual"
            status = site.status()
            assert (status.runner.liveness, status.pending) == ("alive", ())
            assert site.decisions() == []
            assert terminate(runner)[0] == 0
        assert len(site.venue().positions or ()) == 8


def test_an_operator_close_without_a_runner_ticks_once_and_closes(tmp_path: Path) -> None:
    """The command acquires the lease itself, needs --live for that, closes to flat, and releases the lease."""
    with paper("--crash", "7", "--speed", "600", "--begin-after-readings", "2") as address:
        site = Site(tmp_path, address)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        assert ksctl("close", *site.place, "--reason", "operator: drill").returncode == 64
        done = ksctl(
            "close", *site.place, "--reason", "operator: drill", "--live", "--author", "operator-1", "--wait", "1m"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "close by hand by operator-1" in done.stdout
        assert site.venue().positions == ()
        assert site.status().runner.liveness == "gone"


def test_a_signal_that_does_not_ask_to_stop_ends_no_run(tmp_path: Path) -> None:
    """A closed terminal or a log rotation writes a sentence to stderr; SIGQUIT is a clean stop."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            lines: list[str] = []
            assert runner.stderr is not None
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                runner.send_signal(number)
                while not lines or number.name not in lines[-1]:
                    lines.append(runner.stderr.readline())
                    assert lines[-1], "".join(lines)
            runner.send_signal(signal.SIGQUIT)
            _, err = runner.communicate(timeout=WAIT_LIMIT)
        assert runner.returncode == 0, err
        assert any(line.startswith("SIGHUP: a closed terminal does not stop the run") for line in lines)
        assert site.status().runner.liveness == "gone"


def full_pipe() -> tuple[int, int]:
    """A full pipe: its read end and its write end."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    for size in (65_536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * size)
    os.set_blocking(write_end, True)
    return read_end, write_end


def _close_statuses(site: Site) -> set[str | None]:
    return {entry.data.get("status") for entry in site.journal() if entry.kind == "finished"}


def _levels(site: Site) -> list[int]:
    view = site.status().view
    return [] if view is None else [machine.level for machine in view.machines]


def _locked(site: Site) -> bool:
    from datetime import UTC, datetime

    return read_lock(site.locks / "account__main.json", datetime.now(UTC)).locked


def _filled(site: Site) -> dict[tuple[str, str], Decimal]:
    found: dict[tuple[str, str], Decimal] = {}
    for entry in site.journal():
        if entry.kind == "filled" and entry.symbol and entry.position_side:
            key = (entry.symbol, entry.position_side)
            found[key] = found.get(key, Decimal(0)) + Decimal(entry.data["filled"] or 0)
    return found


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
