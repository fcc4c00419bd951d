"""The first minute: the worst position, resting orders, the next stage with its distance, and whom to call."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.cli.operate.verbs import reset
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs, next_commands
from killswitch.incident.record.document import Incident, Person, PositionLeft, contact_text
from killswitch.incident.record.first_minute import (
    contacts_text,
    net_text,
    next_stage_text,
    resting_text,
    worst_text,
)
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.remarks import obstacles
from killswitch.incident.record.source_places import LadderStage, TriggerText, WrittenAt
from killswitch.incident.report.rendering import runbook
from killswitch.incident.report.runbooks import compile_all
from killswitch.model.decision import Book, BookChange, Decision, Notice
from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.planning.scopes.trigger_status import TriggerStatus
from killswitch.policy.loader import load
from tests import worlds
from tests.incidents import filled_store, whole_incident
from tests.outboxes import START

FALL = TriggerText(WrittenAt("p.yaml", 1, ""), "equity.drawdown", "fraction", ">= 10%", "15m")
LADDER = (LadderStage("trim", 1, ("dip",)), LadderStage("all", 3, ("fall",), ("sure",)))


def status(
    low: float | None, high: float | None, headroom: tuple[float, float] | None, **more: object
) -> TriggerStatus:
    fields: dict[str, object] = {
        "truth": None if low != high else False, "held": False, "confirmed": False, "true_since": None,
        "unknown_because": None if low == high else "the history is short", **more,
    }  # fmt: skip
    return TriggerStatus("fall", "p.yaml:1", "equity.drawdown", None, "fraction", (low, high), ">= 10%", headroom,
                         **fields)  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "distance"),
    [
        # 6% fallen to 940: the peak was 1,000, and 4 points more of it are 40.
        (status(0.06, 0.06, (0.04, 0.04)), "4.00% away, 40.00 USDT"),
        (status(0.06, 0.08, (0.02, 0.04)), "at least 2.00% away"),
        (status(0.06, 1.0, (-0.9, 0.04)), "may be reached already: the history is short"),
        (status(0.2, 0.2, (-0.1, -0.1), held=True, confirmed=True), "true now"),
        (status(0.2, 0.2, (-0.1, -0.1), held=True), "true now, not confirmed yet"),
        (status(None, None, None, unknown_because="main is down"), "how far is unknown: main is down"),
    ],
)
def test_the_next_stage_has_its_distance_in_per_cent_and_money(shown: TriggerStatus, distance: str) -> None:
    """What is partly known has its nearest end; what is unknown has its reason."""
    text = next_stage_text(1, LADDER, {"fall": FALL}, (shown,), Decimal(940), "USDT")
    assert text == f"level 3 all follows at fall >= 10% ({distance}), and sure (how far is unknown)"


@given(st.integers(1, 90), st.integers(1, 99), st.integers(1, 10**9))
def test_the_distance_in_money_leads_to_the_threshold(fallen: int, more: int, equity: int) -> None:
    """A loss of that much more makes the fall from the same peak as large as the threshold."""
    fall, left = fallen / 100, (100 - fallen) * more / 10_000
    text = next_stage_text(
        1, LADDER, {"fall": FALL}, (status(fall, fall, (left, left)),), Decimal(equity), None
    )  # fmt: skip
    amount = float(text.split("away, ")[1].split(")")[0].replace(",", ""))
    peak = equity / (1 - fall)
    assert (equity - amount) / peak == pytest.approx(1 - (fall + left), abs=0.006 / peak + 1e-9)


def test_above_the_highest_stage_is_none() -> None:
    """It is not left out: a person must know that nothing more follows."""
    assert next_stage_text(3, LADDER, {}) == "no stage is above this one"


ACCOUNT = worlds.account(
    "1000",
    (
        worlds.position("ETH", "long", "-40", contracts="2", notional="500"),
        worlds.position("BTC", "short", "-50", notional="-900"),
        worlds.position("SOL", "long", "7"),
        worlds.position("ADA", "long", None),
    ),
)


@pytest.mark.parametrize(
    ("scope", "accounts", "expected"),
    [
        (
            "account/main",
            (ACCOUNT,),
            "1 BTC short on main, -50.00 USDT unrealised of 900.00 notional; "
            "not counted: 1 position without a known P&L",
        ),
        ("symbol/ETH", (ACCOUNT,), "2 ETH long on main, -40.00 USDT unrealised of 500.00 notional"),
        ("strategy/grid", (ACCOUNT,), "unknown: strategy/grid owns a part of its accounts' positions"),
        ("account/main", (), "no position is open"),
        ("account/main", None, "unknown: no snapshot was read"),
        ("account/main", (worlds.account("1", None),), "unknown: positions of main unknown"),
        ("symbol/SOL", (ACCOUNT,), "no position is at a loss"),
    ],
)
def test_the_worst_position_is_named_or_why_it_is_unknown(
    scope: str, accounts: tuple[AccountSnapshot, ...] | None, expected: str
) -> None:
    """The largest unrealised loss of the scope; a position without a P&L may be worse, and is counted."""
    assert worst_text(scope, accounts) == expected


def test_resting_orders_are_counted_with_the_cancelled_ones(decided: Decision) -> None:
    """Of three orders one is a stop, and the decision cancels none."""
    orders = [Order(str(n), "BTC", "buy", Decimal(1), trigger_price=Decimal(9) if n == 0 else None) for n in range(3)]
    seen = worlds.account("1000", orders=orders)
    assert resting_text(decided, (seen,)) == (
        "3 orders on main, 1 of them stops or other conditional ones, none cancelled by this decision"
    )
    assert resting_text(decided, (replace(seen, orders=None),)) == "unknown: orders of main unknown"
    assert resting_text(decided, (worlds.account("1"),)) == "no order rests"


@pytest.fixture
def decided() -> Decision:
    return Decision(
        id="d1", as_of=START, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce", stage="trim",
        level=2, previous_level=0, triggers=(),
    )  # fmt: skip


def test_contacts_are_named_with_how_they_are_reached() -> None:
    """Two fit in the first lines; none is stated as nobody. One who can be called from this page comes first."""
    desk = [Person(f"c{n}", "desk", f"+49 {n}") for n in range(3)]
    assert contacts_text(desk) == "c0 (desk): +49 0; c1 (desk): +49 1; 1 more in the runbook"
    assert contacts_text(()) == "nobody: the policy set names no contact"
    hidden = Person("Ada", "decides", contact_text("env:DESK_PHONE"))
    assert contacts_text((hidden, desk[0])) == "c0 (desk): +49 0; Ada (decides): kept in env:DESK_PHONE"


@pytest.mark.parametrize(("net", "text"), [(None, "unknown"), ("-3", "short 3.00"), ("0", "0.00"), ("2", "long 2.00")])
def test_a_net_exposure_has_its_side_in_words(net: str | None, text: str) -> None:
    """A sign is overlooked at 03:00."""
    assert net_text(None if net is None else Decimal(net)) == text


def test_what_is_left_has_the_reasons_that_are_not_over() -> None:
    """Of a market and of the account's close, and none of others; an all-clear takes its reason."""
    left = [PositionLeft("d1", "main", "BTC", "short", Decimal(0), None, None, None)]
    halted = Notice(START, "p", "account/main", "blocked", "page", "BTC is halted at the venue", subject="BTC")
    stuck = "a position on account main is not closed yet"
    text = "closing on account main: BTC waits for the market"
    waits = Notice(START, "runner", "runner", "warning", "page", text, title=stuck)
    text = "account main cannot be read since 12:00"
    down = Notice(START, "runner", "runner", "warning", "page", text, title="account main cannot be read")
    others = [
        replace(halted, text="ETH is halted at the venue", subject="ETH"),
        replace(waits, text="closing on account mainland: BTC waits"),
        replace(down, text="account hedge cannot be read since 12:00"),
        replace(down, text="disk space is short"),
    ]
    over = replace(down, text="account main is read again, after 9 min", title=f"over: {down.title}")
    assert obstacles([halted, *others, down, waits], left) == (halted.text, down.text, waits.text)
    assert obstacles([halted, down, waits, over], left) == (halted.text, waits.text)
    also = replace(waits, text="closing on account main: BTC rests")
    over = replace(waits, text="closing on account main: over since 12:09Z: BTC rests", title=f"over: {stuck}")
    assert obstacles([waits, also, over], left) == (waits.text,)
    assert obstacles([halted, waits], []) == ()


SET = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: EXECUTION}
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: log}
spec: {match: {}, targets: [{log: {level: info}}]}
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    loss: {signal: equity.loss_from_start, at_least: 2%, on_unknown: hold}
  stages:
    - {name: out, level: 1, any: [loss], cooldown: 6h, reset: manual, actions: [], notify: [desk], runbook: stage-out}
---
apiVersion: killswitch.dev/v1
kind: Runbook
metadata: {name: stage-out}
spec: {contacts: [CONTACT]}
"""


@pytest.mark.parametrize(
    ("execution", "contact", "warned"),
    [("live", "", True), ("observe", "", False), ("live", "{name: ada, role: desk, reach: '+49'}", False)],
)
def test_a_set_that_acts_and_names_nobody_is_warned_of(
    tmp_path: Path, execution: str, contact: str, warned: bool
) -> None:
    """Only where an account may act: a set that observes wakes nobody."""
    (tmp_path / "p.yaml").write_text(SET.replace("EXECUTION", execution).replace("CONTACT", contact))
    found = [each for each in compile_all(load([tmp_path]))[1] if each.code == "KS5071"]
    assert [each.message for each in found] == ["nobody is named who can be called when `out` fires"] * warned


@pytest.fixture
def open_incident(tmp_path: Path) -> Incident:
    """An incident of a live run that nobody has reset, with nobody to call."""
    written = filled_store(tmp_path)
    whole_incident(written)
    run = StartedAs("ks.sqlite", ("policies",), live=True)
    found = replace(incident_of(written.store, find_incident(written.store, None), run), state="open", reset=None)
    written.store.close()
    return replace(found, commands=tuple(next_commands(found, run, is_unfinished=False, is_escalating=True)))


def test_a_runbook_has_what_comes_first_in_order_and_what_not_to_do(open_incident: Incident) -> None:
    """Acknowledge, call, texts; and the three acts that make it worse. Of an incident that is over, none of it."""
    contacts = (Person("Ada", "desk", "+49 1"), Person("Ben", "owner", "+49 2"))
    text = runbook(replace(open_incident, contacts=contacts), open_incident.stage, None).markdown
    steps = [line for line in text.splitlines() if line.startswith(("1. ", "2. ", "3. "))][:3]
    assert f"`ksctl acknowledge {open_incident.id} --store ks.sqlite`" in steps[0]
    assert "**Ada** (desk): +49 1, then **Ben** (owner): +49 2" in steps[1]
    assert steps[2].startswith("3. Send the texts below")
    refused = text.partition("**Do not**")[2].partition("**If the venue")[0]
    assert [line[:8] for line in refused.splitlines() if line.startswith("- ")] == ["- reset ", "- start ", "- send t"]
    assert "with `--live`" in text.partition("**If the venue still shows a position**")[2].splitlines()[0]
    nobody_waits = [each for each in open_incident.commands if each.words[1] != "acknowledge"]
    quiet = runbook(replace(open_incident, commands=tuple(nobody_waits)), open_incident.stage, None).markdown
    assert "1. Nothing to acknowledge: nobody waits for it, or it is done.\n2. Call" in quiet
    over = runbook(replace(open_incident, state="closed"), open_incident.stage, None).markdown
    assert "**Do not**" not in over
    assert "**First**" not in over


def test_the_close_of_what_is_left_has_its_dry_run_first(open_incident: Incident) -> None:
    """The same words but for the option. A run that is not live has the dry run only, and so has a trim: what it left
    is open on purpose.
    """
    dry, live = (each.words for each in open_incident.commands if each.words[1] == "close")
    assert "--dry-run" in dry
    assert set(dry) ^ set(live) == {"--dry-run", "--live"}
    run = StartedAs("ks.sqlite", ("policies",))
    observing = next_commands(open_incident, run, is_unfinished=True, is_escalating=True)
    assert ["--live" in each.words for each in observing if each.words[1] == "close"] == [False]
    kept = BookChange(Book(Decimal(1250), Decimal(750), None), Book(Decimal(750), Decimal(250), None))
    trim = replace(open_incident, firings=(*open_incident.firings[:1], replace(open_incident.firings[1], book=kept)))
    run = StartedAs("ks.sqlite", ("policies",), live=True)
    for is_unfinished in (False, True):
        found = next_commands(trim, run, is_unfinished=is_unfinished, is_escalating=False)
        assert ["--live" in each.words for each in found if each.words[1] == "close"] == [False] * is_unfinished


def test_the_page_and_the_runbook_have_the_same_reset_with_a_blank_that_is_refused(open_incident: Incident) -> None:
    """Pasted as it is, it does nothing: the program asks for the reason."""
    run = StartedAs("ks.sqlite", ("policies",), live=True)
    (command,) = [each for each in open_incident.commands if each.words[1] == "reset"]
    assert command.line == run.lifting("reset", open_incident.scope)
    assert command.line == f"ksctl reset {open_incident.scope} --reason '' --store ks.sqlite"
    refused = CliRunner().invoke(reset, [*command.words[2:]])
    assert refused.exit_code == 2
    assert "the text is empty" in refused.stderr
