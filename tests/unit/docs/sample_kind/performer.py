"""Performs a mark: stores it among the store's live values."""

from __future__ import annotations

from killswitch.execution.effects.performing import OncePerDecision
from killswitch.model.decision import Decision
from killswitch.model.effects import Mark  # type: ignore[attr-defined]  # the sample's own effect


class MarkPerformer(OncePerDecision[Mark]):
    @property
    def ends_run(self) -> bool:  # type: ignore[override]  # asked anew each time
        return bool(self.ended)

    async def attempt(self, decision: Decision, effect: Mark) -> str | None:
        self._store.put_live("mark", (self._store.live("mark") or b"") + effect.text.encode())
        return "set"
