"""`killed_closer`, on a paper venue that another process serves.

Run as a program: `python -m tests.faults.killed_paper_closer FOLDER ENDPOINT [MOMENT …]`.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Cancel, Decision, Intent
from killswitch.model.venue import AccountSpec, OrderReport, OrderRequest, VenueAdapter
from killswitch.store.sqlite import open_store
from killswitch_paper import adapter
from tests.closing_cases import commit, drive
from tests.faults.killed_closer import Death, DyingStore, live_and_die
from tests.honest_venue import NOW, VirtualClock


class DyingAdapter:
    """Any adapter; its orders and cancels are moments."""

    def __init__(self, venue: VenueAdapter, death: Death) -> None:
        self._venue = venue
        self._death = death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def submit(self, request: OrderRequest) -> OrderReport:
        number = self._death.before("order")
        report = await self._venue.submit(request)
        self._death.after("order", number)
        return report

    async def cancel(self, symbol: str, order_id: str) -> None:
        number = self._death.before("cancel")
        await self._venue.cancel(symbol, order_id)
        self._death.after("cancel", number)


async def decision_on(venue: VenueAdapter) -> Decision:
    """Halve the long, close the short, cancel the entry before and the protection after."""
    orders = await venue.open_orders()
    cancels = tuple(Cancel("main", o.symbol, o.id, "all" if o.reduce_only else "entry") for o in orders)
    intents = (
        Intent("main", "BTC", "long", "sell", Decimal(50), Decimal(50), True, 1),
        Intent("main", "ETH", "short", "buy", Decimal(30), Decimal(0), True, 2),
    )
    return Decision(
        id="d1", as_of=NOW, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce",
        stage="close", level=1, previous_level=0, intents=intents, cancels=cancels,
    )  # fmt: skip


async def life(folder: Path, endpoint: str, death: Death, number: int) -> bool:
    spec = AccountSpec("main", "paper", "swap", "USDT", endpoint, {}, {})
    venue: Any = DyingAdapter(adapter(spec), death)
    store: Any = DyingStore(open_store(str(folder / "store.sqlite")), death)
    closer = AccountExecutor("main", venue, store, VirtualClock(NOW + timedelta(hours=number)))
    await closer.recover()
    if store.decision("d1") is None:
        closer.adopt(commit(store, await decision_on(venue)))
    done = await drive(closer)
    await venue.close()
    return done


def main() -> None:
    folder, endpoint, moments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    live_and_die(lambda death, number: life(folder, endpoint, death, number), moments)


if __name__ == "__main__":
    main()
