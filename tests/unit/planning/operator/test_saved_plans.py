"""Saved plans: carried out exactly, once, and only on the book that they were made on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Cancel, Intent, LockOrder, Notice, Rung, TriggerReading, Unwinding
from killswitch.model.effects import Transfer
from killswitch.model.snapshot import Event, Order, Position, Snapshot
from killswitch.model.words import Cause
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.operator.plan_check import plan_faults
from killswitch.planning.operator.plan_file import (
    AccountBasis,
    PlanFileError,
    SavedPlan,
    decode_plan,
    digest_of,
    encode_plan,
    make_plan,
    plan_schema,
)
from killswitch.planning.operator.saved_plan import LONGEST_WAIT, applied_ids, basis_of
from tests import graphs
from tests.worlds import account, after, operator_event, position, rules, snapshot

POLICIES = graphs.policy_set(graphs.graph([], [], [], policy="calm"))


def locking(minutes: int | None) -> PolicySet:
    """A policy `calm` whose stage `trim` locks every account, for these minutes or without end."""
    duration = None if minutes is None else minutes * 60_000_000
    stage = graphs.stage("trim", 2, 0, actions=[LockTrading("reduce_only", duration)])
    return graphs.policy_set(graphs.graph([graphs.FALL_1H], [graphs.trigger("t", 0, 0.5)], [stage], policy="calm"))


LOCKING = locking(5)


def stage_plan(policies: PolicySet, **changes: Any) -> SavedPlan:
    """A plan of stage `trim` on account main, decided on the initial book."""
    (decision,) = plan_of(book(after()), policies, "exchange-breach").decisions
    fields: dict[str, Any] = {
        "policy": "calm", "scope": "account/main", "stage": "trim", "level": 2, "kind": None, "cause": None,
        "reason": None, "unwinding": None, "triggers": (TriggerReading("t"),), "cooldown_until": after(hours=1),
    }  # fmt: skip
    return plan_with_orders(book(after()), *decision.intents, **fields | changes)


def order(id_: str, amount: str = "1") -> Order:
    return Order(id=id_, symbol="BTC", side="sell", amount=Decimal(amount), reduce_only=True)


def held(**contracts: str) -> tuple[Position, ...]:
    """Long positions by symbol, at a mark of 10."""
    return tuple(
        position(symbol, "long", "0", contracts=amount, entry_price="10", mark_price="10", notional="10")
        for symbol, amount in contracts.items()
    )


def book(at: datetime, positions: Any = None, **more: Any) -> Snapshot:
    """Account main with 3 BTC and 2 ETH long and one resting order, at `at`."""
    events = more.pop("events", ())
    fields = {"orders": (order("o1"),), "instruments": (rules("BTC"), rules("ETH")), **more}
    positions = held(BTC="3", ETH="2") if positions is None else positions
    return snapshot(at, account("1000", positions, **fields), events=events)


def plan_of(seen: Snapshot, policies: PolicySet = POLICIES, cause: Cause | None = "drill") -> SavedPlan:
    """The saved plan of an operator close of everything in `seen`."""
    event = replace(operator_event("close", seen.as_of, None), cause=cause)
    (decision,) = Interpreter(policies).tick(replace(seen, events=(event,))).decisions
    return make_plan(seen.as_of, policies.digest, None, (decision,), basis_of((decision,), seen, policies))


def apply_command(plan: SavedPlan, at: datetime, id_: str = "apply-1") -> Event:
    return Event(id=id_, at=at, kind="apply", author="operator-1", plan=encode_plan(plan).decode())


def applied(plan: SavedPlan, seen: Snapshot, policies: PolicySet = POLICIES) -> Outcome:
    """The outcome of one tick on `seen` that processes the plan."""
    return Interpreter(policies).tick(replace(seen, events=(apply_command(plan, seen.as_of),)))


def refusal(outcome: Outcome) -> str:
    """The notice's text where nothing was decided."""
    assert outcome.decisions == ()
    (notice,) = outcome.notices
    assert isinstance(notice, Notice)
    assert notice.severity == "page"
    return notice.text


def test_a_plan_on_an_unchanged_book_becomes_exactly_its_orders() -> None:
    """Intents, cancels and execution style equal the plan's; the record has the author, the reason and the plan."""
    plan = plan_of(book(after()))
    (planned,) = plan.decisions
    (decision,) = applied(plan, book(after(minutes=2))).decisions
    assert decision.intents == planned.intents
    assert (decision.cancels, decision.unwinding, decision.cause) == (planned.cancels, planned.unwinding, "drill")
    assert (decision.kind, decision.policy, decision.author) == ("manual", "operator", "operator-1")
    assert decision.reason == f"plan {plan.digest[:19]}: reviewed"
    assert decision.as_of == after(minutes=2)
    assert (decision.id,) == applied_ids(plan)


def test_a_plan_of_a_position_without_a_fresh_mark_applies_as_it_was_shown() -> None:
    """The basis has no age of a mark: what the plan sends at market at once is not compared with it."""
    plan = plan_of(book(after()), cause="operator")  # the book reports no time
    assert {each.at_market for each in plan.decisions[0].intents} == {True}
    (decision,) = applied(plan, book(after(minutes=1))).decisions
    assert decision.intents == plan.decisions[0].intents
    (planned,) = plan_of(book(after()), cause="drill").decisions
    altered = tuple(replace(each, at_market=True) for each in planned.intents)
    forged = make_plan(plan.as_of, plan.policy_set, None, (replace(planned, intents=altered),), plan.basis)
    assert "at_market of its order 1 for BTC long on main is True" in refusal(applied(forged, book(after(minutes=1))))


@pytest.mark.parametrize(
    ("cause", "unwinding"), [("operator", None), ("system-failure", Unwinding("system-failure", is_sliced=False))]
)
def test_a_plan_of_an_earlier_version_without_a_bound_is_applied_as_it_was_reviewed(
    cause: Cause, unwinding: Unwinding | None
) -> None:
    """Its dry run said `at market`; no other reason may drop its bound."""
    plan = plan_of(book(after()), cause=cause)
    (planned,) = plan.decisions
    orders = tuple(replace(each, band=None, at_market=False) for each in planned.intents)

    def earlier(**fields: Any) -> SavedPlan:
        decision = replace(planned, intents=orders, unwinding=unwinding, **fields)
        return make_plan(plan.as_of, plan.policy_set, None, (decision,), plan.basis)

    (decision,) = applied(earlier(), book(after(minutes=1))).decisions
    assert (decision.intents, decision.unwinding) == (orders, unwinding)
    assert "is not one of the policy set" in refusal(applied(earlier(cause="market"), book(after(minutes=1))))


def test_a_plan_applies_although_marks_have_moved() -> None:
    """A plan is about contracts; its price bounds are taken from the mark at the time of sending."""
    moved = tuple(replace(each, mark_price=Decimal(20)) for each in held(BTC="3", ETH="2"))
    assert applied(plan_of(book(after())), book(after(minutes=1), moved)).decisions


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (lambda at: book(at, held(BTC="4", ETH="2")), "BTC long on main was 3 contracts, and is 4 contracts"),
        (lambda at: book(at, held(BTC="1", ETH="2")), "BTC long on main was 3 contracts, and is 1 contracts"),
        (lambda at: book(at, held(BTC="3")), "ETH long on main has vanished: it was 2 contracts"),
        (
            lambda at: book(at, held(BTC="3", ETH="2", XRP="7")),
            "XRP long on main has appeared: 7 contracts",
        ),
        (lambda at: book(at, orders=()), "order o1 on main has vanished: it was sell 1 BTC"),
        (
            lambda at: book(at, orders=(order("o1"), order("o2", "5"))),
            "order o2 on main has appeared: sell 5 BTC",
        ),
        (lambda at: book(at, orders=(order("o1", "9"),)), "order o1 on main was sell 1 BTC, and is sell 9 BTC"),
        (
            lambda at: book(at, instruments=(rules("BTC", amount_step="1"), rules("ETH"))),
            "amount_step of BTC on main was 0.001, and is 1",
        ),
        (
            lambda at: book(at, instruments=(rules("BTC", state="halted"), rules("ETH"))),
            "state of BTC on main was unknown, and is halted",
        ),
        (lambda at: book(at, instruments=()), "the rules of BTC on main are not known now"),
        (
            lambda at: book(at, quality="down", reason="no route"),
            "account main cannot be read: main is down: no route",
        ),
        (
            lambda at: replace(
                book(at), accounts=(*book(at).accounts, account("5", (), name="other"))
            ),
            "account other is in the scope now, and was not",
        ),
        (lambda at: snapshot(at, account("5", (), name="other")), "account main is no longer watched"),
    ],
    ids=[
        "grown", "shrunk", "vanished", "appeared", "order gone", "order new", "order changed", "rules", "state",
        "rules unknown", "unread", "account came", "account went",
    ],
)  # fmt: skip
def test_a_plan_on_a_changed_book_is_refused_with_the_change(now: Callable[[datetime], Snapshot], message: str) -> None:
    """Any part of the basis that differs: nothing is decided, and the refusal names it."""
    assert message in refusal(applied(plan_of(book(after())), now(after(minutes=1))))


def test_a_refusal_lists_every_change() -> None:
    """Not the first only: a person must see whether the plan can be mended or must be made again."""
    refused = refusal(applied(plan_of(book(after())), book(after(minutes=1), held(BTC="4"), orders=())))
    for part in ("BTC long on main was 3 contracts", "ETH long on main has vanished", "order o1 on main has vanished"):
        assert part in refused


def test_a_plan_of_another_policy_set_is_refused() -> None:
    """Another policy set may make another decision."""
    other = PolicySet("sha256:" + "f" * 64, None, POLICIES.graphs)
    assert "the policy set is sha256:ffffffffffff" in refusal(
        applied(plan_of(book(after())), book(after(minutes=1)), other)
    )


def test_a_plan_is_applied_once_however_often_it_is_given() -> None:
    """A second command with the same plan finds it applied, even where the book is unchanged."""
    plan, interpreter = plan_of(book(after())), Interpreter(POLICIES)
    first = interpreter.tick(book(after(minutes=1), events=(apply_command(plan, after(minutes=1)),)))
    second = interpreter.tick(book(after(minutes=2), events=(apply_command(plan, after(minutes=2), "apply-2"),)))
    assert len(first.decisions) == 1
    assert "it has been already" in refusal(second)


def test_a_plan_that_was_applied_before_a_restart_is_refused_after_it() -> None:
    """A new interpreter knows applied plans from past decisions."""
    plan = plan_of(book(after()))
    outcome = applied(plan, book(after(minutes=1)))
    interpreter = Interpreter(POLICIES)
    interpreter.restore((), lambda _policy, _scope, _since: (), past=outcome.decisions)
    again = interpreter.tick(book(after(minutes=2), events=(apply_command(plan, after(minutes=2), "apply-2"),)))
    assert "it has been already" in refusal(again)


def test_an_expired_apply_command_is_refused() -> None:
    """A command that no tick processed for a while is not carried out by surprise."""
    plan = plan_of(book(after()))
    late = replace(book(after(seconds=LONGEST_WAIT / 1e6 + 1)), events=(apply_command(plan, after()),))
    assert "has waited 601 s for a tick" in refusal(Interpreter(POLICIES).tick(late))


def test_a_plan_with_a_time_in_the_future_is_refused() -> None:
    """Its age is unknown."""
    assert "in the future: the clocks differ" in refusal(applied(plan_of(book(after(minutes=1))), book(after())))


def test_an_account_that_was_unavailable_when_planned_and_is_readable_now_is_a_change() -> None:
    """The plan could not cover its positions."""
    down = account(None, None, name="other", quality="down", reason="no route")
    planned_on = replace(book(after()), accounts=(*book(after()).accounts, down))
    plan = plan_of(planned_on)
    assert [basis.unread for basis in plan.basis] == [None, "other is down: no route"]
    now = replace(book(after(minutes=1)), accounts=(*book(after()).accounts, account("5", (), name="other")))
    assert "account other could not be read for the plan (other is down: no route), and can be now" in refusal(
        applied(plan, now)
    )


def test_a_plan_file_round_trips() -> None:
    """Encoding and decoding lose nothing, whatever the file's layout."""
    plan = plan_of(book(after()))
    text = encode_plan(plan)
    assert decode_plan(text) == plan
    assert decode_plan(json.dumps(json.loads(text), indent=7, sort_keys=True)) == plan


def test_the_digest_follows_the_documented_format() -> None:
    """SHA-256 over the contents without the digest, keys sorted, no blanks: any language can check it."""
    contents = json.loads(encode_plan(plan_of(book(after()))))
    digest = contents.pop("digest")
    text = json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda plan: encode_plan(plan).replace(b'"contracts": "3"', b'"contracts": "9"'), "was altered"),
        (lambda plan: encode_plan(plan)[:-40], "this is no killswitch.plan/v1: it is not JSON, from line "),
        (lambda plan: b"name: x", "it is not JSON, from line 1, column 1 on; name a file that `ksctl plan --out`"),
        (lambda plan: b"[" * 100_000, "this is no killswitch.plan/v1: it is nested too deep"),
        (lambda plan: b"\xff", "this is no killswitch.plan/v1: it is not text in UTF-8"),
        (lambda plan: b"[]", "this is no killswitch.plan/v1: a field is missing or has another type"),
        (lambda plan: encode_plan(plan).replace(b"plan/v1", b"plan/v2"), "this is no killswitch.plan/v1"),
    ],
    ids=["altered", "cut off", "YAML", "nested", "no text", "a list", "another version"],
)
def test_an_invalid_plan_file_is_refused_with_the_reason(text: Callable[[SavedPlan], bytes], message: str) -> None:
    """An altered file, a truncated one and one of another format each give their reason."""
    with pytest.raises(PlanFileError, match=message):
        decode_plan(text(plan_of(book(after()))))


def faults_of_forged_plan(**changed: Any) -> tuple[str, ...]:
    """The faults of a plan whose first order was changed and whose digest was recomputed."""
    plan = plan_of(book(after()))
    (decision,) = plan.decisions
    order, *rest = decision.intents
    decision = replace(decision, intents=(replace(order, **changed), *rest))
    return tuple(plan_faults(replace(plan, decisions=(decision,)), POLICIES))


@pytest.mark.parametrize(
    "changed",
    [{"symbol": "DOGE"}, {"side": "buy"}, {"contracts": 30}, {"contracts": 0}, {"target": -1}, {"target": 3}],
    ids=" ".join,
)
def test_orders_that_do_not_follow_from_the_basis_are_refused(changed: dict[str, Any]) -> None:
    """A digest is no signature: a plan that opens or adds was not decided by this program, whoever made it."""
    assert faults_of_forged_plan(
        **{key: Decimal(value) if isinstance(value, int) else value for key, value in changed.items()}
    )


def test_orders_that_follow_from_the_basis_pass_the_plan_check() -> None:
    """The unchanged plan has no faults."""
    assert faults_of_forged_plan() == ()


def intent(contracts: str, target: str = "0", symbol: str = "BTC", **more: Any) -> Intent:
    """A sale of a long position on `main`, reduce-only."""
    fields = {"reduce_only": True, **more}
    return Intent("main", symbol, "long", "sell", Decimal(contracts), Decimal(target), rank=1, **fields)


def hop(contracts: str, symbol: str, target: str = "0", after: int | None = None) -> Intent:
    return intent(contracts, target, symbol, reduce_only=False, purpose="hop", after=after)


def plan_with_orders(seen: Snapshot, *intents: Intent, **more: Any) -> SavedPlan:
    """A plan of `seen` with these orders instead of its own, and a valid digest."""
    plan = plan_of(seen, cause="exchange-breach")
    decision = replace(plan.decisions[0], intents=intents, **more)
    return make_plan(plan.as_of, plan.policy_set, plan.commit, (decision,), plan.basis)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        (
            [intent("9", symbol="DOGE", purpose="hedge", reduce_only=False)],
            "its basis gives 0 orders for DOGE long on main, and it has 1",
        ),
        ([hop("3", "BTC")], "reduce_only of its order 1 for BTC long on main is False, and its basis gives True"),
        ([intent("3", purpose="hop")], "purpose of its order 1 for BTC long on main is hop, and its basis gives redu"),
        ([intent("3", reduce_only=False)], "reduce_only of its order 1 for BTC long on main is False"),
        ([intent("3", "1")] * 3, "its basis gives 1 order for BTC long on main, and it has 3"),
        ([intent("1", "0")], "contracts of its order 1 for BTC long on main is 1, and its basis gives 3"),
        ([intent("2"), intent("1", "2")], "its basis gives 1 order for BTC long on main, and it has 2"),
        ([intent("NaN")], "it holds NaN, which no venue reports"),
        ([intent("sNaN")], "it holds sNaN, which no venue reports"),
        ([intent("3", after=0)], "its basis gives 0 orders for BTC long on main, and it has 1"),
    ],
)
def test_orders_that_do_not_only_close_are_refused(orders: list[Intent], message: str) -> None:
    """What opens, adds, sells more than was held or less than its target: refused with a reason, never an exception."""
    assert message in refusal(applied(plan_with_orders(book(after()), *orders), book(after(minutes=1))))


def spot(at: datetime) -> Snapshot:
    """A spot account with 100 X, whose own market is halted, and 2 BTC."""
    markets = [rules(symbol, state="open") for symbol in ("X/BTC", "BTC/USDT")]
    rows = [
        position("X/USDT", "long", contracts="100", mark_price="1", notional="100"),
        position("BTC/USDT", "long", contracts="2", mark_price="50000", notional="100000"),
    ]
    holder = account("1000", rows, market="spot", instruments=(rules("X/USDT", state="halted"), *markets))
    return snapshot(at, holder)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ([hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "2", 0)], None),
        ([hop("100", "X/BTC")], None),
        (
            [hop("60", "X/BTC"), hop("40", "X/BTC"), hop("0.002", "BTC/USDT", "2", 1)],
            "its basis gives 1 order for X/BTC long on main, and it has 2",
        ),
        ([hop("60", "X/BTC"), hop("60", "X/ETH")], "its basis gives 0 orders for X/ETH long on main, and it has 1"),
        ([hop("120", "X/BTC")], "contracts of its order 1 for X/BTC long on main is 120, and its basis gives 100"),
        (
            [hop("100", "X/BTC"), hop("2", "BTC/USDT", "2", 0)],
            "contracts of its order 1 for BTC/USDT long on main is 2",
        ),
        (
            [hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "0", 0)],
            "target of its order 1 for BTC/USDT long on main is 0",
        ),
        (
            [hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "2", 1)],
            "follows of its order 1 for BTC/USDT long on main is order 1, and its basis gives order 1 for X/BTC long",
        ),
        ([hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "2", -1)], "BTC/USDT long on main is order -1"),
        ([hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "2", 99)], "BTC/USDT long on main is order 99"),
        ([hop("100", "X/BTC"), hop("0", "ETH/USDT", "0", 0)], "its basis gives 0 orders for ETH/USDT long on main"),
        (
            [hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "2", 0), hop("0", "BTC/USDC", "0", 0)],
            "its basis gives 0 orders for BTC/USDC long on main",
        ),
    ],
)
def test_a_sale_over_two_markets_sells_at_most_the_holding_and_its_proceeds(
    orders: list[Intent], message: str | None
) -> None:
    """The first hop at most the holding, the second once, after its first, leaving what was there."""
    outcome = applied(plan_with_orders(spot(after()), *orders, cancels=()), spot(after(minutes=1)))
    if message is None:
        assert [decision.intents for decision in outcome.decisions] == [tuple(orders)]
    else:
        assert message in refusal(outcome)


def test_a_close_of_a_spot_book_by_two_hops_passes_the_plan_check() -> None:
    """The plan that planning itself makes of such a book may be carried out."""
    plan = plan_of(spot(after()))
    assert {intent.symbol for intent in plan.decisions[0].intents} == {"X/BTC", "BTC/USDT"}
    assert applied(plan, spot(after(minutes=1))).decisions


def scaled(path: tuple[object, ...], value: Any) -> Iterator[Any]:
    """Other values for a leaf of a plan: of another size, sign, direction or name, or none."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1, value * 1_000_000)
        case str() if path[-1] in {"contracts", "target", "band", "amount", "mark_price", "notional", "price"}:
            yield from (str(Decimal(value) + 1), str(Decimal(value) * 2), "-" + value, "0", "1e+40", "NaN", None)
        case str():
            yield from (
                value + "x",
                "",
                None,
                *{"buy", "sell", "long", "short", "hop", "swap", "spot", "all"} - {value},
            )
        case None:
            yield from (0, 1, "x", True)


def leaves(value: Any, path: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], Any]]:
    """Every leaf of a JSON value, with its path."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from leaves(part, (*path, key))
    if not isinstance(value, dict | list):
        yield path, value


def forged(contents: Any, path: tuple[Any, ...], value: object) -> bytes:
    """The plan with another leaf, and a digest that fits."""
    copy = json.loads(json.dumps(contents))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    copy["digest"] = digest_of(copy)
    return json.dumps(copy).encode()


def traded_at_most(seen: Snapshot, outcome: Outcome) -> None:
    """Fails where the decisions do more than close what the account holds, or cancel what rests there."""
    (account,) = seen.accounts
    held_now: dict[tuple[str, str], Decimal] = {each.key: each.contracts for each in account.positions or ()}
    resting = {each.id for each in account.orders or ()}
    for decision in outcome.decisions:
        sold: dict[tuple[str, str], Decimal] = {}
        for each in decision.intents:
            assert each.account == account.account
            assert each.side == ("sell" if each.position_side == "long" else "buy")
            assert each.reduce_only is (account.market == "swap")
            assert each.purpose != "hedge"
            if each.after is None:
                base = next(key for key in held_now if key[0].split("/")[0] == each.symbol.split("/")[0])
                sold[base] = sold.get(base, Decimal(0)) + each.contracts
                assert each.target >= 0
        assert all(amount <= held_now[key] for key, amount in sold.items())
        assert {each.order for each in decision.cancels} <= resting
        assert (decision.lock, decision.further) == (None, ())


@pytest.mark.parametrize("seen", [book, spot], ids=["swap", "spot"])
def test_no_leaf_of_a_plan_can_be_changed_to_do_more(seen: Callable[[datetime], Snapshot]) -> None:
    """Each field of the file, one at a time, with a digest that fits: refused, or nothing more than was seen."""
    contents, now = json.loads(encode_plan(plan_of(seen(after())))), seen(after(minutes=1))
    accepted: set[object] = set()
    for path, value in leaves(contents):
        for other in scaled(path, value):
            text = forged(contents, path, other)
            event = Event(id="apply-1", at=now.as_of, kind="apply", author="operator-1", plan=text.decode())
            outcome = Interpreter(POLICIES).tick(replace(now, events=(event,)))
            assert outcome.decisions or any("was not applied" in notice.text for notice in outcome.notices)
            traded_at_most(now, outcome)
            accepted |= {path[-1]} if outcome.decisions else set()
    assert accepted & {"contracts", "side", "position_side", "reduce_only", "purpose", "order", "unread"} == set()


def test_an_order_that_two_decisions_of_a_plan_give_is_refused() -> None:
    """The same close twice in a file, with a digest that fits, would sell a spot holding twice."""
    plan = plan_of(spot(after()))
    twice = make_plan(plan.as_of, plan.policy_set, plan.commit, plan.decisions * 2, plan.basis)
    refused = refusal(applied(twice, spot(after(minutes=1))))
    assert "two of its decisions order BTC/USDT long on main; two of its decisions order X/BTC long on main" in refused


@pytest.mark.parametrize("part", ["account", "position"])
def test_a_basis_that_lists_a_row_twice_is_refused(part: str) -> None:
    """Each row equals the book, and of both together planning makes a close of 6 of 3 BTC, which is forged."""
    plan = plan_of(book(after()))
    (basis,), (decision,) = plan.basis, plan.decisions
    rows: tuple[AccountBasis, ...]
    if part == "account":
        rows, orders = (basis, basis), decision.intents * 2
    else:
        rows = (replace(basis, positions=(basis.positions or ()) * 2),)
        orders = tuple(replace(each, contracts=each.contracts * 2) for each in decision.intents)
    forged_plan = make_plan(plan.as_of, plan.policy_set, None, (replace(decision, intents=orders),), rows)
    refused = refusal(applied(forged_plan, book(after(minutes=1))))
    assert f"its basis lists {'main' if part == 'account' else 'main BTC long'} twice" in refused


def test_a_holding_that_no_close_sells_is_not_sold_by_a_plan() -> None:
    """A stable coin is money: an order for it follows from no close, whatever the file says."""
    coins = position("USDC/USDT", "long", contracts="5", mark_price="1", notional="5")

    def seen(at: datetime) -> Snapshot:
        return snapshot(at, account("5", [coins], market="spot", instruments=(rules("USDC/USDT", state="open"),)))

    event = replace(operator_event("close", after(), None), cause=None)
    (nothing,) = Interpreter(POLICIES).tick(replace(seen(after()), events=(event,))).decisions
    assert nothing.intents == ()
    decision = replace(nothing, intents=(intent("5", symbol="USDC/USDT", reduce_only=False),))
    plan = make_plan(after(), POLICIES.digest, None, (decision,), basis_of((decision,), seen(after()), POLICIES))
    refused = refusal(applied(plan, seen(after(minutes=1))))
    assert "its basis gives 0 orders for USDC/USDT long on main, and it has 1" in refused


def test_a_spot_plan_applies_although_every_price_has_moved() -> None:
    """Its minimum orders and proceeds were computed at the marks of then, and are compared at these."""
    now = spot(after(minutes=1))
    (holder,) = now.accounts
    moved = tuple(
        replace(each, mark_price=(each.mark_price or 0) * 3, notional=(each.notional or 0) * 3)
        for each in holder.positions or ()
    )
    fallen = replace(now, accounts=(replace(holder, positions=moved),))
    plan = plan_with_orders(spot(after()), hop("100", "X/BTC"), hop("0.002", "BTC/USDT", "2", 0), cancels=())
    assert applied(plan, fallen).decisions


def saved_by_an_earlier_version(plan: SavedPlan) -> SavedPlan:
    """The plan with a basis of positions, orders and rules only."""
    (basis,) = plan.basis
    bare = tuple(replace(each, mark_price=None, notional=None) for each in basis.positions or ())
    old = replace(basis, market=None, currency=None, positions=bare, prices={}, liquidity=())
    return make_plan(plan.as_of, plan.policy_set, plan.commit, plan.decisions, (old,))


@pytest.mark.parametrize("seen", [book, spot], ids=["swap", "spot"])
def test_a_plan_of_an_earlier_version_is_planned_again_from_the_book_of_now(
    seen: Callable[[datetime], Snapshot],
) -> None:
    """It has no market and no marks: those of the tick are used, whose contracts are the same."""
    plan = saved_by_an_earlier_version(plan_of(seen(after())))
    assert [each.intents for each in applied(plan, seen(after(minutes=1))).decisions] == [plan.decisions[0].intents]
    (decision,) = plan.decisions
    first, *rest = decision.intents
    more = replace(decision, intents=(replace(first, contracts=first.contracts * 2), *rest))
    larger = make_plan(plan.as_of, plan.policy_set, plan.commit, (more,), plan.basis)
    assert "contracts of its order 1" in refusal(applied(larger, seen(after(minutes=1))))


def test_a_plan_whose_account_trades_another_market_now_is_refused() -> None:
    """Its orders were for another product."""
    (account_now,) = book(after(minutes=1)).accounts
    spot_now = replace(book(after(minutes=1)), accounts=(replace(account_now, market="spot"),))
    assert "the market of account main was swap, and is spot" in refusal(applied(plan_of(book(after())), spot_now))


def test_a_cancel_of_an_order_outside_the_basis_is_refused() -> None:
    """A stop that no snapshot contained cannot have been chosen by a plan."""
    forged_cancel = plan_with_orders(book(after()), intent("3"), cancels=(Cancel("main", "BTC", "stop-1", "all"),))
    assert "it cancels order stop-1 of BTC on main, which it did not see" in refusal(
        applied(forged_cancel, book(after(minutes=1)))
    )


@pytest.mark.parametrize(
    "pace",
    [Unwinding("u", (), -1), Unwinding("u", (), None, -1.0), Unwinding("u", (Rung("market", tries=0),))],
)
def test_an_impossible_pace_or_ladder_is_refused(pace: Unwinding) -> None:
    """It would divide by zero, or never send."""
    plan = plan_with_orders(book(after()), intent("3"), unwinding=pace)
    assert "its unwinding u is not one of the policy set" in refusal(applied(plan, book(after(minutes=1))))


def test_a_plan_whose_lock_has_expired_is_refused_with_the_time() -> None:
    """Applied ten minutes later, a lock of five minutes would have no effect."""
    lock = LockOrder("account/main", "reduce_only", after(minutes=5))
    plan = stage_plan(LOCKING, lock=lock)
    assert applied(plan, book(after(minutes=4)), LOCKING).decisions
    refused = refusal(applied(plan, book(after(minutes=10)), LOCKING))
    assert "its lock of account/main has run out at 2024-01-01T00:05:00" in refused


def test_a_plan_without_decisions_is_refused() -> None:
    """There is nothing to carry out."""
    empty = make_plan(after(), POLICIES.digest, None, (), ())
    assert "it holds no decision" in refusal(applied(empty, book(after(minutes=1))))


def test_rows_of_several_strategies_are_one_position_in_a_basis() -> None:
    """A venue closes positions, not strategies."""
    rows = (*held(BTC="1"), replace(held(BTC="2")[0], strategy="b"))
    plan = plan_of(book(after(), rows))
    (basis,) = plan.basis
    assert [(each.symbol, str(each.contracts)) for each in basis.positions or ()] == [("BTC", "3")]


def test_the_schema_describes_the_saved_file() -> None:
    """Each key of a saved plan, down to the orders of its decisions, is in the JSON Schema, and no other."""
    schema: Any = plan_schema()
    contents = json.loads(encode_plan(plan_of(book(after()))))
    assert_conforms(contents, schema["$defs"]["SavedPlan"], schema["$defs"])


def assert_conforms(value: Any, schema: Any, known: Any) -> None:
    """Fails where an object has a key that its schema lacks, or lacks a required one."""
    if "$ref" in schema:
        schema = known[schema["$ref"].rsplit("/", 1)[1]]
    for option in schema.get("anyOf", ()):  # null, or the thing
        if "$ref" in option and isinstance(value, dict):
            assert_conforms(value, option, known)
    if "properties" in schema and isinstance(value, dict):
        assert value.keys() <= schema["properties"].keys()
        assert set(schema.get("required", ())) <= value.keys()
        for key, part in value.items():
            assert_conforms(part, schema["properties"][key], known)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for part in value:
            assert_conforms(part, schema["items"], known)


def test_a_plan_holds_no_equity() -> None:
    """The basis is what orders follow from: positions with marks, orders and rules, and no connection of an account."""
    (basis,) = json.loads(encode_plan(plan_of(book(after()))))["basis"]
    assert basis.keys() == {"account", "market", "currency", "positions", "orders", "instruments"}
    assert msgspec.json.encode(basis).count(b"1000") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lock": LockOrder("account/invented", "reduce_only", None)}, "its lock of account/invented"),
        ({"lock": LockOrder("portfolio", "reduce_only", None)}, "its lock of portfolio (reduce_only, without end)"),
        ({"lock": LockOrder("account/main", "all", None)}, "its lock of account/main (all, without end)"),
        ({"lock": LockOrder("account/main", "reduce_only", after(hours=9))}, "until 2024-01-01T09:00:00"),
        ({"stage": "other"}, "is not written by stage other of calm"),
        ({"stage": None, "policy": "operator"}, "is not written by stage None of operator"),
        ({"as_of": after(hours=2)}, "its lock of account/main"),
        ({"scope": "account/invented"}, "calm has no scope account/invented"),
        ({"scope": "portfolio", "lock": None}, "calm has no scope portfolio"),
        ({"scope": "venue/other", "policy": "operator", "lock": None}, "operator has no scope venue/other"),
    ],
)
def test_a_lock_that_no_stage_writes_is_not_applied(change: dict[str, Any], message: str) -> None:
    """A forged plan cannot lock a scope that does not exist, more strictly than its stage, or for longer."""
    policies = locking(None)
    lock = {"lock": LockOrder("account/main", "reduce_only", None)}
    assert message in refusal(applied(stage_plan(policies, **(lock | change)), book(after(minutes=1)), policies))


def test_a_plan_with_a_transfer_of_margin_is_refused_with_the_reason_and_the_way_out() -> None:
    """Its amount follows from the balances of the moment: only a stage that fires moves margin."""
    policies = locking(None)
    lock = LockOrder("account/main", "reduce_only", None)
    plan = stage_plan(policies, lock=lock, further=(Transfer("treasury", "main", "USDT", Decimal(750)),))
    text = refusal(applied(plan, book(after(minutes=1)), policies))
    assert "its effect `move 750 USDT of margin from treasury to main` is not made by a saved plan" in text
    assert "let stage trim of calm fire, or move it at the venue" in text


@pytest.mark.parametrize("written", ["1e9", "3.0E+0", "1_0"])
def test_a_number_that_does_not_round_trip_is_refused_on_input(written: str) -> None:
    """Written again it would be another text, and the plan another plan: it is refused before it is given."""
    contents = json.loads(encode_plan(plan_of(book(after()))))
    contents["basis"][0]["positions"][0]["contracts"] = written
    contents["digest"] = digest_of(contents)
    with pytest.raises(PlanFileError, match=r"was not saved by this version of ksctl|no killswitch"):
        decode_plan(json.dumps(contents))


@pytest.mark.parametrize("odd", ["NaN", "sNaN", "Infinity"])
def test_a_number_that_is_only_displayed_must_be_valid(odd: str) -> None:
    """A margin ratio of sNaN would be stored, and break whatever displays it."""
    plan = plan_of(book(after()))
    (decision,) = plan.decisions
    assert decision.book is not None
    shown = replace(decision.book, after=replace(decision.book.after, margin_ratio=Decimal(odd)))
    altered = plan_with_orders(book(after()), *decision.intents, book=shown)
    assert "holds a number that is not finite" in refusal(applied(altered, book(after(minutes=1))))


def test_an_applied_stage_is_an_operator_command_and_latches_nothing() -> None:
    """Levels, triggers and cooldown remain the policy's; the lock and the orders are the plan's."""
    policies = locking(None)
    again = stage_plan(policies, lock=LockOrder("account/main", "reduce_only", None))
    (stage,) = again.decisions
    (found,) = applied(again, book(after(minutes=1)), policies).decisions
    assert (found.kind, found.stage, found.level, found.triggers, found.cooldown_until) == ("manual", None, 0, (), None)
    assert (found.lock, found.intents, found.cause) == (stage.lock, stage.intents, "operator")
    assert found.reason == f"plan {again.digest[:19]}: trim of calm"


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (LockOrder("portfolio", "reduce_only", None), None),
        (None, None),
        (LockOrder("portfolio", "all", None), "its lock of portfolio (all, without end) is not written by a close by"),
        (LockOrder("portfolio", "reduce_only", after(hours=9)), "its lock of portfolio (reduce_only, until 2024"),
        (LockOrder("account/main", "reduce_only", None), "its lock of account/main (reduce_only, without end)"),
    ],
)
def test_a_plan_of_a_manual_close_has_its_own_lock_or_none(lock: LockOrder | None, message: str | None) -> None:
    """The lock is saved with the plan and written before its orders; a plan that was altered to lock otherwise is not
    applied."""
    event = replace(operator_event("close", after(), None), cause="drill", lock="reduce_only")
    (decision,) = Interpreter(POLICIES).tick(book(after(), events=(event,))).decisions
    assert decision.lock == LockOrder("portfolio", "reduce_only", None)
    decision = replace(decision, lock=lock)
    plan = make_plan(after(), POLICIES.digest, None, (decision,), basis_of((decision,), book(after()), POLICIES))
    outcome = applied(plan, book(after(minutes=1)))
    if message is None:
        assert [each.lock for each in outcome.decisions] == [lock]
    else:
        assert outcome.decisions == ()
        assert message in outcome.notices[0].text
