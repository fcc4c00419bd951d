"""Performs exits of the process: the run ends with code 1 once no close of the run is in progress."""

from __future__ import annotations

from datetime import datetime

from killswitch.execution.effects.performing import OncePerDecision, Performed, PerformerContext, RunEnd, Waiting
from killswitch.model.decision import Decision
from killswitch.model.effects import EXIT_CODE, ProcessExit


class ProcessExitPerformer(OncePerDecision[ProcessExit]):
    """Ends the run once for each firing, after every close of the run.

    A stage that fired without latching, because accounts could not be read, may be decided again after the restart: it
    exits once within its cooldown. A reset withdraws an exit that has not happened. While the store accepts no writes
    the run continues: the next one would know neither of the trip nor of the exit, and exit again and again.
    """

    status_after_reset = "withdrawn"

    def __init__(self, context: PerformerContext) -> None:
        super().__init__(ProcessExit, context)
        self._cooldowns: dict[tuple[str, str, str | None], datetime] = {}
        """Policy, scope and stage → end of the cooldown of the firing on which an earlier run has exited."""

    def recall(self, decision: Decision, status: str | None) -> None:
        if decision.kind == "reset":
            ended = [key for key in self._cooldowns if key[:2] == (decision.policy, decision.scope)]
            for key in ended:
                del self._cooldowns[key]
        elif status == "exited" and decision.cooldown_until is not None:
            self._cooldowns[decision.policy, decision.scope, decision.stage] = decision.cooldown_until

    async def attempt(self, decision: Decision, effect: ProcessExit) -> Performed | Waiting:
        if not self._context.is_run:
            return Waiting("the next run") if decision.id in self.recovered else Performed("no_run")
        cooldown = self._cooldowns.get((decision.policy, decision.scope, decision.stage))
        if cooldown is not None and decision.as_of < cooldown:
            return Performed("exited_before")
        if closes := self._context.open_closes():
            return Waiting(", ".join(closes))
        if (why := self._context.store.in_memory_because) is not None:  # a restart would trip, and exit, again
            return Waiting(f"the store, whose records would be lost with the process: {why}")
        who = decision.policy if decision.stage is None else f"stage {decision.stage} of {decision.policy}"
        reason = f"{who} on {decision.scope} exits the process, and no close is in progress (decision {decision.id})"
        return Performed("exited", RunEnd("effect", reason, EXIT_CODE))
