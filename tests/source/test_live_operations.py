"""What operators do to a live runner on a git source: pause, resume and rollback; real processes and keys."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import ksctl, paper, terminate, until
from tests.source.signed_repositories import KeyRing
from tests.source.test_live_directory import UNMOVING
from tests.source.test_live_repository import RepositorySite


def command(site: RepositorySite, *arguments: str) -> None:
    """Run `ksctl source` with these arguments, and demand that the runner does it."""
    by = ("--store", str(site.store), "--reason", "a drill", "--author", "olga")
    done = ksctl("source", *arguments, *by)
    assert done.returncode == 0, done.stdout + done.stderr


def suspension(site: RepositorySite) -> tuple[str, str] | None:
    """What suspends the source, and by whom."""
    found = site.source()["suspended"]
    return None if found is None else (found["kind"], found["author"])


def waits_for(site: RepositorySite, commit: str) -> str | None:
    """What this commit waits for, if it is the one that is proposed."""
    pending: dict[str, str] = site.source()["pending"] or {}
    return pending.get("waits_for") if pending.get("commit") == commit else None


def test_a_paused_source_is_followed_again_after_resume(tmp_path: Path, keys: KeyRing) -> None:
    """A tightening that is pushed during a pause is taken after it, and not before."""
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            first = site.push("1.5%", "alice")
            until(lambda: site.is_at(first), "the tightening is in force")
            command(site, "pause", "--for", "1h")
            until(lambda: suspension(site) == ("pause", "olga"), "the source is paused")
            later = site.push("1.4%", "alice")
            age = site.source()["answer_age"]
            until(lambda: site.source()["answer_age"] > age + 3, "three times the poll pass without an answer")
            assert site.source()["commit"] == first
            command(site, "resume")
            until(lambda: site.is_at(later) and suspension(site) is None, "the source is followed again")
            assert terminate(runner)[0] == 0


def test_a_rolled_back_commit_is_not_taken_again_and_the_next_is(tmp_path: Path, keys: KeyRing) -> None:
    """The set before is in force at once, without an approval; after `resume` the bad commit stays away."""
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            good = site.push("1.5%", "alice")
            until(lambda: site.is_at(good), "the first tightening is in force")
            before = site.policy_set()
            bad = site.push("1.4%", "alice")
            until(lambda: site.is_at(bad), "the second tightening is in force")
            command(site, "rollback", good, "--for", "1h")
            until(lambda: site.policy_set() == before, "the set before is in force")
            until(lambda: suspension(site) == ("rollback", "olga"), "it is suspended")
            assert [each["commit"] for each in site.source()["bad"]] == [bad]
            command(site, "resume")
            until(lambda: suspension(site) is None, "it is followed again")
            until(lambda: waits_for(site, bad) == "operator", "the bad commit is seen, and waits for an operator")
            assert site.policy_set() == before
            last = site.push("1.3%", "alice")
            until(lambda: site.is_at(last), "the next commit is in force")
            assert terminate(runner)[0] == 0
