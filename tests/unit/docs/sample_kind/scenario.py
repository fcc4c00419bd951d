"""Runs the program with the sample kind: compiled, planned, shown, performed once, on a copy of the program's tree."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from killswitch.graph.compile import compile_loaded
from killswitch.graph.diagram import mermaid
from killswitch.model.decision import encode_decision
from killswitch.policy.loader import load
from tests.runner_world import ScriptedVenue, World, book
from tests.shown import decision_lines

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: crash}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.loss_from_start, at_least: 10%, on_unknown: hold}
  stages:
    - name: note
      level: 1
      any: [fall]
      cooldown: 30m
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - set_mark: {text: hello}
"""


def main(folder: Path) -> None:
    (folder / "crash.yaml").write_text(POLICY)
    policies, diagnostics = compile_loaded(load([folder / "crash.yaml"]))
    assert policies is not None, [each.message for each in diagnostics]
    assert "set the mark hello" in mermaid(policies)
    world, venue = World(folder), ScriptedVenue(book("1100"))
    store = world.open()

    async def run() -> None:
        runner = world.runner(store, [venue], policies=policies)
        venue.answer = book("1100")
        await runner.start()
        await runner.tick()
        venue.answer = book("900")
        end = await runner.run(asyncio.Event())  # the effect ends it, not a signal or a number of ticks
        assert (end.reason, end.exit_code) == ("the mark is set", 7)
        second_run = world.runner(store, [venue], policies=policies)
        assert (await second_run.run(asyncio.Event(), ticks=2)).cause == "ticks"

    asyncio.run(run())
    (decision,) = [stored.decision for stored in store.decisions(10)]
    assert b'"effects":[{"kind":"mark","text":"hello"}]' in encode_decision(decision)
    assert decision_lines(decision)[-1] == "  set the mark hello"
    effect_entries = [(each.kind, each.data) for each in store.journal(decision.id) if "effect" in each.data]
    assert effect_entries == [("planned", {"effect": "mark"}), ("finished", {"effect": "mark", "status": "set"})], (
        effect_entries
    )
    assert store.live("mark") == b"hello"
    world.close()
    print("performed once")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
