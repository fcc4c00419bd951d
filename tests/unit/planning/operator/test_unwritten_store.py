"""While the store cannot be written, what lets risk in again by hand is refused, and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from killswitch.model.instant import to_micros
from killswitch.planning.operator.commands import Hindrances, loosens, refusals
from killswitch.store import fallback
from tests.runner_world import ScriptedVenue, Seen, World, book
from tests.worlds import START, operator_event

FULL = Hindrances(unwritten="no space is left on the disk")
LOOSEN: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    ("reset", "account/main", {}),
    ("unlock", None, {}),
    ("resume", "account/main", {"ids": ("hand-1",)}),
    ("pause", "policy/test", {}),
    ("flag", None, {"flag": "roll", "is_set": False}),
    ("restate", "account/main", {"restated_as": "flow"}),
)
KEEP_OUT: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    ("close", "account/main", {}),
    ("halt", None, {"lock": "reduce_only"}),
    ("lock", None, {"lock": "reduce_only"}),
    ("cancel", None, {}),
    ("pause", "account/main", {"lock": "reduce_only"}),
    ("resume", "policy/test", {}),
    ("flag", None, {"flag": "roll", "is_set": True}),
    ("restate", "account/main", {"restated_as": "loss"}),
    ("acknowledge", None, {}),
)


@pytest.mark.parametrize(("kind", "scope", "more"), LOOSEN, ids=[each[0] for each in LOOSEN])
def test_what_lets_risk_in_again_is_refused_with_the_cause_and_the_way_out(
    kind: Any, scope: str | None, more: dict[str, Any]
) -> None:
    """A restart would know nothing of it: what was unlocked would be locked again, or the reverse."""
    event = operator_event(kind, START, scope, **more)
    (notice,) = refusals([event], (), (), to_micros(START), FULL).values()
    assert "was not carried out: it lets risk in again, and the store cannot be written" in notice.text
    assert "no space is left on the disk" in notice.text and "Free space on its disk" in notice.text
    assert refusals([event], (), (), to_micros(START)) == {}


@pytest.mark.parametrize(("kind", "scope", "more"), KEEP_OUT)
def test_exits_halts_and_closes_are_carried_out_whatever_the_store_does(
    kind: Any, scope: str | None, more: dict[str, Any]
) -> None:
    """So are the end of a pause of a policy, and a loss that is stated."""
    event = operator_event(kind, START, scope, **more)
    assert not loosens(event)
    assert refusals([event], (), (), to_micros(START), FULL) == {}


def test_a_run_in_memory_refuses_an_unlock_and_goes_on_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is locked by another process; the notice is the answer to the command."""
    monkeypatch.setattr(fallback, "HOLDER_TIMEOUT", 0.01)
    world = World(tmp_path)
    store, seen = world.open(), Seen()

    async def run() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))], witnesses=(seen,))
        await runner.start()
        store.allow_memory(lambda _: None)
        await runner.tick()
        with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await world.clock.sleep(1.0)
            await runner.tick()
            store.put_event(operator_event("unlock", world.clock.now(), "account/main", "hand-unlock"))
            await world.clock.sleep(1.0)
            await runner.tick()
            other.execute("ROLLBACK")
        await runner.finish()

    asyncio.run(run())
    notices = [each for report in seen.reports for each in report.notices if each.subject == "hand-unlock"]
    assert len(notices) == 1
    assert "it lets risk in again, and the store cannot be written" in notices[0].text
    world.close()
