"""`venues list`, `venues check` and `snapshot`: what they print, how they exit, and that they change nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from killswitch.accounts import plug_ins
from killswitch.accounts import plug_ins as families_module
from killswitch.cli.live.snapshot import snapshot
from killswitch.cli.venues.verbs import venues
from killswitch.lab.recording import read
from killswitch.model.inspection import Capability, Inspection, KeyRights
from killswitch.model.snapshot import AccountSnapshot, Health, Order
from killswitch.model.unanswered import CLOCK_OFF
from killswitch.model.venue import (
    AccountSpec,
    Batching,
    ClientIdRule,
    Cost,
    DeadManRule,
    RateLimit,
    VenueDescription,
    VenueDownError,
    VenueListing,
    VenueTimer,
)
from killswitch.preflight.account_check import CAPABILITIES
from killswitch.preflight.findings import rounded_up
from tests import worlds
from tests.runner_world import ScriptedVenue, book

RIGHTS = KeyRights(read=True, trade=True, withdraw=False, transfer=False, bound_to_addresses=True)
CAN = tuple(Capability(name, "yes") for name in CAPABILITIES)
BTC = "BTC/USDT:USDT"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def inspection(**more: Any) -> Inspection:
    fields: dict[str, Any] = {
        "status": "ok", "clock_skew_ms": 12.0, "rights": RIGHTS, "position_mode": "one_way", "margin_mode": "cross",
        "capabilities": CAN,
    }  # fmt: skip
    return Inspection(**(fields | more))


class Inspected(ScriptedVenue):
    """A venue that can be inspected; a call that would change something there fails the test."""

    def __init__(
        self,
        answer: AccountSnapshot | BaseException | None,
        inspected: Inspection | BaseException | None = None,
        traits: VenueDescription = VenueDescription(),  # noqa: B008 - frozen
        account: str = "main",
    ) -> None:
        super().__init__(answer, account)
        self.inspected = inspected if inspected is not None else inspection()
        self.traits = traits
        self.batches = Batching(traits.batch, self._changes) if traits.batch > 1 else None
        self.close_book = self._changes if traits.whole_book else None
        self.dead_man = None if (rule := traits.dead_man) is None else VenueTimer(rule, self._changes, self._changes)

    async def inspect(self) -> Inspection:
        if isinstance(self.inspected, BaseException):
            raise self.inspected
        return self.inspected

    async def _changes(self, *_: object) -> None:
        raise AssertionError("a check changes nothing")

    submit = cancel = suspend_trading = _changes  # type: ignore[assignment] # every one of them


def document(name: str, **more: Any) -> str:
    spec = {
        "adapter": "scripted", "exchange": "swapex", "market": "swap", "currency": "USDT", "execution": "live",
        "credentials": {"apiKey": "env:SCRIPTED_KEY"}, **more,
    }  # fmt: skip
    return f"---\napiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"


def invoked(command: object, *arguments: str) -> Result:
    """Exit and output of a verb, or the refusal in `exception`; a traceback fails the test."""
    result = CliRunner().invoke(command, arguments, standalone_mode=False)  # type: ignore[arg-type] # a command
    if result.exception is not None and not isinstance(result.exception, click.ClickException):
        raise result.exception
    return result


CONTACTS = """---
apiVersion: killswitch.dev/v1
kind: Runbook
metadata: {name: circuit-breaker}
spec: {contacts: [{name: Desk, role: decides, reach: +49 30 901820}]}
"""
"""Whom to call, so that the set is without a warning."""


class Desk:
    """A folder of policies, and the adapters that its accounts get."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
        self.folder = folder
        self.adapters: dict[str, ScriptedVenue] = {}
        self.specs: dict[str, AccountSpec] = {}
        self.documents = [policy, CONTACTS]
        monkeypatch.setenv("SCRIPTED_KEY", "KEY-PLANTED")
        self._set_key = monkeypatch.setenv
        monkeypatch.setattr(plug_ins, "factory_of", lambda _name: self._made)

    def add(self, adapter: ScriptedVenue, **spec: Any) -> None:
        """An account with a key of its own, unless its `spec` declares another."""
        name = adapter.account
        self.adapters[name] = adapter
        if name != "main":
            self._set_key(f"SCRIPTED_KEY_{name.upper()}", f"KEY-PLANTED-{name}")
            spec = {"credentials": {"apiKey": f"env:SCRIPTED_KEY_{name.upper()}"}, **spec}
        self.documents.append(document(name, **spec))

    def check(self, *arguments: str) -> Result:
        return self._invoke(venues, "check", *arguments)

    def checked(self, *arguments: str) -> dict[str, Any]:
        """The only account's part of the JSON."""
        (account,) = json.loads(self.check(*arguments, "--output", "json").stdout)["accounts"]
        found: dict[str, Any] = account
        return found

    def snapshot(self, *arguments: str) -> Result:
        return self._invoke(snapshot, *arguments)

    def _invoke(self, command: object, *arguments: str) -> Result:
        (self.folder / "all.yaml").write_text("".join(self.documents), encoding="utf-8")
        whole = [*arguments, "--policies", str(self.folder)]
        return invoked(command, *whole)

    def _made(self, spec: AccountSpec) -> ScriptedVenue:
        self.specs[spec.account] = spec
        return self.adapters[spec.account]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line is wrapped, unless a test sets another."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str) -> Desk:
    return Desk(tmp_path, monkeypatch, policy)


@pytest.fixture(scope="module")
def policy(repository: Path) -> str:
    """A policy that closes everything in every account."""
    return (repository / "policies" / "circuit-breaker" / "policy.yaml").read_text(encoding="utf-8")


def findings(account: dict[str, Any], *severities: str) -> list[str]:
    return [f"{each['about']}: {each['text']}" for each in account["findings"] if each["severity"] in severities]


SOUND = book("1100", position_mode="one_way")


def test_a_sound_account_is_ok(desk: Desk) -> None:
    """Exit 0, also under --strict; no failure and no warning."""
    desk.add(Inspected(SOUND))
    done = desk.check("--strict")
    assert done.return_value == 0, done.stdout
    assert done.stdout.startswith("main at swapex (scripted, swapex, swap): OK\n")
    assert "  The position can be closed as it is.\n" in done.stdout
    assert done.stdout.endswith("1 account: 1 ok. Nothing was changed.\n")
    assert desk.adapters["main"].closed, "the connections are given back"


def test_a_key_that_may_withdraw_is_refused(desk: Desk) -> None:
    """Exit 1 and the way out; with allow_withdrawal_keys it is only mentioned."""
    able = inspection(rights=KeyRights(True, True, True, False, True))
    desk.add(Inspected(SOUND, able))
    refused = desk.check()
    assert refused.return_value == 1
    assert (
        "failed   key: it may withdraw: anyone who obtains it can take the funds; create one without" in refused.stdout
    )
    desk.documents.pop()
    desk.add(Inspected(SOUND, able), allow_withdrawal_keys=True)
    assert desk.check("--strict").return_value == 0


def test_an_unknown_right_is_reported_as_unknown(desk: Desk) -> None:
    """A warning: exit 0, and 3 under --strict. Missing credentials have no rights to be unknown."""
    desk.add(Inspected(SOUND, inspection(rights=KeyRights(True, True, note="the venue does not tell"))))
    done = desk.check("--strict")
    assert done.return_value == 3
    assert "withdraw unknown" in done.stdout
    assert desk.check().return_value == 0
    assert findings(desk.checked(), "warning") == ["key: whether it may withdraw is unknown (the venue does not tell)"]
    desk.documents.pop()
    desk.add(Inspected(SOUND, inspection(rights=KeyRights())), credentials={})
    assert desk.check("--strict").return_value == 0


@pytest.mark.parametrize(
    ("rights", "severity", "text"),
    [
        (KeyRights(True, False, False), "failed", "it may not trade"),
        (KeyRights(False, True, False), "failed", "it may not read"),
        (KeyRights(True, None, False), "warning", "whether it may trade is unknown"),
        (KeyRights(True, True, False, bound_to_addresses=False), "note", "it works from any address"),
        (KeyRights(True, True, False, expires_at=LONG_AGO), "failed", "it expired at 2020-01-01"),
        (KeyRights(True, True, False, expires_at=datetime.now(UTC) + timedelta(days=3)), "warning", "it expires at"),
    ],
    ids=["no-trade", "no-read", "unknown-trade", "any-address", "expired", "expires"],
)  # fmt: skip
def test_rights_of_a_key_become_findings(desk: Desk, rights: KeyRights, severity: str, text: str) -> None:
    """A live account whose key cannot trade closes nothing."""
    desk.add(Inspected(SOUND, inspection(rights=rights)))
    assert any(found.startswith(f"key: {text}") for found in findings(desk.checked(), severity))


@pytest.mark.parametrize(
    ("skew", "verdict"),
    [(0.0, "ok"), (500.0, "ok"), (-501.0, "warnings"), (5001.0, "warnings"), (-60000.0, "warnings")],
)
def test_clock_skew_is_reported_before_requests_are_refused(desk: Desk, skew: float, verdict: str) -> None:
    """Half a second is a warning, whichever is ahead; more is no worse where the venue accepts the requests."""
    desk.add(Inspected(SOUND, inspection(clock_skew_ms=skew)))
    account = desk.checked()
    assert (account["verdict"], account["clock_skew_ms"]) == (verdict, skew)


def test_the_skew_of_a_snapshot_replaces_that_of_an_inspection(desk: Desk) -> None:
    """An adapter that cannot be inspected may report it in its snapshots' health."""
    desk.add(ScriptedVenue(book("1100", position_mode="one_way", health=Health(clock_skew_ms=-7000.0))))
    account = desk.checked()
    assert findings(account, "failed") == []
    assert [it for it in findings(account, "warning") if it.startswith("clock")] == [
        "clock: the venue's clock is 7,000 ms behind this one: the venue accepted these "
        "requests; others reject them, and ages and trading hours are off by the same time"
    ]


def test_a_large_clock_skew_is_a_failure_where_nothing_could_be_read(desk: Desk) -> None:
    """The poll failed for an unknown reason, and the clock is a likely cause."""
    health = Health(clock_skew_ms=-7000.0)
    desk.add(ScriptedVenue(worlds.account(None, None, quality="down", reason="no", health=health)))
    assert findings(desk.checked(), "failed") == [
        "venue: it is down: no",
        "clock: the venue's clock is 7,000 ms behind this one: venues reject signed requests this far from "
        "their time, usually from 5 s",
    ]


@pytest.mark.parametrize("skew", [None, -7000.0])
def test_requests_refused_for_their_time_have_one_cause(desk: Desk, skew: float | None) -> None:
    """The clock is what must be set: neither the address nor the credentials are named."""
    why = f"400 -1021 outside of the recvWindow; {CLOCK_OFF}"
    down = worlds.account(None, None, quality="down", reason=why)
    desk.add(Inspected(down, inspection(clock_skew_ms=skew, notes=(f"key rights: {why}",))))
    account = desk.checked()
    apart = "the venue rejects requests because of their time"
    if skew is not None:
        apart = "the venue's clock is 7,000 ms behind this one, and it rejects requests because of it"
    assert [it for it in findings(account, "failed") if not it.startswith("policies")] == [f"clock: {apart}: {why}"]
    (found,) = [it for it in account["findings"] if it["about"] == "clock"]
    assert found["way_out"] == "set this machine's clock by NTP (chrony, systemd-timesyncd)"


@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        (Inspected(SOUND, VenueDownError("connection refused")), "inspection failed: connection refused"),
        (Inspected(VenueDownError("maintenance")), "it is down: maintenance"),
        (Inspected(worlds.account(None, None, quality="malformed", reason="no equity")), "it is malformed: no equity"),
        (Inspected(RuntimeError("a bug")), "it is down: the adapter failed: a bug"),
        (Inspected(SOUND, ValueError("a bug")), "inspection failed: the adapter failed: ValueError: a bug"),
    ],
    ids=["uninspected", "down", "malformed", "defect", "defect-in-inspection"],
)
def test_an_unreachable_venue_fails_with_cause_and_way_out(desk: Desk, adapter: Inspected, text: str) -> None:
    """Exit 1, a sentence, no traceback."""
    desk.add(adapter)
    done = desk.check()
    assert done.return_value == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  failed   venue:")]
    assert text in line
    assert "; " in line, "with what can be done"


def test_a_venue_that_does_not_answer_gets_its_timeout_and_no_more(desk: Desk) -> None:
    """50 ms, as configured."""
    desk.add(Inspected(None))
    done = desk.check("--read-timeout", "50ms")
    assert done.return_value == 1
    assert "venue: it is down: no answer within 0.05 s" in done.stdout


def test_an_account_without_its_secret_does_not_keep_others_from_being_checked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fails with the variable's name, the second is ok, and the exit is 1."""
    monkeypatch.delenv("OTHER_KEY", raising=False)
    desk.add(Inspected(SOUND), credentials={"apiKey": "env:OTHER_KEY"})
    desk.add(Inspected(book("1100", "second", position_mode="one_way"), account="second"))
    done = desk.check()
    assert done.return_value == 1
    assert "the environment variable OTHER_KEY is not set" in done.stdout
    assert "second at swapex (scripted, swapex, swap): OK" in done.stdout
    assert done.stdout.endswith("2 accounts: 1 failed, 1 ok. Nothing was changed.\n")


def test_only_the_named_accounts_are_checked(desk: Desk) -> None:
    """The other's adapter is not even made; an unknown name is reported with a suggestion."""
    desk.add(Inspected(SOUND))
    desk.add(Inspected(book("1100", "second", position_mode="one_way"), account="second"))
    done = desk.check("second")
    assert (done.return_value, list(desk.specs)) == (0, ["second"])
    unknown = desk.check("secnd")
    assert unknown.exit_code == 1
    assert "no Account document has the name secnd, did you mean second?" in str(unknown.exception)


def test_positions_that_could_not_be_closed_are_named(desk: Desk) -> None:
    """Dust, a halted market and one above the maximum: two warnings, and a note that it takes three orders."""
    held = [
        worlds.position("DUST", "long", contracts="0.0001", mark_price="10"),
        worlds.position("HALT", "short", contracts="1", mark_price="10"),
        worlds.position("BIG", "long", contracts="25", mark_price="10"),
    ]
    rules = [worlds.rules("DUST"), worlds.rules("HALT", state="halted"), worlds.rules("BIG", max_amount="10")]
    desk.add(Inspected(worlds.account("1000", held, instruments=rules, position_mode="one_way")))
    done = desk.check("--strict")
    assert done.return_value == 3
    assert "warning  positions: 2 of 3 cannot be closed as they are, or may not be: DUST, HALT" in done.stdout
    assert "DUST long   0.0001     0       dust" in done.stdout
    assert "BIG long    25         3       (above maximum)" in done.stdout
    shown = {each["symbol"]: each for each in desk.checked()["outlooks"]}
    assert (shown["HALT"]["shut"], shown["DUST"]["leaves"], shown["BIG"]["orders"]) == (True, "0.0001", 3)


def test_a_finding_about_several_positions_is_reported_once(desk: Desk) -> None:
    """Eleven positions with a stop each, of other sizes, and three of them halted: two paragraphs, not fourteen."""
    names = [f"P{number:02}" for number in range(1, 12)]
    held = [worlds.position(name, "long", contracts=str(n), mark_price="10") for n, name in enumerate(names, start=1)]
    stops = [
        Order(f"s{name}", name, "sell", Decimal(n), reduce_only=True, trigger_price=Decimal(1))
        for n, name in enumerate(names, start=1)
    ]
    rules = [worlds.rules(name, **({"state": "halted"} if name in names[:3] else {})) for name in names]
    desk.add(Inspected(worlds.account("1000", held, instruments=rules, orders=stops, position_mode="one_way")))
    shown = " ".join(desk.check().stdout.split())
    assert shown.count("if the venue refuses a close because of them") == 1
    assert shown.count("the venue accepts no order that closes it") == 1
    assert "P01 long 1, P02 long 2, P03 long 3" in shown
    assert "P07 long 7 1 (resting exits) 1 resting exit promises 7 of 7" in shown


def test_unknown_positions_fail_and_unknown_orders_warn(desk: Desk) -> None:
    """A snapshot without positions closes nothing; one without orders does not show what blocks a close."""
    desk.add(Inspected(worlds.account("1000", None, position_mode="one_way")))
    assert "positions: they are unknown: no position can be closed" in findings(desk.checked(), "failed")


WEIGHING = VenueDescription(
    limits=(RateLimit("weight-1m", 2400, 60.0, by="address"),),
    costs=(Cost("snapshot", "weight-1m", units=50), Cost("submit", "weight-1m", units=1)),
)


def test_a_tick_that_is_too_fast_is_reported_with_the_minimum(desk: Desk) -> None:
    """50 a poll, 1,200 a minute for polls: 2.5 s. At 3 s it is fine."""
    desk.add(Inspected(SOUND, traits=WEIGHING))
    (warning,) = findings(desk.checked(), "warning")
    assert warning == (
        "reading: a tick of 1 s is too fast here: 2.5 s is the minimum. Polling would take 3,000 of weight-1m in 60 s, "
        "and 1,200 of 2,400 are for polling"
    )
    assert desk.checked("--interval", "3s")["verdict"] == "ok"


@pytest.mark.parametrize(("seconds", "shown"), [(0.04, 0.1), (1.6, 1.6), (1.6216, 1.7), (2.5, 2.5), (0.1 + 0.2, 0.3)])
def test_the_minimum_tick_is_rounded_up(seconds: float, shown: float) -> None:
    """A tick of the reported length is not too fast again; an excess of binary arithmetic alone is none."""
    assert rounded_up(seconds) == shown


def test_accounts_that_are_not_checked_still_share_the_limit(desk: Desk) -> None:
    """Two accounts at one address: each may be polled every 5 s, whichever of them is checked."""
    desk.add(Inspected(SOUND, traits=WEIGHING))
    desk.add(Inspected(book("1100", "second", position_mode="one_way"), traits=WEIGHING, account="second"))
    account = desk.checked("main", "--interval", "3s")
    assert any("5 s is the minimum" in each for each in findings(account, "warning"))
    assert account["reading"][0]["accounts"] == 2
    assert any("which 2 accounts share" in each for each in findings(account, "warning"))


def test_a_worst_case_that_takes_too_long_is_a_warning(desk: Desk) -> None:
    """Sixty positions at ten orders a minute: six batches, five minutes and more; the worst stage is named."""
    held = [worlds.position(f"S{n}", "long", contracts="1", mark_price="10") for n in range(60)]
    rules = [worlds.rules(f"S{n}") for n in range(60)]
    slow = VenueDescription(limits=(RateLimit("orders", 10, 60.0),), costs=(Cost("submit", "orders", each=1),))
    desk.add(Inspected(worlds.account("1000", held, instruments=rules, position_mode="one_way"), traits=slow))
    account = desk.checked()
    assert account["verdict"] == "warnings"
    (warning,) = findings(account, "warning")
    assert warning.startswith("closing: closing everything takes 300 s at best (121 requests, bound by orders)")
    assert account["closing"]["everything"]["orders"] == 60
    assert account["closing"]["worst_stage"]["policy"] == "circuit-breaker"
    assert desk.checked("--within", "10m")["verdict"] == "ok"


@pytest.mark.parametrize("named", [(), ("main",)], ids=["flat", "not asked"])
def test_a_worst_case_includes_polls_of_accounts_with_nothing_to_do(desk: Desk, named: tuple[str, ...]) -> None:
    """Six orders at ten units a minute for the address, half of them for polls, and a poll of each account every
    20 s: on its own the account is done at once; with a flat one beside it, the sixth order waits a minute.
    """
    held = [worlds.position(f"S{n}", "long", contracts="1", mark_price="10") for n in range(6)]
    rules = [worlds.rules(f"S{n}") for n in range(6)]
    narrow = VenueDescription(
        limits=(RateLimit("weight", 10, 60.0, by="address"),),
        costs=(Cost("snapshot", "weight", units=1), Cost("submit", "weight", units=1)),
    )
    desk.add(Inspected(worlds.account("1000", held, instruments=rules, position_mode="one_way"), traits=narrow))
    closing = desk.checked("--interval", "20s")["closing"]
    assert closing["everything"]["seconds"] < 60 and closing["worst_stage"]["reckoning"]["seconds"] < 60
    desk.add(Inspected(book("1100", "second", position_mode="one_way"), traits=narrow, account="second"))
    accounts = json.loads(desk.check(*named, "--interval", "20s", "--output", "json").stdout)["accounts"]
    (closing,) = [each["closing"] for each in accounts if each["account"] == "main"]
    assert closing["everything"]["seconds"] >= 60
    assert closing["worst_stage"]["reckoning"]["seconds"] >= 60


def test_an_account_that_no_policy_covers_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reached and polled, and nothing would ever be done."""
    desk = Desk(tmp_path, monkeypatch, "")
    desk.add(Inspected(SOUND))
    assert findings(desk.checked(), "warning") == ["policies: no policy watches this account"]


def test_an_adapter_without_inspection_is_reported_by_its_capabilities(desk: Desk) -> None:
    """Its optional calls and one poll; what neither shows is left out."""
    desk.add(ScriptedVenue(SOUND), credentials={})
    account = desk.checked()
    can = {each["name"]: each["can"] for each in account["capabilities"]}
    assert account["told_by"] == "offers"
    assert (
        can["equity"],
        can["find by client id"],
        can["push"],
        can["batch orders"],
    ) == ("yes", "yes", "no", "no")
    assert "trigger orders" not in can
    assert list(can) == [name for name in CAPABILITIES if name in can]


def test_credentials_are_never_printed(desk: Desk) -> None:
    """Neither in a failure nor in what the venue reports of itself."""
    leaky = inspection(status="KEY-PLANTED is on hold", notes=("hello KEY-PLANTED",))
    desk.add(Inspected(VenueDownError("bad key KEY-PLANTED"), leaky))
    done = desk.check()
    assert done.return_value == 1
    assert "KEY-PLANTED" not in done.stdout + done.stderr
    assert "[hidden credential] is on hold" in done.stdout


def test_without_any_account_the_check_fails_with_a_sentence(desk: Desk) -> None:
    """A sentence with the way out."""
    done = desk.check()
    assert done.exit_code == 1
    assert "the policies contain no Account document; add one" in str(done.exception)


# -- snapshot ---------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_line_that_a_replay_accepts(desk: Desk, tmp_path: Path) -> None:
    """One line, the public format, and the same account when it is read again."""
    desk.add(Inspected(SOUND))
    done = desk.snapshot("main")
    assert (done.return_value, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    recording = tmp_path / "one.jsonl"
    recording.write_text(done.stdout)
    (snapshot_line,) = read(recording)
    (account,) = snapshot_line.accounts
    assert (snapshot_line.format, account.account, account.venue) == ("killswitch.snapshot/v1", "main", "swapex")
    assert (account.equity, account.positions) == (SOUND.equity, SOUND.positions)


def test_a_failed_poll_is_printed_and_exits_1(desk: Desk, tmp_path: Path) -> None:
    """The line is there, with quality and reason; the reason is on stderr, too."""
    desk.add(Inspected(VenueDownError("maintenance")))
    done = desk.snapshot("main")
    assert done.return_value == 1
    (account,) = json.loads(done.stdout)["accounts"]
    assert (account["quality"], account["reason"]) == ("down", "maintenance")
    assert done.stderr == "Error: account main is down: maintenance\n"


def test_a_snapshot_as_text_shows_what_is_unknown(desk: Desk) -> None:
    """A table of positions; resting orders that were not reported are unknown and not none."""
    unknown = AccountSnapshot(
        "main", "swapex", "swap", "USDT", "ok", equity=Decimal(1000),
        positions=(worlds.position(BTC, "long", "5", contracts="1.50", mark_price="50000"),),
    )  # fmt: skip
    desk.add(Inspected(unknown))
    done = desk.snapshot("main", "--output", "text")
    assert done.return_value == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("main at swapex, swap in USDT, read 20")
    assert "Resting orders: unknown" in lines
    (row,) = [line.split() for line in lines if line.startswith(f"  {BTC}")]
    assert row == [BTC, "long", "1.50", "unknown", "50000", "unknown", "5.00", "unknown", "unknown"]


def test_a_snapshot_of_an_account_without_its_secret_is_an_error_sentence(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, and nothing on stdout that could be taken for a snapshot."""
    desk.add(Inspected(SOUND), credentials={"apiKey": "env:NOT_SET"})
    monkeypatch.delenv("NOT_SET", raising=False)
    done = desk.snapshot("main")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "NOT_SET is not set" in str(done.exception)


# -- list -------------------------------------------------------------------------------------------------------

SWAPEX = VenueListing(
    "made-up", "swapex", ("swap", "future"),
    (Capability("equity", "yes"), Capability("flows", "partly", "a day late"), Capability("close book", "no")),
    VenueDescription(
        limits=(RateLimit("weight", 2400, 60.0, by="address"), RateLimit("orders", 60, 2.0, by="symbol")),
        costs=(Cost("snapshot", "weight", units=50), Cost("submit_batch", "orders", units=1, each=2)),
        batch=5, client_ids=ClientIdRule("plain", 36),
        dead_man=DeadManRule("symbol", 5.0, 300.0, a_day=10, takes_stops=None, quiet_for_maintenance=True),
    ),
    tried="its documents",
)  # fmt: skip
SPOTEX = VenueListing("made-up", "spotex", ("spot",), (Capability("equity", "yes"),), VenueDescription(whole_book=True))


class Listed:
    """A plug-in with two exchanges."""

    def listings(self) -> Sequence[VenueListing]:
        return (SWAPEX, SPOTEX)

    def history(self, exchange: str, endpoint: str | None = None) -> None:
        return None


class Entry:
    """An entry point that loads what it was made with."""

    dist = None

    def __init__(self, name: str, load: Callable[[], object]) -> None:
        self.name = self.value = self.module = name
        self.load = load


def missing() -> object:
    raise ModuleNotFoundError("No module named 'ccxt'", name="ccxt")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry("made-up", Listed), Entry("zzz", missing)]
    monkeypatch.setattr(families_module, "entry_points", lambda group: entries)


class Wide(Listed):
    """A plug-in that reaches more than it lists."""

    def listing(self, exchange: str) -> VenueListing | None:
        if exchange != "farex":
            return None
        return VenueListing(
            "wide", "farex", ("spot",), (Capability("push", "no"),), VenueDescription(), "not tried: other"
        )


def run_venues(*arguments: str) -> Result:
    return invoked(venues, *arguments)


@pytest.mark.usefixtures("listed")
def test_the_list_has_a_row_for_each_venue() -> None:
    """Adapter, exchange, markets, batch, whole book, timer, limits, what it does partly or not; absences on stderr."""
    done = run_venues("list")
    assert done.return_value == 0
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["made-up", "spotex"], ["made-up", "swapex"]]
    assert "swap, future  5      no          symbol    orders 60/2 s a symbol " in lines[2]
    assert lines[2].split()[-3:] == ["flows", "close", "book"]
    assert "Supported everywhere: equity." in lines
    assert "the venues of zzz are not available: ModuleNotFoundError: No module named 'ccxt'" in done.stderr


@pytest.mark.usefixtures("listed")
def test_one_venue_is_shown_in_full() -> None:
    """Every capability with its note, the timer as text, and what each request takes of each limit."""
    done = run_venues("list", "swapex")
    assert (
        done.stdout
        == """\
Adapter made-up, exchange swapex: swap, future
Tried against its documents

capability  supported
equity      yes
flows       partly     a day late
close book  no

Batches of 5
No request that closes a whole book
Dead-man timer: one for each symbol, 5s to 5m; triggers at most 10 times a day; \
whether it cancels stops is unknown; to be disarmed before maintenance
Client order ids: plain, up to 36

limit   allows                a request takes
weight  2,400/min an address  snapshot 50
orders  60/2 s a symbol       submit_batch 1 + 2 an order
"""
    )


@pytest.mark.usefixtures("listed")
def test_the_list_as_json_is_complete() -> None:
    """Traits and notes, and the plug-ins that are not available with the way out."""
    answer = json.loads(run_venues("list", "--output", "json").stdout)
    assert answer["format"] == "killswitch.venues/v1"
    assert [each["exchange"] for each in answer["venues"]] == ["spotex", "swapex"]
    assert answer["venues"][1]["traits"]["dead_man"]["a_day"] == 10
    assert [each["family"] for each in answer["absent"]] == ["zzz"]


@pytest.mark.usefixtures("listed")
def test_an_unknown_venue_is_reported_with_a_suggestion() -> None:
    """Exit 1."""
    done = run_venues("list", "swapx")
    assert done.exit_code == 1
    assert "no venue is called swapx, did you mean swapex?; known: spotex, swapex" in str(done.exception)


def test_accounts_at_one_venue_are_checked_one_after_another(desk: Desk) -> None:
    """Twenty accounts at one address are not queried at the same moment; those of another venue do not wait."""
    busy: list[int] = []
    now = 0

    class Counting(Inspected):
        async def snapshot(self) -> AccountSnapshot:
            nonlocal now
            now += 1
            busy.append(now)
            await asyncio.sleep(0)
            now -= 1
            return await super().snapshot()

    for number in range(4):
        name = f"a{number}"
        desk.add(Counting(book("1100", name, position_mode="one_way"), account=name))
    assert desk.check().return_value == 0
    assert busy == [1, 1, 1, 1]
