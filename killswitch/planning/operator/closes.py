"""Decisions of operator commands: resets, manual closes, and resets of orphaned latches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import StoredState, initial, level_in_force, stage_in_force, to_stored
from killswitch.graph.nodes import CorrelationGroupRule, PolicySet, RankingRule
from killswitch.graph.unwinding import skips_bounds_without_mark, unwinding_for
from killswitch.model.decision import Decision, decision_id, with_effects
from killswitch.model.effects import Cancels, Lock, LockOrder, Orders
from killswitch.model.instant import from_micros, rfc3339
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Event, LockPart, Position, Side, Snapshot
from killswitch.model.store import DamagedStateError, MachineState
from killswitch.planning.actions.cancel_orders import cancels_about
from killswitch.planning.actions.reduce import LeveragedPosition, cuts, to_sell
from killswitch.planning.orders.hedge_netting import left_naked
from killswitch.planning.orders.unwind import DERIVATIVES, declared_unwinding, unwind, without_fresh_marks, without_pace
from killswitch.planning.owners import Owners, with_owners
from killswitch.planning.scopes.compiled_policy import identity
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.stage_decision import book_change, joined, new_decision, record_of
from killswitch.planning.targets.known_positions import KnownPositions, left_out_text
from killswitch.planning.targets.ranking import Ranked, candidates, in_group_order, rank
from killswitch.planning.targets.selection import SelectedTarget
from killswitch.render.formats import money
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts
from killswitch.valuation.trust import reason_positions_missing, reason_positions_unusable

OPERATOR = "operator"
"""Policy name of decisions of operators."""


class RefusedCommandError(Exception):
    """An operator command that cannot be carried out; the message gives the reason."""


def applies(event: Event, scope: str) -> bool:
    """Whether the event applies to the scope; an event without a scope applies to all."""
    return event.scope is None or event.scope == scope


def is_unnamed(event: Event, evaluator: ScopeEvaluator) -> bool:
    """Whether a reset names what it ends, and not the firing that is in force on the scope: it fired after that."""
    firing = evaluator.decision_in_force
    is_fired = level_in_force(evaluator.state) > 0 and firing is not None
    return event.ids is not None and is_fired and firing not in event.ids


def reset_record(evaluator: ScopeEvaluator, now: int, policies: PolicySet, event: Event | None) -> Decision:
    """The decision record of a manual or automatic reset."""
    stage = stage_in_force(evaluator.state)
    return replace(
        record_of(evaluator, policies, now, f"reset/{stage}", stage),
        level=0,
        previous_level=level_in_force(evaluator.state),
        kind="reset",
        author=event.author if event else None,
        reason=event.reason if event else "the stage's condition for reset has held",
    )


def whole_accounts_in(scope: str | None, snapshot: Snapshot) -> tuple[AccountSnapshot, ...]:
    """Accounts of the snapshot in an account, a venue or the portfolio; empty for a scope of another kind."""
    kind, _, name = (scope or "portfolio").partition("/")
    if kind == "portfolio":
        return snapshot.accounts
    return tuple(it for it in snapshot.accounts if (kind, name) in (("account", it.account), ("venue", it.venue)))


def accounts_in(scope: str | None, snapshot: Snapshot, policies: PolicySet) -> tuple[AccountSnapshot, ...]:
    """Accounts of the snapshot in the scope of an operator command; empty if there are none.

    A strategy trades in those that it matches, a symbol may be in each, and a label is drawn by the policies.
    """
    kind, _, name = (scope or "portfolio").partition("/")
    if kind == "symbol":
        return snapshot.accounts
    if kind == "strategy":
        rules = [rule for rule in policies.strategies if rule.name == name]
        return tuple(it for it in snapshot.accounts if any(rule.covers(*identity(it)) for rule in rules))
    if kind == "label":
        drawn = labelled(scope or "", policies)
        return tuple(it for it in snapshot.accounts if it.account in drawn)
    return whole_accounts_in(scope, snapshot)


def labelled(scope: str, policies: PolicySet) -> frozenset[str]:
    """The accounts in the scope of a label, as the policies draw it."""
    drawn = (pair for graph in policies.graphs if graph.scope.each == "label" for pair in graph.scope.labels)
    return frozenset(account for account, label in drawn if f"label/{label}" == scope)


class ManualClose(Struct, frozen=True):
    """A manual close: its decision, problems of what it does not close, and remarks on last known positions.

    `unreadable`: account → why its close needs a new snapshot. There is no decision if that is the whole scope.
    `about`: the positions that the command names, of which it leaves all or a part of those in `remaining`.
    """

    decision: Decision | None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = {}
    about: frozenset[PnlKey] = frozenset()
    remaining: frozenset[PnlKey] = frozenset()


def part_of_command(scope: str, policies: PolicySet) -> BookPart | None:
    """The part of its accounts' books that the scope of a command is; None if it is the whole.

    A strategy that owns whole accounts is closed as they are.
    """
    kind, _, name = scope.partition("/")
    if kind == "symbol":
        return BookPart("symbol", name)
    shares = any(rule.name == name and not rule.whole for rule in policies.strategies)
    return BookPart("strategy", name) if kind == "strategy" and shares else None


def plan_manual_close(
    event: Event,
    snapshot: Snapshot,
    facts: SnapshotFacts,
    owners: Owners,
    policies: PolicySet,
    known: KnownPositions,
    only: Collection[str] | None = None,
    again: Collection[PnlKey] | None = None,
) -> ManualClose:
    """Plan the close of all positions in the event's scope, and report why the rest is not closed.

    Positions that an answer of a derivatives account leaves out without explanation are planned for (`known`). A forced
    close uses market orders, and the last good answers of derivatives accounts that cannot be read now. Of a strategy
    that shares its accounts at most its own part is closed, and nothing while that is unknown. `facts`: those of the
    snapshot. `only`: limits the scope to these accounts. `again`: a further look at a command in progress, which closes
    these positions. Neither of the two writes the lock again. RefusedCommandError if no account remains, and where a
    position is larger than the event's `most`.
    """
    scope, now = event.scope or "portfolio", facts.as_of
    book = commanded_book(event, snapshot, facts, policies, known, only)
    seen, view = book.seen, book.view
    record = replace(command_record(event, scope, now, policies), waits_for=tuple(sorted(seen.unreadable)))
    if view is None:
        # The lock does not wait for the accounts: bots may trade there meanwhile.
        locked = with_effects(record, lock_of_command(event, scope)) if event.lock and only is None else None
        return ManualClose(locked, tuple(seen.problems), unreadable=seen.unreadable)
    if event.leverage is not None and seen.unreadable:
        raise RefusedCommandError(f"the leverage is unknown: {'; '.join(seen.unreadable.values())}")
    ranked = [it for it in book.ranked if again is None or it.candidate.key in again]
    _require_bound(event, ranked)
    rule = unwinding_for(event.cause, policies.unwindings)
    rule, forced = (without_pace(rule), "by force") if event.force else (rule, None)
    chosen = _chosen(event, view, in_group_order(ranked, _groups(policies)))
    limited = owners.limited(view, chosen.targets)
    unwound = unwind(view, limited.targets, rule)
    record = replace(
        record,
        book=book_change(view, unwound.left),
        reason=joined(event.reason, forced, *seen.left_out, *chosen.remarks, *limited.remarks, *unwound.remarks),
        unwinding=declared_unwinding(rule),
    )
    intents = unwound.intents
    if skips_bounds_without_mark(rule):
        intents = without_fresh_marks(intents, seen.accounts, facts)
    orders = Orders(with_owners(intents, limited.closable))
    locks = lock_of_command(event, scope) if only is None and again is None else ()
    decision = with_effects(record, (*locks, orders, _cancels(event, view)))
    problems = (*seen.problems, *limited.remarks, *(f"{each.why} (account {each.account})" for each in unwound.blocked))
    hedges = {hedge.name: hedge for graph in policies.graphs for hedge in graph.hedges}.values()
    naked = left_naked(hedges, {(each.account, each.symbol) for each in intents}, snapshot.accounts)
    about = frozenset(each.candidate.key for each in ranked)
    remaining = frozenset(key for key in about if unwound.left.get(key) != ZERO)
    return ManualClose(decision, (*problems, *naked), tuple(seen.remarks), seen.unreadable, about, remaining)


class CommandedBook(Struct, frozen=True):
    """What a close by hand is about: its accounts, and the positions that it names, the worst first.

    `view` is None if no account can be read.
    """

    seen: _Selected
    view: ScopeView | None
    ranked: tuple[Ranked, ...] = ()


def commanded_book(
    event: Event,
    snapshot: Snapshot,
    facts: SnapshotFacts,
    policies: PolicySet,
    known: KnownPositions,
    only: Collection[str] | None = None,
) -> CommandedBook:
    """The accounts and positions of the command's scope; with `only`, of these accounts.

    RefusedCommandError if no account remains.
    """
    scope = event.scope or "portfolio"
    part = part_of_command(scope, policies)
    accounts = tuple(
        each for each in accounts_in(event.scope, snapshot, policies) if only is None or each.account in only
    )
    if not accounts:
        raise RefusedCommandError(f"{scope} names no account of this snapshot")
    if part is not None and part.kind == "strategy":
        seen = _known_parts(accounts, facts, part.name)
    else:
        seen = _to_close(accounts, known, force=event.force)
    if not seen.accounts:
        return CommandedBook(seen, None)
    around = None if part is None else facts
    view = ScopeView(facts.as_of, snapshot.scheduled, tuple(seen.accounts), facts.rules, None, around=around, part=part)
    ranked = rank(_default_ranking(policies), candidates(view, None))
    return CommandedBook(seen, view, tuple(each for each in ranked if is_commanded(event, each)))


def _cancels(event: Event, view: ScopeView) -> Cancels:
    """The orders about what the command closes; what is left of a part keeps its stops."""
    return cancels_about(view, event.symbols, event.side, "all" if event.leverage is None else "entry")


class _Chosen(Struct, frozen=True):
    """What a close leaves of each position, and why it is not nothing."""

    targets: list[SelectedTarget]
    remarks: tuple[str, ...] = ()


def _chosen(event: Event, view: ScopeView, ranked: Sequence[Ranked]) -> _Chosen:
    """Nothing of each position, or, with `leverage`, what brings the scope's gross to so many times its equity.

    The worst position is sold first, each closed before the next, and the value sold is Δ of `to_sell` without cost.
    RefusedCommandError if the equity or the value of a position is unknown.
    """
    if event.leverage is None:
        return _Chosen([SelectedTarget(each, ZERO) for each in ranked])
    values = [(each, each.measured) for each in candidates(view, None)]
    unknown = [each.position.symbol for each, value in values if value is None]
    why = view.unknown or view.positions_unknown
    if view.equity is None or why is not None or unknown:
        why = why or (f"the value of {unknown[0]} is unknown" if unknown else "the equity is unknown")
        raise RefusedCommandError(f"the leverage of {event.scope or 'portfolio'} is unknown: {why}")
    gross = sum((abs(value) for _, value in values if value is not None), ZERO)
    amount = to_sell(gross, view.equity, event.leverage)
    held = [LeveragedPosition(each, each.candidate.position.contracts, each.candidate.measured or ZERO)
            for each in ranked]  # fmt: skip
    parts = cuts(held, amount, "rank")
    targets = [SelectedTarget(each.ranked, each.contracts - parts[each.key]) for each in held if each.key in parts]
    sold = min(amount, sum((abs(each.value) for each in held), ZERO))
    currency = view.currency or ""
    what = f"gross of {money(gross, currency)} on an equity of {money(view.equity, currency)}: {money(sold, currency)}"
    short = "" if sold == amount else f" of {money(amount, currency)}, which is all that the command names,"
    return _Chosen(targets, (f"{what}{short} is sold to reach {event.leverage.normalize():f} times it",))


def is_commanded(event: Event, ranked: Ranked) -> bool:
    """Whether the command closes the position: all of its scope, or those of its symbols and its side."""
    position = ranked.candidate.position
    return (event.symbols is None or position.symbol in event.symbols) and event.side in (None, position.side)


def _require_bound(event: Event, ranked: Iterable[Ranked]) -> None:
    """RefusedCommandError for a position above the bound of the command: then part of it belongs to somebody else."""
    for each in ranked:
        position = each.candidate.position
        if event.most is not None and position.contracts > event.most:
            held, most = f"{position.contracts.normalize():f}", f"{event.most.normalize():f}"
            where = f"{each.candidate.key[0]} holds {held} of {position.symbol}"
            raise RefusedCommandError(f"{where}, above the {most} of this command, and part of it is somebody else's")


def manual_lock_order(scope: str) -> LockOrder:
    """The lock of a manual close: bots may only reduce, until an operator lifts it."""
    return LockOrder(scope, "reduce_only", None)


def command_record(event: Event, scope: str, now: int, policies: PolicySet) -> Decision:
    """The record of what an operator commands, without effects. `now` in microseconds."""
    return replace(
        new_decision(policies, OPERATOR, scope, event.id, now),
        kind="manual",
        author=event.author,
        reason=event.reason,
        cause=event.cause,
    )


def lock_of_command(event: Event, scope: str) -> tuple[Lock, ...]:
    """The lock that the command writes; empty without one."""
    if event.lock is None:
        return ()
    return (Lock(LockOrder.of(scope, (LockPart(event.lock, event.until, event.side, event.symbols),))),)


class _Selected(Struct):
    """Accounts to close, problems of the others, and remarks on the former."""

    accounts: list[AccountSnapshot] = []
    problems: list[str] = []
    remarks: list[str] = []
    left_out: list[str] = []
    """What answers leave out without explanation, and is planned for."""
    unreadable: dict[str, str] = {}
    """Account → why it cannot be closed yet."""


def _to_close(accounts: Iterable[AccountSnapshot], before: KnownPositions, *, force: bool) -> _Selected:
    """Select the accounts to close: every account with visible positions, whatever its equity.

    A forced close also takes derivatives accounts with last known positions, because reduce-only orders cannot open a
    position. Without reduce-only an order on old positions would sell blindly, so that other accounts wait.
    """
    seen = _Selected()
    for account in accounts:
        name, why_unusable = account.account, reason_positions_unusable(account) or reason_positions_missing(account)
        reduces = account.market in DERIVATIVES
        if why_unusable is None:
            left_out = before.missing(account)
            seen.accounts.append(before.with_missing(account))
            seen.left_out += [left_out_text(name, left_out)] if left_out else []
        elif not reduces and force:
            seen.unreadable[name] = (
                f"{why_unusable}; {name} is a {account.market} account: without reduce-only orders --force would sell "
                "blind, so that it sells what the next snapshot shows"
            )
        elif not force:
            seen.unreadable[name] = why_unusable + ("; --force closes its last known positions" if reduces else "")
        else:
            known = _known(account, before.last_held(name))
            seen.problems += [f"{name} reports {row}, and its position was never read" for row in known.left_out]
            if known.account is None:
                seen.unreadable[name] = f"{why_unusable}; its positions were never read"
            else:
                seen.accounts.append(known.account)
                seen.remarks.append(f"{why_unusable}; closed on its positions {known.time_text}")
    return seen


def _known_parts(accounts: Iterable[AccountSnapshot], facts: SnapshotFacts, strategy: str) -> _Selected:
    """Select the accounts in which the strategy's part is known.

    That of last known positions is not: a fill since may have been anybody's. So --force changes nothing here.
    """
    seen = _Selected()
    for account in accounts:
        why = reason_positions_unusable(account) or reason_positions_missing(account)
        if why is None and (unowned := facts.owned(account.account).reason_unknown(strategy)) is not None:
            why = f"{unowned} (account {account.account}), so that nothing of {strategy} is closed there"
        if why is None:
            seen.accounts.append(account)
        else:
            seen.unreadable[account.account] = why
    return seen


class _Known(Struct, frozen=True):
    """Known positions of an unreadable account (None: none), their time as text, and rows that are no positions."""

    account: AccountSnapshot | None
    time_text: str = ""
    left_out: tuple[str, ...] = ()


def _known(account: AccountSnapshot, last: AccountSnapshot | None) -> _Known:
    """The positions in the account's snapshot, and those of its last good snapshot that are missing there.

    An untrusted snapshot may be incomplete: a missing position is not gone. The venue refuses to reduce a position that
    is gone.
    """
    shown, insane = _rows(account)
    before, _ = ({}, {}) if last is None else _rows(last)
    left_out = tuple(time_text for key, time_text in insane.items() if key not in before)
    missing = {key: rows for key, rows in before.items() if key not in shown}
    if not shown:
        return _Known(last, "" if last is None else _of(last), left_out)
    positions = tuple(row for rows in (*shown.values(), *missing.values()) for row in rows)
    time_text = _of(account)
    if missing and last is not None:
        time_text += f", and on {', '.join(f'{side} {symbol}' for symbol, side in missing)} {_of(last)}"
    return _Known(replace(account, positions=positions), time_text, left_out)


_Rows = dict[tuple[str, Side], list[Position]]


def _rows(account: AccountSnapshot) -> tuple[_Rows, dict[tuple[str, Side], str]]:
    """Rows of each valid position, and texts of the invalid rows."""
    found: _Rows = {}
    insane: dict[tuple[str, Side], str] = {}
    for row in account.positions or ():
        if sane(row.contracts) and row.contracts > ZERO:
            found.setdefault(row.key, []).append(row)
        elif not row.contracts.is_finite() or row.contracts != ZERO:
            # A row of zero contracts is ignored; in an untrusted snapshot it does not mean that the position is closed.
            insane[row.key] = f"{row.contracts} contracts of {row.side} {row.symbol}"
    return {key: rows for key, rows in found.items() if key not in insane}, insane


def _of(account: AccountSnapshot) -> str:
    return "of an unknown time" if account.observed_at is None else f"of {rfc3339(account.observed_at)}"


def _groups(policies: PolicySet) -> tuple[CorrelationGroupRule, ...]:
    """Every correlation group of the policy set, once."""
    return tuple({group.name: group for graph in policies.graphs for group in graph.groups}.values())


def _default_ranking(policies: PolicySet) -> RankingRule:
    declared = (rule for graph in policies.graphs for rule in graph.rankings if rule.name == "default")
    return next(declared, RankingRule("default", "normalised", (("loss", 1.0),), 0))


class _Kept(msgspec.Struct):
    """The part of a stored scope evaluator that holds the latch."""

    engine: StoredState


_DECODER = msgspec.json.Decoder(_Kept)


class Orphan(Struct, frozen=True):
    """A latched stage without a scope evaluator: its policy was renamed or removed, or its account is gone."""

    policy: str
    scope: str
    level: int
    stage: str | None
    no_reset_before: int | None = None
    """Microseconds before which nobody resets it."""


def orphans_in(stored: Mapping[tuple[str, str], bytes]) -> tuple[Orphan, ...]:
    """Stored states without a scope evaluator in which a stage is in force; DamagedStateError if one is unreadable."""
    found = []
    for (policy, scope), blob in stored.items():
        try:
            state = _DECODER.decode(blob).engine
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = f"the stored state of {policy} on {scope} cannot be read ({error})"
            raise DamagedStateError(what) from error
        level = level_in_force(state)
        if level > 0:
            found.append(Orphan(policy, scope, level, stage_in_force(state), state.no_reset_before))
    return tuple(found)


def reset_orphan(orphan: Orphan, blob: bytes, now: int, digest: str, event: Event) -> tuple[Decision, MachineState]:
    """The decision record of an operator's reset of an orphan, and its remaining state without a latch."""
    as_of = from_micros(now)
    record = Decision(
        id=decision_id(orphan.policy, orphan.scope, f"reset/{orphan.stage}", as_of),
        as_of=as_of,
        policy=orphan.policy,
        policy_set=digest,
        scope=orphan.scope,
        mode="enforce",
        stage=orphan.stage,
        level=0,
        previous_level=orphan.level,
        kind="reset",
        author=event.author,
        reason=event.reason,
    )
    stored: dict[str, object] = msgspec.json.decode(blob)
    stored["engine"] = msgspec.to_builtins(to_stored(initial(), ()))
    history = stored.get("history")
    if not isinstance(history, dict):
        raise DamagedStateError(f"the stored state of {orphan.policy} on {orphan.scope} has no history")
    history["rebase_due"] = True  # if the policy returns, the operator has accepted the loss
    return record, MachineState(orphan.policy, orphan.scope, msgspec.json.encode(stored))
