"""`exit_process`: one exit, whatever the accounts hold."""

from __future__ import annotations

from killswitch.graph.actions.exit_process import ExitProcess
from killswitch.model.effects import ProcessExit
from killswitch.planning.actions.kind import ActionPlan, Context, Planned


def _plan(_action: ExitProcess, _context: Context) -> Planned:
    return Planned(effects=(ProcessExit(),))


KIND = ActionPlan(key="exit_process", plan=_plan)
