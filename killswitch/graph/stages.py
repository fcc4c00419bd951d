"""Stages and their actions, with every name in them resolved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from killswitch.graph.actions.kind import Surroundings
from killswitch.graph.actions.registry import kind_named
from killswitch.graph.nodes import Action, AttributionRule, AutoReset, Stage
from killswitch.graph.problems import unknown_name
from killswitch.graph.resolution.triggers import expression
from killswitch.policy.schema import policy
from killswitch.policy.yaml.source import Path


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
        for key, part in action.written.items():
            if not around.found.gaps.unread((*path, place)):
                yield kind_named(key).resolve(part, stage, (*path, place, key), around)
