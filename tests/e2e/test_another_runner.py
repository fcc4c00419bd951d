"""A second runner with another store on the same armed account, with real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from killswitch.audit.restoring import back_up
from tests.e2e.processes import POLICY, Site, ksctl, paper, terminate, until
from tests.e2e.test_incident_report import HEAVY
from tests.e2e.test_run import SLOW

UNMOVING = ("--crash", "7", "--speed", "0")
"""A market that does not move."""


def _sites(tmp_path: Path, address: str) -> tuple[Site, Site]:
    """Two stores and two lock folders for one account."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return Site(tmp_path / "first", address), Site(tmp_path / "second", address)


def test_a_second_armed_runner_on_an_account_is_refused_with_the_store_of_the_first(tmp_path: Path) -> None:
    """Only by its name or with --another-runner; a run that observes and a close are not refused."""
    with paper(*UNMOVING) as address:
        first, second = _sites(tmp_path, address)
        with first.running("--live") as runner:
            refused = ksctl("run", *second.place, "--live", "--ticks", "1")
            assert refused.returncode == 69
            assert "another runner lives and acts on account main" in refused.stderr
            assert f"pid {runner.pid} on " in refused.stderr
            assert str(first.store) in refused.stderr
            assert not second.store.exists()
            assert ksctl("run", *second.place, "--ticks", "1").returncode == 0
            close = ("close", "--scope", "account/main", "--reason", "drill", "--wait", "1ms", "--live")
            assert "running one tick" in ksctl(*close, *second.place).stderr
            forced = ksctl("run", *second.place, "--live", "--ticks", "1", "--another-runner")
            assert forced.returncode == 0, forced.stderr
            assert any("started with --another-runner" in each.text for each in second.status().notices)
            assert terminate(runner)[0] == 0
        free = ksctl("run", *second.place, "--live", "--ticks", "1")
        assert free.returncode == 0, free.stderr
        assert "another runner" not in free.stderr.replace("--another-runner", "")
        assert "ended without a stop" not in free.stderr, "a clean end leaves nothing"


@pytest.mark.parametrize("shared", ["account", "lock folder"])
def test_what_a_killed_runner_leaves_is_a_page_and_refuses_nothing(tmp_path: Path, shared: str) -> None:
    """Once: the next run of the second store has the claim. A restart of the killed one's store is a plain restart."""
    with paper(*UNMOVING) as address, paper(*UNMOVING) as other:
        first, second = _sites(tmp_path, address)
        if shared == "lock folder":
            account = second.policies / "account.yaml"
            account.write_text(account.read_text(encoding="utf-8").replace(address, other), encoding="utf-8")
            second.locks = first.locks
        with first.running("--live", fresh=True) as runner:
            runner.kill()
            runner.wait()
        again = ksctl("run", *first.place, "--live", "--ticks", "1")
        assert again.returncode == 0, again.stderr
        assert "another store" not in again.stderr
        with first.running("--live", fresh=True) as runner:
            runner.kill()
            runner.wait()
        for expected in (True, False):
            run = ksctl("run", *second.place, "--live", "--ticks", "1", "--output", "json")
            assert run.returncode == 0, run.stderr
            assert ("a run with another store acted on" in run.stderr) == expected, run.stderr
        pages = [each for each in second.status().notices if "ended without a stop" in each.text]
        assert {each.severity for each in pages} == {"page"}
        assert all(str(first.store) in each.text for each in pages)


def test_the_file_of_a_claim_names_its_holder_and_no_secret(tmp_path: Path) -> None:
    """It is readable for its user only."""
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            file = site.locks / ".runner"
            assert json.loads(file.read_bytes()).keys() == {"owner", "store"}
            assert file.stat().st_mode & 0o777 == 0o600
            assert terminate(runner)[0] == 0
        assert file.read_bytes() == b""


AT_ONCE = POLICY.replace("match: {}", "match: {currency: USDT}").replace(
    "{signal: equity.loss_from_start, at_least: 2%,", "{signal: equity.value, above: 1 USDT,"
)
"""Fires at the first tick."""


def test_the_run_of_a_restored_store_uses_no_client_order_id_of_the_lost_time(tmp_path: Path) -> None:
    """A backup under a run that closes, more orders, a kill, a restore: the close goes on, with other ids."""

    def sent(site: Site) -> list[str]:
        return [str(entry.client_order_id) for entry in site.journal() if entry.kind == "sending"]

    (tmp_path / "book.yaml").write_text(HEAVY, encoding="utf-8")
    with paper(*SLOW, "--book", str(tmp_path / "book.yaml")) as address:
        site = Site(tmp_path, address, policy=AT_ONCE)
        backup = tmp_path / "backup.sqlite"
        with site.running("--live", fresh=True) as runner:
            until(lambda: sent(site), "an order is sent")
            assert back_up(site.store, backup).is_whole
            known = sent(site)
            until(lambda: len(sent(site)) >= len(known) + 1, "more orders are sent, which the backup does not have")
            runner.kill()
            runner.wait()
        of_lost_time = set(sent(site))
        site.store = tmp_path / "restored.sqlite"
        restored = ksctl("store", "restore", str(backup), "--store", str(site.store), "--reason", "the disk failed")
        assert restored.returncode == 0, restored.stderr
        in_backup = set(sent(site))
        assert of_lost_time - in_backup
        with site.running("--live") as runner:
            until(lambda: set(sent(site)) - in_backup, "the close goes on")
            assert terminate(runner)[0] == 0
        assert not (set(sent(site)) - in_backup) & of_lost_time
        assert ksctl("store", "verify", "--store", str(site.store)).returncode == 0
