"""The stored state of a policy on a scope under the next text of the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import StoredState, level_in_force, stage_in_force
from killswitch.graph.nodes import Stage
from killswitch.model.alert import Alert, NoticeGroup
from killswitch.model.store import MachineState
from killswitch.planning.reload.continuation import PolicyLink
from killswitch.planning.reload.migration import migrated, numbered
from killswitch.planning.scopes.evaluator import (
    ActiveSuspicion,
    StoredEvaluator,
    encode_stored,
    require_readable,
)
from killswitch.pnl_explain.ledger import ScopeLedger
from killswitch.signals.history.rows import HistoryState
from killswitch.valuation.unit_value import UnitValueTrackState

NO_HISTORY = HistoryState(
    begun_at=None, rebased=False, rebase_due=None, last_at=None, gaps=[], track=UnitValueTrackState(0.0, 1.0, 0.0, 0),
    changes=[], peak=0.0, corrections=[], equity=None, failures=0, members=[], ledger=ScopeLedger().state(),
)  # fmt: skip
"""In place of the history of a live scope, which takes no part in the migration of its state."""


def state_after(kept: StoredEvaluator, link: PolicyLink) -> StoredEvaluator:
    """The stored state of a scope under the next text of its policy."""
    if link.is_same:
        return kept
    return replace(
        kept,
        engine=migrated(kept.engine, link, kept.decision),
        suspected=_suspected_after(kept.suspected, link),
        warned=_warned_after(kept.warned, link),
        adaptive={
            name: kept.adaptive[trigger.former]
            for name, trigger in link.triggers.items()
            if trigger.former in kept.adaptive
        },
    )


def _suspected_after(suspected: ActiveSuspicion | None, link: PolicyLink) -> ActiveSuspicion | None:
    after = None if suspected is None else link.stage_after(suspected.stage)
    return suspected if suspected is None or after is None else replace(suspected, stage=after.name)


def _warned_after(warned: Mapping[str, int], link: PolicyLink) -> dict[str, int]:
    """Warnings in force of triggers that are the same, under their names."""
    names = {trigger.former: name for name, trigger in link.triggers.items()}
    parted = ((*key.rpartition("/"), at) for key, at in warned.items())
    return {f"{names[former]}/{share}": at for former, _, share, at in parted if former in names}


def blob_after(state: MachineState, link: PolicyLink) -> MachineState:
    """The stored state of a scope that no snapshot has yet, under the next name and text; DamagedStateError."""
    if link.is_same:
        return replace(state, policy=link.after.policy)
    kept, _ = require_readable(state, ())
    return MachineState(link.after.policy, state.scope, encode_stored(state_after(kept, link)))


def numbered_blob(state: MachineState, stages: Sequence[Stage]) -> MachineState:
    """The stored state with the levels that these stages have, for a policy that comes back; DamagedStateError."""
    kept, _ = require_readable(state, ())
    return replace(state, blob=encode_stored(replace(kept, engine=numbered(kept.engine, stages))))


class ScopeState(Struct, frozen=True):
    """The state of a policy on a scope, and since when its history is known (microseconds; None: not yet)."""

    policy: str
    scope: str
    engine: StoredState
    decision: str | None = None
    known_since: int | None = None

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is in force, and no close waits for an account."""
        return level_in_force(self.engine) == 0 and self.engine.waiting is None


def stored_scope(state: MachineState) -> ScopeState:
    """The state of a scope as it is stored; DamagedStateError if it cannot be read."""
    kept, _ = require_readable(state, ())
    return ScopeState(state.policy, state.scope, kept.engine, kept.decision, kept.history.begun_at)


def orphan_alert(state: ScopeState) -> Alert:
    """The page about a stage in force whose policy, scope or name is gone."""
    stage = stage_in_force(state.engine) or "a stage"
    text = (
        f"{stage} of {state.policy} is in force on {state.scope}, and no policy has it any more: its lock and its "
        f"closes go on, and only an operator ends it (ksctl reset {state.scope})"
    )
    group = NoticeGroup(state.policy, state.scope)
    key = f"orphan/{state.policy}/{state.scope}/{stage}"
    return Alert(key, "page", text, group, f"{stage} of {state.policy} is not in force without a policy any more")
