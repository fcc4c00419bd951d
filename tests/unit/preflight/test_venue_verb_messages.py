"""What `venues check` and `venues list` report to a person who has just written an Account document."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from killswitch.accounts import plug_ins as families_module
from killswitch.cli import options, terminal
from killswitch.model.inspection import KeyRights
from killswitch.model.snapshot import Order
from killswitch.model.venue import (
    Cost,
    CredentialsRefusedError,
    DeadManRule,
    RateLimit,
    RateLimitedError,
    VenueDescription,
    VenueDownError,
)
from killswitch.preflight import account_check
from killswitch.render.layout import hanging, table
from tests import worlds
from tests.runner_world import book
from tests.unit.preflight.test_venue_verbs import (
    SOUND,
    Desk,
    Entry,
    Inspected,
    Listed,
    Wide,
    desk,
    findings,
    inspection,
    policy,
    run_venues,
)

__all__ = ["desk", "policy"]  # fixtures

Reach = Literal["account", "symbol"]
By = Literal["account", "address"]
REFUSAL = CredentialsRefusedError("-2015 Invalid API-key")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line is wrapped, unless a test sets another."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.mark.parametrize(
    "adapter",
    [
        Inspected(SOUND, REFUSAL),
        Inspected(REFUSAL, inspection(rights=KeyRights(note="could not be read"), notes=("key rights: -2015",))),
    ],
    ids=["by-the-inspection", "by-the-reading"],
)
def test_a_rejected_key_is_one_finding_with_one_way_out(desk: Desk, adapter: Inspected) -> None:
    """Not an outage: nothing about addresses, rights to withdraw, or capabilities; and no table."""
    desk.add(adapter)
    done = desk.check()
    assert done.return_value == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  failed")]
    assert line == (
        "  failed   key: the venue rejects it (wrong secret, revoked, wrong address or system): -2015 Invalid API-key; "
        "compare it with the value that the document's credentials point to, character by character; or create a new "
        "key for this system of the venue and store it there"
    )
    for absent in ("withdraw", "What the switch can do", "Closing", "Reading at", "venue:", "down; "):
        assert absent not in done.stdout, absent
    account = desk.checked()
    assert (account["capabilities"], account["reading"], account["closing"]) == ([], [], None)


def test_an_outage_is_reported_once(desk: Desk) -> None:
    """Inspection and poll end with the same text, which is printed one time."""
    why = VenueDownError("nobody answers at 127.0.0.1:1")
    desk.add(Inspected(why, why))
    assert desk.check().stdout.count("nobody answers at 127.0.0.1:1") == 1


def test_questions_that_an_unreachable_venue_left_open_are_unknown(desk: Desk) -> None:
    """The adapter can query the rights of a key: only one that cannot is reported as not offering it."""
    why = VenueDownError("nobody answers")
    desk.add(Inspected(why, why))
    (rights,) = [it for it in desk.checked()["capabilities"] if it["name"] == "key rights"]
    assert (rights["can"], rights["note"]) == ("unknown", "the venue was not reachable")


def test_an_outage_is_not_reported_again_for_each_question(desk: Desk) -> None:
    """The questions that an inspection could not answer have the same cause."""
    inspected = inspection(notes=("clock: nobody answers", "status: nobody answers"))
    desk.add(Inspected(VenueDownError("nobody answers"), inspected))
    assert desk.check().stdout.count("nobody answers") == 1


def test_a_rate_limit_is_reported_once_with_its_own_way_out(desk: Desk) -> None:
    """The poll is delayed because the inspection was refused: one cause, and nothing is wrong with the key."""
    why = RateLimitedError("429 too many requests; it wants no requests for 7 s", 7.0)
    desk.add(Inspected(why, why))
    out = desk.check().stdout
    assert out.count("it wants no requests for 7 s") == 1
    assert "for 7 s; wait that long, check what else sends requests from this address" in out
    assert "check the address, the credentials" not in out


def test_two_documents_of_one_account_are_reported(desk: Desk) -> None:
    """Both have a warning with the other's name; another currency, or key, is another account.

    One of them only observes: two that are armed do not get as far.
    """
    desk.add(Inspected(SOUND))
    key = {"apiKey": "env:SCRIPTED_KEY"}
    second = Inspected(book("1100", "second", position_mode="one_way"), account="second")
    desk.add(second, execution="observe", credentials=key)
    desk.add(Inspected(book("1100", "third", position_mode="one_way"), account="third"), sandbox=True, credentials=key)
    out = desk.check().stdout
    assert "warning  account: second has the same exchange, market, address and credentials" in out
    assert "warning  account: main has the same" in out
    assert "third has" not in out
    assert out.count("one book is polled, counted and closed more than once") == 2


SWITCH = """---
apiVersion: killswitch.dev/v1
kind: DeadMansSwitch
metadata: {name: watch}
spec: {accounts: [main], at_venue: true, timeout: 60s, refresh: 20s}
"""


@pytest.mark.parametrize(
    ("execution", "failed"),
    [("live", ["dead man: `run --live` would not start"]), ("observe", [])],
)
def test_a_switch_that_a_run_would_refuse_fails(desk: Desk, execution: str, failed: list[str]) -> None:
    """The venue has no timer; an observed account gets none, and no run refuses that."""
    desk.add(Inspected(SOUND), execution=execution)
    desk._documents.append(SWITCH)
    account = desk.checked()
    assert [
        each.partition(": ")[0] + ": `run --live` would not start" for each in findings(account, "failed")
    ] == failed
    if failed:
        (text,) = findings(account, "failed")
        assert "DeadMansSwitch watch, account main: venue swapex has no timer that could be set" in text


def test_a_switch_that_the_venue_can_keep_is_no_finding(desk: Desk) -> None:
    """60 s within 1 s to an hour."""
    desk.add(Inspected(SOUND, traits=VenueDescription(dead_man=DeadManRule("account", 1.0, 3600.0))))
    desk._documents.append(SWITCH)
    assert desk.checked()["verdict"] == "ok"


def timed(reach: Reach, by: By = "account") -> VenueDescription:
    """100 of weight a minute, of which half are for polls; a poll takes 2, starting a timer anew 3."""
    costs = (Cost("snapshot", "weight", units=2), Cost("dead_man", "weight", units=3))
    limits = (RateLimit("weight", 100, 60.0, by=by),)
    return VenueDescription(limits=limits, costs=costs, dead_man=DeadManRule(reach, 1.0, 3600.0, takes_stops=False))


def test_timer_refreshes_count_with_the_polls(desk: Desk) -> None:
    """3 each 20 s are 9 a minute. 20 polls a minute and that are 49 of 50; 24 polls are too many."""
    desk.add(Inspected(SOUND, traits=timed("account")))
    desk._documents.append(SWITCH)
    (row,) = desk.checked("--interval", "3s")["reading"]
    assert (row["takes"], row["refreshes"], row["least"]) == (49.0, 9.0, 3.0)
    assert "9 of it for dead-man timers" in desk.check("--interval", "3s").stdout
    (text,) = findings(desk.checked("--interval", "2500ms"), "warning")
    assert "3 s is the minimum. Polling and refreshing dead-man timers would take 57 of weight in 60 s" in text


def test_the_timer_of_an_observed_account_takes_nothing(desk: Desk) -> None:
    """`run --live` starts none there."""
    desk.add(Inspected(SOUND, traits=timed("account")), execution="observe")
    desk._documents.append(SWITCH)
    (row,) = desk.checked("--interval", "3s")["reading"]
    assert (row["takes"], row["refreshes"]) == (40.0, 0.0)


def test_timers_of_one_symbol_each_count_for_the_symbols_with_orders(desk: Desk) -> None:
    """Two orders in one symbol and one in another: two timers, 18 a minute."""
    orders = [
        Order(str(number), symbol, "buy", Decimal(1))
        for number, symbol in enumerate(("BTC/USDT:USDT", "BTC/USDT:USDT", "ETH/USDT:USDT"))
    ]
    desk.add(Inspected(replace(SOUND, orders=tuple(orders)), traits=timed("symbol")))
    desk._documents.append(SWITCH)
    (row,) = desk.checked("--interval", "4s")["reading"]
    assert (row["takes"], row["refreshes"]) == (48.0, 18.0)


def test_the_timer_of_an_unchecked_account_counts_at_its_address(desk: Desk) -> None:
    """Two accounts behind one limit: the other's polls and timer are reported too."""
    desk.add(
        Inspected(book("1100", "other", position_mode="one_way"), traits=timed("account", "address"), account="other")
    )
    desk.add(Inspected(SOUND, traits=timed("account", "address")))
    desk._documents.append(SWITCH)
    (row,) = desk.checked("other", "--interval", "6s")["reading"]
    assert (row["takes"], row["refreshes"], row["accounts"]) == (49.0, 9.0, 2)


def test_the_read_timeout_of_the_check_is_that_of_run() -> None:
    """The switch is checked against the default of `run --read-timeout`."""
    assert options.DURATION.convert("5s", None, None) == account_check.RUN_READ_TIMEOUT


def equity(state: str, **spec: Any) -> tuple[Inspected, dict[str, Any]]:
    held = [worlds.position("AAPL", "long", contracts="3", mark_price="200")]
    snapshot = worlds.account(
        "1000", held, instruments=[worlds.rules("AAPL", state=state, amount_step="1")], market="equity",
        currency="USD",
    )  # fmt: skip
    return Inspected(snapshot), {"market": "equity", "currency": "USD", **spec}


@pytest.mark.parametrize(
    ("hours", "severity", "expected"),
    [
        (
            None,
            "warning",
            "declare in the Account document what happens to a close outside market hours",
        ),
        ("extended", "warning", "a close is tried again until the extended session begins"),
        ("queue", None, "a close is held until it opens (outside_hours: queue)"),
    ],
)
def test_a_closed_stock_market_is_reported_with_its_hours(
    desk: Desk, hours: str | None, severity: str | None, expected: str
) -> None:
    """Nobody is told to close manually what nobody can close; an order queued for the opening is no warning."""
    adapter, spec = equity("halted", **({} if hours is None else {"outside_hours": hours}))
    desk.add(adapter, **spec)
    out = desk.check().stdout
    assert expected in out
    assert "dust" not in out
    assert ("warning  positions: 1 of 1" in out) == (severity == "warning")


def test_each_reason_has_its_own_advice(desk: Desk) -> None:
    """Dust manually, a remainder stays, a delisted one is the venue's to settle."""
    held = [
        worlds.position("DUST", "long", contracts="0.0001", mark_price="10"),
        worlds.position("ODD", "long", contracts="1.0004", mark_price="10"),
        worlds.position("GONE", "long", contracts="1", mark_price="10"),
    ]
    rules = [worlds.rules("DUST"), worlds.rules("ODD"), worlds.rules("GONE", state="delisted")]
    desk.add(Inspected(worlds.account("1000", held, instruments=rules, position_mode="one_way")))
    (found,) = [each for each in desk.checked()["findings"] if each["about"] == "positions"]
    assert found["way_out"].split("; ") == [
        "see the table of positions",
        "close dust by hand where the venue has a way, or add to it",
        "the rest is closed, and a remainder finer than the step stays",
        "see how the venue settles or withdraws what it has delisted",
    ]


@pytest.mark.parametrize(
    ("reason", "spec", "way_out"),
    [
        ("the venue says nothing of USDT, the account's currency", {}, "name a currency that the account holds"),
        ("no field 'totalWalletBalance'", {"endpoint": "http://127.0.0.1:1"},
         "it does not look like swapex: check the endpoint"),
        ("position BTC/USDT:USDT: no contracts", {}, "keep the account at execution: observe until it can"),
    ],
)  # fmt: skip
def test_a_malformed_answer_is_reported_with_its_remedy(
    desk: Desk, reason: str, spec: dict[str, object], way_out: str
) -> None:
    """A wrong currency, another venue's address, or neither."""
    desk.add(Inspected(worlds.account(None, None, quality="malformed", reason=reason)), **spec)
    (found,) = [each for each in desk.checked()["findings"] if each["severity"] == "failed"]
    assert way_out in found["way_out"]


def test_the_address_of_streams_has_a_stream_scheme(desk: Desk) -> None:
    """https:// there is refused before any request."""
    desk.add(Inspected(SOUND), endpoint_ws="https://127.0.0.1:1")
    assert "account: endpoint_ws begins with ws:// or wss://, not https://" in desk.check().stdout


def test_counts_of_one_are_singular(desk: Desk) -> None:
    """1 position, 1 resting order."""
    held = [worlds.position("BTC/USDT:USDT", "long", contracts="1", mark_price="10")]
    orders = [Order("1", "BTC/USDT:USDT", "buy", Decimal(1))]
    rules = [worlds.rules("BTC/USDT:USDT")]
    desk.add(Inspected(worlds.account("1000", held, orders=orders, instruments=rules, position_mode="one_way")))
    assert ", 1 position, 1 resting order\n" in desk.check().stdout


def test_no_line_is_wider_than_the_terminal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty columns: findings are indented below themselves, and cells too."""
    monkeypatch.setattr(terminal, "terminal_width", lambda *_: 80)
    desk.add(Inspected(VenueDownError("the venue says at some length why it is not there " * 3), inspection()))
    out = desk.check().stdout
    assert max(map(len, out.splitlines())) <= 80
    assert "\n           " in out


def test_a_table_is_narrowed_at_its_widest_column() -> None:
    """Computed manually: 4 + 2 + 12 columns; no word is broken."""
    assert table(("a", "note"), [("1234", "one two three four")], "", 18) == (
        "a     note\n1234  one two\n      three four"
    )
    assert hanging("  warning  a: https://a-long-address-that-stays/whole b c", " " * 4, 30).splitlines()[1:] == [
        "    https://a-long-address-that-stays/whole",
        "    b c",
    ]


def test_an_unlisted_venue_is_shown_where_its_plug_in_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In full; what no plug-in reaches is unknown as before; and the list says that there is more."""
    entries = [Entry("made-up", Listed), Entry("wide", Wide)]
    monkeypatch.setattr(families_module, "entry_points", lambda group: entries)
    shown = run_venues("list", "farex")
    assert shown.stdout.startswith("Adapter wide, exchange farex: spot\nIt is not tried: other\n")
    assert run_venues("list", "nowhere").exit_code == 1
    assert "\nwide     any other exchange of wide" in run_venues("list").stdout
