"""Alternatives that a staged policy is compared with: the same triggers with other actions.

Only what reduces positions is replaced, whichever action does it. What moves margin, locks or cancels stays as it is,
and a hedge that the policy would open is not opened where everything is closed.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.close import Close, whole_close
from killswitch.graph.actions.kind import of_node
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.actions.reduce import Reduce
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.nodes import Action, Graph, PolicySet, Stage
from killswitch.market.account import CASH_MARKETS
from killswitch.model.decision import Decision, Intent
from killswitch.model.effects import Orders, tag_of
from killswitch.model.snapshot import Instrument, Position, Snapshot
from killswitch.planning.rounding import reduction

ZERO, ONE = Decimal(0), Decimal(1)


def close_all(policies: PolicySet) -> PolicySet:
    """Return the policies with every closing stage replaced by a close of the whole scope at the first trigger.

    Triggers, levels and cooldowns are unchanged; only an operator resets, because nothing is left to protect. Assets
    that no close of the stage sells are kept. A stage that reduces another account closes that one.
    """
    return replace(policies, graphs=tuple(_closing_all(graph) for graph in policies.graphs))


def _closing_all(graph: Graph) -> Graph:
    return replace(graph, stages=tuple(_all_of(stage, graph) for stage in graph.stages))


def _all_of(stage: Stage, graph: Graph) -> Stage:
    others = tuple(each for each in of_node(stage.actions, Reduce) if each.account is not None)
    own = replace(stage, actions=tuple(each for each in stage.actions if each not in others))
    close = whole_close(own.actions, [rule.name for rule in graph.rankings]) or _plain_close(own, graph)
    elsewhere = tuple(_whole(each) for each in others)
    closes: tuple[Action, ...] = elsewhere if close is None else (close, *elsewhere)
    if not closes:
        return stage
    actions = (LockTrading("reduce_only", None), CancelOrders("entry"), *closes, CancelOrders("all"))
    return replace(stage, actions=actions, reset=None)


def _whole(cut: Reduce) -> Reduce:
    """The cut of another account to nothing: a `close` is of the scope."""
    return replace(cut, to=ZERO, of="gross", cost=ZERO, adverse_move=None, at_most_per_day=None)


def _plain_close(stage: Stage, graph: Graph) -> Close | None:
    """Return a close of everything for a stage that closes by other actions; None for a stage that closes nothing."""
    kinds = [(action_kind(action), action) for action in stage.actions]
    ranked = [name for kind, action in kinds if tag_of(Orders) in kind.effects for name in kind.rankings(action)]
    if not ranked:
        return None
    ranking = "default" if any(rule.name == "default" for rule in graph.rankings) else ranked[0]
    return Close(
        side="both", ranking=ranking, top=None, worst_share=None, fraction=ONE, all_if=None, symbols=None,
        except_assets=(), place=stage.place,
    )  # fmt: skip


def in_proportion(
    decision: Decision, snapshot: Snapshot, instruments: tuple[Instrument, ...], earlier: dict[str, Decimal]
) -> Decision:
    """Spread the decision's cut of gross over every position of its accounts in proportion.

    This compares rules at equal gross: the policy decides how much is cut, and only what is cut differs. Lots are
    rounded up as always. The decision has no schedule then, which is one of its own orders. `earlier` is what decisions
    on the same snapshot cut before, by account, and this cut is added to it: of two targets for a position the smaller
    one applies, so the second decision must request both cuts.
    """

    rules = {instrument.symbol: instrument for instrument in instruments}
    touched = {intent.account for intent in decision.intents}
    held = [
        (account.account, account.market not in CASH_MARKETS, position)
        for account in snapshot.accounts
        if account.account in touched
        for position in account.positions or ()
    ]
    value_per_contract = {(name, p.symbol, p.side): (p.notional or Decimal(0)) / p.contracts for name, _, p in held}
    reducing = [intent for intent in decision.intents if intent.purpose == "reduce"]
    if not reducing:
        return decision  # a hedge cuts nothing
    cut = sum((i.contracts * value_per_contract[i.account, i.symbol, i.position_side] for i in reducing), Decimal(0))
    gross = {name: Decimal(0) for name in touched}
    for name, _, position in held:
        gross[name] += position.notional or Decimal(0)
    total = sum(gross.values(), Decimal(0))
    if total <= 0:
        return decision
    share = min(ONE, (cut + sum((earlier.get(name, Decimal(0)) for name in touched), Decimal(0))) / total)
    earlier.update({name: share * gross[name] for name in touched})
    intents: list[Intent] = []
    for name, on_margin, position in held:
        intents += _cut(name, position, share, rules[position.symbol], len(intents), reduce_only=on_margin)
    return replace(decision, intents=tuple(intents), schedule=None)


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
