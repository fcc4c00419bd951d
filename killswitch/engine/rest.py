"""When `step` can be left out: until when it would change nothing and propose nothing.

An interpreter over long quiet stretches (a backtest) asks this instead of stepping through every one of them. The
answer is `step`'s own arithmetic read backwards, and a test holds the two together.
"""

from __future__ import annotations

from killswitch.engine.state import NEVER, State
from killswitch.engine.step import Machine, stands


def rests_until(machine: Machine, state: State, true: int, unknown: int) -> int:
    """The instant (microseconds) before which `step` is idle as long as the conditions stay as they are.

    `state` is what the last step came to, `true` and `unknown` the masks that it evaluated. NEVER: only other
    conditions move it. 0: it is not at rest.
    """
    triggers = state.triggers
    missing = unknown & machine.all
    holding = (true & machine.all) | (missing & machine.hold & triggers.held) | (missing & machine.trip)
    if holding != triggers.held or missing != triggers.unknown or state.barren or state.waiting or state.partial:
        return 0
    if holding & machine.counting & ~triggers.confirmed:
        return 0
    if any(stage.level >= state.level and stands(stage, triggers.confirmed) for stage in machine.graph.stages):
        return 0  # only its cooldown or the unit value keeps it from firing
    return min(triggers.due, _reset_due(machine, state, true))


def _reset_due(machine: Machine, state: State, true: int) -> int:
    """When the latched stage's automatic reset is due if its condition stays; 0 if its clock is not set yet."""
    if state.level == 0:
        return NEVER
    stage = machine.in_force(state)
    if stage is None or stage.reset is None:
        return NEVER
    if not true >> stage.reset.condition & 1:
        return NEVER if state.reset_since is None else 0
    if state.reset_since is None:
        return 0
    return max(state.reset_since + stage.reset.hold, state.cooldown_until or 0)
