"""What a staged policy is held against: the same triggers with another answer."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from msgspec.structs import replace as replaced

from killswitch.graph.nodes import CancelOrders, Close, Graph, LockTrading, PolicySet, Stage
from killswitch.market.account import CASH_MARKETS
from killswitch.model.decision import Decision, Intent
from killswitch.model.snapshot import Instrument, Position, Snapshot
from killswitch.planning.rounding import reduction

ONE = Decimal(1)


def close_all(policies: PolicySet) -> PolicySet:
    """Everything at the first trigger: whichever stage that closes anything fires first, closes the whole scope.

    Triggers, levels and cooldowns stay; only a hand resets, because there is nothing left to protect.
    """
    return replace(policies, graphs=tuple(_closing_all(graph) for graph in policies.graphs))


def _closing_all(graph: Graph) -> Graph:
    return replace(graph, stages=tuple(_all_of(stage, graph) for stage in graph.stages))


def _all_of(stage: Stage, graph: Graph) -> Stage:
    closes = [action for action in stage.actions if isinstance(action, Close)]
    if not closes:
        return stage
    close = replace(
        closes[0], side="both", ranking="default", top=None, worst_share=None, fraction=ONE, all_if=None, symbols=None
    )
    rankings = {rule.name for rule in graph.rankings}
    if "default" not in rankings:
        close = replace(close, ranking=closes[0].ranking)
    actions = (LockTrading("reduce_only", None), CancelOrders("entry"), close, CancelOrders("all"))
    return replace(stage, actions=actions, reset=None)


def in_proportion(decision: Decision, snapshot: Snapshot, instruments: tuple[Instrument, ...]) -> Decision:
    """The decision with its cut of gross spread over every position of its accounts in proportion.

    This is what compares rules at equal gross: how much is cut is the policy's, only what is cut differs. Lots are
    rounded up as ever.
    """
    rules = {instrument.symbol: instrument for instrument in instruments}
    touched = {intent.account for intent in decision.intents}
    held = [
        (account.account, account.market not in CASH_MARKETS, position)
        for account in snapshot.accounts
        if account.account in touched
        for position in account.positions or ()
    ]
    worth = {(name, p.symbol, p.side): (p.notional or Decimal(0)) / p.contracts for name, _, p in held}
    cut = sum((i.contracts * worth[i.account, i.symbol, i.position_side] for i in decision.intents), Decimal(0))
    gross = sum((p.notional or Decimal(0) for _, _, p in held), Decimal(0))
    if gross <= 0:
        return decision
    share = min(ONE, cut / gross)
    intents: list[Intent] = []
    for name, on_margin, position in held:
        intents += _cut(name, position, share, rules[position.symbol], len(intents), reduce_only=on_margin)
    return replaced(decision, intents=tuple(intents))


def _cut(
    account: str, position: Position, share: Decimal, rules: Instrument, rank: int, *, reduce_only: bool
) -> list[Intent]:
    found = reduction(position, position.contracts * (ONE - share), rules, reduce_only=reduce_only)
    return [
        Intent(
            account=account,
            symbol=position.symbol,
            position_side=position.side,
            side="sell" if position.side == "long" else "buy",
            contracts=part,
            target=found.target,
            reduce_only=reduce_only,
            rank=rank + 1,
        )
        for part in found.parts
    ]
