"""`ksctl blame`: the change that gave a threshold its present value, by what documents say and not by their lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli.policy.blame import blame
from killswitch.model.applied_set import AppliedSet, Approval, PolicyFile, PolicyOrigin
from killswitch.model.store import TickRecord
from killswitch.store.sqlite import open_store
from tests.worlds import START, after

POLICY = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
{formerly}  triggers:
    fall: {{signal: equity.loss_from_start, at_least: {fall}, on_unknown: hold}}
    geared: {{signal: exposure.leverage, at_least: {geared}, on_unknown: hold}}
  stages:
    - {{name: stop, level: 1, any: [fall, geared], cooldown: 1m, reset: manual,
       actions: [{{close: {{side: both, fraction: 100%}}}}]}}
"""


def policy(fall: str = "5%", geared: str = "3", name: str = "desk", formerly: str | None = None) -> str:
    line = "" if formerly is None else f"  formerly: {formerly}\n"
    return POLICY.format(name=name, fall=fall, geared=geared, formerly=line)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(blame, list(arguments), catch_exceptions=False)


class Repository:
    """A git repository with a policy folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "policies"
        self.folder.mkdir()
        self.git("init", "-q", "-b", "main")
        self.minute = 0

    def git(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        base = {"PATH": "/usr/bin:/bin", "HOME": str(self.root), "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ("git", "-C", str(self.root), *arguments), check=True, capture_output=True, text=True,
            env=base | dict(environment or {}),
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, author: str, files: Mapping[str, str | None]) -> str:
        """Commit texts by path, None for a file that is gone; returns the id."""
        for path, text in files.items():
            if text is None:
                (self.folder / path).unlink()
            else:
                (self.folder / path).parent.mkdir(exist_ok=True)
                (self.folder / path).write_text(text, encoding="utf-8")
        self.minute += 1
        at = (START + timedelta(minutes=self.minute)).isoformat()
        who = {
            "GIT_AUTHOR_NAME": author, "GIT_AUTHOR_EMAIL": f"{author}@example.com", "GIT_AUTHOR_DATE": at,
            "GIT_COMMITTER_NAME": author, "GIT_COMMITTER_EMAIL": f"{author}@example.com", "GIT_COMMITTER_DATE": at,
        }  # fmt: skip
        self.git("add", "-A")
        self.git("commit", "-q", "--no-gpg-sign", "-m", "a change", environment=who)
        return self.git("rev-parse", "HEAD")

    def blame(self, trigger: str, *more: str) -> dict[str, object]:
        done = invoke(trigger, "--policies", str(self.folder), "--output", "json", *more)
        assert done.exit_code == 0, done.output
        record: dict[str, object] = json.loads(done.output)
        return record


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def commit_of(record: dict[str, object]) -> object:
    origin = record["origin"]
    assert isinstance(origin, dict)
    return origin.get("commit")


def test_the_commit_that_set_the_threshold_is_named(repository: Repository) -> None:
    """Not the first one, and not a later one that changed another trigger, moved the file and formatted it."""
    repository.commit("ann", {"p.yaml": policy(fall="8%")})
    wanted = repository.commit("bob", {"p.yaml": policy(fall="5%")})
    repository.commit("cid", {"p.yaml": policy(fall="5%", geared="4")})
    again = policy(fall="0.05", geared="4").replace("  triggers:", "  # the steps\n  triggers:")
    repository.commit("dan", {"p.yaml": None, "below/q.yaml": again})
    record = repository.blame("desk/fall")
    assert commit_of(record) == wanted
    assert record["before"]["keys"]["at_least"] == "8%"  # type: ignore[index] # of the record
    assert record["at"] == "2024-01-01T00:02:00Z"
    text = invoke("desk/fall", "--policies", str(repository.folder)).output
    assert "bob <bob@example.com> (as the commit states)" in text
    assert "nobody: it is not signed" in text


def test_a_renamed_policy_is_followed_to_the_change_before(repository: Repository) -> None:
    """`formerly` says that it is the same policy: the rename set no threshold."""
    wanted = repository.commit("ann", {"p.yaml": policy(fall="5%")})
    repository.commit("bob", {"p.yaml": policy(fall="5%", name="main-desk", formerly="desk")})
    record = repository.blame("main-desk/fall")
    assert (commit_of(record), record["is_oldest"]) == (wanted, True)


def test_an_undeclared_rename_is_the_change(repository: Repository) -> None:
    repository.commit("ann", {"p.yaml": policy(fall="5%")})
    wanted = repository.commit("bob", {"p.yaml": policy(fall="5%", name="other")})
    record = repository.blame("other/fall")
    assert (commit_of(record), record["before"]) == (wanted, None)


def test_what_is_not_committed_is_said_to_be(repository: Repository) -> None:
    repository.commit("ann", {"p.yaml": policy(fall="5%")})
    (repository.folder / "p.yaml").write_text(policy(fall="4%"), encoding="utf-8")
    record = repository.blame("desk/fall")
    assert (commit_of(record), record["at"]) == (None, None)
    assert "not committed yet" in invoke("desk/fall", "--policies", str(repository.folder)).output
    assert commit_of(repository.blame("desk/geared")) is not None


def test_a_commit_that_does_not_compile_is_named_as_a_possible_one(repository: Repository) -> None:
    """The threshold differs on its two sides: it may have been set by either."""
    repository.commit("ann", {"p.yaml": policy(fall="8%")})
    broken = repository.commit("bob", {"p.yaml": policy(fall="8%").replace("kind: Policy", "kind: Polcy")})
    wanted = repository.commit("cid", {"p.yaml": policy(fall="5%")})
    record = repository.blame("desk/fall")
    assert (commit_of(record), record["unread"]) == (wanted, [broken])


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        ("desk/fal", "the policy desk has no trigger fal, did you mean fall?"),
        ("dsk/fall", "no policy is called dsk, did you mean desk?"),
    ],
)
def test_a_misspelled_name_is_refused_with_a_suggestion(repository: Repository, trigger: str, says: str) -> None:
    repository.commit("ann", {"p.yaml": policy()})
    refused = invoke(trigger, "--policies", str(repository.folder))
    assert (refused.exit_code, says in refused.output) == (1, True)


def test_nothing_that_the_repository_names_is_run(repository: Repository, tmp_path: Path) -> None:
    """Its hooks, file system monitor, pager, aliases and signature programs stay untouched."""
    canary = tmp_path / "canary"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n", encoding="utf-8")
    program.chmod(0o755)
    repository.commit("ann", {"p.yaml": policy()})
    for key in ("core.fsmonitor", "core.pager", "gpg.program", "gpg.ssh.program", "alias.rev-list", "core.sshCommand"):
        repository.git("config", key, str(program))
    repository.blame("desk/fall")
    assert not canary.exists()


def test_the_sets_of_a_store_name_signers_and_approvers(tmp_path: Path) -> None:
    """Among the sets that were in force; the last change of the other trigger does not count."""
    path = str(tmp_path / "s.sqlite")
    store = open_store(path)
    approval = Approval(id="a1", principal="eve", key="SHA256:k", expires_at=after(days=3))
    versions = (
        ("c1", policy(fall="8%"), PolicyOrigin(source="desk", commit="c1", signers=("ann",))),
        ("c2", policy(fall="9%"), PolicyOrigin(source="desk", commit="c2", signers=("bob",), verdict="LOOSENING",
                                               approvals=(approval,))),
        ("c3", policy(fall="9%", geared="4"), PolicyOrigin(source="desk", commit="c3", signers=("cid",))),
    )  # fmt: skip
    for minute, (commit, text, origin) in enumerate(versions):
        files = (PolicyFile("p.yaml", text.encode()),)
        at = after(minutes=minute)
        applied = AppliedSet(digest=f"sha256:{commit}", at=at, program="1", origin=origin, files=files)
        store.commit_tick(
            TickRecord(
                as_of=at, policy_set=applied.digest, states=(), rows=(), decisions=(), notices=(), journal=(),
                snapshot=None, consumed_events=(), prune_before=0, applied=applied,
            )
        )  # fmt: skip
    store.close()
    text = invoke("desk/fall", "--store", path).output
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in text.splitlines() if line.strip()}
    assert lines["Commit"] == "Commit c2"
    assert lines["Signed by"] == "Signed by bob"
    assert lines["Approved by"] == "Approved by eve"
    assert lines["Class"] == "Class LOOSENING"
    assert "at_least: 8%" in lines["Before"]
    assert "2024-01-01T00:01:00Z" in lines["Since"]


def test_a_store_without_a_set_on_record_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sqlite")
    open_store(path).close()
    refused = invoke("desk/fall", "--store", path)
    assert (refused.exit_code, "no policy set on record" in refused.output) == (1, True)
