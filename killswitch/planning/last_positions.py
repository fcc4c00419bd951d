"""Accounts whose equity is known and whose positions are not: a stage that fires closes by the last known ones.

Only where an order cannot open anything: on derivatives it goes out reduce-only, and the venue itself cuts it down to
what is there. What was opened since is not closed by it, and a holding that is gone is not sold: on other markets the
account counts as one that cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.cuts import DERIVATIVES
from killswitch.signals.view import ScopeView


@dataclass(frozen=True, slots=True)
class LastKnown:
    """A scope with the last known positions where the snapshot gives none, and a remark on each such account."""

    view: ScopeView
    remarks: tuple[str, ...] = ()

    def remarked(self, decision: Decision) -> Decision:
        """The decision with these remarks in its reason."""
        reason = "; ".join((*self.remarks, *(() if decision.reason is None else (decision.reason,))))
        return replace(decision, reason=reason or None) if self.remarks else decision


def with_last_positions(view: ScopeView, read_last: Mapping[str, AccountSnapshot]) -> LastKnown:
    """The scope with what its accounts held when they were read last, where they do not say what they hold now."""
    if view.positions_unknown is None:
        return LastKnown(view)
    accounts, remarks = [], []
    for account in view.accounts:
        last = read_last.get(account.account)
        if account.positions is not None or account.market not in DERIVATIVES or last is None:
            accounts.append(account)
            continue
        accounts.append(replace(account, positions=last.positions))
        seen = "" if last.observed_at is None else f" at {last.observed_at.isoformat()}"
        remarks.append(f"{account.account} gives no positions: closed by those last read{seen}, reduce-only")
    return LastKnown(view.of(accounts), tuple(remarks))
