"""Saved plans: their basis, the comparison of the basis with a snapshot, and the decisions that carry them out.

A plan is based on the complete books of its scopes, so all of them must be unchanged: positions that have grown or
appeared since are not part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal

from msgspec.structs import asdict, replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, decision_id
from killswitch.model.effects import Effect, Lock, expiry_of, kind_of
from killswitch.model.instant import SECOND, from_micros, rfc3339, to_micros
from killswitch.model.lock_parts import parts_text
from killswitch.model.magnitude import sound_instrument
from killswitch.model.snapshot import Event, Instrument, Order, Position, Snapshot
from killswitch.planning.actions.registry import certain_effects
from killswitch.planning.operator.closes import OPERATOR, accounts_in, manual_lock_order
from killswitch.planning.operator.plan_check import has_basis, part_faults, plan_faults, unsound_numbers
from killswitch.planning.operator.plan_file import AccountBasis, PlanFileError, SavedPlan, decode_plan
from killswitch.planning.scopes.compiled_policy import identity, members_of, scopes_of, symbols_in
from killswitch.planning.targets.merge import ordered_symbols
from killswitch.valuation.account_facts import AccountFacts
from killswitch.valuation.position_measures import ZERO
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
    return _bases(names, snapshot, traded, rules)


def _bases(
    names: Collection[str], snapshot: Snapshot, traded: Collection[tuple[str, str]], rules: Instruments
) -> tuple[AccountBasis, ...]:
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
    now, instruments = facts.as_of, facts.rules
    try:
        plan = decode_plan(event.plan or "")
    except PlanFileError as error:
        raise RefusedPlanError((str(error),)) from error
    present = {account.account: account for account in snapshot.accounts}
    found = tuple(unsound_numbers(plan)) or (
        *changes(plan, snapshot, policies, instruments),
        *plan_faults(plan, policies, present, instruments),
        *part_faults(plan, facts, policies),
    )
    waited = now - to_micros(event.at)
    if waited > LONGEST_WAIT:
        found = (f"the order to apply it has waited {waited // SECOND} s for a tick", *found)
    if found:
        raise RefusedPlanError(found)
    return tuple(_decision(plan, index, event, now, policies) for index in range(len(plan.decisions)))


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


def changes(plan: SavedPlan, snapshot: Snapshot, policies: PolicySet, instruments: Instruments) -> Iterator[str]:
    """Everything that has changed since the plan was made, one sentence each."""
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
    in_basis = {basis.account for basis in plan.basis}
    seen = {each.account: each for each in _bases(in_basis, snapshot, (), {})}
    for basis in plan.basis:
        present = seen.get(basis.account)
        if present is None:
            yield f"account {basis.account} is no longer watched"
        else:
            yield from _changes_of(basis, present, instruments)
    for name in sorted(_concerned(plan.decisions, snapshot, policies) - in_basis):
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
        if effect not in written or at - to_micros(plan.as_of) > AHEAD:
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


def _changes_of(basis: AccountBasis, present: AccountBasis, instruments: Instruments) -> Iterator[str]:
    if present.unread is not None:
        yield f"account {basis.account} cannot be read: {present.unread}"
        return
    if basis.unread is not None:
        yield f"account {basis.account} could not be read for the plan ({basis.unread}), and can be now"
    else:
        for name in ("market", "currency"):
            was, now_is = getattr(basis, name), getattr(present, name)
            if was is not None and was != now_is:
                yield f"the {name} of account {basis.account} was {was}, and is {now_is}"
        yield from _moved(basis, present)
        yield from _orders(basis, present)
    for rules in basis.instruments:
        yield from _rules(basis.account, rules, instruments.get((basis.account, rules.symbol)))


def _moved(basis: AccountBasis, present: AccountBasis) -> Iterator[str]:
    was, held = ({each.key: each.contracts for each in it.positions or ()} for it in (basis, present))
    for symbol, side in sorted(was.keys() | held.keys()):
        before, after = was.get((symbol, side), ZERO), held.get((symbol, side), ZERO)
        where = f"{symbol} {side} on {basis.account}"
        if not before:
            yield f"{where} has appeared: {after:f} contracts"
        elif not after:
            yield f"{where} has vanished: it was {before:f} contracts"
        elif before != after:
            yield f"{where} has {'grown' if after > before else 'shrunk'} from {before:f} to {after:f} contracts"


def _orders(basis: AccountBasis, present: AccountBasis) -> Iterator[str]:
    if (basis.orders is None) is not (present.orders is None):
        known, then = ("known", "were not") if basis.orders is None else ("unknown", "were known")
        yield f"the open orders of {basis.account} are {known} now, and {then}"
        return
    was, resting = ({each.id: each for each in it.orders or ()} for it in (basis, present))
    for id_ in sorted(was.keys() | resting.keys()):
        before, after = was.get(id_), resting.get(id_)
        if before is None and after is not None:
            yield f"order {id_} is new: {_order_text(after)} on {basis.account}"
        elif after is None and before is not None:
            yield f"order {id_} is gone: it was {_order_text(before)} on {basis.account}"
        elif before is not None and after is not None and before != after:
            yield f"order {id_} on {basis.account} was {_order_text(before)}, and is {_order_text(after)}"


def _order_text(order: Order) -> str:
    return f"{order.side} {order.amount:f} {order.symbol}"


def _rules(account: str, was: Instrument, now: Instrument | None) -> Iterator[str]:
    if now is None:
        yield f"the rules of {was.symbol} on {account} are not known now"
        return
    for name, before in asdict(was).items():
        after = getattr(now, name)
        if after != before:
            yield f"{name} of {was.symbol} on {account} was {_value_text(before)}, and is {_value_text(after)}"


def _value_text(value: object) -> str:
    return "unknown" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)
