"""Graphs for tests of the packages above the compiler, written the short way, and those of files."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from killswitch.graph.actions.close import Close
from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import (
    Action,
    AttributionRule,
    AutoReset,
    Compare,
    ComparisonOp,
    CorrelationGroupRule,
    EquityRule,
    Graph,
    Number,
    OnUnknown,
    Place,
    PolicySet,
    RankingRule,
    ScopeRule,
    SignalRead,
    SignalRef,
    Stage,
    Threshold,
    Trigger,
)
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.policy.loader import load

HERE = Place("policy.yaml", 1, 1, "")
DEFAULT_RANKING = RankingRule(
    "default",
    "normalised",
    (
        ("pnl_delta", 0.40),
        ("loss", 0.25),
        ("liquidation_proximity", 0.20),
        ("notional_share", 0.10),
        ("margin_loss", 0.05),
    ),
    15 * MINUTE,
)
FALL_15M = SignalRef("equity.drawdown", (15 * MINUTE,))
FALL_1H = SignalRef("equity.drawdown", (HOUR,))


def compiled(*paths: Path) -> PolicySet:
    """The policies of files and folders, compiled together. AssertionError, with every diagnostic, on an error."""
    policies, problems = compile_loaded(load(paths))
    assert policies is not None, [f"{each.code} {each.message}" for each in problems]
    return policies


def trigger(
    name: str,
    signal: int,
    at_least: float,
    *,
    confirm: int = 0,
    ticks: int = 0,
    on_unknown: OnUnknown = "hold",
    grace: int | None = 2 * HOUR,
    op: ComparisonOp = ">=",
    rearms: bool = False,
) -> Trigger:
    """A threshold trigger on signal number `signal`; times in microseconds. `rearms`: the signal is no loss."""
    return Trigger(
        name, Compare(op, SignalRead(signal), Number(at_least)), Threshold(signal, op, at_least, f"{at_least:.1%}"),
        confirm, ticks, on_unknown, grace, HERE, rearms,
    )  # fmt: skip


def close(
    side: str = "both",
    fraction: str = "1",
    *,
    top: int | None = None,
    worst: float | None = None,
    ranking: str = "default",
    **more: Any,
) -> Close:
    """A close action."""
    fields: dict[str, Any] = {"all_if": None, "symbols": None, "except_assets": (), **more}
    return Close(side, ranking, top, worst, Decimal(fraction), place=HERE, **fields)  # type: ignore[arg-type]  # literal


def stage(
    name: str,
    level: int,
    *any_of: int,
    all_of: Sequence[int] = (),
    cooldown: int = 30 * MINUTE,
    reset: AutoReset | None = None,
    corroborate: bool = False,
    attribution: AttributionRule | None = None,
    actions: Sequence[Action] = (),
    close_within: int = 0,
) -> Stage:
    """A stage that fires on any of the triggers with these numbers."""
    return Stage(
        name, level, tuple(any_of), tuple(all_of), cooldown, reset, corroborate, attribution, tuple(actions), (), None,
        HERE, close_within,
    )  # fmt: skip


def graph(
    signals: Sequence[SignalRef],
    triggers: Sequence[Trigger],
    stages: Sequence[Stage],
    *,
    reset_when: Sequence[Compare] = (),
    position_signals: Sequence[SignalRef] = (),
    policy: str = "test",
    groups: Sequence[CorrelationGroupRule] = (),
    rankings: Sequence[RankingRule] = (DEFAULT_RANKING,),
    **more: Any,
) -> Graph:
    """A policy over each account; `more` replaces fields of the graph."""
    made = Graph(
        policy=policy,
        digest="sha256:test",
        mode="enforce",
        scope=ScopeRule("account", None, None, None, None),
        equity=EquityRule(10 * MINUTE, 0.001, 60 * SECOND, None),
        signals=tuple(signals),
        position_signals=tuple(position_signals),
        triggers=tuple(triggers),
        conditions=(*(t.condition for t in triggers), *reset_when),
        stages=tuple(sorted(stages, key=lambda s: -s.level)),
        rankings=tuple(rankings),
        groups=tuple(groups),
        place=HERE,
    )
    return replace(made, **more)


def policy_set(*graphs: Graph) -> PolicySet:
    return PolicySet("sha256:test", None, graphs)
