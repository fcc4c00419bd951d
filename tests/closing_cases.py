"""Decisions to close, committed as the runner commits them, and closers driven to their end."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.state.intents import planned_entries
from killswitch.model.decision import Cancel, CancelWhy, Decision, Intent
from killswitch.model.store import Store, TickRecord
from tests.honest_venue import NOW, HonestVenue


def decide(
    venue: HonestVenue,
    targets: Mapping[str, Decimal],
    *,
    name: str = "d1",
    cancels: Mapping[str, tuple[str, CancelWhy]] | None = None,
    reduce_only: bool = True,
) -> Decision:
    """A decision that leaves `targets` contracts of each symbol; `cancels`: order id → (symbol, why)."""
    intents = tuple(
        Intent(
            account=venue.account,
            symbol=symbol,
            position_side=venue.side(symbol),
            side="sell" if venue.side(symbol) == "long" else "buy",
            contracts=abs(venue.position(symbol)) - target,
            target=target,
            reduce_only=reduce_only,
            rank=rank,
        )
        for rank, (symbol, target) in enumerate(targets.items(), start=1)
    )
    return Decision(
        id=name, as_of=NOW, policy="p", policy_set="sha256:0", scope=f"account/{venue.account}", mode="enforce",
        stage="close", level=1, previous_level=0, intents=intents,
        cancels=tuple(Cancel(venue.account, symbol, order, why) for order, (symbol, why) in (cancels or {}).items()),
    )  # fmt: skip


def commit(store: Store, decision: Decision) -> Decision:
    """Write the decision with its planned entries in one tick."""
    record = TickRecord(
        as_of=decision.as_of, policy_set="sha256:0", states=(), rows=(), decisions=(decision,), notices=(),
        journal=planned_entries(decision), snapshot=None, consumed_events=(), prune_before=0,
    )  # fmt: skip
    store.commit_tick(record)
    return decision


async def drive(closer: AccountExecutor, passes: int = 5000) -> bool:
    """Passes until nothing is left; False if `passes` did not bring it there."""
    for _ in range(passes):
        if not await closer.advance():
            return True
    return False
