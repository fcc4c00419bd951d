"""Credentials, adapters, the timeline, and sharing one adapter."""

from __future__ import annotations

import asyncio
import os
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.accounts import credentials, plug_ins
from killswitch.accounts.credentials import CredentialError, resolve
from killswitch.accounts.opening import open_accounts
from killswitch.accounts.plug_ins import AdapterError, make_adapter
from killswitch.accounts.poll.shared_adapter import share_adapter
from killswitch.model.venue import AccountSpec, Cost, VenueTraits
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from tests.runner_world import ScriptedVenue
from tests.worlds import START, account, fill, flow, rules


def test_w3_a_credential_never_appears_in_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """W3: not its first characters, not its length; the value itself is usable as text."""
    monkeypatch.setenv("VENUE_KEY", "abcdefghij0123456789")
    (tmp_path / "secret").write_text("s3cr3t-value\n", encoding="utf-8")
    found = resolve({"key": "env:VENUE_KEY", "secret": f"file:{tmp_path / 'secret'}"}, account="main")
    assert (found["key"], found["secret"]) == ("abcdefghij0123456789", "s3cr3t-value")
    spec = AccountSpec("main", "paper", "swap", "USDT", None, {}, found)
    assert "abc" not in repr(spec)
    assert "s3c" not in repr(spec)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("env:NOT_SET_ANYWHERE", "the environment variable NOT_SET_ANYWHERE is not set; set it for this process"),
        ("file:/not/there", "cannot read /not/there (No such file or directory); check the path and its permissions"),
        ("pasted-secret", "not a reference; write env:NAME or file:PATH"),
    ],
    ids=["no variable", "no file", "a pasted secret is not repeated"],
)
def test_an_unresolved_reference_names_itself_and_the_way_out(reference: str, reason: str) -> None:
    """Account and credential are named, and never a value."""
    with pytest.raises(CredentialError) as refused:
        resolve({"key": reference}, account="main")
    assert f"account main, credential key: {reason}" == str(refused.value)


def test_a_credential_in_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A named pipe that nobody writes to would hold up a start for ever, and a device fills memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    for path, why in (
        (tmp_path / "pipe", "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (tmp_path, "it is not a regular file"),
        (tmp_path / "large", "it is larger than 64 KiB"),
    ):
        with pytest.raises(CredentialError) as refused:
            resolve({"key": f"file:{path}"}, account="main")
        assert f"account main, credential key: cannot read {path} ({why})" in str(refused.value)


def test_a_credential_on_a_disk_that_hangs_times_out_and_is_read_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is requested meanwhile, one thread hangs; when the disk answers, so does the next request."""
    disk, opened, real = threading.Event(), [], os.open

    def hangs(path: Path, flags: int) -> int:
        opened.append(path)
        disk.wait()
        return real(path, flags)

    (tmp_path / "secret").write_text("s3cr3t\n", encoding="utf-8")
    monkeypatch.setattr(credentials, "READ_WITHIN", 0.01)
    monkeypatch.setattr(credentials.os, "open", hangs)
    for _ in range(3):
        with pytest.raises(CredentialError, match="no answer within"):
            resolve({"key": f"file:{tmp_path / 'secret'}"}, account="main")
    assert len(opened) == 1
    disk.set()
    monkeypatch.setattr(credentials, "READ_WITHIN", 60.0)
    assert resolve({"key": f"file:{tmp_path / 'secret'}"}, account="main") == {"key": "s3cr3t"}


def test_an_unknown_adapter_is_refused_with_the_installed_ones() -> None:
    """A misspelt adapter gets a suggestion and the list of installed ones."""
    with pytest.raises(AdapterError) as refused:
        make_adapter(AccountSpec("main", "papre", "swap", "USDT", None, {}, {}))
    assert "no adapter is called `papre`; installed: alpaca, ccxt, paper; did you mean `paper`?" in str(refused.value)


def test_an_adapter_that_refuses_its_account_is_reported_with_account_and_reason() -> None:
    """The adapter's own text passes through."""
    with pytest.raises(AdapterError) as refused:
        make_adapter(AccountSpec("main", "paper", "swap", "USDT", None, {}, {}))
    assert "account main: adapter paper refused the account" in str(refused.value)
    assert "needs an endpoint" in str(refused.value)


def test_an_adapter_that_does_not_derive_from_the_base_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an earlier version has no attributes for its capabilities: it fails at the start and not in a close."""

    class Earlier:
        account = "main"

    monkeypatch.setattr(plug_ins, "factory_of", lambda name: lambda spec: Earlier())
    with pytest.raises(AdapterError) as refused:
        make_adapter(AccountSpec("main", "acme", "swap", "USDT", None, {}, {}))
    assert str(refused.value) == (
        "account main: the class Earlier of adapter acme does not derive from killswitch.model.venue.VenueAdapter, "
        "so it is written for an earlier version; update its package"
    )


ACCOUNT = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: live%s}
"""


@pytest.mark.parametrize(("written", "share"), [("", "0.5"), (", closing_share: 80%", "0.8")])
def test_an_account_has_the_share_of_its_venues_limits_reserved_for_closing(
    written: str, share: str, tmp_path: Path
) -> None:
    """As its document states, and half where that states nothing."""
    (tmp_path / "account.yaml").write_text(ACCOUNT % written, encoding="utf-8")
    (document,) = load([tmp_path]).documents
    assert isinstance(document.model, AccountDocument)
    (opened,) = open_accounts([document.model], live=True).values()
    assert opened.closing_share == Decimal(share)


def test_an_adapter_that_contradicts_itself_on_its_venue_is_refused_before_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cost of a limit that does not exist would mean a venue with unlimited requests."""

    class Confused(ScriptedVenue):
        traits = VenueTraits(costs=(Cost("submit", "odrers", units=1),))

    monkeypatch.setattr(plug_ins, "factory_of", lambda name: lambda spec: Confused(None))
    (tmp_path / "account.yaml").write_text(ACCOUNT % "", encoding="utf-8")
    (document,) = load([tmp_path]).documents
    assert isinstance(document.model, AccountDocument)
    with pytest.raises(
        AdapterError, match=r"account main: adapter paper declares inconsistent request limits.*'odrers'"
    ):
        open_accounts([document.model], live=True)


def test_rows_that_a_venue_reports_once_reach_executor_and_poller() -> None:
    """Instruments, flows and fills that the closing received are in the next tick's snapshot, once."""

    async def story() -> None:
        venue = ScriptedVenue(
            account("1", instruments=(rules("BTC"),), flows=(flow("w1", START, "-5"),),
                    fills=(fill("f1", START, "BTC", "sell", "1", "100"),))
        )  # fmt: skip
        ticks, closing = share_adapter(venue)
        await closing.snapshot()
        venue.answer = account("1", flows=(flow("w2", START, "-6"),))
        snapshot = await ticks.snapshot()
        assert [each.symbol for each in snapshot.instruments or ()] == ["BTC"]
        assert [each.id for each in snapshot.flows or ()] == ["w1", "w2"]
        assert [each.id for each in snapshot.fills or ()] == ["f1"]
        assert [each.id for each in (await ticks.snapshot()).flows or ()] == ["w2"]

    asyncio.run(story())


def test_rows_are_kept_until_a_poll_that_is_ok() -> None:
    """Rows are not lost to a snapshot that is not evaluated."""

    async def story() -> None:
        venue = ScriptedVenue(account("1", instruments=(rules("BTC"),)))
        ticks, closing = share_adapter(venue)
        await closing.snapshot()
        venue.answer = account(None, None, quality="down", reason="maintenance")
        assert not (await ticks.snapshot()).instruments
        venue.answer = account("1")
        assert [each.symbol for each in (await ticks.snapshot()).instruments or ()] == ["BTC"]

    asyncio.run(story())
