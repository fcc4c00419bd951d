"""Suspicion: locks while a fall of equity may be a withdrawal or a loss. Expectations are worked by hand.

An account of 100,000 USDT holds a long worth 50,000, and is read each second. The policy closes at a fall of 10%. What
leaves is 30%, which neither a price nor a trade explains, so that only a row of the ledger can say what it was.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.actions import registry as graph_registry
from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import Action, EquityRule, Graph, SignalRef
from killswitch.model.decision import Decision, Notice
from killswitch.model.effects import Cancel, Cancels
from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.model.snapshot import Flow, Order, Snapshot
from killswitch.model.store import HistoryRow
from killswitch.planning.actions import registry
from killswitch.planning.actions.kind import ActionPlan, Context, Planned
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import account, after, flow, operator_event, position, snapshot

ENTRY = Order(id="entry", symbol="L", side="buy", type="limit", amount=Decimal(1), price=Decimal(90), reduce_only=False)
STOP = Order(id="stop", symbol="L", side="sell", type="stop", amount=Decimal(1), price=Decimal(80), reduce_only=True)


def policy(*, locks: bool = True, **rule: Any) -> Graph:
    """Everything is closed at a fall of 10%, with a lock, and all orders are cancelled."""
    lock = (LockTrading("reduce_only", 30 * MINUTE),) if locks else ()
    actions = (*lock, CancelOrders("all"), close())
    equity = EquityRule(10 * MINUTE, 0.001, 60 * SECOND, None, **rule)
    return graph(
        (FALL_15M,), (trigger("fall", 0, 0.10),), (stage("stop", 1, 0, cooldown=6 * HOUR, actions=actions),),
        equity=equity,
    )  # fmt: skip


class Account:
    """One account that is read each second, and the decisions about it."""

    def __init__(self, made: Graph | None = None, orders: tuple[Order, ...] = (ENTRY, STOP)) -> None:
        self.orders = orders
        self.policies = policy_set(made or policy())
        self.interpreter = Interpreter(self.policies)
        self.wallet = Decimal(100_000)
        self.pnl = Decimal(0)
        self.now = 0
        self.ledger_known_to: int | None = None
        """The second up to which the ledger is known; None: up to the reading before."""
        self.rows: list[Flow] = []
        self.decided: list[tuple[int, Decision]] = []
        self.notices: list[tuple[int, Notice]] = []
        self.stored: list[HistoryRow] = []
        self.paged: set[str] = set()
        """The suspicions whose falls a page was about."""

    def read(self, **more: Any) -> Snapshot:
        known = after(seconds=self.now - 1 if self.ledger_known_to is None else self.ledger_known_to)
        # The value of the long follows its mark: 500 of them, entered at 100.
        long = position("L", "long", str(self.pnl), contracts="500", notional=str(50_000 + self.pnl), margin="10000",
                        entry_price="100", mark_price=str(100 + self.pnl / 500))  # fmt: skip
        current = account(
            str(self.wallet + self.pnl), [long], flows=tuple(self.rows), orders=self.orders, unrealized=self.pnl,
            fills_as_of=known, flows_as_of=known,
        )  # fmt: skip
        return snapshot(after(seconds=self.now), current, **more)

    def until(self, second: int) -> list[tuple[int, Decision]]:
        """Read each second up to this one; returns the decisions made meanwhile."""
        before = len(self.decided)
        while self.now < second:
            self.now += 1
            self.tick(self.read())
        return self.decided[before:]

    def tick(self, polled: Snapshot) -> list[Decision]:
        """Evaluate one snapshot, and store what a runner would."""
        outcome = self.interpreter.tick(polled)
        self.decided += [(self.now, decision) for decision in outcome.decisions]
        self.notices += [(self.now, notice) for notice in outcome.notices]
        self.stored += self.interpreter.rows()
        self.paged |= outcome.paged
        return list(outcome.decisions)

    def pages(self) -> list[tuple[int, str | None]]:
        """When somebody was paged, and about which stage."""
        return [(second, notice.subject) for second, notice in self.notices if notice.severity == "page"]

    def leaves(self, amount: int, row_after: int | None = None) -> None:
        """Money leaves at the next second; its row arrives so many seconds later, or never."""
        self.wallet -= amount
        if row_after is not None:
            moved_at = self.now + 1
            self.until(self.now + row_after)
            self.rows.append(flow(f"out{moved_at}", after(seconds=moved_at), str(-amount)))

    def restart(self) -> None:
        states, rows = self.interpreter.states(), self.stored
        self.interpreter = Interpreter(self.policies)
        self.interpreter.restore(states, lambda *_: rows)


@pytest.fixture
def quiet_account() -> Account:
    """An account after ten seconds without a change."""
    calm = Account()
    calm.until(10)
    return calm


def calm(**rule: Any) -> Account:
    made = Account(policy(**rule))
    made.until(10)
    return made


def decision_kinds(decided: list[tuple[int, Decision]]) -> list[tuple[int, str | None]]:
    return [(second, decision.kind) for second, decision in decided]


def test_a_fall_that_nothing_explains_locks_for_at_most_twenty_seconds_and_closes_nothing(
    quiet_account: Account,
) -> None:
    """30% goes at 11 s, and at 12 s the ledger is known up to then: a lock until 32 s, and no stage is latched."""
    quiet_account.leaves(30_000)
    ((second, decision),) = quiet_account.until(200)
    assert (second, decision.kind, decision.stage) == (12, "suspicion", "stop")
    assert decision.lock is not None
    assert (decision.lock.mode, decision.lock.until) == ("reduce_only", after(seconds=32))
    assert (decision.level, decision.previous_level, decision.intents, decision.cancels) == (0, 0, (), ())
    assert decision.reason is not None
    assert decision.reason.startswith("suspicion: equity fell by 30,000.00 USDT")
    assert [each.level for each in quiet_account.interpreter.status()] == [0]


def test_the_lock_begins_when_the_ledger_is_known_past_the_fall_without_its_row(quiet_account: Account) -> None:
    """Until 13 s it is known up to 10 s only, then up to the snapshot before: an unread ledger is no suspicion yet."""
    quiet_account.ledger_known_to = 10
    quiet_account.leaves(30_000)
    assert quiet_account.until(13) == []
    quiet_account.ledger_known_to = None
    ((second, decision),) = quiet_account.until(60)
    assert second == 14
    assert decision.lock is not None
    assert decision.lock.until == after(seconds=34)


def test_a_row_that_arrives_before_the_end_lifts_the_lock_at_once(quiet_account: Account) -> None:
    """The row of the 30% arrives 7 s late: an explained change locks nothing any longer."""
    quiet_account.leaves(30_000, row_after=7)
    quiet_account.until(60)
    (_, begun), (_, ended) = quiet_account.decided
    assert decision_kinds(quiet_account.decided) == [(12, "suspicion"), (18, "suspicion")]
    assert (begun.is_withdrawal, ended.is_withdrawal) == (False, True)
    assert ended.lock is not None
    assert ended.lock.until == ended.as_of == after(seconds=18)


@pytest.mark.parametrize("row_after", [15, 61])
def test_a_withdrawal_with_a_late_row_is_locked_once_and_never_closed(quiet_account: Account, row_after: int) -> None:
    """A row 15 s late ends the lock 6 s before its time; one that is 61 s late arrives when it is long over."""
    quiet_account.leaves(30_000, row_after=row_after)
    quiet_account.until(200)
    assert decision_kinds(quiet_account.decided) == [
        (12, "suspicion"),
        *([(26, "suspicion")] if row_after == 15 else []),
    ]


def test_a_suspicion_is_lifted_after_a_restart(quiet_account: Account) -> None:
    """The suspicion is stored: the row comes to a new run, which lifts the lock of the one before."""
    quiet_account.leaves(30_000)
    quiet_account.until(14)
    quiet_account.restart()
    quiet_account.rows.append(flow("out", after(seconds=11), "-30000"))
    ((second, decision),) = quiet_account.until(40)
    assert (second, decision.is_withdrawal) == (15, True)


def test_a_policy_that_only_pages_locks_nothing() -> None:
    """With `on_suspicion: page`."""
    paging = calm(locks_on_suspicion=False)
    paging.leaves(30_000)
    assert paging.until(200) == []


def test_a_policy_that_counts_the_unexplained_as_loss_closes_when_the_ledger_is_known_past_it() -> None:
    """`on_unexplained: close`: a lock, and the close at 28 s, when fills and flows are known 16 s past the fall."""
    closing = calm(closes_unexplained=True)
    closing.leaves(30_000)
    first, second = closing.until(200)
    assert decision_kinds([first, second]) == [(12, "suspicion"), (28, None)]
    assert second[1].intents


def test_a_policy_that_counts_the_unexplained_as_loss_waits_for_the_row() -> None:
    """`on_unexplained: close`, and the row comes 15 s late: it was a withdrawal, and nothing is closed."""
    closing = calm(closes_unexplained=True)
    closing.leaves(30_000, row_after=15)
    closing.until(200)
    assert decision_kinds(closing.decided) == [(12, "suspicion"), (26, "suspicion")]


def test_the_fourth_suspicion_in_ten_minutes_locks_nothing(quiet_account: Account) -> None:
    """15% of what there is goes each 100 s, at 11, 111, 211 and 311 s. After ten quiet minutes it locks again."""
    for minute in range(4):
        quiet_account.until(10 + 100 * minute)
        quiet_account.leaves(int(quiet_account.wallet * 15 / 100))
    quiet_account.until(1000)
    assert [second for second, _ in quiet_account.decided] == [12, 112, 212]
    quiet_account.leaves(int(quiet_account.wallet * 15 / 100))
    quiet_account.until(1100)
    assert [second for second, _ in quiet_account.decided] == [12, 112, 212, 1002]


def test_the_fourth_suspicion_in_ten_minutes_and_those_after_it_page(quiet_account: Account) -> None:
    """85,000, 72,000, 61,000, 50,000 and 40,000, a step every 27 s, of which the ledger lacks the row a second later.

    The falls page by their size: 15,000, and the fourth, with which 35,000 have left since. Nothing is locked for the
    fourth and the fifth, of which a page of its own says what would fire.
    """
    for step, left in enumerate((85_000, 72_000, 61_000, 50_000, 40_000)):
        quiet_account.until(10 + 27 * step)
        quiet_account.leaves(int(quiet_account.wallet) - left)
    quiet_account.until(200)
    assert decision_kinds(quiet_account.decided) == [(12, "suspicion"), (39, "suspicion"), (66, "suspicion")]
    assert quiet_account.pages() == [(11, None), (92, None), (93, "stop"), (120, "stop")]
    (fourth, fifth) = [notice for _, notice in quiet_account.notices if notice.subject == "stop"]
    assert (fourth.at_once, fifth.at_once) == (True, True)
    assert fourth.text == (
        "suspicion: equity changed by -11,000.00 USDT, which may be a loss: no row of the ledger explains it yet; if "
        "it is one, stop fires. Nothing is locked meanwhile: trading was locked on suspicion as often as it may be in "
        "ten minutes"
    )


def test_suspicions_in_faster_succession_than_locks_last_are_counted(quiet_account: Account) -> None:
    """12% of what there is goes every 4 s: the fourth suspicion is no later than a lock lasts after the third."""
    for step in range(5):
        quiet_account.until(10 + 4 * step)
        quiet_account.leaves(int(quiet_account.wallet * 12 / 100))
    quiet_account.until(40)
    late = [(second, notice.at_once) for second, notice in quiet_account.notices if notice.subject == "stop"]
    assert late == [(24, False), (28, False)]


@pytest.mark.parametrize("locks", [True, False], ids=["with a lock", "without a lock"])
def test_a_policy_that_only_pages_does_so_as_soon_as_a_fall_would_fire_a_stage(locks: bool) -> None:
    """`on_suspicion: page` and `on_unexplained: close`: 30% leaves at 11 s, and the close is at 28 s."""
    paging = Account(policy(locks=locks, locks_on_suspicion=False, closes_unexplained=True))
    paging.until(10)
    paging.leaves(30_000)
    assert decision_kinds(paging.until(60)) == [(28, None)]
    assert paging.pages() == [(11, "stop"), (28, None)]
    (page,) = [notice for _, notice in paging.notices if notice.subject == "stop"]
    assert page.text == (
        "suspicion: equity changed by -30,000.00 USDT, which may be a loss: no row of the ledger explains it yet; if "
        "it is one, stop fires. Nothing is locked meanwhile: on_suspicion: page"
    )


def test_a_policy_that_only_pages_warns_of_the_stage_where_the_fall_itself_has_paged() -> None:
    """`on_suspicion: page`, and falls count as withdrawals: one page for one fall, and none below the threshold."""
    paging = calm(locks_on_suspicion=False)
    paging.leaves(30_000)
    paging.until(60)
    assert paging.pages() == [(11, None)]
    assert [(s, each.severity) for s, each in paging.notices if each.subject == "stop"] == [(11, "warning")]
    small = calm(locks_on_suspicion=False)
    small.leaves(9_000)
    small.until(60)
    assert [each.subject for _, each in small.notices] == [None]


def test_a_suspicion_records_when_its_newest_fall_was_seen(quiet_account: Account) -> None:
    """8,000 at 11 s, and 12,000 at 14 s, with which a stage would fire: at once for the one, and a second later for the
    other, of which the ledger has not been asked before.
    """
    quiet_account.leaves(8_000)
    quiet_account.until(13)
    quiet_account.leaves(12_000)
    decided = quiet_account.until(60)
    assert [(second, each.fell_at) for second, each in decided] == [(14, after(seconds=11)), (15, after(seconds=14))]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_suspicion_is_paged_already_only_if_a_page_came_since_its_newest_fall(
    quiet_account: Account, *, restarts: bool
) -> None:
    """20,000 at 11 s page. 9,000 at 14 s are counted and page nobody, so that their suspicion must; the state that a
    restart reads has it."""
    quiet_account.leaves(20_000)
    quiet_account.until(11)
    if restarts:
        quiet_account.restart()
    quiet_account.until(13)
    quiet_account.leaves(9_000)
    quiet_account.until(60)
    (at, first), (_, counted) = quiet_account.decided
    assert (at, first.fell_at, counted.fell_at) == (12, after(seconds=11), after(seconds=14))
    assert quiet_account.pages() == [(11, None)]
    assert quiet_account.paged == {first.id}


def test_a_stage_that_fires_replaces_the_suspicion(quiet_account: Account) -> None:
    """At 13 s prices take 12% of the remaining equity: a loss, and no end of a suspicion follows."""
    quiet_account.leaves(30_000)
    quiet_account.until(12)
    quiet_account.pnl = Decimal(-8_400)
    quiet_account.until(15)
    quiet_account.rows.append(flow("out", after(seconds=11), "-30000"))
    quiet_account.until(60)
    assert decision_kinds(quiet_account.decided) == [(12, "suspicion"), (13, None)]


def test_nothing_is_suspected_while_the_lock_of_the_latched_stage_holds(quiet_account: Account) -> None:
    """A stage fired for a loss at 11 s, with a lock of half an hour; what leaves at 21 s could lock nothing more."""
    quiet_account.pnl = Decimal(-12_000)
    quiet_account.until(20)
    quiet_account.leaves(25_000)
    quiet_account.until(120)
    assert decision_kinds(quiet_account.decided) == [(11, None)]


def two_stages() -> Graph:
    """A lock of half an hour at a fall of 10%, and everything closed at one of 30%."""
    lock = LockTrading("reduce_only", 30 * MINUTE)
    stages = (stage("stop", 1, 0, actions=(lock, close())), stage("all", 2, 1, actions=(lock, close())))
    return replace(
        graph((FALL_15M,), (trigger("fall", 0, 0.10), trigger("deep", 0, 0.30)), stages), equity=policy().equity
    )


def test_a_higher_stage_is_not_suspected_while_the_lock_of_the_latched_one_holds() -> None:
    """12% are lost at 11 s. 25% leave at 21 s, which with them is more than 30%: what is locked needs no suspicion."""
    one = Account(two_stages())
    one.until(10)
    one.pnl = Decimal(-12_000)
    one.until(20)
    one.leaves(25_000)
    one.until(120)
    assert decision_kinds(one.decided) == [(11, None)]


def test_nearness_to_a_threshold_from_below_does_not_count_as_loss() -> None:
    """`equity.value < 10,000`, beside a fall of 10%: an equity above half of 10,000 cancels no entry."""
    small = trigger("small", 1, 10_000, op="<")
    actions = (LockTrading("reduce_only", 30 * MINUTE), CancelOrders("all"), close())
    made = replace(policy(), signals=(FALL_15M, SignalRef("equity.value")))
    triggers = (*made.triggers, small)
    conditions = tuple(each.condition for each in triggers)
    one = Account(
        replace(made, triggers=triggers, conditions=conditions, stages=(stage("stop", 1, 0, 1, actions=actions),))
    )
    one.until(10)
    one.leaves(30_000)
    ((_, decision),) = one.until(60)
    assert (decision.kind, decision.cancels) == ("suspicion", ())


@pytest.mark.parametrize(
    ("signal", "threshold", "any_of", "all_of"),
    [
        (SignalRef("exposure.leverage"), 0.9, (0, 1), ()),
        (SignalRef("exposure.leverage"), 0.6, (0,), (1,)),
        (SignalRef("equity.value"), 60_000, (0,), (1,)),
        (SignalRef("attribution.long_share", (15 * MINUTE,)), 0.65, (0,), (1,)),
        (SignalRef("equity.unexplained_share"), 0.2, (0,), (1,)),
    ],
)
def test_nearness_to_a_threshold_that_is_no_loss_cancels_no_entry(
    signal: SignalRef, threshold: float, any_of: tuple[int, ...], all_of: tuple[int, ...]
) -> None:
    """4% are lost by marks, less than half of 10%, whatever else the stage requires."""
    actions = (LockTrading("reduce_only", 30 * MINUTE), CancelOrders("all"), close())
    made = replace(policy(), signals=(FALL_15M, signal))
    triggers = (*made.triggers, trigger("other", 1, threshold))
    stages = (stage("stop", 1, *any_of, all_of=all_of, actions=actions),)
    one = Account(
        replace(made, triggers=triggers, conditions=tuple(each.condition for each in triggers), stages=stages)
    )
    one.until(1000)
    one.pnl = Decimal(-4_000)
    one.until(1010)
    one.leaves(30_000)
    ((_, decision),) = one.until(1060)
    assert (decision.kind, decision.cancels) == ("suspicion", ())


def test_an_operator_reset_ends_the_suspicion(quiet_account: Account) -> None:
    """It lifts the lock, so no end of a suspicion is decided when the row comes."""
    quiet_account.leaves(30_000)
    quiet_account.until(12)
    quiet_account.now = 13
    quiet_account.interpreter.tick(quiet_account.read(events=(operator_event("reset", after(seconds=13)),)))
    quiet_account.rows.append(flow("out", after(seconds=11), "-30000"))
    assert [each for each in quiet_account.until(60) if each[1].is_withdrawal] == []


def test_a_stage_without_a_lock_is_not_suspected() -> None:
    """It has no effect that could be reversed."""
    lockless = Account(policy(locks=False))
    lockless.until(10)
    lockless.leaves(30_000)
    assert lockless.until(60) == []


@pytest.mark.parametrize(("lost", "cancelled"), [(4_000, ()), (6_000, ("entry",))])
def test_entries_are_cancelled_where_the_loss_by_marks_is_half_of_the_threshold(
    quiet_account: Account, lost: int, cancelled: tuple[str, ...]
) -> None:
    """4% lost by marks is less than half of 10%, and 6% is more; the stop that protects the long stays either way."""
    quiet_account.pnl = Decimal(-lost)
    quiet_account.until(20)
    quiet_account.leaves(30_000)
    ((_, decision),) = quiet_account.until(25)
    assert tuple(cancel.order for cancel in decision.cancels) == cancelled


class CancelSymbols(Action, frozen=True):
    """An action that cancels every order of some symbols."""

    symbols: tuple[str, ...]


CANCELS_SYMBOLS: ActionKind[None, CancelSymbols] = ActionKind(
    key="cancel_symbols",
    node=CancelSymbols,
    effects=("cancels",),
    is_reversible=False,
    needs_the_book=True,
    resolve=lambda _written, _stage, _path, _around: CancelSymbols(()),
    text=lambda cancel, _signals: f"cancel orders of {', '.join(cancel.symbols)}",
)


def plan_of_symbols(action: CancelSymbols, context: Context) -> Planned:
    orders = [(account, order) for account in context.book.view.sound for order in account.orders or ()]
    found = (Cancel(account.account, order.symbol, order.id, "entry") for account, order in orders
             if order.symbol in action.symbols)  # fmt: skip
    return Planned(effects=(Cancels(tuple(found)),))


@pytest.mark.parametrize(
    ("actions", "cancelled"),
    [
        ((CancelSymbols(("L",)),), ("entry",)),
        ((CancelSymbols(("M",)),), ("other",)),
        ((CancelSymbols(("L",)), CancelSymbols(("L", "M"))), ("entry", "other")),
        ((CancelSymbols(()),), ()),
        ((CancelOrders("entry"), CancelSymbols(("L",))), ("entry", "other")),
    ],
    ids=["one symbol", "the other symbol", "both", "no symbol", "with an action without a limit"],
)
def test_a_suspicion_cancels_only_what_the_actions_of_its_stage_would_cancel(
    actions: tuple[Action, ...], cancelled: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """6% are lost by marks. An action limited to symbols leaves the entries of others; its stop stays, which it also
    plans to cancel, because only entries are cancelled on suspicion.
    """
    monkeypatch.setattr(graph_registry, "ACTIONS", (*graph_registry.ACTIONS, CANCELS_SYMBOLS))
    monkeypatch.setattr(registry, "PLANS", (*registry.PLANS, ActionPlan("cancel_symbols", plan_of_symbols)))
    made = replace(policy(), stages=(stage("stop", 1, 0, actions=(LockTrading("reduce_only", None), *actions)),))
    one = Account(made, (ENTRY, STOP, replace(ENTRY, id="other", symbol="M")))
    one.until(10)
    one.pnl = Decimal(-6_000)
    one.until(20)
    one.leaves(30_000)
    ((_, decision),) = one.until(25)
    assert tuple((cancel.order, cancel.why) for cancel in decision.cancels) == tuple(
        (each, "entry") for each in cancelled
    )
    assert (decision.kind, decision.intents, decision.lock is not None) == ("suspicion", (), True)


def test_a_suspicion_cancels_the_exit_that_would_flip_a_position() -> None:
    """6% are lost by marks. Of 500 held, a reduce-only stop takes 1: a plain sale of 499 stays, one of 500 does not."""
    for amount, cancelled in ((499, ("entry",)), (500, ("entry", "plain"))):
        plain = Order(id="plain", symbol="L", side="sell", type="limit", amount=Decimal(amount), price=Decimal(120))
        one = Account(orders=(ENTRY, STOP, plain))
        one.until(10)
        one.pnl = Decimal(-6_000)
        one.until(20)
        one.leaves(30_000)
        ((_, decision),) = one.until(25)
        assert tuple(cancel.order for cancel in decision.cancels) == cancelled


def test_an_observing_policy_records_its_suspicion() -> None:
    """The decision has the mode `observe`, so nothing is locked for it."""
    observing = Account(replace(policy(), mode="observe"))
    observing.until(10)
    observing.leaves(30_000)
    ((_, decision),) = observing.until(60)
    assert (decision.kind, decision.mode) == ("suspicion", "observe")


WRITTEN = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: written}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers: {fall: {signal: equity.drawdown, window: 15m, at_least: 10%, on_unknown: hold}}
  stages:
    - name: stop
      level: 1
      any: [fall]
      cooldown: 6h
      reset: manual
      actions: [{lock_trading: {mode: reduce_only, for: 30m}}, {close: {side: both, fraction: 100%}}]
"""


def compile_with_keys(folder: Path, *keys: str) -> tuple[Graph | None, list[str]]:
    """The policy with these keys, compiled; and the codes of its problems."""
    (folder / "p.yaml").write_text(WRITTEN + "".join(f"  {key}\n" for key in keys), encoding="utf-8")
    loaded = load([folder])
    compiled, problems = compile_policies(loaded.documents)
    found = [*loaded.diagnostics, *problems]
    return None if compiled is None or found else compiled.graphs[0], [each.code for each in found]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ((), [(12, "suspicion")]),
        (("on_suspicion: lock", "on_unexplained: hold"), [(12, "suspicion")]),
        (("on_suspicion: page",), []),
        (("on_unexplained: close",), [(12, "suspicion"), (28, None)]),
        (("on_suspicion: page", "on_unexplained: close"), [(28, None)]),
    ],
)
def test_two_keys_of_a_policy_determine_what_a_suspicion_does(
    tmp_path: Path, keys: tuple[str, ...], expected: list[tuple[int, str | None]]
) -> None:
    """From documents: 30% leaves at 11 s, and its row never comes."""
    made, problems = compile_with_keys(tmp_path, *keys)
    assert (problems, made is None) == ([], False)
    one = Account(made)
    one.until(10)
    one.leaves(30_000)
    one.until(100)
    assert decision_kinds(one.decided) == expected


def test_writing_the_defaults_does_not_change_the_digest(tmp_path: Path) -> None:
    """A policy from before these keys is the same policy."""
    digests = []
    for keys in ((), ("on_suspicion: lock", "on_unexplained: hold"), ("on_suspicion: page",)):
        made, _ = compile_with_keys(tmp_path, *keys)
        assert made is not None
        digests.append(made.digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("key", ["on_suspicion: close", "on_unexplained: lock"])
def test_an_unknown_value_of_a_key_is_an_error(tmp_path: Path, key: str) -> None:
    """Each key has two values of its own."""
    assert compile_with_keys(tmp_path, key)[1] == ["KS2004"]
