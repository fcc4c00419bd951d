"""The rights of an armed account's key are queried before a run; a key that may withdraw is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.accounts import plug_ins
from killswitch.cli.live.run import run
from killswitch.model.inspection import Inspection, KeyRights
from killswitch.model.venue import AccountSpec, VenueDownError
from killswitch.preflight.inspection import call_adapter
from killswitch.store.sqlite import open_store
from tests.runner_world import ScriptedVenue
from tests.worlds import account

GOOD = KeyRights(read=True, trade=True, withdraw=False)
MIGHTY = KeyRights(read=True, trade=True, withdraw=True)
POLICY = (Path(__file__).parents[3] / "policies" / "futures-drawdown" / "policy.yaml").read_text(encoding="utf-8")


class Keyed(ScriptedVenue):
    """A venue with a flat account whose key has `rights`; None never answers."""

    def __init__(self, rights: KeyRights | BaseException | None, name: str) -> None:
        super().__init__(account("1000", (), name=name, orders=(), fills=(), flows=()), name)
        self.rights = rights
        self.queries = 0

    async def key_rights(self) -> KeyRights:
        self.queries += 1
        if self.rights is None:
            await asyncio.Event().wait()
        if isinstance(self.rights, BaseException):
            raise self.rights
        assert self.rights is not None
        return self.rights


class InspectedOnly(ScriptedVenue):
    """An adapter that can only be queried for everything at once."""

    async def inspect(self) -> Inspection:
        return Inspection("ok", None, MIGHTY, None, None, ())


class Desk:
    """A folder with accounts, and `ksctl run` on it for one tick."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.venues: dict[str, Callable[[], ScriptedVenue]] = {}
        self.made: list[ScriptedVenue] = []
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(plug_ins, "factory_of", lambda _name: self._make)
        (folder / "policies").mkdir()
        (folder / "policies" / "policy.yaml").write_text(POLICY, encoding="utf-8")

    def add(self, name: str, venue: Callable[[], ScriptedVenue], **more: object) -> None:
        self.venues[name] = venue
        self._monkeypatch.setenv(f"KS_TEST_{name.upper()}", f"KEY-{name}")
        spec = {
            "adapter": "scripted", "market": "swap", "currency": "USDT", "execution": "live",
            "credentials": {"apiKey": f"env:KS_TEST_{name.upper()}"}, **more,
        }  # fmt: skip
        text = f"apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"
        (self.folder / "policies" / f"{name}.yaml").write_text(text, encoding="utf-8")

    def key(self, name: str, rights: KeyRights | BaseException | None, **more: object) -> None:
        self.add(name, lambda: Keyed(rights, name), **more)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            run,
            ["--policies", str(self.folder / "policies"), "--store", str(self.folder / "store.sqlite"), "--ticks", "1",
             "--read-timeout", "0.2s", "--unnotified", *arguments],
        )  # fmt: skip

    @property
    def queries(self) -> int:
        """How often the rights of a key were queried."""
        return sum(each.queries for each in self.made if isinstance(each, Keyed))

    def notices(self) -> list[tuple[str, str]]:
        """What the run has reported about keys."""
        store = open_store(str(self.folder / "store.sqlite"), read_only=True)
        try:
            return [(each.severity, each.text) for each in store.notices(20) if "key" in each.text]
        finally:
            store.close()

    def _make(self, spec: AccountSpec) -> ScriptedVenue:
        self.made.append(self.venues[spec.account]())
        return self.made[-1]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_a_key_that_may_withdraw_is_refused_before_anything_else(desk: Desk) -> None:
    """Exit 69 with the place, the cause and the way out; no store is made, and the key is nowhere in the text."""
    desk.key("main", MIGHTY)
    refused = desk.run("--live")
    assert refused.exit_code == 69
    written = (desk.folder / "policies" / "main.yaml").read_text(encoding="utf-8").splitlines()[3]
    column = written.index('{"apiKey"') + 1
    assert refused.stderr.splitlines()[-1] == (
        f"Error: {desk.folder}/policies/main.yaml:4:{column}: account main: its key may withdraw: anyone who "
        "obtains it can take the funds; create one without that right, or set allow_withdrawal_keys: true in the "
        "Account document"
    )
    assert "KEY-main" not in refused.output
    assert not (desk.folder / "store.sqlite").exists()
    assert all(venue.closed for venue in desk.made if isinstance(venue, Keyed) and venue.queries)


def test_every_account_with_such_a_key_is_named_at_once(desk: Desk) -> None:
    """Nobody should fix one key to learn of the next."""
    desk.key("main", MIGHTY)
    desk.key("fine", GOOD)
    desk.key("other", MIGHTY)
    stderr = desk.run("--live").stderr
    assert ("account main: its key" in stderr, "account other: its key" in stderr, "account fine" in stderr) == (
        True, True, False,
    )  # fmt: skip


def test_an_adapter_that_only_inspects_is_inspected(desk: Desk) -> None:
    """A third-party adapter may know no shorter query."""
    desk.add("main", lambda: InspectedOnly(account("1000", (), name="main")))
    assert "its key may withdraw" in desk.run("--live").stderr


@pytest.mark.parametrize(
    ("arguments", "more"),
    [((), {}), (("--live",), {"execution": "observe"}), (("--live",), {"allow_withdrawal_keys": True})],
    ids=["no --live", "observed only", "allowed"],
)
def test_a_key_that_is_unused_or_allowed_is_not_queried(
    desk: Desk, arguments: tuple[str, ...], more: dict[str, object]
) -> None:
    """Observing changes nothing at the venue, and what the document allows need not be queried."""
    desk.key("main", MIGHTY, **more)
    done = desk.run(*arguments)
    assert done.exit_code == 0, done.output
    assert desk.queries == 0


@pytest.mark.parametrize(
    ("rights", "notice"),
    [
        (
            VenueDownError("connection refused"),
            (
                "warning",
                "the rights of the key of account main could not be read at the start (connection refused): check "
                "with `ksctl venues check main` that it may not withdraw",
            ),
        ),
        (
            None,
            (
                "warning",
                "the rights of the key of account main could not be read at the start (no answer within 0.2 s): "
                "check with `ksctl venues check main` that it may not withdraw",
            ),
        ),
        (
            KeyRights(note="MEXC does not tell"),
            (
                "info",
                "whether the key of account main may withdraw is unknown (MEXC does not tell); allow_withdrawal_keys: "
                "true in the Account document confirms that you checked it at the venue",
            ),
        ),
        (
            KeyRights(read=True, trade=False, withdraw=False),
            ("page", "the key of account main may not trade: it cannot close positions"),
        ),
    ],
    ids=["down", "silent", "untold", "may not trade"],
)
def test_an_unknown_right_is_a_notice_and_the_run_starts(
    desk: Desk, rights: KeyRights | BaseException | None, notice: tuple[str, str]
) -> None:
    """A kill switch must start in an outage. One query is made, and no other at this venue."""
    desk.key("main", rights)
    done = desk.run("--live")
    assert done.exit_code == 0, done.output
    assert desk.notices() == [notice]
    assert desk.queries == 1


def test_silent_venues_are_waited_for_in_parallel(desk: Desk) -> None:
    """Ten of them cost one read timeout together: the run's first tick does not wait for each in turn."""
    from killswitch.accounts.opening import read_policies
    from killswitch.preflight.key_rights import require_harmless_keys
    from tests.virtual_time import VirtualTime

    for number in range(10):
        desk.key(f"a{number}", None)
    found = read_policies([desk.folder / "policies"])
    time = VirtualTime()
    notices = time.run(require_harmless_keys(found.accounts, found.places, 5.0))
    assert (len(notices), round(time.elapsed, 3)) == (10, 5.0)


@pytest.mark.parametrize("key", ["endpoint", "endpoint_ws"])
def test_an_armed_account_sends_no_key_over_an_unencrypted_network(desk: Desk, key: str) -> None:
    """Refused before any venue is queried, with the place and both ways out; no store is made."""
    address = {"endpoint": "http://gateway.example", "endpoint_ws": "ws://10.0.0.7:8080"}[key]
    desk.key("main", GOOD, **{key: address})
    refused = desk.run("--live")
    assert refused.exit_code == 69
    assert f"account main: {key} would send its credentials beyond this machine without TLS" in refused.stderr
    assert "main.yaml:4:" in refused.stderr and "allow_unencrypted: true" in refused.stderr
    assert desk.queries == 0
    assert not (desk.folder / "store.sqlite").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"endpoint": "http://gateway.example", "allow_unencrypted": True},
        {"endpoint": "http://gateway.example", "execution": "observe"},
        {"endpoint": "http://gateway.example", "credentials": {}},
        {"endpoint": "http://127.0.0.2:8080", "endpoint_ws": "ws://localhost:8080"},
        {"endpoint": "http://[::1]:8080"},
        {"endpoint": "https://gateway.example"},
    ],
    ids=["allowed", "observes", "no key", "loopback", "loopback 6", "tls"],
)
def test_a_local_or_allowed_unencrypted_address_runs(desk: Desk, more: dict[str, object]) -> None:
    """A proxy on this machine may speak TLS for us, and a document may declare the network trusted."""
    desk.key("main", GOOD, **more)
    assert desk.run("--live").exit_code == 0


def test_an_adapter_that_raises_before_it_can_be_awaited_fails_one_account_only() -> None:
    """A plug-in's call need not be a coroutine function."""

    def refuse() -> Awaitable[None]:
        raise RuntimeError("a bug")

    assert asyncio.run(call_adapter(refuse, 1.0)) == (None, "the adapter failed: RuntimeError: a bug")
