"""No credential reaches a stream, a file, a trace, a lock or a log, whichever verb is used and whatever goes wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.forks import finish
from tests.e2e.planted import files_below, forms, leaks
from tests.e2e.processes import PATIENCE, POLICY, until
from tests.e2e.wired import wire
from tests.otlp_receiver import Receiver, receiver
from tests.wire.server import KEY, LISTEN_KEY, PASSPHRASE, SECRET

LOUD = (
    "import logging, sys\n"
    "logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format='LOG %(name)s %(message)s')\n"
    "from killswitch.cli import main\n"
    "main()\n"
)
"""`ksctl` in a process where every logger of every library says all that it has to say."""
NASTY = "PLANTED k/e+y=ü'\"%\\Z-4711"
"""A value that every way of writing writes otherwise."""


def test_the_search_finds_every_form() -> None:
    """A search that finds nothing proves nothing: each form is planted, in the middle of other text, and found."""
    import base64
    from urllib.parse import quote

    for before in ("", "a", "bc", "def"):
        whole = f"{before}{NASTY}tail"
        for written in (
            whole.encode(), quote(whole).encode(), repr(whole).encode(), json.dumps(whole).encode(),
            base64.b64encode(whole.encode()), base64.urlsafe_b64encode(whole.encode()), whole.encode().hex().encode(),
        ):  # fmt: skip
            assert leaks([NASTY], {"here": b"x" + written + b"x"}), written
    assert leaks([NASTY], {"here": b"PLANTED k/e+y, and nothing of the rest"}) == []
    assert all(len(written) > 10 for written in forms(SECRET).values())


@dataclass
class Trial:
    """One account with planted credentials, and everything that was said while it was used."""

    folder: Path
    secrets: tuple[str, ...]
    """Not one of them may be found."""
    environment: Mapping[str, str]
    held: Path
    """The folder of credentials, as a cluster mounts it."""
    said: dict[str, bytes] = field(default_factory=dict)

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def store(self) -> Path:
        return self.folder / "store.sqlite"

    def account(self, spec: str, name: str = "main") -> None:
        """Write the account's document."""
        self.policies.mkdir(exist_ok=True)
        document = f"apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        (self.policies / "account.yaml").write_text(document, encoding="utf-8")
        currency = re.search(r"currency: (\w+)", spec)
        assert currency is not None
        (self.policies / "policy.yaml").write_text(FLOOR.replace("CURRENCY", currency[1]), encoding="utf-8")

    def ksctl(self, *arguments: str, exits: tuple[int, ...] = (0,)) -> str:
        """One command to its end; what it said on stdout. Both streams are kept."""
        done = finish(arguments, timeout=PATIENCE, code=LOUD, env=self._environment(), cwd=self.folder)
        self._keep(" ".join(arguments[:2]), done.stdout, done.stderr)
        assert done.returncode in exits, (arguments, done.stdout, without_logs(done.stderr))
        return done.stdout

    def run(self, *options: str, exits: tuple[int, ...] = (0,)) -> str:
        """A run with everything on that writes something."""
        return self.ksctl(
            "run", "--policies", str(self.policies), "--store", str(self.store), "--interval", "200ms",
            "--record", str(self.folder / "seen.jsonl"), "--events", str(self.folder / "events.jsonl"),
            "--lock-file", str(self.folder / "trading_lock.json"), *options, exits=exits,
        )  # fmt: skip

    def found(self, collector: Receiver) -> list[str]:
        """Where a planted credential was found."""
        sent = {f"OTLP request {number}": body for number, body in enumerate(collector.bodies)}
        headers = {f"OTLP headers {number}": repr(each).encode() for number, each in enumerate(collector.requests)}
        left = files_below(self.folder, leaving_out=[self.held])
        assert {"store.sqlite", "events.jsonl"} <= left.keys()
        return leaks(self.secrets, {**self.said, **sent, **headers, **left})

    def _keep(self, what: str, out: str, err: str) -> None:
        number = len(self.said)
        self.said[f"stdout of {what} ({number})"] = out.encode()
        self.said[f"stderr of {what} ({number})"] = err.encode()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "HOME": str(self.folder / "home")}


def without_logs(err: str) -> str:
    return "\n".join(line for line in err.splitlines() if not line.startswith("LOG "))


def mounted(folder: Path, held: Mapping[str, str]) -> Path:
    """A folder of credentials as Kubernetes mounts a Secret: a file for each key, behind links."""
    (folder / "..data").mkdir(parents=True)
    for name, value in held.items():
        (folder / "..data" / name).write_text(f"{value}\n", encoding="utf-8")
        (folder / name).symlink_to(f"..data/{name}")
    return folder


LEAKY = '''
"""An adapter that quotes its credentials wherever it says anything."""
import logging
from urllib.parse import quote

from killswitch.model.inspection import Inspection
from killswitch.model.venue import VenueDownError


class Leaky:
    def __init__(self, spec):
        self.account = spec.account
        self._held = dict(spec.credentials)

    def _words(self):
        told = [f"{value} {quote(value, safe='')} {value!r}" for value in map(str, self._held.values())]
        return f"refused: {' '.join(told)} of {self._held!r}"

    async def snapshot(self):
        raise VenueDownError(self._words())

    async def inspect(self):
        raise RuntimeError(self._words())

    async def open_orders(self):
        raise VenueDownError(self._words())

    async def submit(self, request):
        raise VenueDownError(self._words())

    async def find_order(self, symbol, client_order_id):
        raise VenueDownError(self._words())

    async def fills(self, symbol, client_order_id):
        raise VenueDownError(self._words())

    async def cancel(self, symbol, order_id):
        raise VenueDownError(self._words())

    async def close(self):
        raise RuntimeError(self._words())


def adapter(spec):
    if spec.options.get("refuses"):
        raise ValueError(f"cannot make it of {spec!r}")
    return Leaky(spec)
'''


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A folder with an installed package whose adapter is called `leaky`."""
    folder = tmp_path / "installed"
    (folder / "leaky_venue-1.0.dist-info").mkdir(parents=True)
    (folder / "leaky_venue.py").write_text(LEAKY, encoding="utf-8")
    (folder / "leaky_venue-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: leaky-venue\nVersion: 1.0\n", encoding="utf-8"
    )
    (folder / "leaky_venue-1.0.dist-info" / "entry_points.txt").write_text(
        "[killswitch.adapters]\nleaky = leaky_venue:adapter\n", encoding="utf-8"
    )
    return folder


def test_an_adapter_that_quotes_its_credentials_is_not_repeated(tmp_path: Path, leaky: Path) -> None:
    """Whatever a venue's error says, every verb says it without the credential; also in the store and in traces."""
    site = tmp_path / "site"
    with receiver() as collector:
        trial = Trial(
            site, (NASTY, "PLANTED-in-env-0815"),
            {"PYTHONPATH": str(leaky), "PLANTED": "PLANTED-in-env-0815",
             "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address},
            mounted(site / "run" / "secrets" / "venue", {"key": NASTY}),
        )  # fmt: skip
        spec = (
            "adapter: leaky, market: swap, currency: USDT, execution: live, "
            f"credentials: {{key: 'file:{trial.held}/key', secret: env:PLANTED}}"
        )
        trial.account(spec)
        policies = ("--policies", str(trial.policies))
        trial.run("--ticks", "3", "--live")
        trial.ksctl("plan", *policies, "--store", str(trial.store), "--out", str(site / "plan.json"), exits=(0, 1))
        shown = trial.ksctl("status", "--store", str(trial.store))
        trial.ksctl("status", "--store", str(trial.store), "--output", "json")
        trial.ksctl("status", "--store", str(trial.store), "--probe", "ready", exits=(0, 1))
        trial.ksctl("history", "--store", str(trial.store))
        trial.ksctl("report", "list", "--store", str(trial.store))
        trial.ksctl("snapshot", "main", *policies, exits=(0, 1))
        trial.ksctl("venues", "check", "main", *policies, exits=(0, 1))
        trial.account(f"{spec}, options: {{refuses: true}}")
        trial.run("--ticks", "1", exits=(1,))
        trial.account(f"{spec}, endpoint: 'http://127.0.0.1:1/?token=PLANTED-in-address'")
        trial.run("--ticks", "1", exits=(0, 1))
    assert "[hidden credential]" in shown, "the adapter's words were heard, or this proves nothing"
    assert collector.spans("snapshot")
    assert trial.found(collector) == []


@dataclass(frozen=True)
class Case:
    """A venue on loopback and how an account names it. `wrong`: a credential that it refuses."""

    server: str
    spec: str
    position: str
    credentials: Mapping[str, str]
    fall: tuple[str, ...]
    """What makes the price fall from 100 to 90, and equity by 5,000 with it."""


TWO = {"key": KEY, "secret": SECRET}
CONTRACTS_FALL = ("price?symbol=BTC/USDT:USDT&price=90", "equity?value=95000")
FLOOR = re.sub("loss: {.*}", "loss: {signal: equity.value, at_most: 96000 CURRENCY, on_unknown: hold}", POLICY)
FLOOR = FLOOR.replace("match: {}", "match: {currency: CURRENCY}")
"""Closes by the venue's own number. Its contracts were bought at the mark, so that no price explains what is lost."""
CASES = {
    "binance": Case(
        "binance", "adapter: ccxt, exchange: binanceusdm, market: swap, currency: USDT", "BTC/USDT:USDT=500",
        TWO, CONTRACTS_FALL,
    ),
    "okx": Case(
        "okx", "adapter: ccxt, exchange: okx, market: swap, currency: USDT", "BTC/USDT:USDT=500",
        TWO | {"passphrase": PASSPHRASE}, CONTRACTS_FALL,
    ),
    "alpaca": Case(
        "alpaca", "adapter: alpaca, market: equity, currency: USD", "BTC/USD=500",
        TWO, ("price?symbol=BTC/USD&price=90",),
    ),
}  # fmt: skip


def control(addresses: Mapping[str, str], what: str) -> None:
    """Move the world."""
    request = urllib.request.Request(f"{addresses['control']}/{what}", method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 200


def cut_off(trial: Trial, addresses: Mapping[str, str]) -> None:
    """A run whose private stream is heard, and then closed by the venue."""
    with ThreadPoolExecutor(1) as aside:
        ran = aside.submit(trial.run, "--ticks", "25")
        until(lambda: ran.done() or b'"subscribed": []' not in state(addresses), "the stream is heard")
        control(addresses, "hang_up")
        ran.result()
    assert any(b"is unreliable" in said for said in trial.said.values())


def state(addresses: Mapping[str, str]) -> bytes:
    """The truth, as it is told."""
    with urllib.request.urlopen(f"{addresses['control']}/state", timeout=PATIENCE) as answer:
        found: bytes = answer.read()
    return found


IN_EVERY_RUN = ("binance", "alpaca")
"""One of each adapter; a third secret is one more case of what the others show, and a case of `make test-venues`."""


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it in IN_EVERY_RUN else pytest.mark.venues) for it in CASES]
)
def test_real_clients_leak_nothing_through_a_close_or_an_error(tmp_path: Path, name: str) -> None:
    """Read, planned, closed, reported, refused and not reached, with every library at DEBUG: nothing holds a key."""
    case = CASES[name]
    site = tmp_path / "site"
    with receiver() as collector, wire(case.server, "--position", case.position) as addresses:
        held = mounted(site / "run" / "secrets" / "venue", case.credentials)
        planted = {f"PLANTED_{key.upper()}": value for key, value in case.credentials.items()}
        trial = Trial(
            site, (*case.credentials.values(), LISTEN_KEY),
            planted | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
                       "OTEL_EXPORTER_OTLP_HEADERS": "x-planted=HEADER-PLANTED"},
            held,
        )  # fmt: skip
        references = ", ".join(
            f"{key}: 'file:{held}/{key}'" if key == "key" else f"{key}: env:PLANTED_{key.upper()}"
            for key in case.credentials
        )
        at = f"endpoint: '{addresses['address']}', endpoint_ws: '{addresses['address_ws']}'"
        spec = f"{case.spec}, execution: live, {at}, credentials: {{{references}}}"
        trial.account(spec)
        policies, store = ("--policies", str(trial.policies)), ("--store", str(trial.store))
        snapshot = trial.ksctl("snapshot", "main", *policies)
        assert json.loads(snapshot)["accounts"][0]["quality"] == "ok"
        trial.ksctl("venues", "check", "main", *policies, exits=(0, 1))
        cut_off(trial, addresses)
        for each in case.fall:
            control(addresses, each)
        trial.ksctl("plan", *policies, *store, "--out", str(site / "plan.json"))
        assert (site / "plan.json").exists()
        trial.run("--ticks", "30", "--live")
        assert "close-everything" in trial.ksctl("history", *store)
        decision = json.loads(trial.ksctl("history", *store, "--output", "json").splitlines()[0])["decision"]["id"]
        trial.ksctl("status", *store)
        trial.ksctl("status", *store, "--output", "json")
        trial.ksctl("explain", decision, *store)
        trial.ksctl("report", decision, *store)
        for key in case.credentials:
            refused = re.sub(f"{key}: [^,}}]*", f"{key}: env:WRONG", spec)
            trial.account(refused)
            trial.environment = {**trial.environment, "WRONG": "V1JPTkctUExBTlRFRA"}
            trial.ksctl("snapshot", "main", *policies, exits=(1,))
        trial.run("--ticks", "2")
        trial.account(spec.replace(at, f"endpoint: 'http://127.0.0.1:{nobody()}'"))
        trial.run("--ticks", "2")
        trial.ksctl("venues", "check", "main", *policies, exits=(0, 1))
    trial.secrets = (*trial.secrets, "V1JPTkctUExBTlRFRA", "HEADER-PLANTED")
    assert any(b"LOG " in said for said in trial.said.values())
    assert trial.found(without_header(collector)) == []


def nobody() -> int:
    """A port that nobody answers at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def without_header(collector: Receiver) -> Receiver:
    """The one place where the exporter's header belongs is the request to the collector."""
    for _, headers in collector.requests:
        assert headers.pop("x-planted") == "HEADER-PLANTED"
    return collector
