"""Saved plans: their basis, the comparison of the basis with a snapshot, and the decisions that carry them out.

A plan is based on the complete books of its scopes, so all of them must be unchanged: positions that have grown or
appeared since are not part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from msgspec.structs import asdict, replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, decision_id
from killswitch.model.effects import Effect, Lock, Transfer, expiry_of, kind_of
from killswitch.model.instant import SECOND, from_micros, rfc3339, to_micros
from killswitch.model.lock_parts import parts_text
from killswitch.model.magnitude import sound_instrument
from killswitch.model.snapshot import Event, Order, Position, Snapshot
from killswitch.planning.actions.registry import certain_effects
from killswitch.planning.operator.closes import OPERATOR, accounts_in, manual_lock_order
from killswitch.planning.operator.plan_check import has_basis, part_faults, plan_faults, unsound
from killswitch.planning.operator.plan_file import AccountBasis, PlanFileError, SavedPlan, decode_plan
from killswitch.planning.scopes.compiled_policy import identity, members_of, scopes_of, symbols_in
from killswitch.planning.targets.merge import ordered_symbols
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.scope_view import Instruments
from killswitch.valuation.snapshot_facts import SnapshotFacts
from killswitch.valuation.trust import reason_untrusted

LONGEST_WAIT = 600 * SECOND
"""Maximum wait of a command for a tick (microseconds). The age of a plan is judged by the operator who applies it."""

AHEAD = 5 * SECOND
"""Maximum lead of the clock that made a plan (microseconds)."""


class RefusedPlanError(Exception):
    """A plan that must not be carried out; `changes` lists everything that has changed."""

    def __init__(self, changes: Sequence[str]) -> None:
        super().__init__("; ".join(changes))
        self.changes = tuple(changes)


# Making


def basis_of(decisions: Iterable[Decision], snapshot: Snapshot, policies: PolicySet) -> tuple[AccountBasis, ...]:
    """Basis of the decisions: every account that they concern, as in the snapshot."""
    decisions = tuple(decisions)
    names = _concerned(decisions, snapshot, policies)
    traded = {name for decision in decisions for name in ordered_symbols(decision)}
    rules = {(a.account, it.symbol): sound_instrument(it) for a in snapshot.accounts for it in a.instruments or ()}
    facts = SnapshotFacts(to_micros(snapshot.as_of), snapshot.accounts, rules)
    return tuple(_basis(facts.of(each), traded, rules) for each in snapshot.accounts if each.account in names)


def _concerned(decisions: Iterable[Decision], snapshot: Snapshot, policies: PolicySet) -> set[str]:
    """Accounts in the decisions' scopes, by their policies, and all other accounts that they act on."""
    scope_rules = {graph.policy: graph.scope for graph in policies.graphs}
    names: set[str] = set()
    for decision in decisions:
        rule = scope_rules.get(decision.policy)
        if rule is None:
            names |= {account.account for account in accounts_in(decision.scope, snapshot, policies)}
        else:
            names |= set(members_of(rule, decision.scope, [identity(each) for each in snapshot.accounts]))
        names |= set(decision.accounts)
    return names


def _basis(facts: AccountFacts, traded: Collection[tuple[str, str]], rules: Instruments) -> AccountBasis:
    account, positions = facts.account, sorted(facts.held.merged, key=lambda each: each.key)
    is_spot = account.market == "spot"
    named = {*traded} | {(facts.name, each.symbol) for each in positions if is_spot}
    known = tuple(rules[key] for key in sorted(named) if key[0] == facts.name and key in rules)
    why_untrusted = reason_untrusted(account, 0, None)
    if why_untrusted is not None:
        return AccountBasis(facts.name, why_untrusted, account.market, account.currency, instruments=known)
    return AccountBasis(
        facts.name,
        market=account.market,
        currency=account.currency,
        positions=tuple(
            Position(each.symbol, each.side, each.contracts, mark_price=each.mark_price, notional=each.notional)
            for each in positions
        ),
        orders=None if account.orders is None else tuple(map(_planned, account.orders)),
        instruments=known,
        prices={each.asset: each.price for each in facts.sound.balances or () if is_spot and each.price is not None},
        liquidity=tuple(each for each in account.liquidity or () if (facts.name, each.symbol) in named),
    )


def _planned(order: Order) -> Order:
    return Order(order.id, order.symbol, order.side, order.amount)


# Applying


def apply_plan(event: Event, snapshot: Snapshot, facts: SnapshotFacts, policies: PolicySet) -> tuple[Decision, ...]:
    """Decisions of the plan in the event; RefusedPlanError if anything has changed. `facts`: those of the snapshot."""
    try:
        plan = decode_plan(event.plan or "")
    except PlanFileError as error:
        raise RefusedPlanError((str(error),)) from error
    waited = facts.as_of - to_micros(event.at)
    found = [f"the order to apply it has waited {waited // SECOND} s for a tick"] if waited > LONGEST_WAIT else []
    present = _present(plan, snapshot, facts)
    plan = replace(plan, basis=tuple(_with_marks(each, present.get(each.account)) for each in plan.basis))
    found += list(unsound(plan)) or list(changes(plan, present, snapshot, policies))
    # Nothing is planned of rules that are not those of the venue.
    found = found or [*plan_faults(plan, policies), *part_faults(plan, facts, policies)]
    if found:
        raise RefusedPlanError(found)
    return tuple(_decision(plan, index, event, facts.as_of, policies) for index in range(len(plan.decisions)))


def _present(plan: SavedPlan, snapshot: Snapshot, facts: SnapshotFacts) -> dict[str, AccountBasis]:
    """Account → its basis now."""
    names = {basis.account for basis in plan.basis}
    traded = {(basis.account, rules.symbol) for basis in plan.basis for rules in basis.instruments}
    accounts = (each for each in snapshot.accounts if each.account in names)
    return {each.account: _basis(facts.of(each), traded, facts.rules) for each in accounts}


def _with_marks(basis: AccountBasis, now: AccountBasis | None) -> AccountBasis:
    """The basis; what that of an earlier version lacks, market, marks and liquidity, is as `now`."""
    if now is None or basis.market is not None or basis.unread is not None:
        return basis
    marked = {each.key: each for each in now.positions or ()}
    held = (replace(marked.get(each.key, each), contracts=each.contracts) for each in basis.positions or ())
    return replace(now, positions=tuple(held), orders=basis.orders, instruments=basis.instruments or now.instruments)


def applied_ids(plan: SavedPlan) -> tuple[str, ...]:
    """Ids of the decisions that carry the plan out; they are the same for every attempt."""
    return tuple(_id(plan, index) for index in range(len(plan.decisions)))


def _id(plan: SavedPlan, index: int) -> str:
    return decision_id(OPERATOR, plan.decisions[index].scope, f"plan/{plan.digest}/{index}", plan.as_of)


def _decision(plan: SavedPlan, index: int, event: Event, now: int, policies: PolicySet) -> Decision:
    planned = plan.decisions[index]
    what = planned.reason or ""
    if planned.stage is not None:
        what = f"{planned.stage} of {planned.policy}" + (f"; {what}" if what else "")
    return replace(
        planned,
        id=_id(plan, index),
        as_of=from_micros(now),
        policy=OPERATOR,
        policy_set=policies.digest,
        commit=policies.commit,
        mode="enforce",
        kind="manual",
        stage=None,
        level=0,
        previous_level=0,
        triggers=(),
        attribution=None,
        cooldown_until=None,
        no_reset_before=None,
        author=event.author,
        reason=f"plan {plan.short}: {what}" if what else f"plan {plan.short}",
        cause=planned.cause or "operator",
    )


# Changes


def changes(
    plan: SavedPlan, present: Mapping[str, AccountBasis], snapshot: Snapshot, policies: PolicySet
) -> Iterator[str]:
    """Everything that has changed since the plan was made, one sentence each. `present`: its basis now."""
    if plan.policy_set != policies.digest:
        yield f"the policy set is {policies.digest[:19]}, and the plan was made with {plan.policy_set[:19]}"
    now = to_micros(snapshot.as_of)
    if to_micros(plan.as_of) - now > AHEAD:
        yield f"the plan is of {rfc3339(plan.as_of)}, which is in the future: the clocks differ"
    for decision in plan.decisions:
        for effect in decision.effects:
            until = expiry_of(effect)
            if until is not None and to_micros(until) <= now:
                yield f"its {_effect_name(effect)} has run out at {rfc3339(until)}"
        yield from _unwritten(decision, plan, snapshot, policies)
    for basis in plan.basis:
        yield from _changes_of(basis, present.get(basis.account))
    for name in sorted(_concerned(plan.decisions, snapshot, policies) - {basis.account for basis in plan.basis}):
        yield f"account {name} is in the scope now, and was not"


def _unwritten(decision: Decision, plan: SavedPlan, snapshot: Snapshot, policies: PolicySet) -> Iterator[str]:
    """Scopes and effects of the plan that no policy defines.

    Effects that depend on the book are checked against the plan's basis instead.
    """
    if decision.scope not in _scopes(decision.policy, snapshot, policies):
        yield f"{decision.policy} has no scope {decision.scope} on the watched accounts"
    stages = (stage for graph in policies.graphs if graph.policy == decision.policy for stage in graph.stages)
    stage = next((stage for stage in stages if stage.name == decision.stage), None)
    at = to_micros(decision.as_of)
    written = (
        (Lock(manual_lock_order(decision.scope)),)
        if decision.kind == "manual"
        else ()
        if stage is None
        else certain_effects(decision.scope, stage, at)
    )
    for effect in (each for each in decision.effects if not has_basis(each)):
        if isinstance(effect, Transfer):
            yield (
                f"its {_effect_name(effect)} is not made by a saved plan, as its amount follows from the balances of "
                f"the moment: let stage {decision.stage} of {decision.policy} fire, or move it at the venue"
            )
        elif effect not in written or at - to_micros(plan.as_of) > AHEAD:
            yield (
                f"its {_effect_name(effect)}{_terms(effect)} is not written by "
                f"{'a close by hand' if decision.kind == 'manual' else f'stage {decision.stage} of {decision.policy}'} "
                f"for {decision.scope}"
            )


def _effect_name(effect: Effect) -> str:
    """Name of an effect: `lock of portfolio`, or the text of its kind."""
    return f"lock of {effect.order.scope}" if isinstance(effect, Lock) else f"effect `{kind_of(effect).text(effect)}`"


def _terms(effect: Effect) -> str:
    """Mode and end of a lock; empty for other effects."""
    if not isinstance(effect, Lock):
        return ""
    until = "without end" if effect.order.until is None else f"until {rfc3339(effect.order.until)}"
    parts = f", only {parts_text(effect.order.only)}" if effect.order.only else ""
    return f" ({effect.order.mode}, {until}{parts})"


def _scopes(policy: str, snapshot: Snapshot, policies: PolicySet) -> set[str]:
    """Scopes of a policy on these accounts; an operator may name any account, any venue, the portfolio, any symbol that
    is traded, and the strategies and labels of every policy.
    """
    present, symbols = [identity(each) for each in snapshot.accounts], symbols_in(snapshot)
    if policy == OPERATOR:
        whole = {f"account/{each[0]}" for each in present} | {f"venue/{each[1]}" for each in present}
        drawn = {scope for graph in policies.graphs for scope in scopes_of(graph.scope, present)}
        parts = {scope for scope in drawn if scope.startswith(("strategy/", "label/"))}
        return {"portfolio", *whole, *parts, *(f"symbol/{symbol}" for symbol in symbols)}
    rules = (graph.scope for graph in policies.graphs if graph.policy == policy)
    return {scope for rule in rules for scope in scopes_of(rule, present, symbols)}


def _changes_of(basis: AccountBasis, present: AccountBasis | None) -> Iterator[str]:
    account = f"account {basis.account}"
    if present is None:
        yield f"{account} is no longer watched"
    elif present.unread is not None:
        yield f"{account} cannot be read: {present.unread}"
    elif basis.unread is not None:
        yield f"{account} could not be read for the plan ({basis.unread}), and can be now"
    else:
        known = {each.symbol for each in present.instruments}
        for symbol in sorted({each.symbol for each in basis.instruments} - known):
            yield f"the rules of {symbol} on {basis.account} are not known now"
        known &= {each.symbol for each in basis.instruments}
        was, now = _compared(basis, known), _compared(present, known)
        for name in sorted(was.keys() | now.keys()):
            if name not in was:
                yield f"{name} has appeared: {_text(now[name])}"
            elif name not in now:
                yield f"{name} has vanished: it was {_text(was[name])}"
            elif was[name] != now[name]:
                yield f"{name} was {_text(was[name])}, and is {_text(now[name])}"


def _compared(basis: AccountBasis, known: Collection[str]) -> dict[str, tuple[object, ...]]:
    """What a plan must find unchanged, by name; rules of the `known` symbols only, and no marks or liquidity."""
    on = basis.account
    found: dict[str, tuple[object, ...]] = {
        f"the market of account {on}": (basis.market,),
        f"the currency of account {on}": (basis.currency,),
        f"the list of open orders on {on}": ("unknown" if basis.orders is None else "known",),
    }
    found |= {f"{each.symbol} {each.side} on {on}": (each.contracts, "contracts") for each in basis.positions or ()}
    found |= {f"order {each.id} on {on}": (each.side, each.amount, each.symbol) for each in basis.orders or ()}
    for rules in (each for each in basis.instruments if each.symbol in known):
        found |= {f"{name} of {rules.symbol} on {on}": (value,) for name, value in asdict(rules).items()}
    return found


def _text(values: tuple[object, ...]) -> str:
    return " ".join("unknown" if it is None else f"{it:f}" if isinstance(it, Decimal) else str(it) for it in values)
