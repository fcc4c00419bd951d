"""A loosening that an approver signs with a real key, and a live runner that takes it from a git source."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.processes import ksctl, paper, terminate, until
from tests.source.signed_repositories import KeyRing
from tests.source.test_live_directory import UNMOVING
from tests.source.test_live_repository import RepositorySite

CAROL = "carol@example.com"


def approve(site: RepositorySite, key: str, *of: str) -> None:
    """Sign the change that these options name."""
    done = ksctl("approve", "--source", str(site.file), "--key", key, "--yes", *of)
    assert done.returncode == 0, done.stdout + done.stderr


def waits(site: RepositorySite, commit: str) -> bool:
    """Whether this commit waits for approvals."""
    pending = site.source().get("pending") or {}
    return (pending.get("waits_for"), pending.get("commit")) == ("approvals", commit)


def names_the_approver(site: RepositorySite) -> None:
    """`status` and `source status`, for people and for programs, say who has approved the set in force."""
    for verb in (("status",), ("source", "status")):
        assert f"approved by {CAROL}" in ksctl(*verb, "--store", str(site.store)).stdout, verb
    assert site.source()["approved_by"] == [CAROL]
    shown = json.loads(ksctl("status", "--store", str(site.store), "--output", "json").stdout)
    assert CAROL in json.dumps(shown)


def test_a_loosening_is_taken_with_a_statement_that_is_delivered(tmp_path: Path, keys: KeyRing) -> None:
    """A1, A3: without the statement it waits; the tightening after it has no approver."""
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            loose = site.push("5%", "alice")
            until(lambda: waits(site, loose), "the loosening waits")
            assert CAROL not in ksctl("source", "status", "--store", str(site.store)).stdout
            approve(site, keys["carol"].private, "--store", str(site.store))
            until(lambda: site.is_at(loose), "the approved loosening is in force")
            names_the_approver(site)
            tight = site.push("1%", "alice")
            until(lambda: site.is_at(tight), "the tightening is in force")
            assert site.source()["approved_by"] == []
            assert terminate(runner)[0] == 0


def test_a_loosening_is_taken_with_a_statement_in_the_repository(tmp_path: Path, keys: KeyRing) -> None:
    """A3: the file is committed in the folder of approvals, outside of the policies, and keeps the change as it is."""
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            anchor = site.host.head
            loose = site.push("5%", "alice")
            until(lambda: waits(site, loose), "the loosening waits")
            out = tmp_path / "carol.approval"
            change = ("--repository", str(site.host.folder), "--base", anchor, "--head", loose)
            approve(site, keys["carol"].private, *change, "--out", str(out))
            assert waits(site, loose), "a file that is not pushed approves nothing"
            pushed = site.host.commit({".killswitch/approvals/carol.approval": out.read_bytes()}, "alice")
            until(lambda: site.is_at(pushed), "the approved loosening is in force")
            names_the_approver(site)
            assert terminate(runner)[0] == 0


def test_a_key_that_may_not_approve_is_refused_with_the_reason(tmp_path: Path, keys: KeyRing) -> None:
    """A7: nothing is delivered, so that nobody waits for an approval that never counts."""
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            loose = site.push("5%", "alice")
            until(lambda: waits(site, loose), "the loosening waits")
            done = ksctl(
                "approve", "--source", str(site.file), "--key", keys["alice"].private, "--yes",
                "--store", str(site.store),
            )  # fmt: skip
            assert done.returncode == 1
            assert "KS8305" in done.stderr and "Nothing was delivered" in done.stderr
            assert "approved (" not in done.stdout + done.stderr
            assert terminate(runner)[0] == 0


def test_a_rewritten_history_goes_on_from_an_anchor_that_is_approved(tmp_path: Path, keys: KeyRing) -> None:
    """H7: without its approval the command is refused; with it the next honest commit on the new line is taken."""
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            anchor = site.host.head
            first = site.push("1.8%", "alice")
            until(lambda: site.is_at(first), "the first tightening is in force")
            site.host.reset(anchor)
            other = site.push("1.7%", "alice", "another line")
            until(lambda: (site.source()["culprit"] or {}).get("commit") == other, "the rewritten history is refused")
            move = ("source", "anchor", other, "--reason", "rewritten", "--store", str(site.store))
            assert ksctl(*move).returncode == 1
            approve(site, keys["carol"].private, "--purpose", "anchor", "--head", other, "--store", str(site.store))
            done = ksctl(*move)
            assert done.returncode == 0, done.stdout + done.stderr
            head = site.push("1.6%", "alice", "on the new line")
            until(lambda: site.is_at(head), "the next commit of the new line is in force")
            assert terminate(runner)[0] == 0
