"""Ctrl-C during a backtest, in real processes: the partial result is reported and marked as partial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import until

KSCTL = str(Path(sys.executable).parent / "ksctl")


@pytest.mark.parametrize(("jobs", "number"), [(1, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupted_backtest_reports_a_result_marked_as_partial(
    repository: Path, tmp_path: Path, jobs: int, number: signal.Signals
) -> None:
    """Exit 1, no traceback, the warning in all forms. The signal goes to the whole group, as a terminal's does."""
    policies = str(repository / "policies" / "futures-drawdown")
    page, notes = tmp_path / "report.html", tmp_path / "report.md"
    command = [
        KSCTL, "backtest", "--policies", policies, "--crash", "7", "--all-splits", "4", "--random", "40",
        "--jobs", str(jobs), "--output", "json", "--out", str(page), "--out", str(notes),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first == "running 190 books under 3 rules in 1 market\n"
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    result = json.loads(stdout)
    assert result["stopped"] is True
    assert result["complete"] is False
    assert result["books_wanted"] == 190
    assert len(result["books"]) < 190
    warning = "This result is partial: stopped before its end."
    assert warning in stderr
    assert warning in page.read_text(encoding="utf-8")
    assert warning in notes.read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are listed in /proc")
def test_workers_end_with_their_parent_process(repository: Path) -> None:
    """A parent that is killed cannot notify its workers; they must neither continue nor wait for ever."""
    policies = str(repository / "policies" / "futures-drawdown")
    command = [
        KSCTL, "backtest", "--policies", policies, "--crash", "7", "--all-splits", "4", "--random", "40", "--jobs", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: len(listed.read_text().split()) >= 3, "there are two workers and what tracks them")
    children = listed.read_text().split()
    process.kill()
    process.wait()
    until(lambda: not any(alive(child) for child in children), "the workers have ended")


def alive(pid: str) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_quiet_writes_nothing_to_stderr(repository: Path) -> None:
    """`--quiet` turns the progress off; the result is printed as before."""
    policies = str(repository / "policies" / "futures-drawdown")
    command = [KSCTL, "backtest", "--policies", policies, "--crash", "7", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    assert "The rules side by side" in done.stdout
