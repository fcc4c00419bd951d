"""No credential reaches a stream, file, trace, lock or log, with any verb and on any error."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec import Struct, field

from tests.e2e.credential_leaks import files_below, forms, leaks
from tests.e2e.fork_client import finish
from tests.e2e.processes import POLICY, WAIT_LIMIT, until
from tests.e2e.wire_venues import wire
from tests.otlp_receiver import Receiver, receiver
from tests.wire.server import KEY, LISTEN_KEY, PASSPHRASE, SECRET

DEBUG_KSCTL = (
    "import logging, sys\n"
    "logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format='LOG %(name)s %(message)s')\n"
    "from killswitch.cli import main\n"
    "main()\n"
)
"""`ksctl` in a process where every logger of every library writes at level DEBUG."""
NASTY = "PLANTED k/e+y=ü'\"%\\Z-4711"
"""A value that every encoding writes differently."""


def test_the_search_finds_every_form() -> None:
    """The search finds each form, planted in the middle of other text; without this, an empty result proves nothing."""
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


class Trial(Struct):
    """One account with planted credentials, and everything that the commands printed while it was used."""

    folder: Path
    secrets: tuple[str, ...]
    """None of them may be found."""
    environment: Mapping[str, str]
    mount: Path
    """The folder of credentials, as a cluster mounts it."""
    outputs: dict[str, bytes] = field(default_factory=dict)

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
        """Run one command to its end; its stdout. Both streams are kept."""
        done = finish(arguments, timeout=WAIT_LIMIT, code=DEBUG_KSCTL, env=self._environment(), cwd=self.folder)
        self._keep(" ".join(arguments[:2]), done.stdout, done.stderr)
        assert done.returncode in exits, (arguments, done.stdout, without_logs(done.stderr))
        return done.stdout

    def run(self, *options: str, exits: tuple[int, ...] = (0,)) -> str:
        """`ksctl run` with every option that writes a file."""
        return self.ksctl(
            "run", "--policies", str(self.policies), "--store", str(self.store), "--interval", "200ms",
            "--record", str(self.folder / "seen.jsonl"), "--events", str(self.folder / "events.jsonl"),
            "--lock-file", str(self.folder / "trading_lock.json"), *options, exits=exits,
        )  # fmt: skip

    def found(self, collector: Receiver) -> list[str]:
        """Every place in which a planted credential was found."""
        sent = {f"OTLP request {number}": body for number, body in enumerate(collector.bodies)}
        headers = {f"OTLP headers {number}": repr(each).encode() for number, each in enumerate(collector.requests)}
        files = files_below(self.folder, excluding=[self.mount])
        assert {"store.sqlite", "events.jsonl"} <= files.keys()
        return leaks(self.secrets, {**self.outputs, **sent, **headers, **files})

    def _keep(self, what: str, out: str, err: str) -> None:
        number = len(self.outputs)
        self.outputs[f"stdout of {what} ({number})"] = out.encode()
        self.outputs[f"stderr of {what} ({number})"] = err.encode()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "HOME": str(self.folder / "home")}


def without_logs(err: str) -> str:
    return "\n".join(line for line in err.splitlines() if not line.startswith("LOG "))


def mounted(folder: Path, credentials: Mapping[str, str]) -> Path:
    """A folder of credentials as Kubernetes mounts a Secret: a file for each key, behind links."""
    (folder / "..data").mkdir(parents=True)
    for name, value in credentials.items():
        (folder / "..data" / name).write_text(f"{value}\n", encoding="utf-8")
        (folder / name).symlink_to(f"..data/{name}")
    return folder


LEAKY = '''
"""An adapter that quotes its credentials in every error."""
import logging
from urllib.parse import quote

from killswitch.model.inspection import Inspection
from killswitch.model.venue import VenueAdapter, VenueDownError


class Leaky(VenueAdapter):
    def __init__(self, spec):
        self.account = spec.account
        self._credentials = dict(spec.credentials)

    def _quote(self):
        forms = [f"{value} {quote(value, safe='')} {value!r}" for value in map(str, self._credentials.values())]
        return f"refused: {' '.join(forms)} of {self._credentials!r}"

    async def snapshot(self):
        raise VenueDownError(self._quote())

    async def inspect(self):
        raise RuntimeError(self._quote())

    async def open_orders(self):
        raise VenueDownError(self._quote())

    async def submit(self, request):
        raise VenueDownError(self._quote())

    async def find_order(self, symbol, client_order_id):
        raise VenueDownError(self._quote())

    async def fills(self, symbol, client_order_id):
        raise VenueDownError(self._quote())

    async def cancel(self, symbol, order_id):
        raise VenueDownError(self._quote())

    async def close(self):
        raise RuntimeError(self._quote())


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


def test_credentials_that_an_adapter_quotes_are_redacted(tmp_path: Path, leaky: Path) -> None:
    """Every verb prints a venue's error without the credential; so do the store and the traces."""
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
            f"credentials: {{key: 'file:{trial.mount}/key', secret: env:PLANTED}}"
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
        trial.run("--ticks", "1", exits=(69,))
        trial.account(f"{spec}, endpoint: 'http://127.0.0.1:1/?token=PLANTED-in-address'")
        trial.run("--ticks", "1", exits=(0, 69))
    assert "[hidden credential]" in shown, "the adapter's error was shown, or this proves nothing"
    assert collector.spans("snapshot")
    assert trial.found(collector) == []


class Case(Struct, frozen=True):
    """A venue on loopback, and the keys of an account document for it."""

    server: str
    spec: str
    position: str
    credentials: Mapping[str, str]
    fall: tuple[str, ...]
    """The control requests that let the price fall from 100 to 90, and equity by 5,000 with it."""


TWO = {"key": KEY, "secret": SECRET}
CONTRACTS_FALL = ("price?symbol=BTC/USDT:USDT&price=90", "equity?value=95000")
FLOOR = re.sub("loss: {.*}", "loss: {signal: equity.value, at_most: 96000 CURRENCY, on_unknown: hold}", POLICY)
FLOOR = FLOOR.replace("match: {}", "match: {currency: CURRENCY}")
"""Closes on the venue's own equity. Its contracts were bought at the mark, so that no price explains the loss."""
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
    """Change the venue's state."""
    request = urllib.request.Request(f"{addresses['control']}/{what}", method="POST")
    with urllib.request.urlopen(request, timeout=WAIT_LIMIT) as answer:
        assert answer.status == 200


def cut_off(trial: Trial, addresses: Mapping[str, str]) -> None:
    """Run until the private stream is subscribed, and let the venue close it."""
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(trial.run, "--ticks", "25")
        until(lambda: ran.done() or b'"subscribed": []' not in state(addresses), "the stream is subscribed")
        control(addresses, "hang_up")
        ran.result()
    assert any(b"is unreliable" in output for output in trial.outputs.values())


def state(addresses: Mapping[str, str]) -> bytes:
    """The venue's true state, as its control returns it."""
    with urllib.request.urlopen(f"{addresses['control']}/state", timeout=WAIT_LIMIT) as answer:
        found: bytes = answer.read()
    return found


IN_EVERY_RUN = ("binance", "alpaca")
"""One venue of each adapter; the one with a third secret adds nothing new, and runs in `make test-venues`."""


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=() if it in IN_EVERY_RUN else pytest.mark.venues) for it in CASES]
)
def test_real_clients_leak_nothing_through_a_close_or_an_error(tmp_path: Path, name: str) -> None:
    """Polled, planned, closed, reported, refused and unreachable, with libraries at DEBUG: no output holds a key."""
    case = CASES[name]
    site = tmp_path / "site"
    with receiver() as collector, wire(case.server, "--position", case.position) as addresses:
        mount = mounted(site / "run" / "secrets" / "venue", case.credentials)
        planted = {f"PLANTED_{key.upper()}": value for key, value in case.credentials.items()}
        trial = Trial(
            site, (*case.credentials.values(), LISTEN_KEY),
            planted | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
                       "OTEL_EXPORTER_OTLP_HEADERS": "x-planted=HEADER-PLANTED"},
            mount,
        )  # fmt: skip
        references = ", ".join(
            f"{key}: 'file:{mount}/{key}'" if key == "key" else f"{key}: env:PLANTED_{key.upper()}"
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
        trial.account(spec.replace(at, f"endpoint: 'http://127.0.0.1:{unused_port()}'"))
        trial.run("--ticks", "2")
        trial.ksctl("venues", "check", "main", *policies, exits=(0, 1))
    trial.secrets = (*trial.secrets, "V1JPTkctUExBTlRFRA", "HEADER-PLANTED")
    assert any(b"LOG " in output for output in trial.outputs.values())
    assert trial.found(without_header(collector)) == []


def unused_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def without_header(collector: Receiver) -> Receiver:
    """Remove the exporter's header from each request to the collector, the one place where it belongs."""
    for _, headers in collector.requests:
        assert headers.pop("x-planted") == "HEADER-PLANTED"
    return collector
