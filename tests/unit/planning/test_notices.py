"""Notices: their account, their kind, and whether a person is paged."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from killswitch.graph.nodes import EquityRule, OnUnknown, SignalRef
from killswitch.model.alert import Alert, NoticeGroup
from killswitch.model.decision import Notice
from killswitch.model.instant import HOUR, MINUTE, SECOND, from_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.words import ReferenceCurrency
from killswitch.planning import notices
from killswitch.planning.orders.slices import Blocked
from killswitch.planning.scopes.compiled_policy import compile_policy
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.pnl_explain.explanation import ChangeEvent as News
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import FALL_15M, graph, stage, trigger
from tests.worlds import account, operator_event

NOW = 1_600_000_000_000_000


def evaluator_after_one_snapshot(answer: OnUnknown = "hold", *, observed: bool = True) -> ScopeEvaluator:
    """An evaluator of account main, in USDT, that has observed it once (or never)."""
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05, on_unknown=answer),), (stage("one", 1, 0),), policy="p")
    evaluator = ScopeEvaluator(compile_policy(made), "account/main")
    if observed:
        evaluator.observe(ScopeView(NOW, True, [account("1000")], {}, None), ())
    return evaluator


def notice_fields(notice: Notice) -> tuple[object, ...]:
    return (notice.as_of, notice.policy, notice.scope, notice.kind, notice.severity, notice.subject)


@pytest.mark.parametrize(("answer", "severity"), [("hold", "page"), ("trip", "page"), ("warn", "warning")])
def test_a_long_unknown_pages_unless_its_trigger_only_warns(answer: OnUnknown, severity: str) -> None:
    """The alert names the trigger, what it does when unknown, and why it is unknown."""
    evaluator = evaluator_after_one_snapshot(answer)
    evaluator.step(ScopeView(NOW, True, [account("1000")], {}, None))
    (found,) = notices.unknown(evaluator, NOW + 3 * HOUR, ()).found
    assert (found.key, found.severity, found.since) == ("trigger/p/account/main/fall", severity, NOW)
    assert found.group == NoticeGroup("p", "account/main", "unknown", "fall")
    assert found.text.startswith(f"fall is unknown ({answer}): ")
    assert "history reaches back 0 s of 15 min" in found.text


@pytest.mark.parametrize(
    ("kind", "amount", "severity", "words"),
    [
        ("lost", "50", "page", ("equity by -50.00 USDT", "counts as loss", "the ledger has no row for it")),
        ("lost", "-50", "warning", ("equity by 50.00 USDT", "counts as gain")),
        ("explained", "-50", "info", ("-50.00 USDT", "is explained by the ledger now")),
        ("anew", "50", "warning", ("50.00 USDT", "wiped-out account", "a new equity series")),
        ("appeared", "-50.500", "page", ("changed by -50.50 USDT", "treated as money that moved", "closes nothing")),
        ("appeared", "50", "warning", ("changed by 50.00 USDT", "treated as money that moved")),
    ],
)
def test_an_unexplained_change_is_reported_by_its_outcome(
    kind: str, amount: str, severity: str, words: tuple[str, ...]
) -> None:
    """A fall that counts as loss, and one that nothing explains, page; a rise does not."""
    found = notices.unexplained(evaluator_after_one_snapshot(), NOW, News(kind, Decimal(amount)))  # type: ignore[arg-type]  # literal
    assert notice_fields(found) == (from_micros(NOW), "p", "account/main", "unexplained", severity, None)
    assert [word for word in words if word not in found.text] == []


def test_an_amount_without_a_known_currency_is_reported_alone() -> None:
    """The amount without a unit."""
    found = notices.unexplained(evaluator_after_one_snapshot(observed=False), NOW, News("lost", Decimal(50)))
    assert "equity by -50.00 counts" in found.text


def test_a_pending_change_names_what_it_waits_for_and_pages_nobody() -> None:
    """It may be a trade or a delayed answer."""
    found = notices.unexplained(evaluator_after_one_snapshot(), NOW, News("appeared", Decimal(-50), pending=True))
    assert (found.severity, "waiting for the ledger" in found.text) == ("warning", True)


def test_a_policy_that_counts_the_unexplained_as_loss_reports_that_for_a_pending_fall() -> None:
    """`on_unexplained: close`: nothing was traded, the close is the policy's choice. A rise is reported as before."""
    equity = EquityRule(10 * MINUTE, 0.001, MINUTE, None, closes_unexplained=True)
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("one", 1, 0),), equity=equity)
    evaluator = ScopeEvaluator(compile_policy(made), "account/main")
    evaluator.observe(ScopeView(NOW, True, [account("1000")], {}, None), ())
    found = notices.unexplained(evaluator, NOW, News("appeared", Decimal(-50), pending=True))
    assert found.text == (
        "equity changed by -50.00 USDT, and no ledger row explains it yet: it counts as a loss once the ledger has "
        "been read past it without one (on_unexplained: close)"
    )
    risen = notices.unexplained(evaluator, NOW, News("appeared", Decimal(50), pending=True))
    assert "trades or late answers may account for it" in risen.text


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ("equity.unexplained_share", "money that moved, and is no loss, though the policy's odd may fire on it"),
        ("equity.unexplained", "money that moved, and is no loss, though the policy's odd may fire on it"),
        ("exposure.leverage", "money that moved, and closes nothing"),
    ],
)
def test_a_policy_with_a_trigger_on_unexplained_changes_is_named_in_the_notice(signal: str, words: str) -> None:
    """A trigger on unexplained changes may close in the same tick, so the notice names it."""
    triggers = (trigger("fall", 0, 0.05), trigger("odd", 1, 0.2))
    made = graph((FALL_15M, SignalRef(signal)), triggers, (stage("one", 1, 0), stage("two", 2, 1)))
    evaluator = ScopeEvaluator(compile_policy(made), "account/main")
    evaluator.observe(ScopeView(NOW, True, [account("1000")], {}, None), ())
    assert words in notices.unexplained(evaluator, NOW, News("appeared", Decimal(-300))).text


def test_unexplained_falls_of_one_crash_page_once_and_the_rest_are_counted() -> None:
    """Three falls in ten minutes are one page and two counts; one after that pages again."""
    evaluator = evaluator_after_one_snapshot()
    reported = [
        notices.unexplained(evaluator, NOW + minute * MINUTE, News("appeared", Decimal(-50)))
        for minute in (0, 1, 9, 25)
    ]
    assert [each.severity for each in reported] == ["page", "warning", "warning", "page"]
    assert "number 3 within ten minutes" in reported[2].text


def test_a_fall_larger_than_the_last_paged_one_pages_again_at_once() -> None:
    """The session of the trial: 150 of 100,000, and 5 s later 49,850; then 20,000 of the 50,000 is counted."""
    evaluator = evaluator_after_one_snapshot()
    evaluator.observe(ScopeView(NOW + SECOND, True, [account("99850")], {}, None), ())
    first = notices.unexplained(evaluator, NOW + SECOND, News("appeared", Decimal(-150)))
    evaluator.observe(ScopeView(NOW + 6 * SECOND, True, [account("50000")], {}, None), ())
    second = notices.unexplained(evaluator, NOW + 6 * SECOND, News("appeared", Decimal(-49_850)))
    third = notices.unexplained(evaluator, NOW + 9 * SECOND, News("appeared", Decimal(-20_000)))
    assert [(each.severity, each.at_once) for each in (first, second, third)] == [
        ("page", True), ("page", True), ("warning", False),
    ]  # fmt: skip
    assert "equity changed by -49,850.00 USDT" in second.text
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
def test_falls_page_again_when_their_sum_exceeds_twice_the_paged_sum(
    amounts: tuple[int, ...], severities: list[str]
) -> None:
    """Within ten minutes, of an account that has 1,000 left; and more than 1% of its equity before them."""
    evaluator = evaluator_after_one_snapshot()
    reported = [
        notices.unexplained(evaluator, NOW + second * SECOND, News("appeared", Decimal(-amount)))
        for second, amount in enumerate(amounts)
    ]
    assert [each.severity for each in reported] == severities


def test_a_second_page_gives_the_fall_since_the_first() -> None:
    """Of three falls the page names its own, and the sum of all since the first page."""
    evaluator = evaluator_after_one_snapshot()
    for second, amount in enumerate((100, 90, 120)):
        reported = notices.unexplained(evaluator, NOW + second * SECOND, News("appeared", Decimal(-amount)))
    assert reported.text.startswith("equity changed by -120.00 USDT")
    assert reported.text.endswith("(2 since the last page, together -210.00 USDT)")


def test_a_crash_in_small_pieces_pages_as_often_as_it_doubles() -> None:
    """2 of 1,000 a second. After the first 10 of 998 are more than 1%; then 22, 46, 94, 190 and 382 more than twice."""
    evaluator, paged = evaluator_after_one_snapshot(), []
    for step in range(1, 401):
        evaluator.observe(ScopeView(NOW + step * SECOND, True, [account(str(1000 - 2 * step))], {}, None), ())
        if notices.unexplained(evaluator, NOW + step * SECOND, News("appeared", Decimal(-2))).severity == "page":
            paged.append(step)
    assert paged == [1, 1 + 5, 6 + 11, 17 + 23, 40 + 47, 87 + 95, 182 + 191]


def falls(evaluator: ScopeEvaluator, *minutes: int) -> list[str]:
    """The severity of a fall of 50 at each of these minutes."""
    return [
        notices.unexplained(evaluator, NOW + it * MINUTE, News("appeared", Decimal(-50))).severity for it in minutes
    ]


def test_repeated_small_falls_page_again_ten_minutes_after_the_last_page() -> None:
    """Every nine minutes for a day: 160 falls, of which every second one is later than ten minutes after a page."""
    assert falls(evaluator_after_one_snapshot(), 0, 9, 10, 19, 20) == ["page", "warning", "page", "warning", "page"]
    reported = falls(evaluator_after_one_snapshot(), *range(0, 1440, 9))
    assert (reported.count("page"), reported.count("warning")) == (80, 80)


def test_a_fall_that_follows_a_page_is_counted_after_a_restart_too() -> None:
    """The time of the page is stored with the evaluator's state."""
    before, again = evaluator_after_one_snapshot(), evaluator_after_one_snapshot()
    assert falls(before, 0, 1) == ["page", "warning"]
    again.restore(before.serialised(), [])
    third = notices.unexplained(again, NOW + 2 * MINUTE, News("appeared", Decimal(-50)))
    assert (third.severity, "number 3 within ten minutes" in third.text) == ("warning", True)


def test_a_stored_state_without_the_time_of_the_page_is_read() -> None:
    """Without it the next fall pages."""
    before, again = evaluator_after_one_snapshot(), evaluator_after_one_snapshot()
    stored = msgspec.json.decode(before.serialised())
    assert stored.pop("paged", None) is None
    again.restore(msgspec.json.encode(stored), [])
    assert falls(again, 0) == ["page"]


def dollar_portfolio(*accounts: AccountSnapshot) -> ScopeEvaluator:
    """An evaluator of a portfolio that is measured in USD, with 1.20 declared for the EUR."""
    reference = ReferenceCurrency("USD", 2, Decimal("0.01"), (("EUR", Decimal("1.2")),))
    equity = EquityRule(10 * MINUTE, 0.001, MINUTE, None, reference=reference)
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("one", 1, 0),), equity=equity)
    evaluator = ScopeEvaluator(compile_policy(made), "portfolio")
    evaluator.observe(ScopeView(NOW, True, accounts, {}, None, None, reference), ())
    return evaluator


@pytest.mark.parametrize("in_snapshot", [True, False], ids=["in the snapshot", "not in the snapshot"])
def test_amounts_are_reported_in_the_scopes_reference_currency(in_snapshot: bool) -> None:
    """The account is in EUR, and changes are in USD; also where the newest snapshot lacks the account."""
    evaluator = dollar_portfolio(*([account("1000", currency="EUR")] if in_snapshot else []))
    found = notices.unexplained(evaluator, NOW, News("appeared", Decimal(-36_000)))
    assert found.text.startswith("equity changed by -36,000.00 USD, and no price")


def test_a_stage_whose_prices_stay_uncorroborated_pages_after_ten_seconds() -> None:
    """At once a warning with the stray print; ten seconds after its beginning a page."""
    evaluator = evaluator_after_one_snapshot()
    why, found = "BTC mark 90 against index 100", list[Alert]()
    for second in (0, 1, 9, 10, 11):
        found.append(notices.uncorroborated(evaluator, NOW + second * SECOND, "one", why, tuple(found[-1:])))
    assert [each.severity for each in found] == ["warning"] * 3 + ["page"] * 2
    assert {each.key for each in found} == {"uncorroborated/p/account/main/one"}
    assert found[3].group == NoticeGroup("p", "account/main", "uncorroborated", "one")
    assert found[3].text == "one did not fire: BTC mark 90 against index 100, for 10 s now"


@pytest.mark.parametrize(("dust", "severity"), [(True, "warning"), (False, "page")])
def test_a_blocked_position_pages_unless_it_is_dust(dust: bool, severity: str) -> None:
    """The notice names its symbol and quotes the reason."""
    found = notices.blocked(evaluator_after_one_snapshot(), NOW, Blocked("main", "BTC/USDT:USDT", "halted", dust))
    assert notice_fields(found) == (from_micros(NOW), "p", "account/main", "blocked", severity, "BTC/USDT:USDT")
    assert found.text == "halted"


def test_a_reset_that_finds_nothing_pages_nobody() -> None:
    """It is marked as the answer to a reset, so that the operator finds it."""
    found = notices.not_latched(evaluator_after_one_snapshot(), NOW)
    assert notice_fields(found) == (from_micros(NOW), "p", "account/main", "warning", "info", notices.RESET)
    assert "no stage is latched" in found.text


def test_the_outcome_of_an_operator_command_is_reported_under_its_name() -> None:
    """A refusal pages, a forced close warns; a command over everything is about the portfolio."""
    event = operator_event("close", from_micros(NOW))
    found = notices.command_not_carried_out(event, NOW, "why")
    assert notice_fields(found) == (from_micros(NOW), "operator", "account/main", "nothing_selected", "page", "e1")
    forced = notices.forced_close(event, NOW, "why")
    assert notice_fields(forced) == (from_micros(NOW), "operator", "account/main", "warning", "warning", "e1")
    everything = operator_event("close", from_micros(NOW), scope=None)
    for reported in (
        notices.command_not_carried_out(everything, NOW, "why"),
        notices.forced_close(everything, NOW, "w"),
    ):
        assert reported.scope == "portfolio"
    assert found.text == "why"
