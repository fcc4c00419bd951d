"""The next set is compiled with the accounts that run; what only a start reads is named, and waits (P5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.accounts.next_set import LARGE, NextSet, next_set
from killswitch.accounts.opening import LoadedPolicies, PolicyProblemsError, read_policies
from killswitch.model.applied_set import PolicyFile, PolicyOrigin
from tests.e2e.processes import POLICY

ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: live}
"""
ORIGIN = PolicyOrigin(source="desk")


@pytest.fixture
def running(tmp_path: Path) -> LoadedPolicies:
    """A start with one policy and one account."""
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "account.yaml").write_text(ACCOUNT, encoding="utf-8")
    return read_policies((tmp_path,))


def following(running: LoadedPolicies, policy: str = POLICY, account: str = ACCOUNT) -> NextSet:
    files = (PolicyFile("account.yaml", account.encode()), PolicyFile("policy.yaml", policy.encode()))
    return next_set(files, ORIGIN, running)


def test_the_files_of_a_start_are_kept_as_they_were_read(running: LoadedPolicies) -> None:
    """With paths relative to their folder."""
    assert [(each.path, each.content.decode()) for each in running.files] == [
        ("account.yaml", ACCOUNT), ("policy.yaml", POLICY),
    ]  # fmt: skip


def test_p5_a_changed_account_waits_for_a_start_and_the_policies_do_not(running: LoadedPolicies) -> None:
    """P5: the set is that of the new policies with the account that runs, and says so."""
    edited = POLICY.replace("at_least: 2%", "at_least: 3%")
    assert edited != POLICY
    found = following(running, edited, ACCOUNT.replace("127.0.0.1:1'", "127.0.0.1:2'"))
    assert found.needs_start == ("Account main has changed",)
    assert found.loaded.accounts == running.accounts
    assert found.loaded.policies.digest == following(running, edited).loaded.policies.digest
    assert found.digest_of_files != found.loaded.policies.digest


def test_p5_another_account_waits_for_a_start(running: LoadedPolicies) -> None:
    """P5: the one that runs goes on, and is among the accounts of the set."""
    found = following(running, account=ACCOUNT.replace("name: main", "name: other"))
    assert found.needs_start == ("Account main is gone", "Account other is new")
    assert [each.metadata.name for each in found.loaded.accounts] == ["main"]


def test_mistakes_are_those_of_a_start(running: LoadedPolicies) -> None:
    """With file and line."""
    with pytest.raises(PolicyProblemsError) as found:
        following(running, POLICY.replace("at_least", "at_laest"))
    assert {each.file for each in found.value.diagnostics} == {"policy.yaml"}


def test_a_large_set_is_compiled_by_another_process_with_the_same_result(
    running: LoadedPolicies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the size differs, by comments. A file of the working folder is not taken for a module of the program."""
    (tmp_path / "msgspec.py").write_text("raise SystemExit('a file of the desk was run')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    edited = POLICY.replace("at_least: 2%", "at_least: 3%")
    large = following(running, edited + "# much\n" * LARGE)
    assert large.loaded.policies.digest == following(running, edited).loaded.policies.digest
    assert (large.loaded.accounts, large.loaded.start_documents) == (running.accounts, running.start_documents)
    assert [each.path for each in large.files] == ["account.yaml", "policy.yaml"]
    with pytest.raises(PolicyProblemsError):
        following(running, edited.replace("at_least", "at_laest") + "# much\n" * LARGE)
