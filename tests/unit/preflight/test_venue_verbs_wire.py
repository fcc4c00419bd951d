"""The venue verbs against simulated venues over HTTP, as a user calls them: the real clients, another process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from killswitch.lab.bar_files import BarOrigin
from killswitch.lab.bars import read_market
from killswitch.lab.fetching import Fetch, FetchResult
from killswitch.lab.recording import read
from killswitch.runner.clock import SystemClock
from killswitch_ccxt.family import family
from tests.wire.__main__ import exchange_of, server_of
from tests.wire.server import KEY, PASSPHRASE, SECRET, WireVenue

KSCTL = (sys.executable, "-c", "from killswitch.cli import main; main()")
EXCHANGES = {"binance": "binanceusdm", "bybit": "bybit", "okx": "okx"}
SECRETS = {"WIRE_KEY": KEY, "WIRE_SECRET": SECRET, "WIRE_PASSPHRASE": PASSPHRASE}


def one_and_others(one: str) -> list[Any]:
    """Each venue; all but that one are among those of `make test-venues`."""
    return [venue if venue == one else pytest.param(venue, marks=pytest.mark.venues) for venue in EXCHANGES]


class Done(Struct, frozen=True):
    status: int
    stdout: str
    stderr: str


def account(venue: str, address: str) -> str:
    spec = {
        "adapter": "ccxt", "exchange": EXCHANGES[venue], "market": "swap", "currency": "USDT", "endpoint": address,
        "execution": "live",
        "credentials": {"key": "env:WIRE_KEY", "secret": "env:WIRE_SECRET"}
        | ({"passphrase": "env:WIRE_PASSPHRASE"} if venue == "okx" else {}),
    }  # fmt: skip
    return f"---\napiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: main}}\nspec: {json.dumps(spec)}\n"


async def ksctl(*arguments: str | Path) -> Done:
    process = await asyncio.create_subprocess_exec(
        *KSCTL, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **SECRETS},
    )  # fmt: skip
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, stdout.decode(), stderr.decode())


def run_verbs(
    venue: str, folder: Path, repository: Path, *calls: tuple[str | Path, ...]
) -> tuple[list[Done], WireVenue]:
    """Serve a venue with two positions and four resting orders while the verbs are called, one after another."""

    async def whole() -> tuple[list[Done], WireVenue]:
        exchange = exchange_of(["BTC/USDT:USDT=2", "ETH/USDT:USDT=-3"], [], 4, "one_way")
        wire = await server_of(venue)(exchange).start()
        try:
            (folder / "account.yaml").write_text(account(venue, wire.address), encoding="utf-8")
            policy = repository / "policies" / "futures-drawdown" / "policy.yaml"
            (folder / "policy.yaml").write_text(policy.read_text(encoding="utf-8"), encoding="utf-8")
            return [await ksctl(*call, "--policies", folder) for call in calls], wire
        finally:
            await wire.stop()

    return asyncio.run(whole())


@pytest.mark.parametrize("venue", one_and_others("okx"))
def test_a_check_reaches_the_venue_and_only_reads(venue: str, tmp_path: Path, repository: Path) -> None:
    """Key, modes, capabilities and the worst case are reported; every request that the venue saw was a GET, and the
    book is unchanged.
    """
    call = ("venues", "check", "--strict", "--output", "json")
    (done,), wire = run_verbs(venue, tmp_path, repository, call)
    assert done.status == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["accounts"]
    assert (found["verdict"], found["positions"], found["orders"], found["told_by"]) == (
        "ok",
        2,
        4,
        "inspection",
    )
    assert (found["position_mode"], found["rights"]["withdraw"], found["rights"]["trade"]) == (
        "one_way",
        False,
        True,
    )
    assert abs(found["clock_skew_ms"]) < 5000
    assert found["reading"], "the venue's limits are known"
    everything = found["closing"]["everything"]
    assert (everything["orders"], everything["cancels"]) == (2, 4)
    assert found["closing"]["worst_stage"]["stage"] == "close-everything"
    assert {seen.ask.method for seen in wire.seen} == {"GET"}
    assert wire.refusals == []
    assert {key: str(amount) for key, amount in wire.exchange.held.items()} == {
        ("BTC/USDT:USDT", "long"): "2", ("ETH/USDT:USDT", "short"): "3"}  # fmt: skip
    assert all(secret not in done.stdout + done.stderr for secret in SECRETS.values())


@pytest.mark.parametrize("venue", one_and_others("bybit"))
def test_a_snapshot_of_the_real_client_is_accepted_by_a_replay(venue: str, tmp_path: Path, repository: Path) -> None:
    """One line, quality ok, both positions."""
    (done,), _ = run_verbs(venue, tmp_path, repository, ("snapshot", "main"))
    assert done.status == 0, done.stderr
    recording = tmp_path / "one.jsonl"
    recording.write_text(done.stdout, encoding="utf-8")
    (seen,) = read(recording)
    held = {position.key: str(position.contracts) for position in seen.accounts[0].positions or ()}
    assert held == {("BTC/USDT:USDT", "long"): "2", ("ETH/USDT:USDT", "short"): "3"}


def test_a_wrong_secret_fails_with_the_venues_message(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, no traceback, no further section, and the secret is not repeated."""
    monkeypatch.setitem(SECRETS, "WIRE_SECRET", "WRONG-SECRET-PLANTED")
    (done,), _ = run_verbs("binance", tmp_path, repository, ("venues", "check"))
    assert done.status == 1
    assert "failed key: the venue rejects it (wrong secret, revoked, wrong address or system)" in " ".join(
        done.stdout.split()
    )
    assert "withdraw" not in done.stdout
    assert "Capabilities" not in done.stdout
    assert "WRONG-SECRET-PLANTED" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_bars_of_the_real_client_are_accepted_by_a_backtest(tmp_path: Path) -> None:
    """An hour of minutes through the real client, in pages, without a key; a second call requests nothing."""

    async def whole() -> tuple[FetchResult, FetchResult, set[str]]:
        wire = await server_of("binance")(exchange_of(["BTC/USDT:USDT=2"], [], 0, "one_way")).start()
        history = family.history("binanceusdm", wire.address)
        assert history is not None
        try:
            now = int(datetime.now(UTC).timestamp() * 1000)
            span = (now - 3_600_000, now - 120_000)
            whose = BarOrigin("binanceusdm", "BTC/USDT:USDT", "1m")
            first = await Fetch(history, whose, tmp_path, SystemClock()).run(*span)
            again = await Fetch(history, whose, tmp_path, SystemClock()).run(*span)
            return first, again, {seen.ask.method for seen in wire.seen}
        finally:
            await history.close()
            await wire.stop()

    first, again, methods = asyncio.run(whole())
    assert (first.bars, first.gaps, again.requests, methods) == (58, 0, 0, {"GET"})
    assert len(read_market(tmp_path)) == 58
