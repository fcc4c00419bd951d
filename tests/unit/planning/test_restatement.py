"""Restatement: an operator determines whether an unexplained change of equity was a loss or a flow.

The account is that of `test_suspicion`: 100,000 USDT, read each second, of which the ledger is known up to the second
before; everything is closed at a fall of 10% in 15 minutes. 30,000 leave at 11 s, which nothing explains.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest

from killswitch.graph.nodes import Graph, ScopeRule
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import decode_snapshot, encode_snapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.operator.restatement import KeptChange
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.unit.planning.operator.test_operator_reset import NOTHING, ResettableAccount, graph_with_unexplained
from tests.worlds import account, after, flow, operator_event, snapshot


class RestatedAccount(ResettableAccount):
    """An account whose unexplained changes an operator may restate."""

    def changes(self) -> tuple[KeptChange, ...]:
        return self.interpreter.kept_changes()

    def restate(
        self, restated_as: Literal["loss", "flow"], change: str | None = None, scope: str | None = None
    ) -> tuple[list[Decision], list[Notice]]:
        """Restate the change in the next second's tick; the decisions and notices of that tick."""
        self.now += 1
        event = operator_event(
            "restate", after(seconds=self.now), scope, id_=f"e{self.now}",
            change=change or self.changes()[0].id, restated_as=restated_as,
        )  # fmt: skip
        decided = self.tick(self.read(events=(event,)))
        return decided, [each for second, each in self.notices if second == self.now]


def calm(**rule: Any) -> RestatedAccount:
    made = RestatedAccount(graph_with_unexplained(**rule))
    made.until(10)
    return made


def kinds(decided: list[Decision]) -> list[str | None]:
    return [each.kind for each in decided]


@pytest.mark.parametrize("wait", [20, 31, 3000], ids=["open", "settled as a transfer", "long after"])
def test_a_change_restated_as_loss_is_decided_in_the_same_tick(wait: int) -> None:
    """30% are gone, which is beyond 10%: the stage fires on it, whatever the change counted as until then."""
    one = calm()
    one.leaves(30_000)
    one.until(10 + wait)
    fall_before = one.value("peak")
    decided, (notice, *_) = one.restate("loss")
    assert fall_before == 0
    assert one.value("peak") == one.value("start") == pytest.approx(0.3)
    if wait < 900:  # the window of the trigger
        assert kinds(decided) == [None]
        assert (decided[0].stage, decided[0].level) == ("stop", 1)
        assert decided[0].intents
    assert (notice.kind, notice.severity, notice.subject) == ("unexplained", "warning", f"e{one.now}")
    assert notice.text == (
        "the change of equity by -30,000.00 USDT on main at 2024-01-01T00:00:11Z "
        f"({one.changes()[0].id}), which counted as transfer, counts as loss; restated as loss by operator-1 (reviewed)"
    )


def test_a_loss_restated_as_flow_lifts_neither_latch_nor_lock_and_the_drawdown_follows() -> None:
    """The policy counts the fall as a loss at 31 s and closes. As a flow nothing was lost; the stage stays latched."""
    one = calm(closes_unexplained=True)
    one.leaves(30_000)
    (fired,) = [each for _, each in one.until(60) if each.kind is None]
    assert one.value("fall") == pytest.approx(0.3)
    decided, (notice, *_) = one.restate("flow")
    assert decided == []
    assert one.shown() == NOTHING
    (machine,) = one.interpreter.status()
    assert (machine.level, machine.stage, machine.decision) == (1, "stop", fired.id)
    assert "which counted as loss, counts as money that moved: latches and locks stay" in notice.text
    one.until(200)
    assert [each for second, each in one.decided if second > 61] == []
    one.pnl = Decimal(-7_000)  # 10% of the 70,000 that are left are a new loss
    one.until(201)
    assert one.value("peak") == pytest.approx(0.1)


def test_a_flow_does_not_lift_the_lock_on_suspicion() -> None:
    """It was written at 12 s until 32 s; a ledger row would withdraw it at 16 s, an operator's flow does not."""
    one = calm()
    one.leaves(30_000)
    one.until(15)
    assert kinds([each for _, each in one.decided]) == ["suspicion"]
    decided, _ = one.restate("flow")
    assert decided == []
    assert one.until(300) == []
    assert one.shown() == NOTHING


@pytest.mark.parametrize("wait", [5, 31])
@pytest.mark.parametrize("restated_as", ["loss", "flow"])
@pytest.mark.parametrize("kind", ["withdrawal", "fee"])
def test_no_later_row_undoes_what_an_operator_determined(
    kind: Literal["withdrawal", "fee"], restated_as: Literal["loss", "flow"], wait: int
) -> None:
    """A row that says the opposite changes nothing, and is used up: it is no second flow or loss either."""
    one = calm()
    one.leaves(30_000)
    one.until(10 + wait)
    one.restate(restated_as)
    lost = 0.3 if restated_as == "loss" else 0
    one.until(60)
    one.rows.append(flow("row", after(seconds=11), "-30000", kind))
    one.until(300)
    assert one.shown() == (0, 0, *[pytest.approx(lost)] * 3)


@pytest.mark.parametrize("restated_as", ["loss", "flow"])
def test_a_restatement_holds_over_a_restart_and_a_row_after_it(restated_as: Literal["loss", "flow"]) -> None:
    """The state has it: the change is matched with the late row, whose kind no longer matters."""
    one = calm()
    one.leaves(30_000)
    one.until(20)
    one.restate(restated_as)
    before = one.shown()
    one.until(30)
    one.restart()
    one.until(35)
    one.rows.append(flow("row", after(seconds=11), "-30000", "fee" if restated_as == "flow" else "withdrawal"))
    one.until(60)
    assert one.shown() == before


@pytest.mark.parametrize("first", ["loss", "flow"])
def test_another_restatement_reverses_the_first(first: Literal["loss", "flow"]) -> None:
    """A mistake of an operator can be mended: both end as if the second had been the only one."""
    second: Literal["loss", "flow"] = "flow" if first == "loss" else "loss"
    both, only = calm(), calm()
    for one in (both, only):
        one.leaves(30_000)
        one.until(20)
    both.restate(first)
    only.until(21)
    for one in (both, only):
        one.restate(second)
        one.until(40)
    assert both.shown() == only.shown()
    assert both.changes()[0].counts_as == ("transfer" if second == "flow" else "loss")


def test_a_reset_accepts_a_change_and_a_restatement_makes_it_a_loss_nevertheless() -> None:
    """No stage was latched, so that the reset kept the peak: the operator who finds the loss later is believed."""
    one = calm()
    one.leaves(30_000)
    one.until(15)
    one.reset()
    assert one.shown() == NOTHING
    decided, _ = one.restate("loss")
    assert kinds(decided) == [None]
    assert one.value("fall") == pytest.approx(0.3)


@pytest.mark.parametrize("wait", [20, 31])
def test_a_rise_restated_as_flow_hides_no_later_loss(wait: int) -> None:
    """50,000 come without a row; as a flow, 15% of the 150,000 are a loss of 15%."""
    one = calm()
    one.leaves(-50_000)
    one.until(10 + wait)
    one.restate("flow")
    assert one.shown() == NOTHING
    one.pnl = Decimal(-22_500)
    one.until(one.now + 1)
    assert one.shown()[2:] == (0.15, 0.15, 0.15)


def test_the_id_of_a_change_is_in_its_notices_and_the_same_in_every_scope_and_run() -> None:
    """A page names it, so that an operator can copy it; it is a digest of the account and the time."""
    one = calm()
    one.leaves(30_000)
    one.until(12)
    (page,) = [each for _, each in one.notices if each.severity == "page"]
    (change,) = one.changes()
    assert f"equity changed by -30,000.00 USDT ({change.id}), and no price" in page.text
    one.restart()
    one.until(13)
    assert [each.id for each in one.changes()] == [change.id]
    again = calm()
    again.leaves(30_000)
    again.until(12)
    assert [each.id for each in again.changes()] == [change.id]
    assert (change.account, change.at, change.amount, change.counts_as) == (
        "main", after(seconds=11), Decimal(-30_000), "transfer",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "scope", "text"),
    [
        ("change-unknown", None, "no scope keeps a change of this id: `ksctl status` lists those of the last 48 hours"),
        (
            None, "account/other",
            "it is of account main, which account/other does not watch: leave out --scope, or name account/main",
        ),
    ],
)  # fmt: skip
def test_a_restatement_that_names_no_change_of_the_scope_is_refused(
    change: str | None, scope: str | None, text: str
) -> None:
    """Nothing changes, and the answer says what to do instead."""
    one = calm()
    one.leaves(30_000)
    one.until(40)
    before = one.shown()
    decided, (refused,) = one.restate("loss", change, scope)
    assert (decided, one.shown()) == ([], before)
    assert (refused.kind, refused.severity, refused.subject) == ("nothing_selected", "warning", f"e{one.now}")
    assert refused.text.endswith(f"was not restated: {text}")


@pytest.mark.parametrize(("restated_as", "other"), [("loss", "flow"), ("flow", "loss")])
def test_a_second_restatement_of_the_same_kind_is_refused(
    restated_as: Literal["loss", "flow"], other: Literal["loss", "flow"]
) -> None:
    """It would change nothing; the answer says how to reverse the first."""
    one = calm()
    one.leaves(30_000)
    one.until(40)
    one.restate(restated_as)
    _, (refused,) = one.restate(restated_as)
    assert refused.text.endswith(
        f"an operator has determined it as a {restated_as} already: `--as {other}` reverses that"
    )


def test_what_the_rule_assumes_may_be_confirmed() -> None:
    """A change that counts as moved money is unexplained until an operator confirms it."""
    one = calm()
    one.leaves(30_000)
    one.until(50)
    assert one.value("sum") == -30_000
    one.restate("flow")
    assert one.value("sum") == 0


def test_a_restatement_is_part_of_the_recording_and_a_replay_repeats_it() -> None:
    """The keys `change` and `as` of an event are all that a replay needs; other events do not have them."""
    one = calm()
    one.leaves(30_000)
    one.until(20)
    event = operator_event("restate", after(seconds=21), change=one.changes()[0].id, restated_as="loss")
    one.now = 21
    polled = one.read(events=(event,))
    recorded = encode_snapshot(polled)
    assert b'"as":"loss"' in recorded
    assert b'"as"' not in encode_snapshot(one.read(events=(operator_event("reset", after(seconds=21)),)))
    assert decode_snapshot(recorded) == polled
    assert kinds(one.tick(decode_snapshot(recorded))) == [None]


def test_a_change_of_a_portfolio_is_restated_for_every_scope_that_watches_its_account() -> None:
    """Of two accounts with 100,000 each one loses 30,000: 30% of its own scope, 15% of the portfolio."""

    def made(name: str, each: Literal["account", "portfolio"]) -> Graph:
        return graph(
            (FALL_15M,), (trigger("fall", 0, 0.14),), (stage("stop", 1, 0, cooldown=1, actions=(close(),)),),
            policy=name, scope=ScopeRule(each, None, None, None, None),
        )  # fmt: skip

    interpreter = Interpreter(policy_set(made("own", "account"), made("all", "portfolio")))

    def tick(second: int, *events: Any) -> list[tuple[str, str | None]]:
        known = after(seconds=second - 1)
        more: dict[str, Any] = {"fills_as_of": known, "flows_as_of": known, "unrealized": Decimal(0)}
        polled = [
            account("70000" if second > 3 else "100000", [], name="a", **more), account("100000", [], name="b", **more)
        ]  # fmt: skip
        outcome = interpreter.tick(snapshot(after(seconds=second), *polled, events=events))
        return [(each.policy, each.scope) for each in outcome.notices if each.subject == "e"]

    for second in range(1, 60):
        tick(second)
    found = interpreter.kept_changes()
    assert sorted((each.policy, each.scope) for each in found) == [("all", "portfolio"), ("own", "account/a")]
    assert len({each.id for each in found}) == 1
    event = operator_event("restate", after(seconds=60), None, id_="e", change=found[0].id, restated_as="loss")
    assert sorted(tick(60, event)) == [("all", "portfolio"), ("own", "account/a")]
    falls = {
        each.scope: reading.value[0]
        for each in interpreter.status()
        for reading in each.triggers
        if reading.value is not None
    }
    assert falls == {"account/a": pytest.approx(0.3), "account/b": 0, "portfolio": pytest.approx(0.15)}
