"""An account with a real run and a real server, for a bot that asks the gate over HTTP.

The run keeps the lock file open by itself, and `ksctl serve` is a process of its own, so that a test can end the gate
while trading is open, and bring it back on the same port.
"""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from killswitch.client.gate import lock_mode
from tests.bots.desk import WAIT_LIMIT, until
from tests.e2e.fork_client import Process, begin
from tests.e2e.wire_venues import VENUES, Run, Site, VenueAccess, World, wire

POLICY: Final = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: loss}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    loss: {signal: equity.loss_from_start, at_least: 5%, on_unknown: hold}
  stages:
    - name: lock
      level: 1
      any: [loss]
      cooldown: 6h
      reset: manual
      on_breach: close
      breach: {ceiling: 50%, cost_per_hour: 5%, pause: 1s}
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
"""
LIMITS: Final = """\
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {name: main}
spec:
  match: {account: main}
  stale_after: 10s
  request_timeout: 1s
  order_size: [{at_most: 300 USDT}]
"""


class ServedAccount:
    """The account `main` at a venue on loopback, with its run, its lock file and its gate.

    `token`: that of a trader of the account, for the bot. `gate`: the address of the server.
    """

    def __init__(self, folder: Path, world: World, site: Site) -> None:
        self.world, self.site = world, site
        self.port = free_port()
        self.gate = f"http://127.0.0.1:{self.port}"
        self.lock_file = folder / "locks" / "account__main.json"
        self._tokens = folder / "tokens.json"
        words = ("--tokens", str(self._tokens), "--principal", "bot", "--role", "trader", "--scope", "account/main")
        made = world.ksctl("serve", "token", *words)
        assert made.returncode == 0, made.stderr
        self.token = made.stdout.split()[-1]
        self._server: Process | None = None

    @contextmanager
    def running(self) -> Iterator[Run]:
        """`ksctl run --serve`, as the documentation has it: the server ends with the run, and is started again."""
        options = ("--serve", str(self._tokens), "--listen", f"127.0.0.1:{self.port}")
        with self.site.running("--interval", "1s", *options) as run:
            self._require_ticks(run)
            yield run

    @contextmanager
    def running_apart(self) -> Iterator[Run]:
        """`ksctl run`, and next to it `ksctl serve`, which `lose_gate` ends."""
        with self.site.running("--interval", "1s") as run:
            self._require_ticks(run)
            self.bring_gate()
            try:
                yield run
            finally:
                self.lose_gate()

    def bring_gate(self) -> None:
        """Start the server, and wait until it answers."""
        assert self._server is None
        words = ("--store", str(self.site.store), "--tokens", str(self._tokens), "--listen", f"127.0.0.1:{self.port}")
        self._server = begin(("serve", *words), env=self.world.access.environment())
        until(lambda: self._answers() or self._server_has_ended(), "the server answers")

    def lose_gate(self) -> None:
        """End the server. Afterwards nobody listens on its port, and the run goes on."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(WAIT_LIMIT)
            self._server = None

    def mode(self) -> str:
        """What a bot reads in the lock file now: `open`, `reduce_only` or `all`."""
        return lock_mode(str(self.lock_file))

    def require_open(self) -> None:
        """The lock file allows entries: what refuses one is something else."""
        assert self.mode() == "open"

    def sent(self) -> list[list[Any]]:
        """Orders that reached the venue from a bot or the run: symbol, side, amount, whether reduce-only."""
        found: list[list[Any]] = self.world.state()["sent"]
        return found

    def _require_ticks(self, run: Run) -> None:
        until(lambda: self.site.view() is not None or run.has_ended, "the runner ticks")
        assert not run.has_ended, run.stderr

    def _server_has_ended(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, "the server has ended by itself"
        return False

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.gate}/healthz", timeout=10) as answer:
                return int(answer.status) == 200
        except urllib.error.URLError:
            return False


@contextmanager
def served_account(
    folder: Path, *options: str, access: VenueAccess = VENUES["binance"], watch: tuple[str, ...] = (), **account: str
) -> Iterator[ServedAccount]:
    """A venue with these options, and the account at it. `watch`: symbols without a position whose price is read."""
    with wire(access.wire, *options) as addresses:
        world = World(access, **addresses)
        more = {"watch": "[" + ", ".join(f"'{each}'" for each in watch) + "]"} if watch else {}
        yield ServedAccount(folder, world, Site(folder, world, POLICY, LIMITS, **more, **account))


def free_port() -> int:
    """A port on loopback without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
