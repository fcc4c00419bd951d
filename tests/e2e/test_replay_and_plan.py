"""`ksctl replay`, `ksctl plan` and `ksctl demo` from the command line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from killswitch.lab.book import demo_book
from killswitch.lab.crash import crash_bars
from killswitch.lab.feed import record
from killswitch.lab.recording import RecordingWriter
from tests.e2e.fork_client import finish
from tests.e2e.processes import paper

ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: main}}
spec: {{adapter: paper, market: swap, currency: USDT, endpoint: "{address}", execution: live}}
"""


def ksctl(*arguments: str | Path, cwd: Path | None = None, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    return finish([str(it) for it in arguments], timeout=120, cwd=cwd, fresh=fresh)


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the generated crash with the demo's book, in which all levels fire."""
    path = tmp_path_factory.mktemp("recording") / "crash.jsonl.gz"
    with RecordingWriter(path) as writer:
        for snapshot in record(crash_bars(7), demo_book()):
            writer.write(snapshot)
    return path


@pytest.fixture(scope="module")
def policies(repository: Path) -> Path:
    return repository / "policies" / "futures-drawdown"


@pytest.fixture(scope="module")
def decisions(crash: Path, policies: Path) -> list[dict[str, Any]]:
    done = ksctl("replay", "--policies", policies, "--snapshots", crash, "--output", "json", fresh=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_replay_prints_one_public_decision_record_a_line(decisions: list[dict[str, Any]]) -> None:
    """Format, keys and decimal strings are those of the public format."""
    assert [d["level"] for d in decisions if d.get("kind") != "reset"] == [1, 2, 3]
    first = decisions[0]
    expected = {
        "format", "id", "as_of", "policy", "policy_set", "commit", "scope", "mode", "stage", "level",
        "previous_level", "triggers", "attribution", "book", "intents", "cancels", "lock", "cooldown_until",
    }  # fmt: skip
    assert expected <= first.keys()
    assert (first["format"], first["scope"]) == ("killswitch.decision/v1", "account/main")
    assert first["policy_set"].startswith("sha256:")
    intent = first["intents"][0]
    assert intent.keys() >= {
        "account", "symbol", "position_side", "side", "contracts", "target", "reduce_only", "rank", "score",
    }  # fmt: skip
    assert all(isinstance(intent[key], str) and "E" not in intent[key] for key in ("contracts", "target"))
    low, high = first["triggers"][0]["value"]
    assert float(low) == float(high) >= float(first["triggers"][0]["threshold"])
    assert len(intent_targets(first)) == 3


def intent_targets(decision: dict[str, Any]) -> dict[str, str]:
    return {intent["symbol"]: intent["target"] for intent in decision["intents"]}


def test_an_invalid_snapshot_is_reported_with_file_and_line(tmp_path: Path, policies: Path) -> None:
    """Bad input causes no traceback."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"format": "killswitch.snapshot/v1", "as_of": "yesterday", "accounts": []}\n', encoding="utf-8")
    done = ksctl("replay", "--policies", policies, "--snapshots", bad)
    assert done.returncode == 1
    assert f"{bad}:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_on_a_recording_shows_the_decision_of_its_last_line(
    crash: Path, policies: Path, decisions: list[dict[str, Any]], tmp_path: Path
) -> None:
    """On a recording that ends at the first decision, plan shows that decision and exits 2: changes are due."""
    import gzip

    cut = tmp_path / "cut.jsonl"
    with gzip.open(crash, "rt", encoding="utf-8") as whole, cut.open("w", encoding="utf-8") as part:
        for line in whole:
            part.write(line)
            if json.loads(line)["as_of"] == decisions[0]["as_of"]:
                break
    planning = ("plan", "--policies", policies, "--snapshot", cut, "--output", "json", "--detailed-exitcode")
    done = ksctl(*planning, fresh=True)
    assert done.returncode == 2, done.stderr
    shown = json.loads(done.stdout)
    assert shown["format"] == "killswitch.preview/v1"
    assert shown["decisions"] == [decisions[0]]
    text = ksctl("plan", "--policies", policies, "--snapshot", cut)
    assert text.returncode == 0
    assert "WOULD FIRE futures-drawdown on account/main: trim-top-risk, level 0 → 1" in text.stdout
    assert "Plan: 1 stage, 3 orders, 0 cancels, 1 lock, 0 resets. Nothing was changed." in text.stdout


def test_plan_with_nothing_to_do_exits_0(crash: Path, policies: Path, tmp_path: Path) -> None:
    """On one calm snapshot the partly known intervals are shown as unknown with the reason, and nothing is to do."""
    import gzip

    one = tmp_path / "one.jsonl"
    with gzip.open(crash, "rt", encoding="utf-8") as whole:
        one.write_text(next(whole), encoding="utf-8")
    done = ksctl("plan", "--policies", policies, "--snapshot", one, "--detailed-exitcode")
    assert done.returncode == 0, done.stderr
    assert "Nothing to do. Nothing was changed." in done.stdout
    assert "unknown: history 0 s of 60 min" in done.stdout


@pytest.fixture
def venue() -> Iterator[str]:
    """The address of a paper venue in its own process, stopped in the middle of its crash."""
    with paper("--crash", "7", "--skip", "240", "--speed", "0") as address:
        yield address


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_c5_plan_against_a_live_venue_changes_nothing_anywhere(venue: str, policies: Path, tmp_path: Path) -> None:
    """Files, store, and the positions and orders at the venue are the same before and after."""
    import urllib.request

    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text((policies / "policy.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "account.yaml").write_text(ACCOUNT.format(address=venue), encoding="utf-8")
    store = tmp_path / "ks.sqlite"
    warm = ksctl("run", "--policies", folder, "--store", store, "--ticks", "3", "--interval", "50ms", cwd=tmp_path)
    assert warm.returncode == 0, warm.stderr

    def at_venue() -> tuple[Any, Any]:
        with urllib.request.urlopen(f"{venue}/v1/accounts/main/snapshot", timeout=10) as answer:
            seen = json.load(answer)
        return seen["positions"], seen.get("orders")

    files_before, venue_before = digest(tmp_path), at_venue()
    done = ksctl("plan", "--policies", folder, "--store", store, "--output", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["accounts"][0]["quality"] == "ok"
    assert shown["memory"] == "the runner's store"
    assert digest(tmp_path) == files_before
    assert at_venue() == venue_before


def test_plan_reports_an_unreachable_venue_as_unknown(policies: Path, tmp_path: Path) -> None:
    """Positions are unknown, with the reason; not flat, not calm, not a traceback."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text((policies / "policy.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "account.yaml").write_text(ACCOUNT.format(address="http://127.0.0.1:9"), encoding="utf-8")
    done = ksctl("plan", "--policies", folder)
    assert done.returncode == 1, done.stderr
    (shown,) = [line for line in done.stdout.splitlines() if line.startswith("  main ")]
    assert shown.split()[-2:] == ["unknown", "unknown"], "equity and positions"
    assert "Unknown: main is down" in done.stdout
    assert "Nothing to do" not in done.stdout


def test_the_demo_shows_the_main_job_from_fall_to_lock_over_real_bars(shared: Path, tmp_path: Path) -> None:
    """Equity falls, triggers confirm, stages fire, positions are closed, the lock is written; the files remain.

    The README shows the output over the generated crash; the test of the README covers it.
    """
    market = shared / "data" / "market" / "2021-05-19_binance-spot_1m"
    done = ksctl("demo", "--pace", "0", "--market", market, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("equity", "confirming", "FIRES", "filled", "lock written: account/main", "Final equity"):
        assert words in done.stdout, words
    lock = json.loads((tmp_path / "demo-run" / "trading_lock.json").read_text(encoding="utf-8"))
    assert {"locked", "scope", "stage", "reason", "created_ts", "expires_ts", "details"} <= lock.keys()
    replayed = ksctl("replay", "--policies", _shipped(), "--snapshots", tmp_path / "demo-run" / "recording.jsonl")
    assert "decision" in replayed.stdout


def test_the_demo_refuses_a_folder_that_no_demo_created(tmp_path: Path) -> None:
    """The demo exits 1 and deletes nothing there."""
    mine = tmp_path / "demo-run"
    mine.mkdir()
    (mine / "thesis.txt").write_text("important", encoding="utf-8")
    done = ksctl("demo", "--pace", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert "no earlier demo made it" in done.stderr
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "important"


def _shipped() -> Path:
    from killswitch.content import policies_folder

    return policies_folder() / "futures-drawdown"


def test_wrong_usage_exits_64() -> None:
    """`plan` without arguments exits 64, as every verb does for wrong usage."""
    assert ksctl("plan").returncode == os.EX_USAGE
