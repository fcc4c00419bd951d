"""`ksctl explain` on a close with exceptions, from its journal alone."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from killswitch.incident.record.results import fold_result
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision, Rung, Unwinding
from killswitch.model.store import JournalEntry
from killswitch.operations.pages.decision import DecisionHistory
from killswitch.planning.exposures import Exposures, OpenExposure
from tests import incidents
from tests.incidents import FIRST, SCOPE, SET, entry
from tests.shown import decision_history_text
from tests.worlds import after


def explanation_of(decision: Decision, *journal: JournalEntry) -> list[str]:
    """The lines of the explanation of a decision and its journal."""
    numbered = [replace(each, sequence=number) for number, each in enumerate(journal, start=1)]
    snapshot = incidents.snapshot(after())
    return decision_history_text(
        DecisionHistory(decision, None, snapshot, fold_result(decision, decode_all(numbered), snapshot))
    ).splitlines()


def noted_in(lines: list[str]) -> list[str]:
    """The lines of the section `To be noted`."""
    if "To be noted" not in lines:
        return []
    start = lines.index("To be noted") + 1
    return [line.strip() for line in lines[start : lines.index("", start)]]


def test_bounds_changes_by_others_dust_and_missing_protection_are_explained() -> None:
    """10 BTC: our market order sold 4 at 99, 1% from the mark; others closed 5.991, and 0.009 is left."""
    intent = replace(incidents.intent("BTC", "sell", "10", "0"), band=Decimal("0.005"))
    decision = incidents.firing(
        FIRST, after(), "trim", 1, 0, intent, unwinding=Unwinding("careful", (Rung("limit_ioc"), Rung("market")))
    )
    lines = explanation_of(
        decision,
        entry(FIRST, "planned", after(), contracts="10", target="0", mark="100", value="100"),
        entry(FIRST, "unprotected", after(seconds=1), order="s1"),
        entry(FIRST, "sending", after(seconds=2), side="sell", amount="4", order="market", rung="1", mark="100",
              value="100"),
        entry(FIRST, "filled", after(seconds=3), state="filled", filled="4", price="99", fee="1"),
        replace(entry(FIRST, "guarded", after(seconds=5), **{"for": "s1", "state": "resting"}),
                        client_order_id=None),
        entry(FIRST, "verified", after(seconds=7), position="0.009", target="0"),
        entry(FIRST, "finished", after(seconds=8), None, status="blocked",
              reason="dust: 0.009 BTC is below the venue's minimum"),
    )  # fmt: skip
    assert "  1      2     market   -      0.50%  1.00%    exceeded, sent without a bound" in lines
    assert "  slippage 4.00 USDT against the marks when the orders were sent, delay cost 0.00 USDT until then" in lines
    assert noted_in(lines) == [
        "order 1 (sell 4 BTC long on main, ksaaaaBTC) was sent without a bound: slippage 1.00% against the declared "
        "0.50%",
        "5.991 of the 10 BTC long on main was closed without an order of ours: by a liquidation, deleveraging or a "
        "person at the venue; its P&L is not included here",
        "0.009 BTC long on main is left as dust, below the venue's minimum, worth 0.90 USDT",
        "BTC long on main without its protective order s1 for 4.0 s; then it was restored",
    ]
    assert "  5.0 s from the first order to the last verification" in lines


def test_an_unknown_sum_names_its_known_part_and_the_missing_orders() -> None:
    """One order is abandoned: the realised P&L of the other is shown as the known part."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "10", "0"))
    lost = replace(entry(FIRST, "sending", after(seconds=2), side="sell", amount="6"), client_order_id="ks2")
    lines = explanation_of(
        decision,
        entry(FIRST, "planned", after(), contracts="10", target="0", mark="100", value="100"),
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="4"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="4", price="99", fee="1"),
        lost,
        replace(lost, kind="abandoned", at=after(minutes=9), data={}),
        entry(FIRST, "finished", after(minutes=9), None, status="abandoned", reason="an order was lost"),
    )
    assert "  abandoned: the status of an order was never confirmed, see above" in lines
    assert "  realised unknown before fees, fees unknown" in lines
    assert "  realised -44.00 USDT known, without order 2" in lines
    assert "  fees 1.00 USDT known, without order 2" in lines


def test_a_manual_close_shows_its_declared_cause() -> None:
    """The cause and its description, below author and reason."""
    manual_close = Decision(
        FIRST, after(), "operator", SET, SCOPE, "enforce", None, 0, 0, kind="manual", author="ada", reason="rehearsal",
        cause="drill",
    )  # fmt: skip
    lines = explanation_of(manual_close)
    assert "  ada: rehearsal" in lines
    assert "  drill: This is a DRILL. Nothing was wrong. Orders that are listed were really sent." in lines
    assert lines[1].endswith("DRILL: close by hand by ada: account/main (rehearsal)")


def test_a_decision_that_opened_an_incident_shows_the_book_by_strategy() -> None:
    """As the report of the incident does; a column for what is unknown only where something is."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "10", "0"))
    carry = OpenExposure("strategy", "carry", Decimal(1000), Decimal(-1000), Decimal(-50), realised=Decimal("12.5"))
    book = Exposures(after(), "USDT", (carry,))
    history = DecisionHistory(decision, None, None, fold_result(decision, (), None), book)
    lines = decision_history_text(history).splitlines()
    start = lines.index("Exposure and P&L in USDT as of 2024-01-01T00:00:00Z")
    assert lines[start + 1].split("  ")[-1].strip() == "realised P&L"
    assert lines[start + 2].split() == ["strategy", "carry", "1,000.00", "-1,000.00", "-50.00", "12.50"]
