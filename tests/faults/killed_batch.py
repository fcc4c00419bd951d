"""Closes a book in batches, in child processes that die at one moment each, and then once more without dying.

Run as a program: `python -m tests.faults.killed_batch FOLDER`. First one child lives undisturbed, and the moments that
it passes through are recorded: `write-N` is the N-th durable write of the store (a batch's orders are one), and
`submit-N`, `cancel-N`, `snapshot-N` and so on the N-th request of a kind, each before and after it has taken effect.
Then, for each of them, a child is killed there, and the next one continues. What the venue and the store hold at the
end stays in `FOLDER/MOMENT`, and each moment is printed with how its children ended.

With `FOLDER EVERY SEED`, each child that continues is killed as well, at every EVERY-th of its own moments; the first
moment is every fifth then. SEED gives the first of them.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy.dialects.sqlite  # noqa: F401 - else each child imports it
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.decision import Cancel, Decision, Rung, Unwinding
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.model.venue import Call, VenueError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.killed_closer import Death
from tests.faults.mishaps import Rule, Script
from tests.faults.scene import committed, decision_on
from tests.faults.statement import statement
from tests.faults.wire import Wire
from tests.virtual_time import START, VirtualTime

BTC: Key = ("BTC", "long")
ETH: Key = ("ETH", "short")
SOL: Key = ("SOL", "long")
XRP: Key = ("XRP", "short")
BOOK = {BTC: Decimal(10), ETH: Decimal(6), SOL: Decimal(4), XRP: Decimal(3)}
LEFT = {BTC: Decimal(5), ETH: Decimal(0), SOL: Decimal(0), XRP: Decimal(1)}
PAUSE = 5
"""Seconds until a killed program has been started again."""


class DyingStore:
    """The real store; its writes are moments."""

    def __init__(self, store: SqlStore, death: Death) -> None:
        self._store = store
        self._death = death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, entry: JournalEntry) -> int:
        return self._moment(lambda: self._store.append(entry))

    def append_all(self, entries: Sequence[JournalEntry]) -> None:
        self._moment(lambda: self._store.append_all(entries))

    def commit_tick(self, record: TickRecord) -> None:
        self._moment(lambda: self._store.commit_tick(record))

    def _moment(self, write: Callable[[], Any]) -> Any:
        self._death.before("write")
        done = write()
        self._death.after("write")
        return done


class FiledWire(Wire):
    """Every request is a moment, before and after it has taken effect; its effect is in a file by then."""

    def __init__(self, exchange: Exchange, file: Path, death: Death, time: VirtualTime, script: Script) -> None:
        super().__init__(exchange, time, script)
        self._file = file
        self._death = death

    def _do(self, call: Call, symbols: Sequence[str], deed: Callable[[], Any]) -> tuple[Any, VenueError | None]:
        self._death.before(call)
        done = super()._do(call, symbols, deed)
        keep(self.exchange, self._file)
        self._death.after(call)
        return done


def keep(exchange: Exchange, file: Path) -> None:
    """Write the whole file or nothing: a venue does not lose an order because its client was killed."""
    state = {name: value for name, value in vars(exchange).items() if name != "now"}
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(pickle.dumps(state))
    temporary.replace(file)


def venue_in(folder: Path, time: VirtualTime) -> Exchange:
    """A stop that blocks a trim, a short that fills in part, and a long that takes more than its first bound.

    New, or as the file in `folder` has it.
    """
    markets = [
        Market("BTC"),
        Market("ETH", shares=[Decimal("0.5")]),
        Market("SOL", slip=Decimal("0.01")),
        Market("XRP"),
    ]
    exchange = Exchange(BOOK, lambda: (time.elapsed, time.now()), markets=markets, resting_exits_block=True)
    file = folder / "venue.pickle"
    if file.exists():
        vars(exchange).update(pickle.loads(file.read_bytes()))
        return exchange
    stop = {"reduce_only": True, "trigger_price": Decimal(90), "trigger_when": "falls"}
    exchange.rest("BTC", "sell", Decimal(10), **stop)
    exchange.rest("ETH", "sell", Decimal(1), type="limit", price=Decimal(200))
    keep(exchange, file)
    return exchange


def decide(exchange: Exchange, time: VirtualTime) -> Decision:
    """Half of BTC, most of XRP, everything else; by a ladder, each position with its bound; an entry is cancelled."""
    plain = decision_on(exchange, "d1", time.now(), LEFT)
    (entry,) = (order for order in exchange.resting() if not order.reduce_only)
    return replace(
        plain,
        intents=tuple(replace(intent, band=Decimal("0.005")) for intent in plain.intents),
        unwinding=Unwinding("careful", (Rung("limit_ioc"), Rung("market", tries=2))),
        cancels=(Cancel("main", entry.symbol, entry.id, "entry"),),
    )


async def life(folder: Path, death: Death, time: VirtualTime, number: int) -> bool:
    """What a runner does for closing from its start. In the first life the answer about XRP is lost."""
    exchange = venue_in(folder, time)
    script = (
        Script(Rule("submit", "done", "XRP"), Rule("find_order", "garbled", "XRP", times=2)) if not number else Script()
    )
    wire = FiledWire(exchange, folder / "venue.pickle", death, time, script)
    store = DyingStore(open_store(str(folder / "store.sqlite")), death)
    closer = AccountExecutor("main", wire, store, time)
    await closer.recover()
    if store.decision("d1") is None:
        decision = decide(exchange, time)
        seen = Snapshot(decision.as_of, (statement(exchange),), "killswitch.snapshot/v1")
        closer.adopt(committed(store, decision, seen))
    for _ in range(5000):
        if not await closer.advance():
            return True
        if (pause := getattr(closer, "wait", 0.0)) > 0:
            await time.sleep(min(pause, 1.0))
    return False


def _child(folder: Path, moment: str | None, number: int) -> int:
    """Live, and die at `moment`; the exit code otherwise."""
    try:
        death = Death(moment)
        time = VirtualTime(START + timedelta(seconds=PAUSE * number))
        done = time.run(life(folder, death, time, number))
        (folder / "passed").write_text("\n".join(death.passed))
    except BaseException:  # noqa: BLE001 - a child must never go on with what is its parent's
        traceback.print_exc()
        return 2
    return 0 if done else 1


def lives(folder: Path, moments: Sequence[str | None]) -> tuple[list[str], list[str]]:
    """One child for each of `moments`, the last of them to the end. How each ended, and the moments of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    ends: list[str] = []
    for number, moment in enumerate(moments):
        child = os.fork()
        if child == 0:
            os._exit(_child(folder, moment, number))
        _, status = os.waitpid(child, 0)
        ends.append("killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}")
    passed = folder / "passed"
    return ends, passed.read_text().split("\n") if passed.exists() else []


def main() -> None:
    gc.freeze()  # what has been imported stays shared with the children
    folder = Path(sys.argv[1])
    every, seed = (int(each) for each in sys.argv[2:]) if len(sys.argv) > 2 else (0, 0)
    _, undisturbed = lives(folder / "undisturbed", [None])
    for index, moment in enumerate(undisturbed):
        if not every:
            print(moment, *lives(folder / moment, [moment, None])[0], flush=True)
            continue
        if index % 5 != seed % 5:
            continue
        # The moments of the second life are known only from a second life.
        _, second = lives(folder / "rehearsal" / moment, [moment, None])
        for again in second[(index + seed) % every :: every]:
            name = f"{moment}+{again}"
            print(name, *lives(folder / name, [moment, again, None])[0], flush=True)


if __name__ == "__main__":
    main()
