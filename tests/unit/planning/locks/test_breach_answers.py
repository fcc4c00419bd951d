"""Answers to lock breaches: what they take back, when, and what they never touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import BreachRule, Graph, SignalRef
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, Fill, Order, Position, Snapshot, WrittenLock
from killswitch.model.store import DamagedStateError
from killswitch.planning.breach_answers import BreachAnswers
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.render.formats import money
from tests.graphs import close, graph, policy_set, stage, trigger
from tests.worlds import account, after, fill, position, rules, snapshot

LOCK = WrittenLock("d1", "desk", "account/main", after(seconds=1), ("main",), "stop")
LIMITS = BreachRule(ceiling=Decimal("0.5"), cost_per_hour=Decimal("0.01"), pause=10 * SECOND)


def desk(on_breach: Literal["page", "cancel", "close"], limits: BreachRule | None = LIMITS) -> Graph:
    """A stage whose trigger is never true here: its lock was written before."""
    acts = stage("stop", 3, 0, actions=(LockTrading("reduce_only", None), close("both", "1")))
    return graph(
        (SignalRef("exposure.leverage"),), (trigger("geared", 0, 1000.0, rearms=True),),
        (replace(acts, on_breach=on_breach, breach=limits if on_breach == "close" else None),), policy="desk",
    )  # fmt: skip


def held(contracts: str, side: str = "long") -> list[Position]:
    worth = str(100 * Decimal(contracts))
    return [position("BTC", side, "0", contracts=contracts, mark_price="100", notional=worth)]


def book(second: float, positions: Sequence[Position], *fills: Fill, **more: Any) -> AccountSnapshot:
    """An account with an equity of 10,000."""
    return account(
        "10000", positions, fills=fills, instruments=(rules("BTC"),), observed_at=after(seconds=second), **more
    )


def bought(second: float, amount: str) -> Fill:
    return fill(f"b{second}", after(seconds=second), "BTC", "buy", amount, "100")


def sold(second: float, amount: str) -> Fill:
    return fill(f"s{second}", after(seconds=second), "BTC", "sell", amount, "100")


class Fight:
    """An interpreter with a lock of the stage `stop` on disk, and an account that was flat at the first snapshot."""

    def __init__(self, policy: Graph, start: Sequence[Position] = (), lock: WrittenLock = LOCK) -> None:
        self.interpreter = Interpreter(policy_set(policy))
        self.lock = lock
        self.at(2, book(2, start))

    def at(self, second: float, polled: AccountSnapshot, closings: Sequence[Closing] = ()) -> list[Decision]:
        """The decisions of a tick."""
        taken: Snapshot = replace(snapshot(after(seconds=second), polled, closings=closings), locks=(self.lock,))
        return list(self.interpreter.tick(taken).decisions)

    def bot_buys(self, second: float, amount: str) -> list[Decision]:
        """The bot has bought this much, and the last answer has ended flat."""
        ended = [Closing(id_, "flat") for id_ in self.answered]
        made = self.at(second, book(second, held(amount), bought(second, amount)), ended)
        self.answered = [decision.id for decision in made]
        return made

    def is_flat(self, second: float, amount: str) -> None:
        """Our close has sold it."""
        assert (
            self.at(second, book(second, [], sold(second, amount)), [Closing(i, "flat") for i in self.answered]) == []
        )

    answered: Sequence[str] = ()


def traded(decisions: Sequence[Decision]) -> list[tuple[str, str, Decimal, Decimal]]:
    return [(i.symbol, i.side, i.contracts, i.target) for decision in decisions for i in decision.intents]


def test_a_fill_that_is_reported_again_after_a_restart_is_counted_once() -> None:
    """A bot bought 1, and 1 was deposited: the breach is 1, also where the first poll of the next run has the fill."""
    first, second = Fight(desk("page")), Interpreter(policy_set(desk("page")))
    bots = bought(3, "1")
    first.at(3, book(3, held("1"), bots))
    second.restore((), lambda *_: (), live=first.interpreter.live().get)
    taken = replace(snapshot(after(seconds=5), book(5, held("2"), bots)), locks=(LOCK,))
    (breach,) = [each for each in second.tick(taken).alerts.found if each.key.startswith("breach/")]
    assert "and 1 BTC long (100.00 USDT) were opened since" in breach.text


def test_close_takes_back_what_others_opened_and_nothing_that_was_held_before() -> None:
    """Ten were held, four sold, seven bought: six was the least, so that three over ten and four below it go."""
    fight = Fight(desk("close"), held("10"))
    fight.at(3, book(3, held("6"), sold(3, "4")))
    (answer,) = fight.at(4, book(4, held("13"), bought(4, "7")))
    assert traded([answer]) == [("BTC", "sell", Decimal(7), Decimal(6))]
    assert (answer.kind, answer.policy, answer.scope, answer.stage) == ("breach", "desk", "account/main", "stop")
    assert answer.reason == "lock breached: others opened 7 BTC long on main"


def test_a_position_that_was_turned_around_is_closed_to_zero_and_never_through_it() -> None:
    """Long ten, fifteen sold by the bot: buy five."""
    fight = Fight(desk("close"), held("10"))
    answer = fight.at(3, book(3, held("5", "short"), sold(3, "15")))
    assert traded(answer) == [("BTC", "buy", Decimal(5), Decimal(0))]


@pytest.mark.parametrize("on_breach", ["page", "cancel", "close"])
def test_what_happens_is_what_the_stage_declares(on_breach: Literal["page", "cancel", "close"]) -> None:
    """`page` decides nothing; `cancel` cancels the bot's next entry, and no exit; `close` closes as well."""
    orders = (
        Order("entry", "BTC", "buy", Decimal(1), price=Decimal(90), reduce_only=False),
        Order("exit", "BTC", "sell", Decimal(4), trigger_price=Decimal(80), reduce_only=True),
    )
    fight = Fight(desk(on_breach))
    answers = fight.at(3, book(3, held("4"), bought(3, "4"), orders=orders))
    cancelled = [each.order for answer in answers for each in answer.cancels]
    assert cancelled == ([] if on_breach == "page" else ["entry"])
    assert len(traded(answers)) == (on_breach == "close")


@pytest.mark.parametrize("lock", [replace(LOCK, stage=None), replace(LOCK, policy="operator", stage=None)])
def test_a_lock_on_suspicion_or_by_hand_is_only_paged(lock: WrittenLock) -> None:
    """Nothing has fired there."""
    fight = Fight(desk("close"), lock=lock)
    assert fight.at(3, book(3, held("4"), bought(3, "4"))) == []


def test_the_pauses_double_up_to_the_declared_one_and_begin_anew_after_ten_quiet_minutes() -> None:
    """A bot that is back in every second is answered at once, then after 1, 2, 4, 8, 10 and 10 s; 4% of the equity is
    below the ceiling of 50%."""
    fight = Fight(desk("close"))
    answered = []
    for second in range(3, 60):
        if fight.bot_buys(second, "4"):
            answered.append(second)
            fight.is_flat(second + 0.5, "4")
    assert [later - earlier for earlier, later in pairwise(answered)][:6] == [1, 2, 4, 8, 10, 10]
    assert fight.bot_buys(900, "4") != []
    fight.is_flat(900.5, "4")
    assert fight.bot_buys(901, "4") != []


@pytest.mark.parametrize(("amount", "price"), [("51", "100"), ("1", None)])
def test_above_the_ceiling_and_where_the_value_is_unknown_there_is_no_pause(amount: str, price: str | None) -> None:
    """5,100 of 10,000 is above half; a position without a value may be."""
    fight = Fight(desk("close"))
    worth = None if price is None else str(Decimal(amount) * 100)
    row = [position("BTC", "long", "0", contracts=amount, mark_price=price, notional=worth)]
    for second in range(3, 9):
        closed = [Closing(id_, "flat") for id_ in fight.answered]
        made = fight.at(second, book(second, row, bought(second, amount)), closed)
        assert len(made) == 1, second
        fight.answered = [made[0].id]
        fight.is_flat(second + 0.5, amount)


def test_pauses_and_costs_go_on_after_a_restart() -> None:
    """The third answer is two seconds after the second, and what the first has cost is still of this hour."""
    fight = Fight(desk("close"))
    (first,) = fight.bot_buys(3, "4")
    fight.is_flat(3.5, "4")
    (second,) = fight.bot_buys(4, "4")
    paid = [Closing(first.id, "flat", cost=Decimal(90)), Closing(second.id, "flat", cost=Decimal(20))]
    assert fight.at(4.5, book(4.5, held("4"), sold(4.2, "4"), bought(4.4, "4")), paid) == []
    stored = fight.interpreter.live()
    assert fight.interpreter.live() == {}
    fight.interpreter = Interpreter(policy_set(desk("close")))
    fight.interpreter.restore((), lambda *_: (), live=stored.get)
    assert fight.at(5, book(5, held("4"), bought(5, "4"))) == []
    taken = replace(snapshot(after(seconds=6), book(6, held("4"))), locks=(LOCK,))
    outcome = fight.interpreter.tick(taken)
    assert (
        [each.kind for each in outcome.decisions],
        "breach-cost/main" in [each.key for each in outcome.alerts.found],
    ) == (
        ["breach"],
        True,
    )


def test_damaged_answers_of_an_earlier_run_are_no_answers() -> None:
    """A start with them fails, as with every damaged state."""
    with pytest.raises(DamagedStateError, match="answers to breaches"):
        Interpreter(policy_set(desk("close"))).restore((), lambda *_: (), live={"breach_answers": b"{"}.get)


def test_above_the_ceiling_another_position_is_closed_although_an_answer_still_works() -> None:
    """The close of BTC waits for its market; ETH of 6,000 is above half of 10,000."""
    fight = Fight(desk("close"))
    (answer,) = fight.bot_buys(3, "4")
    eth = position("ETH", "long", "0", contracts="60", mark_price="100", notional="6000")
    polled = book(3.2, [*held("4"), eth], fill("e", after(seconds=3.1), "ETH", "buy", "60", "100"))
    further = fight.at(3.2, polled, [Closing(answer.id, "closing")])
    assert traded(further) == [("ETH", "sell", Decimal(60), Decimal(0))]


@pytest.mark.parametrize(
    ("bot", "taken_back"),
    [("4", []), ("10", []), ("13", [("BTC/USDT:USDT", "sell", Decimal(3), Decimal(10))])],
)
def test_what_lowers_the_net_of_a_hedge_is_paged_and_stays(bot: str, taken_back: list[Any]) -> None:
    """Short ten on one account of the scope: of thirteen bought on the other, ten offset it and three open risk."""
    both = replace(LOCK, accounts=("main", "other"))
    fight = Fight(desk("close"), lock=both)
    market = rules("BTC/USDT:USDT", contract_size="1")
    short = position("BTC/USDT:USDT", "short", "0", contracts="10", mark_price="100", notional="1000")
    other = replace(account("10000", [short], instruments=(market,)), account="other")

    def at(second: float, *rows: Position, fills: Sequence[Fill] = ()) -> Outcome:
        main = account("10000", rows, fills=fills, instruments=(market,), observed_at=after(seconds=second))
        partner = replace(other, observed_at=after(seconds=second))
        taken = snapshot(after(seconds=second), main, partner)
        return fight.interpreter.tick(replace(taken, locks=(both,)))

    at(2)
    long = position("BTC/USDT:USDT", "long", "0", contracts=bot, mark_price="100", notional=bot + "00")
    outcome = at(3, long, fills=[fill("b", after(seconds=3), "BTC/USDT:USDT", "buy", bot, "100")])
    assert traded(outcome.decisions) == taken_back
    (page,) = outcome.alerts.found
    part = f"{min(int(bot), 10)} of it lower" if taken_back else "It lowers"
    assert page.measure == (Decimal(bot),)
    assert f"{part} the net exposure in BTC and stay{'' if taken_back else 's'} open" in page.text


def test_what_lowers_a_net_that_is_not_known_is_taken_back() -> None:
    """An account of the scope cannot be read: nobody knows what is hedged."""
    both = replace(LOCK, accounts=("main", "other"))
    fight = Fight(desk("close"), lock=both)
    down = replace(account(None, None, quality="down", reason="timeout"), account="other")
    taken = [
        replace(snapshot(after(seconds=second), book(second, rows, *fills), down), locks=(both,))
        for second, rows, fills in ((2, [], []), (3, held("4"), [bought(3, "4")]))
    ]
    _, outcome = map(fight.interpreter.tick, taken)
    assert traded(outcome.decisions) == [("BTC", "sell", Decimal(4), Decimal(0))]


def test_an_answer_in_progress_is_not_repeated() -> None:
    """Its target is absolute, so that the executor closes what is added meanwhile."""
    fight = Fight(desk("close"))
    (answer,) = fight.bot_buys(3, "60")
    working = [Closing(answer.id, "closing")]
    assert fight.at(4, book(4, held("70"), bought(4, "10")), working) == []


def test_a_fight_that_costs_more_than_declared_is_paged_and_goes_on_with_the_longest_pause() -> None:
    """150 of 10,000 within an hour, with 1% declared."""
    fight = Fight(desk("close"))
    (answer,) = fight.bot_buys(3, "4")
    fight.is_flat(3.5, "4")
    paid = [Closing(answer.id, "flat", cost=Decimal(150))]
    taken = replace(snapshot(after(seconds=5), book(5, held("4"), bought(5, "4")), closings=paid), locks=(LOCK,))
    outcome = fight.interpreter.tick(taken)
    assert len(outcome.decisions) == 1
    assert [each.key for each in outcome.alerts.found] == ["breach-cost/main", "breach-fight/main"]
    ended = [Closing(outcome.decisions[0].id, "flat"), *paid]
    fight.at(5.5, book(5.5, [], sold(5.5, "4")), ended)
    assert fight.at(14, book(14, held("4"), bought(14, "4")), ended) == []
    assert len(fight.at(16, book(16, held("4")), ended)) == 1


class Noticed(Fight):
    """A fight whose alerts become notices, as in a run. Each answer costs 2."""

    def __init__(self, policy: Graph) -> None:
        self.alerts = AlertState()
        self.notices: list[tuple[float, Notice]] = []
        self.decisions: list[Decision] = []
        super().__init__(policy)

    def at(self, second: float, polled: AccountSnapshot, closings: Sequence[Closing] = ()) -> list[Decision]:
        paid = [replace(each, cost=Decimal(2)) for each in closings]
        taken: Snapshot = replace(snapshot(after(seconds=second), polled, closings=paid), locks=(self.lock,))
        outcome = self.interpreter.tick(taken)
        made, self.alerts = advance(self.alerts, outcome.alerts, to_micros(taken.as_of))
        self.notices += [(second, notice) for notice in made]
        self.decisions += outcome.decisions
        return list(outcome.decisions)

    def goes_on(self, start: int, end: int, amount: str = "4") -> None:
        """The bot buys whenever it is flat; each answer is flat half a second later."""
        is_bought = False
        for second in range(start, end):
            made = self.at(second, book(second, held(amount))) if is_bought else self.bot_buys(second, amount)
            is_bought = not made
            if made:
                self.answered = [decision.id for decision in made]
                self.is_flat(second + 0.5, amount)

    def stays_quiet(self, start: int, minutes: int) -> None:
        """Nothing is open, a tick a minute."""
        for second in range(start, start + 60 * minutes, 60):
            self.at(second, book(second, []), [Closing(each, "flat") for each in self.answered])


WIDE = replace(LIMITS, cost_per_hour=Decimal("0.5"))
"""The fights of these tests cost up to 800 an hour, less than 5,000."""


def test_a_fight_of_an_hour_makes_a_handful_of_notices_and_every_answer_is_recorded() -> None:
    """The page of the breach and its end, the fight at its second answer, after 5, 15 and 45 minutes, and its end with
    the number of answers, each of one order and a cost of 2."""
    fight = Noticed(desk("close", WIDE))
    fight.goes_on(3, 3600)
    fight.stays_quiet(3600, 15)
    count = len(fight.decisions)
    assert count > 300
    assert {each.kind for each in fight.decisions} == {"breach"}
    times = [second for second, _ in fight.notices]
    assert times[0] == 3
    assert [round(second / 60) for second in times[3:6]] == [5, 15, 45]
    assert len(times) == 7
    took = f"{count} answers with {count} closing orders, which cost {money(Decimal(2 * count), 'USDT')}"
    ended = f"the fight over the lock of main has ended: {took} as far as known, after "
    assert fight.notices[-1][1].text.startswith(ended)
    assert fight.alerts.active == ()


def test_in_a_fight_the_ceiling_and_another_position_are_paged_at_once() -> None:
    """60 contracts at 100 are more than half of 10,000: one page, however often; ether is a breach of its own."""
    fight = Noticed(desk("close", WIDE))
    fight.goes_on(3, 60)
    fight.stays_quiet(60, 1)
    before = len(fight.notices)
    fight.goes_on(61, 120, "60")
    assert [second for second, _ in fight.notices[before:]] == [61]
    assert "It was above the declared ceiling" in fight.notices[-1][1].text
    ether = position("ETH", "long", "0", contracts="3", mark_price="100", notional="300")
    trade = fill("e", after(seconds=130), "ETH", "buy", "3", "100")
    fight.at(130, book(130, [ether], trade), [Closing(each, "flat") for each in fight.answered])
    assert fight.notices[-1][0] == 130
    assert "3 ETH long" in fight.notices[-1][1].text


def test_two_breaches_that_are_far_apart_are_no_fight() -> None:
    """After ten quiet minutes it begins anew: each is paged, and nothing says that the lock is fought."""
    fight = Noticed(desk("close", WIDE))
    for start in (3, 1000):
        fight.goes_on(start, start + 1)
        fight.stays_quiet(start + 1, 12)
    texts = [notice.text for _, notice in fight.notices]
    assert not any("fought" in text for text in texts)
    assert sum(text.startswith("lock breached") for text in texts) == 2


def test_a_fight_goes_on_after_a_restart() -> None:
    """Its positions and counts are stored with the answers; those of an older version have none."""
    fight = Noticed(desk("close", WIDE))
    fight.goes_on(3, 60)
    now = to_micros(after(seconds=60))
    answers = BreachAnswers(policy_set(desk("close", WIDE)))
    answers.restore(fight.interpreter.live()["breach_answers"])
    assert answers.is_fighting(now)
    assert answers.in_fights(now) == {"breach/main/BTC/long"}
    older = BreachAnswers(policy_set(desk("close", WIDE)))
    older.restore(b'[{"decision":"d1","account":"main","seen":1,"next":1,"pause":1000000,"made":{}}]')
    assert not older.is_fighting(now)


def reloaded(fight: Fight, policy: Graph) -> None:
    """Another text of the policy is taken between two ticks."""
    interpreter = fight.interpreter
    following = replace(policy_set(policy), digest="sha256:next")
    interpreter.reload(interpreter.prepare(following, interpreter.states(), lambda *_: ()))


def restarted(fight: Fight, policy: Graph) -> None:
    """The run ends, and the next one begins with another text of the policy."""
    live = fight.interpreter.live()
    fight.interpreter = Interpreter(policy_set(policy))
    fight.interpreter.restore((), lambda *_: (), live=live.get)


@pytest.mark.parametrize("follow", [reloaded, restarted])
def test_r1_the_lock_in_force_is_answered_no_less_after_a_change(follow: Callable[[Fight, Graph], None]) -> None:
    """R1, R2: what was declared when it was written, or what is declared now, whichever is stricter."""
    fight = Fight(desk("close"))
    follow(fight, desk("page"))
    assert traded(fight.bot_buys(3, "4")) == [("BTC", "sell", Decimal(4), Decimal(0))]
    fight = Fight(desk("page"))
    follow(fight, desk("close"))
    assert traded(fight.bot_buys(3, "4")) == [("BTC", "sell", Decimal(4), Decimal(0))]


@pytest.mark.parametrize("follow", [reloaded, restarted])
def test_r6_the_lock_of_a_renamed_stage_is_answered_under_its_new_name(follow: Callable[[Fight, Graph], None]) -> None:
    """R6: the lock file still has the name that the stage had when it fired."""
    fight = Fight(desk("close"))
    before = desk("close")
    renamed = replace(before, stages=(replace(before.stages[0], name="everything", formerly="stop"),))
    follow(fight, renamed)
    (answer,) = fight.bot_buys(3, "4")
    assert traded([answer]) == [("BTC", "sell", Decimal(4), Decimal(0))]


def test_r2_the_stricter_limits_of_both_texts_hold_for_a_lock_in_force() -> None:
    """R2: a ceiling of 1% of 10,000 is exceeded by 200, so that a pause of the first answer delays no second one."""
    fight = Fight(desk("close", replace(LIMITS, ceiling=Decimal("0.01"))))
    reloaded(fight, desk("close", replace(LIMITS, ceiling=Decimal("0.9"))))
    assert len(fight.bot_buys(3, "2")) == 1
    fight.is_flat(3.2, "2")
    assert len(fight.bot_buys(3.4, "2")) == 1
