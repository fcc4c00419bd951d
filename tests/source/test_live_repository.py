"""A live runner that follows a real git repository with real keys."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import POLICY, ksctl, paper, terminate, until
from tests.source.signed_repositories import KeyRing, SignedRepository
from tests.source.test_live_directory import UNMOVING, SourceSite


def trust_file(keys: KeyRing) -> str:
    """Alice signs, Carol approves, and one approval is needed."""

    def entry(name: str, may: str) -> str:
        public = " ".join(keys[name].public.split()[:2])
        return f"    - {{principal: {keys[name].principal}, ssh: {public}, may: [{may}]}}\n"

    head = "apiVersion: killswitch.dev/v1\nkind: PolicyTrust\nmetadata: {name: desk}\nspec:\n"
    return f"{head}  version: 1\n  approvals: 1\n  keys:\n{entry('alice', 'sign')}{entry('carol', 'approve')}"


class RepositorySite(SourceSite):
    """A site whose policies are in a repository."""

    def __init__(self, folder: Path, address: str, keys: KeyRing, policy: str = POLICY) -> None:
        super().__init__(folder, address)
        self.host = SignedRepository(folder / "host", keys)
        self.policy = policy
        account = (self.policies / "account.yaml").read_text()
        anchor = self.host.commit({"policies/account.yaml": account, "policies/policy.yaml": policy}, None)
        (folder / "trust.yaml").write_text(trust_file(keys), encoding="utf-8")
        self.file.write_text(
            "apiVersion: killswitch.dev/v1\nkind: PolicySource\nmetadata: {name: desk}\nspec:\n"
            f"  git: {{url: 'file://{self.host.folder}', ref: refs/heads/main, path: policies, allow_file: true,\n"
            f"    anchor: '{anchor}', approvals: .killswitch/approvals}}\n  trust: trust.yaml\n  poll: 1s\n",
            encoding="utf-8",
        )

    def push(self, share: str, by: str | None, message: str = "a change") -> str:
        """Commit the policy with this threshold."""
        changed = self.policy.replace("at_least: 2%", f"at_least: {share}")
        return self.host.commit({"policies/policy.yaml": changed}, by, message)

    def is_at(self, commit: str) -> bool:
        return self.is_now(sync="synced", health="healthy", commit=commit)


def test_a_runner_takes_what_may_be_taken_and_the_next_honest_commit(tmp_path: Path, keys: KeyRing) -> None:
    """A tightening, a loosening without approvals, an unsigned commit, a rewritten history, an honest one after each.

    S1, H2, A1: what is not verified or approved leaves the set in force, and the culprit is named.
    """
    with paper(*UNMOVING) as address:
        site = RepositorySite(tmp_path, address, keys)
        with site.following() as runner:
            until(lambda: site.is_now(sync="synced", health="healthy", is_protected=True), "the anchor is in force")
            first = site.push("1.5%", "alice")
            until(lambda: site.is_at(first), "the tightening is in force")

            loose = site.push("5%", "alice", "approved by everybody")
            until(lambda: (site.source().get("pending") or {}).get("waits_for") == "approvals", "it waits")
            found = site.source()
            assert (found["health"], found["commit"], found["pending"]["verdict"]) == ("healthy", first, "LOOSENING")
            assert [each["commit"] for each in found["refused"]] == [loose]

            mended = site.push("1.4%", "alice")
            until(lambda: site.is_at(mended), "the next honest commit is in force")

            forged = site.push("1.3%", None)
            until(lambda: site.is_now(health="degraded + page"), "the unsigned commit is seen")
            culprit = site.source()["culprit"]
            assert (culprit["commit"], culprit["is_page"]) == (forged, True)
            assert site.source()["commit"] == mended
            site.host.reset(mended)
            signed = site.push("1.2%", "alice")
            until(lambda: site.is_at(signed), "the next honest commit is in force")

            site.host.reset(first)
            site.push("1.1%", "alice")
            until(lambda: site.is_now(health="degraded + page", commit=signed), "the rewritten history is seen")
            site.host.reset(signed)
            last = site.push("1%", "alice")
            until(lambda: site.is_at(last), "the next honest commit is in force")
            shown = ksctl("source", "status", "--store", str(site.store)).stdout
            assert "synced, healthy" in shown
            assert terminate(runner)[0] == 0
