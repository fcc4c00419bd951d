"""Locks by hand with real processes: a close that locks, `lock` and `unlock`, and the question on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from killswitch.gate.lock_reader import read_lock
from tests.e2e.processes import KSCTL, POLICY, WAIT_LIMIT, Site, ksctl, paper, terminate, until

UNMOVING = ("--crash", "7", "--speed", "0")
"""A market that does not move, and in which large orders wait for volume."""
MOVING = ("--crash", "7", "--speed", "600")
"""Ten bars a second, in which they fill."""
CALM = POLICY.replace("at_least: 2%", "at_least: 99%")


def _mode(site: Site) -> str | None:
    """How the account is locked, as a bot reads it."""
    return read_lock(site.locks / "account__main.json", datetime.now(UTC)).mode


def test_a_close_by_hand_locks_the_bots_out_until_an_operator_unlocks(tmp_path: Path) -> None:
    """The answer names the lock and what lifts it; locks of operators merge, and are listed in the history."""
    with paper(*MOVING) as address:
        site = Site(tmp_path, address, policy=CALM)
        store = ("--store", str(site.store))
        with site.running("--live") as runner:
            assert _mode(site) is None
            closed = ksctl("close", "--scope", "account/main", "--reason", "system-failure", *store)
            assert closed.returncode == 0, closed.stderr
            unlock = f"`ksctl unlock account/main --reason '' --store {site.store}`"
            assert f"account/main is locked (reduce_only) until {unlock}" in closed.stdout
            assert _mode(site) == "reduce_only"
            audit = ("lock", "portfolio", "--mode", "all", "--for", "2h", "--reason", "audit", *store)
            dry = ksctl(*audit, "--dry-run")
            assert dry.returncode == 0, dry.stderr
            assert "account/main: everything (all); now everything (reduce_only)" in dry.stdout
            assert "Nothing that rests now" in dry.stdout
            assert _mode(site) == "reduce_only"
            locked = ksctl(*audit)
            assert locked.returncode == 0, locked.stderr
            assert "portfolio is locked (all) until " in locked.stdout
            assert _mode(site) == "all"
            first = ksctl("unlock", "account/main", "--reason", "bot repaired", *store)
            assert "account/main has no lock of its own, but is locked by portfolio: portfolio: audit" in first.stdout
            second = ksctl("unlock", "portfolio", "--reason", "audited", *store)
            assert second.returncode == 0, second.stderr
            assert _mode(site) is None
            history = ksctl("history", *store).stdout
            assert "lock by hand by " in history
            assert "unlock by hand by " in history
            wrong = ksctl("lock", "account/mian", "--reason", "audit", *store)
            assert (wrong.returncode, "did you mean account/main?" in wrong.stderr) == (1, True)
            assert terminate(runner)[0] == 0
        assert ksctl("report", *store).returncode == 0, "the close is the newest incident; a lock is none"


def test_commands_wake_a_runner_whose_interval_is_ten_minutes(tmp_path: Path) -> None:
    """A lock, an unlock and a close are carried out by ticks of their own: only the first tick was a scheduled one."""
    with paper(*MOVING) as address:
        site = Site(tmp_path, address, policy=CALM)
        store = ("--store", str(site.store))
        with site.running("--live", "--interval", "10m") as runner:
            for words in (("lock", "account/main"), ("unlock", "account/main"), ("close", "--scope", "account/main")):
                done = ksctl(*words, "--reason", "operator: audit", *store)
                assert done.returncode == 0, done.stderr
            view = site.status().view
            assert view is not None
            assert view.ticks == 1
            assert _mode(site) == "reduce_only"
            assert terminate(runner)[0] == 0


def test_a_lock_by_hand_without_a_runner_is_kept_by_the_next_one(tmp_path: Path) -> None:
    """It ticks once with --live; without an armed account nothing would be written, and it is refused."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        refused = ksctl("lock", "account/main", "--reason", "audit", *site.place)
        assert "Add --live" in refused.stderr
        locked = ksctl("lock", "account/main", "--reason", "audit", *site.place, "--live")
        assert locked.returncode == 0, locked.stderr
        with site.running("--live") as runner:
            until(lambda: _mode(site) == "reduce_only", "the lock is kept")
            assert [each.reason for each in site.status().locks if each.scope == "account/main"] == ["audit"]
            assert terminate(runner)[0] == 0


def _on_a_terminal(answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a terminal as its standard input, and type `answer`."""
    terminal, inside = pty.openpty()
    try:
        os.write(terminal, answer.encode())
        return subprocess.run(
            [*KSCTL, *arguments], stdin=inside, capture_output=True, text=True, check=False, timeout=WAIT_LIMIT
        )
    finally:
        os.close(terminal)
        os.close(inside)


def test_a_close_of_the_portfolio_asks_once_on_a_terminal(tmp_path: Path) -> None:
    """It shows the orders first; `n` changes nothing, and neither --yes nor a scope asks."""
    question = "Close every position of the portfolio?"
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        close = ("close", "--reason", "drill: test", "--store", str(site.store))
        with site.running("--live") as runner:
            declined = _on_a_terminal("n\n", *close)
            assert declined.returncode == 1, declined.stderr
            assert "To be confirmed: nothing is sent before you answer." in declined.stderr
            assert "Dry run" not in declined.stderr
            assert declined.stderr.index("reduce_only until it is lifted") < declined.stderr.index(question)
            assert "not confirmed: nothing was changed" in declined.stderr
            assert len(site.venue().positions or ()) == 8
            for narrower in (("--yes", "--wait", "1ms"), ("--scope", "account/main", "--wait", "1ms")):
                assert question not in _on_a_terminal("", *close, *narrower).stderr
            until(lambda: len(site.decisions()) == 2, "both are carried out")
            assert terminate(runner)[0] == 0
