"""A policy for one strategy of a shared account: what it sees, what it closes, and what it leaves to others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Closing, Fill, Order, Position, Snapshot
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.backtests import written
from tests.worlds import account, after, fill, operator_event, position, rules, snapshot

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {{each: strategy, strategy: {strategy}, match: {{currency: USDT}}}}
  max_gap: 10m
  triggers: {{size: {{{trigger}, on_unknown: hold, grace: 1s}}}}
  stages:
    - name: close
      level: 1
      any: [size]
      cooldown: 1m
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only}}
        - cancel_orders: {{kind: all}}
        - close: {{side: both, fraction: {fraction}}}
---
"""
STRATEGIES = """
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {}, order_ids: grid-}
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: trend}
spec: {match: {}, order_ids: trend-}
"""


def policy(
    strategy: str = "grid", trigger: str = "signal: exposure.gross, above: 350 USDT", fraction: str = "100%"
) -> str:
    """A policy that closes the strategy above a size, as YAML."""
    return POLICY.format(name=f"of-{strategy}", strategy=strategy, trigger=trigger, fraction=fraction)


def policies(*documents: str) -> PolicySet:
    return written("".join(documents or (policy(),)) + STRATEGIES)


def buy(id_: str, amount: str, client: str, **more: Any) -> Fill:
    return fill(id_, after(minutes=1), "BTC_USDT", "buy", amount, "100", client_order_id=client, **more)


def sell(id_: str, amount: str, client: str) -> Fill:
    return fill(id_, after(minutes=1), "BTC_USDT", "sell", amount, "100", client_order_id=client)


def net(contracts: str, symbol: str = "BTC_USDT") -> list[Position]:
    """The account's one position at 100 a contract; none at 0."""
    size = Decimal(contracts)
    notional = str(abs(size) * 100)
    side = "long" if size > 0 else "short"
    held = position(symbol, side, contracts=str(abs(size)), notional=notional, mark_price="100", entry_price="100")
    return [held] if size else []


def book(minute: int, held: Sequence[Position], *fills: Fill, orders: Sequence[Order] = ()) -> Snapshot:
    found = account(
        "10000", held, fills=fills, orders=orders, position_mode="one_way", free="5000",
        instruments=[rules("BTC_USDT"), rules("ETH_USDT")] if minute == 0 else (),
    )  # fmt: skip
    return snapshot(after(minutes=minute), found)


def decisions(policy_set: PolicySet, *snapshots: Snapshot) -> list[Decision]:
    interpreter = Interpreter(policy_set)
    return [each for one in snapshots for each in interpreter.tick(one).decisions]


def orders_of(decision: Decision) -> list[tuple[str, str, str, str]]:
    """(symbol, side, contracts, what is left at the venue)."""
    return [
        (it.symbol, it.side, f"{it.contracts.normalize():f}", f"{it.target.normalize():f}") for it in decision.intents
    ]


def test_only_the_own_part_of_a_shared_position_is_closed() -> None:
    """Of a net position of 10, of which 4 are the strategy's, 4 are closed and 6 are left."""
    (made,) = decisions(policies(), book(0, []), book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1")))
    assert made.scope == "strategy/grid"
    assert orders_of(made) == [("BTC_USDT", "sell", "4", "6")]
    assert [(part.strategy, part.contracts) for part in made.intents[0].parts] == [("grid", 4)]
    assert made.intents[0].reduce_only


def test_a_fraction_is_of_the_own_part() -> None:
    """Half of an own part of 4 in a net position of 10 is 2."""
    (made,) = decisions(
        policies(policy(fraction="50%")),
        book(0, []),
        book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1")),
    )
    assert orders_of(made) == [("BTC_USDT", "sell", "2", "8")]


def test_d9_a_shared_account_does_not_fire_the_other_bots_switch() -> None:
    """The size of another strategy, or of what a person trades, is not that of this one."""
    found = decisions(
        policies(), book(0, []), book(1, net("20"), buy("1", "3", "grid-1"), buy("2", "17", "trend-1")),
        book(2, net("30"), buy("3", "10", "web-1")),
    )  # fmt: skip
    assert found == []


def test_d9_a_switch_does_not_fire_with_no_trades_at_all() -> None:
    """A strategy that has traded nothing is never closed, and fires once and not again and again."""
    busy = book(1, net("20"), buy("1", "20", "grid-1"))
    found = decisions(policies(policy("trend"), policy()), book(0, []), busy, book(2, net("20")), book(3, net("20")))
    assert [each.scope for each in found] == ["strategy/grid"]


def test_a_close_does_not_go_through_zero() -> None:
    """An own 7 against another's −3 is a net of 4: 4 are closed, and the rest is reported as not closable."""
    (made,) = decisions(policies(), book(0, []), book(1, net("4"), buy("1", "7", "grid-1"), sell("2", "3", "trend-1")))
    assert orders_of(made) == [("BTC_USDT", "sell", "4", "0")]
    assert made.reason is not None
    assert "3 of BTC_USDT long in main is not closable: owned by others, or held against them" in made.reason


def test_a_part_against_the_position_is_reported_and_not_closed() -> None:
    """The short part of a net long position cannot be bought back without enlarging the others'."""
    one = policies(policy("trend", "signal: exposure.gross, above: 250 USDT"))
    interpreter = Interpreter(one)
    interpreter.tick(book(0, []))
    outcome = interpreter.tick(book(1, net("4"), buy("1", "7", "grid-1"), sell("2", "3", "trend-1")))
    assert not [each for each in outcome.decisions if each.intents]
    (alert,) = outcome.alerts.found
    assert "3 of BTC_USDT short in main is not closable" in alert.text
    assert alert.severity == "page"


def test_orders_of_others_are_not_cancelled() -> None:
    """Of three resting orders only the strategy's own one is cancelled, also with `kind: all`."""
    resting = [
        Order(id=name, symbol="BTC_USDT", side="buy", amount=Decimal(1), price=Decimal(90), client_order_id=client)
        for name, client in (("a", "grid-9"), ("b", "trend-9"), ("c", None))
    ]
    (made,) = decisions(policies(), book(0, []), book(1, net("4"), buy("1", "4", "grid-1"), orders=resting))
    assert [each.order for each in made.cancels] == ["a"]


def test_the_closes_of_two_strategies_add_up() -> None:
    """Both fire at the same tick: the one that is planned last closes both parts, and leaves nothing of 10."""
    both = policies(policy("grid"), policy("trend"))
    found = decisions(both, book(0, []), book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1")))
    assert [orders_of(each) for each in found if each.intents] == [[("BTC_USDT", "sell", "10", "0")]]
    (acting,) = [each for each in found if each.intents]
    assert {(part.strategy, part.contracts) for part in acting.intents[0].parts} == {("grid", 4), ("trend", 6)}


def test_a_position_of_unknown_owners_is_not_closed() -> None:
    """What was held before the first snapshot may be anybody's: the trigger is unknown, and says why."""
    interpreter = Interpreter(policies())
    outcomes = [interpreter.tick(book(minute, net("10"))) for minute in range(3)]
    assert not [each for outcome in outcomes for each in outcome.decisions]
    (alert,) = outcomes[-1].alerts.found
    assert "held at the first snapshot" in alert.text


def test_a_strategy_that_owns_the_account_has_its_equity() -> None:
    """With `whole: true` the fall of the account's equity is the strategy's, and everything is closed."""
    documents = policy(trigger="signal: equity.drawdown, window: 15m, at_least: 5%") + (
        "apiVersion: killswitch.dev/v1\nkind: Strategy\nmetadata: {name: grid}\nspec: {match: {}, whole: true}\n"
    )
    fallen = account(
        "9000", [position("BTC_USDT", "long", "-1000", contracts="10", notional="1000", mark_price="100")],
        position_mode="one_way",
    )  # fmt: skip
    held = position("BTC_USDT", "long", "0", contracts="10", notional="2000", mark_price="200")
    before = account("10000", [held], position_mode="one_way", instruments=[rules("BTC_USDT")])
    found = decisions(written(documents), snapshot(after(minutes=0), before), snapshot(after(minutes=1), fallen))
    assert [orders_of(each) for each in found] == [[("BTC_USDT", "sell", "10", "0")]]
    assert found[0].intents[0].parts == ()


@pytest.mark.parametrize("symbol", ["BTC_USDT", "ETH_USDT"])
def test_a_scope_of_a_symbol_sees_and_closes_that_symbol_alone(symbol: str) -> None:
    """Two symbols are two scopes: the one above its size is closed, the other is left."""
    one = written(policy().replace("each: strategy, strategy: grid,", "each: symbol,").removesuffix("---\n"))
    other = "ETH_USDT" if symbol == "BTC_USDT" else "BTC_USDT"
    found = decisions(one, book(0, []), book(1, [*net("5", symbol), *net("1", other)]))
    assert [(each.scope, orders_of(each)) for each in found] == [(f"symbol/{symbol}", [(symbol, "sell", "5", "0")])]


def test_a_restart_keeps_what_each_strategy_owns() -> None:
    """The own quantities are stored; without them the position would be of unknown owners after a restart."""
    first = Interpreter(policies())
    first.tick(book(0, []))
    first.tick(book(1, net("9"), buy("1", "3", "grid-1"), buy("2", "6", "trend-1")))
    second = Interpreter(policies())
    second.restore((), lambda *_: (), live=first.live().get)
    found = second.tick(book(2, net("10"), buy("3", "1", "grid-2"))).decisions
    assert [orders_of(each) for each in found] == [[("BTC_USDT", "sell", "4", "6")]]


def reports_of(outcome: Outcome) -> list[str]:
    return [each.text for each in outcome.notices if "has ended, and" in each.text]


def test_a_restart_keeps_what_closes_in_progress_are_to_be_judged_on() -> None:
    """The close ends between the last tick of a run and its kill: the next run reports what it left of the part."""
    graphs = policies(policy())
    first = Interpreter(graphs)
    first.tick(book(0, []))
    (made,) = first.tick(book(1, net("9"), buy("1", "4", "grid-1"), buy("2", "5", "trend-1"))).decisions
    first.tick(replace(book(2, net("9")), closings=(Closing(made.id, "closing"),)))
    second = Interpreter(graphs)
    second.restore(first.states(), lambda *_: (), (), [made], live=first.live().get)
    (report,) = reports_of(second.tick(book(3, net("9"))))
    assert f"the close {made.id} has ended, and grid still own 4 of BTC_USDT long" in report
    assert reports_of(second.tick(book(4, net("9")))) == []


SYMBOLS = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: each-symbol}
spec:
  mode: enforce
  scope: {each: symbol, match: {currency: USDT}}
  max_gap: 10m
  triggers: {size: {signal: exposure.gross, above: 350 USDT, on_unknown: hold, grace: 1s}}
  stages:
    - name: lock
      level: 1
      any: [size]
      cooldown: 1m
      reset: {auto: {when: 'exposure.gross < 100.0', for: 5m}}
      actions: [lock_trading: {mode: reduce_only}]
"""


def made_by(interpreter: Interpreter, minutes: Iterable[int], size: str = "0") -> list[tuple[int, str | None]]:
    """The minute and the kind of each decision while so much is held."""
    found = []
    for minute in minutes:
        found += [(minute, each.kind) for each in interpreter.tick(book(minute, net(size))).decisions]
    return found


def test_a_symbol_that_is_flat_at_a_restart_stays_a_scope() -> None:
    """Its stage is latched, and its automatic reset comes as without the restart; before, it was of no policy."""
    first, second = Interpreter(written(SYMBOLS)), Interpreter(written(SYMBOLS))
    assert made_by(first, [0, 1], "5") == [(0, None)]
    assert made_by(first, [2, 3]) == []
    second.restore(first.states(), lambda *_: ())
    assert made_by(second, range(4, 12)) == made_by(first, range(4, 12)) == [(7, "reset")]
    assert second.orphans() == ()


@pytest.mark.parametrize("latched", [False, True])
def test_a_symbol_that_nobody_trades_for_a_week_is_watched_no_longer(latched: bool) -> None:
    """Options of thousands of names expire. One that is latched stays; traded again, a symbol is a scope again."""
    text = SYMBOLS.replace("exposure.gross < 100.0", "exposure.gross < 0.0") if latched else SYMBOLS
    interpreter, week = Interpreter(written(text)), 7 * 24 * 60
    made_by(interpreter, [0], "5" if latched else "1")
    made_by(interpreter, range(1, week, 60))
    assert len(interpreter.status()) == 1
    made_by(interpreter, [week + 61])
    assert len(interpreter.status()) == latched
    assert made_by(interpreter, [week + 62], "5") == [(week + 62, None)]


def test_a_label_draws_a_scope_for_each_of_its_values() -> None:
    """Two accounts of one desk are one scope with the sum of their equity; a third desk is another."""
    accounts = "".join(
        f"---\napiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}, labels: {{desk: {desk}}}}}\n"
        "spec: {adapter: paper, market: swap, currency: USDT, execution: observe}\n"
        for name, desk in (("a", "alpha"), ("b", "alpha"), ("c", "beta"))
    )
    text = policy(trigger="signal: equity.value, below: 15000 USDT").removesuffix("---\n")
    one = written(text.replace("each: strategy, strategy: grid,", "each: label, label: desk,") + accounts)
    both = [account("10000", net("1"), name=name, position_mode="one_way") for name in ("a", "b", "c")]
    found = decisions(one, snapshot(after(minutes=0), *both))
    assert [each.scope for each in found] == ["label/desk=beta"]
    assert {intent.account for intent in found[0].intents} == {"c"}


def test_a_close_that_is_planned_while_another_is_in_progress_continues_below_it() -> None:
    """Of 10, 4 are being closed for one strategy, of which 1 is done: the other's 6 come to the 3 that are left."""
    both = policies(policy("grid"), policy("trend", "signal: exposure.gross, above: 650 USDT"))
    interpreter = Interpreter(both)
    interpreter.tick(book(0, []))
    (first,) = interpreter.tick(book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))).decisions
    ours = f"ks{first.id}000000001"
    working = (Closing(first.id, "closing", scope=first.scope),)
    now = book(2, net("10"), sell("3", "1", ours), buy("4", "1", "trend-2"))
    (second,) = interpreter.tick(replace(now, closings=working)).decisions
    assert orders_of(second) == [("BTC_USDT", "sell", "10", "0")]
    assert {(part.strategy, part.contracts) for part in second.intents[0].parts} == {("grid", 3), ("trend", 7)}


def test_the_fills_of_our_closes_reduce_the_parts_that_they_close() -> None:
    """After 4 of the strategy's own are sold by us it has nothing, and the other has what it had."""
    interpreter = Interpreter(policies(policy("grid"), policy("trend", "signal: exposure.gross, above: 650 USDT")))
    interpreter.tick(book(0, []))
    (first,) = interpreter.tick(book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))).decisions
    interpreter.tick(book(2, net("6"), sell("3", "4", f"ks{first.id}000000001")))
    (second,) = interpreter.tick(book(3, net("7"), buy("4", "1", "trend-2"))).decisions
    assert orders_of(second) == [("BTC_USDT", "sell", "7", "0")]
    assert [(part.strategy, part.contracts) for part in second.intents[0].parts] == [("trend", 7)]


CARRY = """
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {account: [spot, perp]}, whole: true}
"""


def carry(minute: int, mark: str) -> Snapshot:
    """A bitcoin held, and a short perpetual of one, both from 100: what one gains the other loses."""
    moved = Decimal(mark) - 100
    held = position("BTC/USDT", "long", str(moved), contracts="1", entry_price="100", mark_price=mark, notional=mark)
    short = position("BTC_USDT", "short", str(-moved), contracts="1", entry_price="100", mark_price=mark, notional=mark)
    spot = account(mark, [held], name="spot", market="spot", instruments=[rules("BTC/USDT")])
    perp = account(str(100 - moved), [short], name="perp", instruments=[rules("BTC_USDT")])
    return snapshot(after(minutes=minute), spot, perp)


def test_d19_the_short_leg_of_a_cash_and_carry_is_not_stripped_from_its_spot() -> None:
    """In a rally of 20% the short leg loses a fifth of its account, and the strategy that owns both legs nothing.

    A policy for each account closes the short leg, and leaves the spot naked; one for the strategy closes nothing.
    """
    rally = [carry(minute, mark) for minute, mark in enumerate(("100", "105", "110", "120"))]
    fall = "signal: equity.drawdown, window: 15m, at_least: 10%"
    of_strategy = written(policy(trigger=fall) + CARRY)
    assert decisions(of_strategy, *rally) == []
    of_account = policy(trigger=fall).replace("each: strategy, strategy: grid,", "each: account,")
    stripped = decisions(written(of_account + CARRY), *rally)
    assert {intent.account for each in stripped for intent in each.intents} == {"perp"}


def closing(decision: Decision, snapshot_: Snapshot, status: str = "closing") -> Snapshot:
    """The snapshot while the decision is closed, or after it has ended with another status."""
    return replace(snapshot_, closings=(Closing(decision.id, status, scope=decision.scope),))  # type: ignore[arg-type] # a status


def test_a_part_that_another_strategys_exit_hid_from_the_close_is_paged() -> None:
    """The other sells its 6 itself before our order fills: the position is below the target, and the part is still
    held. The venue shows what was left to others, so that the close ends; that is not success.
    """
    interpreter = Interpreter(policies())
    interpreter.tick(book(0, []))
    (made,) = interpreter.tick(book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))).decisions
    interpreter.tick(closing(made, book(2, net("4"), sell("3", "6", "trend-2"))))
    late = interpreter.tick(closing(made, book(3, net("4")), "flat")).notices
    (page,) = [each for each in late if each.severity == "page"]
    assert (page.policy, page.scope) == ("of-grid", "strategy/grid")
    assert "grid still own 4 of BTC_USDT long in main" in page.text
    assert interpreter.tick(book(4, net("4"))).notices == ()


def test_a_close_that_closes_its_part_is_not_paged() -> None:
    """Two fills of our orders close all of it; their rows may come after the end of the close."""
    interpreter = Interpreter(policies())
    interpreter.tick(book(0, []))
    (made,) = interpreter.tick(book(1, net("10"), buy("1", "4", "grid-1"), buy("2", "6", "trend-1"))).decisions
    interpreter.tick(closing(made, book(2, net("9"), sell("3", "1", f"ks{made.id}000000001"))))
    assert interpreter.tick(closing(made, book(3, net("6")), "flat")).notices == ()
    assert interpreter.tick(book(4, net("6"), sell("4", "3", f"ks{made.id}000000002"))).notices == ()


@pytest.mark.parametrize(("no_reset", "closed"), [("", ["strategy/grid"]), ("no_reset_for: 4h", [])])
def test_a_reset_that_is_refused_accepts_no_position_of_unknown_owners(no_reset: str, closed: list[str]) -> None:
    """5 of unknown owners are flat when the account is reset, and the strategy buys 4 after that, above its size.

    A reset that is carried out says that the 5 were nobody's, so that the 4 are known and closed. One that a stage
    refuses says nothing: the owners stay unknown, and nothing is closed.
    """
    of_account = (
        policy(trigger="signal: exposure.gross, above: 450 USDT")
        .replace("name: of-grid", "name: of-account")
        .replace("each: strategy, strategy: grid,", "each: account,")
        .replace("reset: manual", f"reset: manual\n      {no_reset}")
        .replace("        - close: {side: both, fraction: 100%}\n", "")
    )
    interpreter = Interpreter(policies(of_account, policy()))
    assert [each.scope for each in interpreter.tick(book(0, net("5"))).decisions] == ["account/main"]
    interpreter.tick(book(1, []))
    command = operator_event("reset", after(minutes=2), "account/main")
    answered = interpreter.tick(replace(book(2, []), events=(command,)))
    assert bool(answered.refused) == bool(no_reset)
    found = interpreter.tick(book(3, net("4"), buy("1", "4", "grid-1"))).decisions
    assert [each.scope for each in found if each.intents] == closed


def test_a_short_part_that_another_strategys_exit_hid_from_the_close_is_paged() -> None:
    """The same of a short position of 10, of which the other buys its 6 back."""
    interpreter = Interpreter(policies())
    interpreter.tick(book(0, []))
    (made,) = interpreter.tick(book(1, net("-10"), sell("1", "4", "grid-1"), sell("2", "6", "trend-1"))).decisions
    assert orders_of(made) == [("BTC_USDT", "buy", "4", "6")]
    interpreter.tick(closing(made, book(2, net("-4"), buy("3", "6", "trend-2"))))
    late = interpreter.tick(closing(made, book(3, net("-4")), "flat")).notices
    (page,) = [each for each in late if each.severity == "page"]
    assert "grid still own 4 of BTC_USDT short in main" in page.text
