"""A live runner that follows a folder as its source of policies, with real processes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.fork_client import Process
from tests.e2e.processes import POLICY, Site, ksctl, paper, process, terminate, until

UNMOVING = ("--crash", "7", "--speed", "0")
"""A market that does not move."""
SOURCE = """apiVersion: killswitch.dev/v1
kind: PolicySource
metadata: {name: desk}
spec:
  directory: {path: policies}
  poll: 1s
"""


class SourceSite(Site):
    """A site whose runner follows the folder of policies by a source file next to it."""

    def __init__(self, folder: Path, address: str, source: str = SOURCE) -> None:
        super().__init__(folder, address)
        self.file = folder / "source.yaml"
        self.file.write_text(source, encoding="utf-8")

    @contextmanager
    def following(self, *options: str) -> Iterator[Process]:
        """A runner on the source, after its first tick."""
        before = self.has_ticked()
        place = ("--source", str(self.file), "--store", str(self.store), "--lock-dir", str(self.locks))
        with process("run", *place, "--interval", "100ms", "--live", *options) as runner:
            until(lambda: runner.poll() is not None or self.has_ticked() != before, "the runner ticks")
            yield runner

    def source(self) -> dict[str, Any]:
        """The JSON of `ksctl source status`."""
        done = ksctl("source", "status", "--store", str(self.store), "--output", "json")
        found: dict[str, Any] = json.loads(done.stdout) or {}
        return found

    def is_now(self, **wanted: object) -> bool:
        """Whether the source has these values."""
        found = self.source()
        return all(found.get(key) == value for key, value in wanted.items())

    def write(self, text: str) -> None:
        """Replace the policy as an editor does."""
        new = self.policies / ".policy.new"
        new.write_text(text, encoding="utf-8")
        new.rename(self.policies / "policy.yaml")

    def policy_set(self) -> str:
        view = self.status().view
        assert view is not None
        return view.policy_set


def test_a_tightening_is_taken_by_itself_and_a_broken_file_is_not(tmp_path: Path) -> None:
    """The culprit is named; the next honest files are taken without a hand; SIGHUP polls now."""
    with paper(*UNMOVING) as address:
        site = SourceSite(tmp_path, address)
        with site.following() as runner:
            until(lambda: site.is_now(sync="synced", health="healthy", is_protected=False), "it is synced")
            first = site.policy_set()

            site.write(POLICY.replace("at_least: 2%", "at_least: 1%"))
            until(lambda: site.policy_set() != first and site.is_now(sync="synced"), "the tightening is in force")
            second = site.policy_set()

            site.write(POLICY.replace("at_least: 2%", "at_laest: 2%"))
            until(lambda: site.is_now(sync="out of sync", health="degraded"), "the mistake is seen")
            culprit = site.source()["culprit"]
            assert (culprit["file"], culprit["line"], culprit["code"][:4]) == ("policy.yaml", 10, "KS22")
            assert site.policy_set() == second

            site.write(POLICY.replace("at_least: 2%", "at_least: 0.9%"))
            runner.send_signal(signal.SIGHUP)
            until(lambda: site.policy_set() not in (first, second) and site.is_now(sync="synced"), "it is taken")
            texts = [notice.text for notice in site.status().notices]
            found = [text for text in texts if "policy.yaml:10" in text]
            assert len(found) == 1, "one notice for one culprit (W5)"
            assert terminate(runner)[0] == 0


def test_a_delayed_loosening_is_visible_and_a_rollback_is_at_once(tmp_path: Path) -> None:
    """The delay is a duration of the runner; what is suspended looks suspended everywhere."""
    with paper(*UNMOVING) as address:
        site = SourceSite(tmp_path, address, SOURCE + "  loosening: {after: 1h}\n")
        with site.following() as runner:
            until(lambda: site.is_now(sync="synced"), "it is synced")
            first = site.policy_set()
            site.write(POLICY.replace("at_least: 2%", "at_least: 1%"))
            until(lambda: site.policy_set() != first and site.is_now(sync="synced"), "the tightening is in force")

            site.write(POLICY.replace("at_least: 2%", "at_least: 5%"))
            until(lambda: (site.source().get("pending") or {}).get("waits_for") == "delay", "the loosening waits")
            pending = site.source()["pending"]
            assert (pending["verdict"], pending["effective_at"] is not None) == ("LOOSENING", True)
            assert "waits for delay" in ksctl("status", "--store", str(site.store)).stdout

            command = ("--store", str(site.store), "--reason", "it misfires", "--author", "olga")
            done = ksctl("source", "rollback", first, *command, "--for", "1h")
            assert done.returncode == 0, done.stderr
            until(lambda: site.policy_set() == first, "the set before is in force")
            until(lambda: site.source()["suspended"]["kind"] == "rollback", "it is suspended")
            shown = ksctl("status", "--store", str(site.store)).stdout
            assert "SUSPENDED (rollback) by olga" in shown
            assert "UNPROTECTED" in shown
            assert ksctl("source", "status", "--store", str(site.store), "--detailed-exitcode").returncode == 4
            assert terminate(runner)[0] == 0
        with site.following() as runner:
            until(lambda: site.source()["suspended"] is not None, "it is still suspended")
            assert site.policy_set() == first
            done = ksctl("source", "resume", *command)
            assert done.returncode == 0, done.stderr
            until(lambda: site.source()["suspended"] is None, "it is followed again")
            assert terminate(runner)[0] == 0


def test_p3_a_start_needs_no_source(tmp_path: Path) -> None:
    """With the folder gone the runner starts on the last good set; what is wrong is named."""
    with paper(*UNMOVING) as address:
        site = SourceSite(tmp_path, address)
        with site.following() as runner:
            until(lambda: site.is_now(sync="synced"), "it is synced")
            first = site.policy_set()
            assert terminate(runner)[0] == 0
        site.policies.rename(tmp_path / "elsewhere")
        with site.following() as runner:
            until(lambda: site.is_now(health="degraded"), "the folder is missed")
            assert site.source()["culprit"]["code"] == "KS8220"
            assert site.policy_set() == first
            (tmp_path / "elsewhere").rename(site.policies)
            until(lambda: site.is_now(sync="synced", health="healthy"), "it is followed again")
            assert terminate(runner)[0] == 0


def test_t2_a_repository_without_an_anchor_starts_nothing(tmp_path: Path) -> None:
    """Nothing of it is trusted yet, and the message says what to write."""
    file = tmp_path / "source.yaml"
    file.write_text(
        SOURCE.partition("spec:")[0]
        + "spec:\n  git: {url: 'https://git.example.com/p', ref: refs/heads/main, path: policies}\n  trust: t.yaml\n"
    )
    done = ksctl("run", "--source", str(file), "--store", str(tmp_path / "store.sqlite"))
    assert done.returncode == 69
    assert "write its id as `spec.git.anchor`" in done.stderr


def test_a_check_polls_once_and_changes_nothing(tmp_path: Path) -> None:
    """What would be proposed, or what is wrong; there is no store afterwards."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "policy.yaml").write_text(POLICY)
    (tmp_path / "source.yaml").write_text(SOURCE)
    done = ksctl("source", "check", str(tmp_path / "source.yaml"))
    assert (done.returncode, "NO: a loosening needs no approval" in done.stdout) == (0, True)
    (tmp_path / "policies" / "link.yaml").symlink_to("policy.yaml")
    done = ksctl("source", "check", str(tmp_path / "source.yaml"), "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["problems"][0]["code"]) == (1, "KS8223")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policies", "source.yaml"]
