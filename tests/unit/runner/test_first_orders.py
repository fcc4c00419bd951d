"""What happens before the first orders of a decision over several accounts leave, and what only after them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from killswitch.execution.send.order_sender import FIRST
from killswitch.model.store import JournalEntry
from killswitch.model.venue import OrderReport, OrderRequest, VenueDescription, VenueError
from killswitch.store.sqlite import open_store
from tests import virtual_time
from tests.bench.closing import close
from tests.bench.venues import SimulatedVenue

EACH = 60


@pytest.mark.parametrize("batch", [1, 5])
def test_the_first_orders_of_each_account_leave_before_anything_else_is_computed(tmp_path: Path, batch: int) -> None:
    """An account's first ten are journaled, and leave before the next account's are, and before any of its others."""
    log: list[tuple[str, str, int]] = []

    class Watched(SimulatedVenue):
        """Notes its orders as they leave."""

        async def submit(self, request: OrderRequest) -> OrderReport:
            log.append(("sent", self.account, 1))
            return await super().submit(request)

        async def _submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
            log.append(("sent", self.account, len(requests)))
            return await super()._submit_batch(requests)

    timeline = virtual_time.VirtualTime()
    store = open_store(str(tmp_path / "store.sqlite"))
    write = store.append_all

    def append_all(entries: Sequence[JournalEntry]) -> None:
        if entries[0].kind == "sending":
            log.append(("journaled", entries[0].account or "", len(entries)))
        write(entries)

    store.append_all = append_all  # type: ignore[method-assign] # it writes the same
    venues = [
        Watched(name, VenueDescription(batch=batch), EACH, seed) for seed, name in enumerate(("one", "two", "three"))
    ]
    timeline.run(close(venues, store, timeline))
    store.close()
    first = [line for name in ("one", "two", "three") for line in (
        ("journaled", name, FIRST), *[("sent", name, batch)] * (FIRST // batch)
    )]  # fmt: skip
    assert log[: len(first)] == first
    assert sum(count for what, _, count in log if what == "sent") == 3 * EACH
