"""Previews of what the policies would do now: one tick whose outcome is shown and not executed.

The interpreter, its restored state and the snapshot are those of a runner's next tick. A preview holds no lease,
writes nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.accounts.arming import REMEMBERED
from killswitch.engine.alerts import AlertState, advance
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice, decision_record
from killswitch.model.effects import Orders, kind_of
from killswitch.model.instant import rfc3339, to_micros
from killswitch.model.snapshot import Closing, Snapshot
from killswitch.model.store import Store
from killswitch.operations.lifting import ScopeHold
from killswitch.planning.actions.net_exposure import ScopeExposure
from killswitch.planning.expectations import ComparedExpectation, compared
from killswitch.planning.exposures import PositionExposure
from killswitch.planning.firing import LevelPreview
from killswitch.planning.interpreter import NO_OUTCOME, Interpreter
from killswitch.planning.operator.plan_file import SavedPlan, make_plan
from killswitch.planning.operator.saved_plan import basis_of
from killswitch.planning.orders.hedge_nets import HedgeNet
from killswitch.planning.recovery.recoveries import RecoveryView
from killswitch.planning.scopes.money_headroom import MoneyHeadroom
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.status_blob import AccountView, account_view

if TYPE_CHECKING:  # the function of the gate's verdicts is no part of the start of `ksctl close`
    from killswitch.operations.gate_answers import GateAnswer

PREVIEW_FORMAT = "killswitch.preview/v1"


class Preview(Struct, frozen=True):
    """The outcome of one tick that is not executed."""

    snapshot: Snapshot
    policies: PolicySet
    accounts: tuple[AccountView, ...]
    machines: tuple[MachineStatus, ...]
    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]
    memory: str
    """The source of history and stages, as text."""
    expectations: tuple[ComparedExpectation, ...] = ()
    """What the policies expect to touch, and what there is."""
    positions: tuple[PositionExposure, ...] = ()
    """Every open position, the largest loss first."""
    headrooms: tuple[MoneyHeadroom, ...] = ()
    """How much equity each trigger is away from its threshold."""
    levels: tuple[LevelPreview, ...] = ()
    """What each stage would decide if it fired now."""
    net_exposures: tuple[ScopeExposure, ...] = ()
    """The exposure to the market of each scope whose policy declares one."""
    hedges: tuple[HedgeNet, ...] = ()
    """The net of every declared hedge, and what would take it out."""
    recoveries: tuple[RecoveryView, ...] = ()
    """The ways back after resets that have begun."""
    holds: tuple[ScopeHold, ...] = ()
    """The locks by hand in force, newest first: of locks, halts, pauses and closes."""
    gate_answers: tuple[GateAnswer, ...] = ()
    """What the gate would answer now to the orders that open against the exposures."""

    @property
    def pending(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.decisions)

    @property
    def exceeded(self) -> bool:
        """Whether a policy touches more than it expects."""
        return any(each.is_exceeded for each in self.expectations)

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Accounts that cannot be polled, and why: for them an empty preview does not mean `nothing to do`."""
        return self.unreadable_of({account.account for account in self.accounts})

    def unreadable_of(self, accounts: Collection[str]) -> tuple[str, ...]:
        """Those of these accounts that cannot be polled, and why."""
        return tuple(
            f"{account.account} is {account.quality}: {account.reason or 'no reason given'}"
            for account in self.accounts
            if account.quality != "ok" and account.account in accounts
        )


def preview(
    policies: PolicySet,
    snapshot: Snapshot,
    interpreter: Interpreter,
    memory: str,
    armed: frozenset[str],
    *,
    with_levels: bool = True,
    holds: tuple[ScopeHold, ...] = (),
) -> Preview:
    """Run one tick of `interpreter`, whose state was restored or replayed, on `snapshot`.

    `armed`: accounts whose documents say `execution: live`. `with_levels`: also what each level would decide, the
    headroom in money and the positions, which cost time that `ksctl close` does not have. `holds`: the locks by hand.
    """
    interpreter.restrict_orders_to(armed)
    pending = interpreter.evaluate(snapshot)
    machines = interpreter.status()  # as they are, not as the plan would leave them
    levels, headrooms = (interpreter.levels(), interpreter.headrooms()) if with_levels else ((), ())
    outcome = NO_OUTCOME if pending is None else interpreter.decide(pending)
    wrong, _ = advance(AlertState(), outcome.alerts, to_micros(snapshot.as_of))  # also what was notified already
    return Preview(
        snapshot=snapshot,
        policies=policies,
        accounts=tuple(account_view(account, armed=account.account in armed) for account in snapshot.accounts),
        machines=machines,
        decisions=outcome.decisions,
        notices=outcome.notices + wrong,
        memory=memory,
        expectations=compared(policies, snapshot.accounts),
        positions=interpreter.positions() if with_levels else (),
        headrooms=headrooms,
        levels=levels,
        net_exposures=interpreter.net_exposures() if with_levels else (),
        hedges=interpreter.hedges() if with_levels else (),
        recoveries=interpreter.recoveries.views(),
        holds=holds,
    )


def plan_of(shown: Preview, decisions: Iterable[Decision]) -> SavedPlan | None:
    """The plan of these decisions of a preview, for `ksctl apply`; None if none of them would be executed."""
    saved = tuple(
        decision
        for decision in decisions
        if decision.mode == "enforce"
        and decision.kind
        != "hedge"  # opens a position that is not in the books of the plan, and a tick opens it without a plan
        and not decision.is_suspicion  # over before anybody could apply it
        and decision.effects
    )
    if not saved:
        return None
    basis = basis_of(saved, shown.snapshot, shown.policies)
    return make_plan(shown.snapshot.as_of, shown.policies.digest, shown.policies.commit, saved, basis)


def of_policies(shown: Preview) -> tuple[Decision, ...]:
    """The decisions of the policies, without resets and operator commands, which a tick processes in any case."""
    return tuple(decision for decision in shown.decisions if decision.kind in (None, "hedge"))


def from_store(policies: PolicySet, store: Store | None) -> tuple[Interpreter, str]:
    """An interpreter with the state of the runner, if there is a store, and the name of the source of the state."""
    interpreter = Interpreter(policies)
    if store is None:
        return interpreter, "no store: only this snapshot, so windows are partly known"
    unfinished = [stored.decision for stored in store.unfinished()]
    past = [stored.decision for stored in store.decisions(REMEMBERED)]
    interpreter.restore(store.states(), store.rows, unfinished, past, live=store.live)
    return interpreter, "the runner's store"


def closes_under_way(store: Store | None) -> tuple[Closing, ...]:
    """The closes in progress: a plan must not repeat them."""
    if store is None:
        return ()
    closes = [stored.decision for stored in store.unfinished() if not stored.decision.is_suspicion]
    return tuple(Closing(decision.id, "closing", scope=decision.scope) for decision in closes)


def from_recording(policies: PolicySet, snapshots: Iterable[Snapshot]) -> tuple[Interpreter, Snapshot | None, str]:
    """An interpreter after all but the last of `snapshots`, that last one (None: none), and the name of the source."""
    interpreter = Interpreter(policies)
    last: Snapshot | None = None
    seen = 0
    for snapshot in snapshots:
        if last is not None:
            interpreter.tick(last)
            seen += 1
        last = snapshot
    return interpreter, last, f"{seen} earlier snapshot{'' if seen == 1 else 's'} of the recording"


def cost_of(level: LevelPreview) -> tuple[Decimal | None, tuple[str, ...]]:
    """The expected cost of a level's orders in the scope's currency, without fees, and what it lacks.

    None if the cost of no order is known; otherwise the sum of the known ones.
    """
    known = [each.cost for each in level.expected if each.cost is not None]
    lacks = tuple(dict.fromkeys(what for each in level.expected for what in each.lacks))
    return (sum(known, Decimal(0)) if known or not level.expected else None), lacks


def _level_record(level: LevelPreview) -> dict[str, object]:
    """One level as JSON: what it would decide, without what only a firing has."""
    decision, (cost, lacks) = level.decision, cost_of(level)
    exposed = {} if decision.net_exposure is None else {"net_exposure": decision.net_exposure}
    return {
        "policy": decision.policy,
        "scope": decision.scope,
        "stage": decision.stage,
        "level": decision.level,
        "mode": decision.mode,
        "in_force": level.is_in_force,
        "because": level.because,
        "note": decision.reason,
        "currency": level.currency,
        "orders": level.expected,
        "cost": cost,
        "lacks": lacks,
        "book": decision.book,
        "cancels": len(decision.cancels),
        "effects": [kind_of(effect).text(effect) for effect in decision.effects if not isinstance(effect, Orders)],
        "blocked": level.blocked,
        **exposed,
    }


def encode_preview(shown: Preview, against: Mapping[str, object] | None = None) -> bytes:
    """The preview as one JSON object, format `killswitch.preview/v1`. A saved plan is another format.

    `against`: the comparison with another set, if there is one.
    """
    further: dict[str, object] = {"expectations": shown.expectations} if shown.expectations else {}
    further |= {"hedges": shown.hedges} if shown.hedges else {}
    further |= {"net_exposures": shown.net_exposures} if shown.net_exposures else {}
    further |= {"gate_answers": shown.gate_answers} if shown.gate_answers else {}
    further |= {"recoveries": shown.recoveries} if shown.recoveries else {}
    further |= {"holds": shown.holds} if shown.holds else {}
    further |= {"limits": shown.policies.limits} if shown.policies.limits else {}
    further |= {} if against is None else {"against": against}
    return msgjson.Encoder(decimal_format="string").encode(
        {
            "format": PREVIEW_FORMAT,
            "as_of": rfc3339(shown.snapshot.as_of),
            "policy_set": shown.policies.digest,
            "commit": shown.policies.commit,
            "memory": shown.memory,
            "pending": shown.pending,
            "unreadable": shown.unreadable,
            "accounts": shown.accounts,
            "machines": shown.machines,
            "positions": shown.positions,
            "headrooms": shown.headrooms,
            "levels": [_level_record(each) for each in shown.levels],
            "decisions": [decision_record(decision) for decision in shown.decisions],
            "notices": shown.notices,
            **further,
        }
    )
