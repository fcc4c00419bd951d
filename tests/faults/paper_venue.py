"""A paper venue in a process of its own: `python -m tests.faults.paper_venue` prints its address, ends with its input.

A long of 100 BTC, a short of 30 ETH, a resting entry and a resting stop-like limit order; it fills at once.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from killswitch_paper.server import serve
from tests.markets import Desk, instrument


def desk() -> Desk:
    made = Desk(instrument("BTC"), instrument("ETH"), wallet="100000", volume="100000")
    made.send("buy", "100", symbol="BTC")
    made.send("sell", "30", symbol="ETH")
    made.send("buy", "1", symbol="BTC", price="50")
    made.send("sell", "100", symbol="BTC", price="200", reduce_only=True)
    return made


async def main() -> None:
    server = await serve(desk().market, port=0, now=lambda: datetime.now(UTC))
    print(server.address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.close()


if __name__ == "__main__":
    asyncio.run(main())
