"""Which files run between the poll of a fallen account and its last order: a traced tick at the paper venue.

`python -m tests.traced_tick` writes the table of these files into docs/traced-tick.md.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.venue import AccountSpec
from killswitch.runner.assembly import assemble
from killswitch_paper import adapter
from tests import graphs
from tests.markets import START, Desk, bar
from tests.runner_world import PACE, Seen, World, crash_policy

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "traced-tick.md"
TABLE = re.compile(r"\| package \|.*(?:\n\|.*)*")
NO_PACKAGE = "none"
"""The row of the files that belong to no package."""


def traced_tick() -> frozenset[str]:
    """The files, as paths from the repository, of which a function is called in a tick that fires and closes.

    One account with one position is polled at the paper venue in this process. Its equity has fallen by more than a
    tenth; a stage fires, locks trading and closes the position. The trace begins before the poll and ends when the
    close is journaled as ended.
    """
    _run()  # once without a trace, so that no import and no empty cache makes a difference
    return _run()


def _run() -> frozenset[str]:
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + timedelta(minutes=1))
        threading.setprofile(trace.called)  # before any thread of the runner starts: a thread keeps what it began with
        sys.setprofile(trace.called)
        try:
            asyncio.run(_fall_and_close(world, trace))
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            world.close()
    return frozenset(str(Path(file).relative_to(TOP)) for file in trace.files if _is_ours(file))


class Trace:
    """The files of the functions that are called on any thread while it `is_on`."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.is_on = False

    def called(self, frame: FrameType, event: str, _: Any) -> None:
        """The profile function of a thread."""
        if self.is_on and event == "call":
            self.files.add(frame.f_code.co_filename)


async def _fall_and_close(world: World, trace: Trace) -> None:
    desk, seen = Desk(wallet="1000"), Seen()
    desk.market.open_position("main", "A", "long", Decimal(2000))
    options = {"market": desk.market, "clock": world.clock}
    venue = adapter(AccountSpec("main", "paper", "swap", "USDT", None, options, {}))
    accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", venue, armed=True)}
    policies = graphs.policy_set(crash_policy())
    runner = assemble(
        policies,
        accounts,
        world.open(),
        world.clock,
        PACE,
        live=True,
        locks=world.locks,
        observers=(seen,),
        is_run=True,
    )
    await runner.start()
    await runner.tick()
    await world.clock.sleep(60.0)
    desk.pass_bar(A=bar("90"))
    trace.is_on = True
    await runner.tick()
    assert await runner.close_within(60.0), "the close has not ended"
    trace.is_on = False
    assert [decision.stage for decision in seen.reports[-1].decisions] == ["close-everything"]
    assert not desk.seen.positions, "the venue shows a position"
    await runner.finish()


def by_package(files: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
    """Package of the program, or name of the adapter → its files, without the folder of the package."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        _, first, *rest = Path(file).parts
        found[first if rest else NO_PACKAGE].append("/".join(rest or [first]))
    return {package: tuple(names) for package, names in found.items()}


def table(files: frozenset[str]) -> str:
    """The table of the page: package, number of files, files; the last row has the number of all."""
    rows = [
        f"| `{package}` | {len(names)} | {_listed(names)} |" for package, names in sorted(by_package(files).items())
    ]
    return "\n".join(["| package | files | which |", "|---|---|---|", *rows, f"| all | {len(files)} | |"])


def with_table(page: str, files: frozenset[str]) -> str:
    """The page with the table of `files` in place of its own."""
    own = TABLE.search(page)
    if own is None:
        raise ValueError("the page has no table of packages")
    return page[: own.start()] + table(files) + page[own.end() :]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name.removesuffix('.py')}`" for name in names)


def _is_ours(file: str) -> bool:
    """Whether a file belongs to the program; the clock of the traced world, which is the lab's, does not count."""
    return file.startswith((f"{TOP}/killswitch/", f"{TOP}/adapters/")) and not file.startswith(f"{TOP}/killswitch/lab/")


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), traced_tick()), encoding="utf-8")
