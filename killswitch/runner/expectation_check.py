"""Whether the policies of a run touch more than they expect: a page while they do. Nothing that fires is changed.

A first start refuses instead: nothing is in force yet that a refusal would leave alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from killswitch.accounts.arming import ArmedAccount
from killswitch.deadline import DeadlineError, call_within
from killswitch.graph.nodes import PolicySet
from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.store import Store
from killswitch.planning.expectations import ComparedExpectation, compared, exceeded, exceeded_accounts
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.observers import TickReport

FOLDER_TIMEOUT = 2.0
"""Seconds that a start waits for the file system of the lock folder."""


class ExpectationCheck:
    """An observer that compares each snapshot with what the policies expect."""

    def __init__(self, policies: PolicySet) -> None:
        self._hold(policies)

    def _hold(self, policies: PolicySet) -> None:
        self._policies = policies
        self._states = any(graph.expect is not None for graph in policies.graphs)
        self._compared: tuple[ComparedExpectation, ...] | None = None

    def reload(self, taken: TakenSet) -> None:
        """Compare with what the next set expects."""
        self._hold(taken.loaded.policies)

    @property
    def judges(self) -> tuple[str, ...]:
        return ("expect",)

    @property
    def alerts(self) -> Alerts:
        """A page for each expectation that is exceeded; unknown while an account that counts cannot be read."""
        if not self._states:
            return NO_ALERTS
        if self._compared is None:
            return Alerts(unknown=("expect",))
        found = tuple(_alert(each) for each in self._compared if each.is_exceeded)
        return Alerts(found, tuple(_key(each) for each in self._compared if each.unknown is not None))

    def ticked(self, report: TickReport) -> None:
        """Compare the snapshot of the tick."""
        if self._states:
            self._compared = compared(self._policies, report.snapshot.accounts)


def _key(of: ComparedExpectation) -> str:
    return f"expect/{of.policy}/{of.subject}"


def _alert(of: ComparedExpectation) -> Alert:
    text = f"{of.text}. The policy acts as it is written: correct its scope, or `expect`"
    over = f"`{of.policy}` has no more {of.subject} than it expects"
    return Alert(_key(of), "page", text, over=over, measure=(Decimal(of.found),))


def refused_at_start(
    policies: PolicySet, accounts: Sequence[ArmedAccount], snapshots: Sequence[AccountSnapshot]
) -> tuple[str, ...]:
    """Why a first start refuses: a text for each exceeded expectation. `snapshots`: empty if positions do not count."""
    identities = [(it.name, it.venue, it.market, it.currency) for it in accounts]
    found = exceeded(policies, snapshots) if snapshots else exceeded_accounts(policies, identities)
    return tuple(each.text for each in found)


def has_begun(store: Store, lock_folder: Path) -> bool:
    """Whether an earlier run has left anything: the state of a stage, an unfinished close, or a lock file.

    Such a start pages and runs, whatever the policies expect: it may have to finish what is under way. A lock folder
    that does not answer counts as one with a lock.
    """
    if store.states() or store.unfinished():
        return True
    try:
        return call_within(FOLDER_TIMEOUT, str(lock_folder), lambda: any(lock_folder.glob("*.json")))
    except (DeadlineError, OSError):
        return True
