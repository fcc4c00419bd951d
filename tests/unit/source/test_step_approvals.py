"""Approvals of steps of the way back: signed with real keys, delivered to the runner's store, passed on as events."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from killswitch.model.instant import from_micros
from killswitch.runner.sources.step_approvals import StepApprovals
from killswitch.source.statements import DELIVERED, Purpose, read_approval
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.unit.source.approval_keys import NOW, Signer, ssh_signer, statement

SUBJECT = "recovery/fall/account/main/step/1/since/2027-01-15T08:00:00Z"


class At:
    """A clock at the time of the tests."""

    def now(self) -> datetime:
        return from_micros(NOW)


def trust_file(*approvers: Signer) -> bytes:
    """A trust file in which these people approve."""
    keys = "".join(
        f"    - {{principal: {each.principal}, ssh: {' '.join(each.public.split()[:2])}, may: [approve]}}\n"
        for each in approvers
    )
    head = "apiVersion: killswitch.dev/v1\nkind: PolicyTrust\nmetadata: {name: desk}\nspec:\n"
    return f"{head}  version: 1\n  approvals: 1\n  keys:\n{keys}".encode()


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    return open_store(str(tmp_path / "store.sqlite"), read_only=False)


RESET = "reset/fall/account/main/firing/0123456789abcdef"


def deliver(
    store: SqlStore, signer: Signer, purpose: Purpose = "recovery", source: str = "desk", subject: str = SUBJECT
) -> None:
    """Leave an approval of this person in the store, as `ksctl approve` does."""
    of_step = statement(
        purpose, source=source, ref=None, path=None, base=None, result=None, shown=None, subject=subject
    )
    content = signer.approval(of_step)
    store.put_live(f"{DELIVERED}{read_approval(content).id}", content)


def passed(
    store: SqlStore, *trusted: Signer, steps: StepApprovals | None = None
) -> list[tuple[str | None, str | None]]:
    """Author and subject of each event after a look of the source's thread."""
    steps = steps or StepApprovals("desk", store, At())  # type: ignore[arg-type]  # only its time is asked for
    steps.pass_on(store.live_under(DELIVERED), lambda: trust_file(*trusted))
    return [(each.author, each.approves) for each in store.pending_events() if each.kind == "approve"]


def test_a_step_is_approved_by_who_has_signed_and_nobody_else(store: SqlStore) -> None:
    """Two people of the trust set: the author of each event is the principal of the key, not a claim."""
    ann, bob = ssh_signer("ann@example.com"), ssh_signer("bob@example.com")
    deliver(store, ann)
    deliver(store, bob)
    assert sorted(passed(store, ann, bob)) == [("ann@example.com", SUBJECT), ("bob@example.com", SUBJECT)]


@pytest.mark.parametrize(
    ("purpose", "source", "is_trusted"),
    [("change", "desk", True), ("recovery", "other", True), ("recovery", "desk", False), ("reset", "desk", True)],
)
def test_what_is_of_another_purpose_source_or_key_is_not_passed_on(
    store: SqlStore, purpose: Purpose, source: str, is_trusted: bool
) -> None:
    """An approval of a change, one for another runner, one of a key that is not in the trust set, and one of a reset
    that names a step."""
    ann, bob = ssh_signer("ann@example.com"), ssh_signer("bob@example.com")
    deliver(store, ann, purpose, source)
    assert passed(store, ann if is_trusted else bob) == []


def test_a_statement_is_passed_on_once_also_over_a_restart(store: SqlStore) -> None:
    """By the ids in the store: another process puts no second event."""
    ann = ssh_signer("ann@example.com")
    deliver(store, ann)
    steps = StepApprovals("desk", store, At())  # type: ignore[arg-type]  # only its time is asked for
    assert len(passed(store, ann, steps=steps)) == 1
    assert len(passed(store, ann, steps=steps)) == 1
    assert len(passed(store, ann)) == 1


def test_without_a_trust_file_nobody_approves(store: SqlStore) -> None:
    """And the statement counts once there is one."""
    ann = ssh_signer("ann@example.com")
    deliver(store, ann)
    steps = StepApprovals("desk", store, At())  # type: ignore[arg-type]  # only its time is asked for
    steps.pass_on(store.live_under(DELIVERED), lambda: None)
    assert list(store.pending_events()) == []
    assert len(passed(store, ann, steps=steps)) == 1


def test_a_reset_is_approved_by_its_own_purpose_alone(store: SqlStore) -> None:
    """Signed as a reset it is passed on; the same subject signed as a step is not."""
    ann, bob = ssh_signer("ann@example.com"), ssh_signer("bob@example.com")
    deliver(store, ann, "reset", subject=RESET)
    deliver(store, bob, "recovery", subject=RESET)
    assert passed(store, ann, bob) == [("ann@example.com", RESET)]
