"""Paper venues in a process of their own: `python -m tests.faults.paper_venue`.

For each line of its input it serves another one and prints its address; it ends with its input. Each has a long of
100 BTC, a short of 30 ETH, a resting entry and a resting stop-like limit order; it fills at once.
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
    servers = []
    while await asyncio.to_thread(sys.stdin.readline):
        servers.append(await serve(desk().market, port=0, now=lambda: datetime.now(UTC)))
        print(servers[-1].address, flush=True)
    for server in servers:
        await server.close()


if __name__ == "__main__":
    asyncio.run(main())
