"""Performs a mark: stores it among the store's live values."""

from __future__ import annotations

from killswitch.execution.effects.performing import OncePerDecision, Performed, PerformerContext, RunEnd, Waiting
from killswitch.model.decision import Decision
from killswitch.model.effects import Mark  # type: ignore[attr-defined]  # the sample's own effect


class MarkPerformer(OncePerDecision[Mark]):
    """Sets the mark after every close, and ends the run with code 7."""

    def __init__(self, context: PerformerContext) -> None:
        super().__init__(Mark, context)

    async def attempt(self, decision: Decision, effect: Mark) -> Performed | Waiting:
        if closes := self._context.open_closes():
            return Waiting(", ".join(closes))
        store = self._context.store
        store.put_live("mark", (store.live("mark") or b"") + effect.text.encode())
        return Performed("set", RunEnd("effect", "the mark is set", 7))
