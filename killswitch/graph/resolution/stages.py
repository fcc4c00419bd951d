"""Stages and their actions, with every name in them resolved."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from killswitch.graph.nodes import (
    Action,
    AttributionRule,
    AutoReset,
    CancelOrders,
    Close,
    ConditionNode,
    LockTrading,
    RankingRule,
    Stage,
)
from killswitch.graph.problems import Findings, Others, unknown_name
from killswitch.graph.resolution.thresholds import Columns
from killswitch.graph.resolution.triggers import expression
from killswitch.graph.resolution.unwindings import carried_out_by
from killswitch.graph.wording import percent
from killswitch.policy.schema import actions, policy
from killswitch.policy.yaml.source import Path


@dataclass(slots=True)
class Surroundings:
    """What the stages of one policy may refer to, and what their conditions add to the graph."""

    triggers: Mapping[str, int]
    """Name → number of every trigger that is written, also of those that have a mistake."""
    rankings: Mapping[str, RankingRule]
    unwindings: Collection[str]
    others: Others
    """What documents with mistakes in them may be called."""
    columns: Columns
    position_columns: Columns
    found: Findings
    first_reset: int
    resets: list[tuple[Path, ConditionNode]] = field(default_factory=list)
    all_ifs: list[tuple[Path, ConditionNode]] = field(default_factory=list)
    used_rankings: set[str] = field(default_factory=set)


def stage(number: int, written: policy.Stage, around: Surroundings) -> Stage:
    """Stage `number` as written; names that lead nowhere are left out, and told in `found`."""
    path: Path = ("spec", "stages", number)
    rule = written.attribution
    return Stage(
        name=written.name,
        level=written.level,
        any_of=_triggers(written.any_of, (*path, "any"), around),
        all_of=_triggers(written.all_of, (*path, "all"), around),
        cooldown=written.cooldown,
        reset=_reset(written, path, around),
        corroborate=written.corroborate,
        attribution=None
        if rule is None
        else AttributionRule(float(rule.source_at_least), rule.if_mixed, rule.if_unknown),
        actions=tuple(_actions(written, (*path, "actions"), around)),
        notify=written.notify,
        runbook=written.runbook,
        place=around.found.place(path),
        close_within=written.when_unreachable.close_within,
    )


def _triggers(names: Sequence[str], path: Path, around: Surroundings) -> tuple[int, ...]:
    gaps = around.found.gaps
    certain = gaps.sound and not gaps.unread(("spec", "triggers"))
    for place, name in enumerate(names):
        if name not in around.triggers and certain and not gaps.unread((*path, place)):
            message, fix = unknown_name("trigger", name, around.triggers)
            around.found.error("KS3010", (*path, place), message, fix)
    return tuple(dict.fromkeys(around.triggers[name] for name in names if name in around.triggers))


def _reset(written: policy.Stage, path: Path, around: Surroundings) -> AutoReset | None:
    if not isinstance(written.reset, policy.AutoReset):
        return None
    auto = written.reset.auto
    where: Path = (*path, "reset", "auto", "when")
    condition = expression(auto.when, "scope", where, around.columns, around.found)
    if condition is None:
        return None
    around.resets.append((where, condition))
    return AutoReset(around.first_reset + len(around.resets) - 1, auto.duration)


def _actions(stage: policy.Stage, path: Path, around: Surroundings) -> Iterator[Action]:
    for place, action in enumerate(stage.actions):
        if not around.found.gaps.unread((*path, place)) and action != policy.Action():
            yield _action(action, stage, (*path, place), around)


def _action(written: policy.Action, stage: policy.Stage, path: Path, around: Surroundings) -> Action:
    if written.lock_trading is not None:
        return LockTrading(written.lock_trading.mode, written.lock_trading.duration)
    if written.cancel_orders is not None:
        return CancelOrders(written.cancel_orders.kind)
    if written.close is None:
        raise AssertionError("the schema lets no action through without one of its keys")
    return _close(written.close, stage, (*path, "close"), around)


def _close(written: actions.Close, stage: policy.Stage, path: Path, around: Surroundings) -> Close:
    known = written.rank in around.rankings or around.others.may_have("Ranking", written.rank)
    if not known and not around.found.gaps.unread((*path, "rank")):
        message, fix = unknown_name("ranking", written.rank, around.rankings)
        around.found.error("KS3011", (*path, "rank"), message, fix)
    around.used_rankings.add(written.rank)
    _unwinding_exists(written, path, around)
    _worst_applies(written, stage, path, around.found)
    _part_applies(written, path, around.found)
    all_if = None
    if written.all_if is not None:
        where: Path = (*path, "all_if")
        all_if = expression(written.all_if, "position", where, around.position_columns, around.found)
        around.all_ifs += () if all_if is None else ((where, all_if),)
    return Close(
        side=written.side,
        ranking=written.rank,
        top=written.top,
        worst_share=None if written.worst is None else float(written.worst),
        fraction=written.fraction,
        all_if=all_if,
        symbols=written.symbols,
        except_assets=written.except_assets,
        place=around.found.place(path, key=True),
        share_cap=written.share_cap,
        spread=written.spread,
        unwinding=carried_out_by(written.unwinding, around.unwindings),
    )


def _unwinding_exists(written: actions.Close, path: Path, around: Surroundings) -> None:
    name, where = written.unwinding, (*path, "unwinding")
    if name is None or name in around.unwindings or around.found.gaps.unread(where):
        return
    if not around.others.may_have("Unwinding", name):
        message, fix = unknown_name("unwinding", name, around.unwindings)
        around.found.error("KS3030", where, message, fix)


def _part_applies(written: actions.Close, path: Path, found: Findings) -> None:
    """Warn of a spread of everything, and of a cap above what the fraction leaves of the whole book."""
    if written.spread == "by_rank" and written.fraction == 1 and not found.gaps.flawed(path):
        message = "`by_rank` says nothing where everything is closed"
        found.warning("KS5013", (*path, "spread"), message, "take it out, or close less", key=True)
    cap, kept = (
        written.share_cap,
        1 - (written.fraction if written.spread == "each" else Decimal(int(written.fraction))),
    )
    if cap is None or cap < kept or found.gaps.unread((*path, "share_cap")) or found.gaps.unread((*path, "fraction")):
        return
    message = "`share_cap` never applies here: `fraction` closes everything"
    if kept:
        message = (
            f"`share_cap` never applies here: the fraction leaves no position more than {percent(kept)} of the gross"
        )
    found.warning(
        "KS5011", (*path, "share_cap"), message,
        f"write a cap below {percent(kept)}, or take it out" if kept else "take it out",
        key=True,
    )  # fmt: skip


def _worst_applies(written: actions.Close, stage: policy.Stage, path: Path, found: Findings) -> None:
    rule = stage.attribution
    falls_back = written.side == "losing" and rule is not None and "worst_ranked" in (rule.if_mixed, rule.if_unknown)
    known = not found.gaps.flawed((*path, "side")) and not found.gaps.flawed((*path[:3], "attribution"))
    if written.worst is not None and not falls_back and known:
        found.warning(
            "KS5007", (*path, "worst"),
            "`worst` never applies here: it bounds what is closed when attribution falls back to worst_ranked",
            "take it out, or bound the number of positions with `top`",
            key=True,
        )  # fmt: skip
