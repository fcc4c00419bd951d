"""What `ksctl explain` says of a decision whose close did not go plainly, from its journal alone."""

from __future__ import annotations

from decimal import Decimal

from msgspec import structs

from killswitch.cli.policy.explain_decision import DecisionHistory, decision_history_text
from killswitch.incident.record.results import fold_result
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision, Rung, Unwinding
from killswitch.model.store import JournalEntry
from tests import incidents
from tests.incidents import FIRST, SCOPE, SET, entry
from tests.worlds import after


def explained(decision: Decision, *journal: JournalEntry) -> list[str]:
    """The lines of the explanation."""
    numbered = [structs.replace(each, sequence=number) for number, each in enumerate(journal, start=1)]
    snapshot = incidents.snapshot(after())
    return decision_history_text(
        DecisionHistory(decision, None, snapshot, fold_result(decision, decode_all(numbered), snapshot))
    ).splitlines()


def test_bounds_others_dust_and_protection_are_explained() -> None:
    """10 BTC: our market order took 4 at 99, 1% from the mark; 5.991 went by other hands, and 0.009 is left."""
    intent = structs.replace(incidents.intent("BTC", "sell", "10", "0"), band=Decimal("0.005"))
    decision = incidents.firing(
        FIRST, after(), "trim", 1, 0, intent, unwinding=Unwinding("careful", (Rung("limit_ioc"), Rung("market")))
    )
    found = explained(
        decision,
        entry(FIRST, "planned", after(), contracts="10", target="0", mark="100", value="100"),
        entry(FIRST, "unprotected", after(seconds=1), order="s1"),
        entry(FIRST, "sending", after(seconds=2), side="sell", amount="4", order="market", rung="1", mark="100",
              value="100"),
        entry(FIRST, "filled", after(seconds=3), state="filled", filled="4", price="99", fee="1"),
        structs.replace(entry(FIRST, "guarded", after(seconds=5), **{"for": "s1", "state": "resting"}),
                        client_order_id=None),
        entry(FIRST, "verified", after(seconds=7), position="0.009", target="0"),
        entry(FIRST, "finished", after(seconds=8), None, status="blocked",
              reason="dust: 0.009 BTC is below the venue's minimum"),
    )  # fmt: skip
    assert "  1      2     market   -      0.50%  1.00%    exceeded, sent without a bound" in found
    assert "  slippage 4.00 against the marks when the orders were sent, delay cost 0.00 until then" in found
    assert "  BTC long on main: 5.991 closed without an order of Killswitch, the rest is dust, 0.90" in found
    assert "  BTC long on main without protective order s1 for 4.0 s: put back" in found
    assert "  5.0 s from the first order to the last verification" in found


def test_a_sum_that_is_not_known_names_the_orders_that_lack() -> None:
    """One order is given up: what the other realised is shown as what it is."""
    decision = incidents.firing(FIRST, after(), "trim", 1, 0, incidents.intent("BTC", "sell", "10", "0"))
    lost = structs.replace(entry(FIRST, "sending", after(seconds=2), side="sell", amount="6"), client_order_id="ks2")
    found = explained(
        decision,
        entry(FIRST, "planned", after(), contracts="10", target="0", mark="100", value="100"),
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="4"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="4", price="99", fee="1"),
        lost,
        structs.replace(lost, kind="abandoned", at=after(minutes=9), data={}),
        entry(FIRST, "finished", after(minutes=9), None, status="abandoned", reason="an order was lost"),
    )
    assert "  abandoned: the status of an order was never confirmed, see above" in found
    assert "  realised unknown before fees, fees unknown" in found
    assert "  realised -44.00 known, without order 2" in found
    assert "  fees 1.00 known, without order 2" in found


def test_a_close_by_hand_says_its_declared_reason() -> None:
    """The word and what kind of thing it is, under who closed and why."""
    by_hand = Decision(
        FIRST, after(), "operator", SET, SCOPE, "enforce", None, 0, 0, kind="manual", author="ada", reason="rehearsal",
        cause="drill",
    )  # fmt: skip
    found = explained(by_hand)
    assert "  ada: rehearsal" in found
    assert "  drill: This is a DRILL. Nothing was wrong. Orders that are listed were really sent." in found
    assert found[1].endswith("DRILL: close by hand by ada: account/main (rehearsal)")
