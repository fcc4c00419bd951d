"""Notices: whom they are about, what kind they are, and whether a person is woken."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.graph.nodes import OnUnknown
from killswitch.model.decision import Notice
from killswitch.model.instant import from_micros
from killswitch.planning import notices
from killswitch.planning.cuts import Blocked
from killswitch.planning.prepared import prepare
from killswitch.planning.watch import Watch
from killswitch.signals.history import News
from killswitch.signals.view import ScopeView
from tests.graphs import FALL_15M, graph, stage, trigger
from tests.worlds import account, hand

NOW = 1_600_000_000_000_000


def watching(answer: OnUnknown = "hold", *, seen: bool = True) -> Watch:
    """A watch over account main, in USDT, that has seen it once (or never)."""
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05, on_unknown=answer),), (stage("one", 1, 0),), policy="p")
    watch = Watch(prepare(made), "account/main")
    if seen:
        watch.observe(ScopeView(NOW, True, [account("1000")], {}, None), ())
    return watch


def about(notice: Notice) -> tuple[object, ...]:
    return (notice.as_of, notice.policy, notice.scope, notice.kind, notice.severity, notice.subject)


@pytest.mark.parametrize(("answer", "severity"), [("hold", "page"), ("trip", "page"), ("warn", "warning")])
def test_a_long_unknown_pages_unless_its_trigger_only_warns(answer: OnUnknown, severity: str) -> None:
    """It names its trigger, what unknown does to it, and why it is unknown."""
    [found] = notices.unknown(watching(answer), NOW, (0,))
    assert about(found) == (from_micros(NOW), "p", "account/main", "unknown", severity, "fall")
    assert found.text.startswith(f"fall is unknown ({answer}): ")
    assert "history does not reach back" in found.text


@pytest.mark.parametrize(
    ("kind", "amount", "severity", "words"),
    [
        ("lost", "-50", "page", ("a fall of -50 USDT", "counts as loss")),
        ("explained", "-50", "info", ("-50 USDT", "is explained by the ledger now")),
        ("anew", "50", "warning", ("50 USDT", "wiped-out account", "a new series")),
        ("appeared", "-50.500", "warning", ("changed by -50.5 USDT", "counts as loss after 60 s")),
        ("appeared", "50", "warning", ("changed by 50 USDT", "drawdown is an interval until then")),
    ],
)
def test_unexplained_money_is_told_by_what_became_of_it(
    kind: str, amount: str, severity: str, words: tuple[str, ...]
) -> None:
    """Only money that counts as lost wakes anyone; a fall says when it will, a rise what is unknown until then."""
    found = notices.unexplained(watching(), NOW, News(kind, Decimal(amount)))  # type: ignore[arg-type]  # literal
    assert about(found) == (from_micros(NOW), "p", "account/main", "unexplained", severity, None)
    assert [word for word in words if word not in found.text] == []


def test_money_that_is_gone_is_told_without_a_currency_where_none_is_known() -> None:
    """The amount alone, with nothing around it."""
    found = notices.unexplained(watching(seen=False), NOW, News("lost", Decimal("-50")))
    assert "a fall of -50 that" in found.text


def test_a_fall_of_nothing_is_no_fall() -> None:
    """0 is told as a rise is: it never counts as loss."""
    assert "interval" in notices.unexplained(watching(), NOW, News("appeared", Decimal(0))).text


def test_a_stage_whose_prints_did_not_hold_pages_and_is_named() -> None:
    """With the print that failed."""
    found = notices.uncorroborated(watching(), NOW, "one", "BTC mark 90 against index 100")
    assert about(found) == (from_micros(NOW), "p", "account/main", "uncorroborated", "page", "one")
    assert found.text == "one did not fire: BTC mark 90 against index 100"


@pytest.mark.parametrize(("dust", "severity"), [(True, "warning"), (False, "page")])
def test_a_blocked_position_pages_unless_it_is_dust(dust: bool, severity: str) -> None:
    """It names its symbol, and says why in the words it was given."""
    found = notices.blocked(watching(), NOW, Blocked("BTC/USDT:USDT", "halted", dust))
    assert about(found) == (from_micros(NOW), "p", "account/main", "blocked", severity, "BTC/USDT:USDT")
    assert found.text == "halted"


def test_a_reset_that_finds_nothing_wakes_nobody() -> None:
    """It is marked as the answer to a reset, so that a hand finds it."""
    found = notices.not_latched(watching(), NOW)
    assert about(found) == (from_micros(NOW), "p", "account/main", "warning", "info", notices.RESET)
    assert "no stage is latched" in found.text


def test_what_became_of_a_hand_is_told_under_its_own_name() -> None:
    """Not followed pages, followed blind warns; a hand over everything is about the portfolio."""
    event = hand("close", from_micros(NOW))
    found = notices.hand_not_followed(event, NOW, "why")
    assert about(found) == (from_micros(NOW), "operator", "account/main", "nothing_selected", "page", "e1")
    blind = notices.hand_followed_blind(event, NOW, "why")
    assert about(blind) == (from_micros(NOW), "operator", "account/main", "warning", "warning", "e1")
    everything = hand("close", from_micros(NOW), scope=None)
    for told in (notices.hand_not_followed(everything, NOW, "why"), notices.hand_followed_blind(everything, NOW, "w")):
        assert told.scope == "portfolio"
    assert found.text == "why"
