"""Checks of actions that cut a book to a measure of it, or move margin to it.

Of cuts: the room below the limit, what withdrawals do, repetitions. Of margin: the account, the source, the currency.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from killswitch.graph.actions.kind import Surroundings, of_node
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.actions.neutralise import Neutralise
from killswitch.graph.actions.reduce import Reduce, room
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.graph.nodes import (
    Action,
    AllOf,
    AnyOf,
    Compare,
    ConditionNode,
    Number,
    ScopeRule,
    SignalRead,
    SignalRef,
    Stage,
    Trigger,
)
from killswitch.graph.resolution.references import matches, of_kind
from killswitch.graph.resolution.strategies import without_equity
from killswitch.graph.wording import percent
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.exposure_signals import LEVERAGE

Variants = Sequence[Mapping[str, Trigger | None]]
"""The triggers of a policy as written, and with the thresholds of each variant, in the same order."""


def check_cuts(scope: ScopeRule, stages: Sequence[Stage], variants: Variants, around: Surroundings) -> None:
    """Report actions of stages (in the order written) that cut a book, and cannot do what they declare."""
    for number, stage in enumerate(stages):
        path: Path = ("spec", "stages", number)
        if around.found.gaps.has_flaw(path):
            continue
        _cuts_once(stage, path, around)
        for neutral in of_node(stage.actions, Neutralise):
            _opens_unlocked(stage, neutral, _path_of(stage, neutral, path, "neutralise"), around)
        for reduction in of_node(stage.actions, Reduce):
            _reduces(scope, stage, reduction, _path_of(stage, reduction, path, "reduce"), variants, around)


def _path_of(stage: Stage, action: Action, path: Path, key: str) -> Path:
    """The path of an action's key."""
    place = next(place for place, each in enumerate(stage.actions) if each is action)
    return (*path, "actions", place, key)


def _reduces(
    scope: ScopeRule, stage: Stage, action: Reduce, path: Path, variants: Variants, around: Surroundings
) -> None:
    """Report a cut to a leverage that is not known, not bounded, or met again at once."""
    _needs_equity(scope, action, path, around)
    _is_bounded(stage, action, path, around)
    if action.account is None:
        _has_room(stage, action, variants, path, around)
    elif action.flows == "page":
        message = f"what is withdrawn from {action.account} is not followed for this scope"
        around.found.error("KS3045", (*path, "flows"), message, "write `flows: reduce`")


def _cuts_once(stage: Stage, path: Path, around: Surroundings) -> None:
    """Report a stage that neutralises a book, and sells of it by another action too."""
    selling = [place for place, action in enumerate(stage.actions) if "orders" in action_kind(action).effects]
    neutral = of_node(stage.actions, Neutralise)
    if neutral and len(selling) > 1:
        message = f"`{stage.name}` neutralises the book, and sells of it by another action too, so that neither holds"
        fix = "write a stage for each of them, with a level of its own"
        around.found.error("KS3047", _path_of(stage, neutral[0], path, "neutralise"), message, fix, key=True)


def _opens_unlocked(stage: Stage, action: Neutralise, path: Path, around: Surroundings) -> None:
    """Report a hedge that is opened under the stage's own lock of every order."""
    if action.open is not None and any(each.mode == "all" for each in of_node(stage.actions, LockTrading)):
        message = f"`{stage.name}` locks every order, and may open {action.open.instrument} on {action.open.account}"
        fix = "write `lock_trading: {mode: reduce_only}`, or take `open` out"
        around.found.error("KS3048", (*path, "open"), message, fix, key=True)


def limits_of(condition: ConditionNode, signals: Sequence[SignalRef]) -> Iterator[float]:
    """The numbers that leverage is compared with from below: `exposure.leverage` > or ≥ a number."""
    match condition:
        case (
            Compare(op=">" | ">=", left=SignalRead(index), right=Number(value))
            | Compare(op="<" | "<=", left=Number(value), right=SignalRead(index))
        ):
            if signals[index].name == LEVERAGE:
                yield value
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from limits_of(part, signals)


def _has_room(stage: Stage, action: Reduce, variants: Variants, path: Path, around: Surroundings) -> None:
    """Report a target that the limit of a trigger of the stage leaves no room for, and what a withdrawal causes."""
    found, signals = around.found, around.columns.signals
    for triggers in variants:
        listed = list(triggers.values())
        for trigger in (listed[number] for number in dict.fromkeys((*stage.any_of, *stage.all_of))):
            limits = [] if trigger is None else list(limits_of(trigger.condition, signals))
            if trigger is None or not limits:
                continue
            if action.flows == "reduce" and not (trigger.confirm or trigger.confirm_ticks):
                found.error(
                    "KS3045", (*path, "flows"),
                    f"a withdrawal raises leverage without a loss, and `{trigger.name}` confirms at once",
                    f"write `flows: page`, or give `{trigger.name}` a `confirm`, such as 2m",
                )  # fmt: skip
                return
            if action.of == "gross" and not _leaves_room(action, trigger, min(limits), path, around):
                return


def _leaves_room(action: Reduce, trigger: Trigger, limit: float, path: Path, around: Surroundings) -> bool:
    """Whether the target is far enough below the limit; reports it if not."""
    highest = Decimal(repr(limit))
    target, fix = f"{action.to.normalize():f}", "write a lower `to`"
    if action.to >= highest:
        message = f"`{trigger.name}` fires at a leverage of {highest.normalize():f}, and {target} is not below it"
    else:
        gap = room(highest, action.to)
        shown = percent(gap.quantize(Decimal("0.0001")))
        if action.adverse_move is not None and action.adverse_move <= gap:
            return True
        message = f"cut to {target}, `{trigger.name}` is met again by a further adverse move of {shown}"
        fix = f"declare `adverse_move` of at most {shown}, or write a lower `to`"
        if action.adverse_move is not None:
            message += f", and the declared one is {percent(action.adverse_move)}"
            fix = "write a lower `to`, or a smaller `adverse_move`"
    around.found.error("KS3042", (*path, "to"), message, fix)
    return False


def _needs_equity(scope: ScopeRule, action: Reduce, path: Path, around: Surroundings) -> None:
    without = without_equity(scope)
    if without is not None and action.account is None:
        message = f"a leverage needs an equity, and {without}"
        fix = "name the `account` that is reduced, or write `each: account`"
        around.found.error("KS3046", path, message, fix, key=True)


def _is_bounded(stage: Stage, action: Reduce, path: Path, around: Surroundings) -> None:
    """Warn of a cut that a bot undoes, and that is then repeated without a bound."""
    if action.at_most_per_day is None and not of_node(stage.actions, LockTrading):
        around.found.warning(
            "KS5049", path,
            f"`{stage.name}` neither locks trading nor bounds how often it cuts: a bot that adds again is cut again",
            "add `lock_trading: {mode: reduce_only, for: …}` to the stage, or `at_most_per_day` here", key=True,
        )  # fmt: skip


def check_top_ups(
    policy: AnyPolicy, stages: Sequence[Stage], documents: Sequence[Document], around: Surroundings
) -> None:
    """Report top-ups of stages (in the order written) of what is not one account, or in another currency."""
    accounts = {each.metadata.name: each for each, _ in of_kind(documents, AccountDocument)}
    for number, stage in enumerate(stages):
        path: Path = ("spec", "stages", number)
        if around.found.gaps.has_flaw(path) or around.found.gaps.has_flaw(("spec", "scope")):
            continue
        for action in of_node(stage.actions, TopUpMargin):
            where = _path_of(stage, action, path, "top_up_margin")
            if _has_one_account(policy, action, accounts, where, around):
                _has_one_currency(policy, action, accounts, where, around)


def _has_one_account(
    policy: AnyPolicy, action: TopUpMargin, accounts: Mapping[str, AccountDocument], path: Path, around: Surroundings
) -> bool:
    """Whether each scope is one account, and none of them the source; reports it if not."""
    scope, source = policy.scope, action.source
    message, where, fix = None, path, ""
    if scope.each != "account":
        message = f"margin is moved to one account, and the scope is `each: {scope.each}`"
        fix = "write `each: account`"
    elif source in (scope.match.account or ()) or (source in accounts and matches(scope.match, accounts[source])):
        message, where = f"`{source}` is in the scope, and would give margin to itself", (*path, "from")
        fix = "narrow the scope with `match: {account: [...]}`, or name another source"
    if message is not None:
        around.found.error("KS3057", where, message, fix, key=where == path)
    return message is None


def _has_one_currency(
    policy: AnyPolicy, action: TopUpMargin, accounts: Mapping[str, AccountDocument], path: Path, around: Surroundings
) -> None:
    """Report an account of the scope, or a source, in another currency than that of the bound."""
    reached = [name for name, each in sorted(accounts.items()) if matches(policy.scope.match, each)]
    for name in (action.source, *reached):
        held = accounts[name].spec.currency if name in accounts else action.currency
        if held != action.currency:
            message = f"`{name}` is in {held}, and the bound in {action.currency}: nothing is converted on the way"
            fix = "name accounts and amounts of one currency"
            around.found.error("KS3058", (*path, "at_most"), message, fix)
            return
