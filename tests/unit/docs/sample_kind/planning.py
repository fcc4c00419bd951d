"""`set_mark`: the mark, whatever accounts hold."""

from __future__ import annotations

from killswitch.graph.actions.set_mark import SetMark  # type: ignore[import-not-found]  # the sample's own node

from killswitch.model.effects import Mark  # type: ignore[attr-defined]  # the sample's own effect
from killswitch.planning.actions.kind import ActionPlan, Context, Planned


def _plan(action: SetMark, context: Context) -> Planned:
    return Planned(effects=(Mark(action.text),))


KIND = ActionPlan(key="set_mark", plan=_plan)
