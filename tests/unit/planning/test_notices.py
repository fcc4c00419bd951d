"""Notices: whom they are about, what kind they are, and whether a person is woken."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from killswitch.graph.nodes import EquityRule, OnUnknown, SignalRef
from killswitch.model.decision import Notice
from killswitch.model.instant import MINUTE, SECOND, from_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.planning import notices
from killswitch.planning.orders.slices import Blocked
from killswitch.planning.scopes.compiled_policy import compile_policy
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.signals.equity.explanation import ChangeEvent as News
from killswitch.signals.scope_view import ScopeView
from tests.graphs import FALL_15M, graph, stage, trigger
from tests.worlds import account, hand

NOW = 1_600_000_000_000_000


def watching(answer: OnUnknown = "hold", *, seen: bool = True) -> ScopeEvaluator:
    """A watch over account main, in USDT, that has seen it once (or never)."""
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05, on_unknown=answer),), (stage("one", 1, 0),), policy="p")
    watch = ScopeEvaluator(compile_policy(made), "account/main")
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
        ("lost", "50", "page", ("equity by -50 USDT", "counts as loss", "the ledger has no row for it")),
        ("lost", "-50", "warning", ("equity by 50 USDT", "counts as gain")),
        ("explained", "-50", "info", ("-50 USDT", "is explained by the ledger now")),
        ("anew", "50", "warning", ("50 USDT", "wiped-out account", "a new equity series")),
        ("appeared", "-50.500", "page", ("changed by -50.5 USDT", "treated as money that moved", "closes nothing")),
        ("appeared", "50", "warning", ("changed by 50 USDT", "treated as money that moved")),
    ],
)
def test_unexplained_money_is_told_by_what_became_of_it(
    kind: str, amount: str, severity: str, words: tuple[str, ...]
) -> None:
    """A fall that counts as loss, and one that nothing explains, wake somebody; a rise does not."""
    found = notices.unexplained(watching(), NOW, News(kind, Decimal(amount)))  # type: ignore[arg-type]  # literal
    assert about(found) == (from_micros(NOW), "p", "account/main", "unexplained", severity, None)
    assert [word for word in words if word not in found.text] == []


def test_money_that_is_gone_is_told_without_a_currency_where_none_is_known() -> None:
    """The amount alone, with nothing around it."""
    found = notices.unexplained(watching(seen=False), NOW, News("lost", Decimal(50)))
    assert "equity by -50 counts" in found.text


def test_a_pending_change_says_what_it_waits_for_and_wakes_nobody() -> None:
    """It may be a trade or an answer that lags."""
    found = notices.unexplained(watching(), NOW, News("appeared", Decimal(-50), pending=True))
    assert (found.severity, "waiting for the ledger" in found.text) == ("warning", True)


def test_a_policy_that_takes_the_unexplained_for_a_loss_says_so_of_a_fall_that_waits() -> None:
    """`on_unexplained: close`: nothing was traded, and the close is the policy's choice. Of a rise nothing changes."""
    equity = EquityRule(10 * MINUTE, 0.001, MINUTE, None, closes_unexplained=True)
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("one", 1, 0),), equity=equity)
    watch = ScopeEvaluator(compile_policy(made), "account/main")
    watch.observe(ScopeView(NOW, True, [account("1000")], {}, None), ())
    found = notices.unexplained(watch, NOW, News("appeared", Decimal(-50), pending=True))
    assert found.text == (
        "equity changed by -50 USDT, and no ledger row explains it yet: it counts as a loss once the ledger has been "
        "read past it without one (on_unexplained: close)"
    )
    risen = notices.unexplained(watch, NOW, News("appeared", Decimal(50), pending=True))
    assert "trades or late answers may account for it" in risen.text


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ("equity.unexplained_share", "money that moved, and is no loss, though the policy's odd may fire on it"),
        ("equity.unexplained", "money that moved, and is no loss, though the policy's odd may fire on it"),
        ("exposure.leverage", "money that moved, and closes nothing"),
    ],
)
def test_a_policy_that_looks_at_money_that_moved_is_not_said_to_close_nothing(signal: str, words: str) -> None:
    """A trigger on what is unexplained may close in the same tick; the notice names it."""
    triggers = (trigger("fall", 0, 0.05), trigger("odd", 1, 0.2))
    made = graph((FALL_15M, SignalRef(signal)), triggers, (stage("one", 1, 0), stage("two", 2, 1)))
    watch = ScopeEvaluator(compile_policy(made), "account/main")
    watch.observe(ScopeView(NOW, True, [account("1000")], {}, None), ())
    assert words in notices.unexplained(watch, NOW, News("appeared", Decimal(-300))).text


def test_one_crash_pages_once_for_what_nothing_explains_and_counts_the_rest() -> None:
    """Three falls in ten minutes are one page and two counts; one after that pages again."""
    watch = watching()
    told = [
        notices.unexplained(watch, NOW + minute * MINUTE, News("appeared", Decimal(-50))) for minute in (0, 1, 9, 25)
    ]
    assert [each.severity for each in told] == ["page", "warning", "warning", "page"]
    assert "number 3 within ten minutes" in told[2].text


def test_a_fall_that_is_greater_than_what_was_paged_about_pages_again_at_once() -> None:
    """The session of the trial: 150 of 100,000, and 5 s later 49,850; then 20,000 of the 50,000 is counted."""
    watch = watching()
    watch.observe(ScopeView(NOW + SECOND, True, [account("99850")], {}, None), ())
    first = notices.unexplained(watch, NOW + SECOND, News("appeared", Decimal(-150)))
    watch.observe(ScopeView(NOW + 6 * SECOND, True, [account("50000")], {}, None), ())
    second = notices.unexplained(watch, NOW + 6 * SECOND, News("appeared", Decimal(-49_850)))
    third = notices.unexplained(watch, NOW + 9 * SECOND, News("appeared", Decimal(-20_000)))
    assert [(each.severity, each.at_once) for each in (first, second, third)] == [
        ("page", True), ("page", True), ("warning", False),
    ]  # fmt: skip
    assert "equity changed by -49850 USDT" in second.text
    assert "(number 2 within ten minutes)" in third.text


@pytest.mark.parametrize(
    ("amounts", "severities"),
    [
        ((100, 200), ["page", "warning"]),  # twice as much is not more than twice as much
        ((100, 201), ["page", "page"]),
        ((100, 90, 90, 90), ["page", "warning", "warning", "page"]),  # 270 together
        ((100, 150, 60, 400, 50), ["page", "warning", "page", "warning", "page"]),  # 210, and then 450 of more than 420
        ((1, 9), ["page", "warning"]),  # 9 of 1,009 is less than 1%
        ((1, 11), ["page", "page"]),
    ],
)
def test_falls_page_again_where_together_they_are_more_than_twice_what_was_told(
    amounts: tuple[int, ...], severities: list[str]
) -> None:
    """Within ten minutes, of an account that has 1,000 left; and more than 1% of what it had before them."""
    watch = watching()
    told = [
        notices.unexplained(watch, NOW + second * SECOND, News("appeared", Decimal(-amount)))
        for second, amount in enumerate(amounts)
    ]
    assert [each.severity for each in told] == severities


def test_a_second_page_says_how_much_fell_since_the_first() -> None:
    """Of three falls it names its own, and all since the page together."""
    watch = watching()
    for second, amount in enumerate((100, 90, 120)):
        told = notices.unexplained(watch, NOW + second * SECOND, News("appeared", Decimal(-amount)))
    assert told.text.startswith("equity changed by -120 USDT")
    assert told.text.endswith("(2 since the last page, together -210 USDT)")


def test_a_crash_in_small_pieces_pages_as_often_as_it_doubles() -> None:
    """2 of 1,000 a second. After the first 10 of 998 are more than 1%; then 22, 46, 94, 190 and 382 more than twice."""
    watch, paged = watching(), []
    for step in range(1, 401):
        watch.observe(ScopeView(NOW + step * SECOND, True, [account(str(1000 - 2 * step))], {}, None), ())
        if notices.unexplained(watch, NOW + step * SECOND, News("appeared", Decimal(-2))).severity == "page":
            paged.append(step)
    assert paged == [1, 1 + 5, 6 + 11, 17 + 23, 40 + 47, 87 + 95, 182 + 191]


def falls(watch: ScopeEvaluator, *minutes: int) -> list[str]:
    """The severity of a fall of 50 at each of these minutes."""
    return [notices.unexplained(watch, NOW + it * MINUTE, News("appeared", Decimal(-50))).severity for it in minutes]


def test_a_drip_of_falls_pages_again_ten_minutes_after_the_last_page() -> None:
    """Every nine minutes for a day: 160 falls, of which every second one is later than ten minutes after a page."""
    assert falls(watching(), 0, 9, 10, 19, 20) == ["page", "warning", "page", "warning", "page"]
    told = falls(watching(), *range(0, 1440, 9))
    assert (told.count("page"), told.count("warning")) == (80, 80)


def test_a_fall_that_follows_a_page_is_counted_after_a_restart_too() -> None:
    """When it paged is stored with the memory of the watch."""
    before, again = watching(), watching()
    assert falls(before, 0, 1) == ["page", "warning"]
    again.restore(before.serialised(), [])
    third = notices.unexplained(again, NOW + 2 * MINUTE, News("appeared", Decimal(-50)))
    assert (third.severity, "number 3 within ten minutes" in third.text) == ("warning", True)


def test_a_memory_of_before_the_page_was_stored_is_read() -> None:
    """Without it the next fall pages."""
    before, again = watching(), watching()
    stored = msgspec.json.decode(before.serialised())
    assert stored.pop("paged", None) is None
    again.restore(msgspec.json.encode(stored), [])
    assert falls(again, 0) == ["page"]


def in_dollars(*accounts: AccountSnapshot) -> ScopeEvaluator:
    """A watch over a portfolio that is measured in USD, with 1.20 declared for the EUR."""
    reference = ReferenceCurrency("USD", 2, Decimal("0.01"), (("EUR", Decimal("1.2")),))
    equity = EquityRule(10 * MINUTE, 0.001, MINUTE, None, reference=reference)
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("one", 1, 0),), equity=equity)
    watch = ScopeEvaluator(compile_policy(made), "portfolio")
    watch.observe(ScopeView(NOW, True, accounts, {}, None, None, reference), ())
    return watch


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "not in the snapshot"])
def test_money_is_told_in_the_currency_that_the_scope_is_measured_in(seen: bool) -> None:
    """The account is in EUR, and amounts of changes are in USD; also where the newest snapshot lacks the account."""
    watch = in_dollars(*([account("1000", currency="EUR")] if seen else []))
    found = notices.unexplained(watch, NOW, News("appeared", Decimal(-36_000)))
    assert found.text.startswith("equity changed by -36000 USD, and no price")


def test_a_stage_whose_prints_go_on_not_to_hold_pages_once() -> None:
    """At once a warning with the print that failed; after ten seconds a page; then nothing more."""
    watch = watching()
    why = "BTC mark 90 against index 100"
    told = [notices.uncorroborated(watch, NOW + s * SECOND, "one", why) for s in (0, 1, 9, 10, 11)]
    assert [[each.severity for each in found] for found in told] == [["warning"], [], [], ["page"], []]
    assert about(told[3][0]) == (from_micros(NOW + 10 * SECOND), "p", "account/main", "uncorroborated", "page", "one")
    assert told[3][0].text == "one did not fire: BTC mark 90 against index 100, for 10 s now"


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
    found = notices.command_not_carried_out(event, NOW, "why")
    assert about(found) == (from_micros(NOW), "operator", "account/main", "nothing_selected", "page", "e1")
    blind = notices.forced_close(event, NOW, "why")
    assert about(blind) == (from_micros(NOW), "operator", "account/main", "warning", "warning", "e1")
    everything = hand("close", from_micros(NOW), scope=None)
    for told in (notices.command_not_carried_out(everything, NOW, "why"), notices.forced_close(everything, NOW, "w")):
        assert told.scope == "portfolio"
    assert found.text == "why"
