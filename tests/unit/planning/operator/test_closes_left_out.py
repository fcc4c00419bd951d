"""A close by hand, and a stage, on an answer that leaves positions out: nothing of it stays open for that."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import AccountSnapshot, Closing, Event, Residual
from killswitch.planning.interpreter import Interpreter
from tests import graphs
from tests.worlds import account, after, fill, operator_event, position, rules, snapshot

CALM = graphs.policy_set(graphs.graph([], [], [], policy="calm"))
CLOSE = operator_event("close", after(), None, "hand-1")


def book(second: float, held: dict[str, str], **more: Any) -> AccountSnapshot:
    """Longs of so many contracts at a mark of 10, in an answer of that second."""
    found = [position(symbol, "long", "0", contracts=contracts, mark_price="10") for symbol, contracts in held.items()]
    fields = {"margin_used": "5" if held else "0", "observed_at": after(seconds=second), **more}
    return account("1000", found, instruments=tuple(rules(each) for each in ("A", "B", "C")), **fields)


class Desk:
    """Processes one after the other; a close is worked on until the test ends it."""

    def __init__(self) -> None:
        self.interpreter = Interpreter(CALM)
        self.decisions: list[Decision] = []
        self.pending: list[Event] = []
        self.ended: dict[str, Closing] = {}

    def tick(self, second: float, *accounts: AccountSnapshot, events: tuple[Event, ...] = ()) -> dict[str, Decimal]:
        """Symbol → contracts that the tick decides to close."""
        self.pending += events
        closings = [self.ended.get(each.id, Closing(each.id, "closing")) for each in self.decisions]
        shown = snapshot(after(seconds=second), *accounts, events=self.pending, closings=closings)
        outcome = self.interpreter.tick(shown)
        self.pending = [each for each in self.pending if each.id in self.interpreter.unfinished_closes()]
        self.decisions += outcome.decisions
        self.notices: tuple[Notice, ...] = outcome.notices
        return {intent.symbol: intent.contracts for each in outcome.decisions for intent in each.intents}

    def end(self, *left: Residual, number: int = -1) -> None:
        """End a close, the newest unless `number` says which."""
        status: Any = "blocked" if left else "flat"
        self.ended[self.decisions[number].id] = Closing(self.decisions[number].id, status, left)


@pytest.fixture
def desk() -> Desk:
    return Desk()


ONE, TWO = Decimal(1), Decimal(2)


def test_c1_a_position_that_the_answer_leaves_out_is_closed_with_the_others(desk: Desk) -> None:
    """It was there a second ago, and no fill has closed it: the executor closes it as soon as it is shown."""
    desk.tick(0, book(0, {"A": "1", "B": "2"}))
    assert desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,)) == {"A": ONE, "B": TWO}
    assert "main leaves out long B without a fill" in (desk.decisions[0].reason or "")


def test_c1_an_empty_answer_is_not_flat_for_a_close(desk: Desk) -> None:
    """With the margin at zero: all of the answer may be one of another moment."""
    desk.tick(0, book(0, {"A": "1"}))
    assert desk.tick(1, book(1, {}), events=(CLOSE,)) == {"A": ONE}


def test_a_position_that_fills_have_closed_is_gone(desk: Desk) -> None:
    """No order is planned for what somebody has sold."""
    desk.tick(0, book(0, {"A": "1", "B": "2"}))
    sold = (fill("f", after(seconds=1), "B", "sell", "2", "10"),)
    assert desk.tick(1, book(1, {"A": "1"}, fills=sold), events=(CLOSE,)) == {"A": ONE}


def test_a_close_of_a_part_does_not_explain_that_a_position_is_gone(desk: Desk) -> None:
    """A third of it is being sold when an answer lacks it: two thirds are still to be closed."""
    desk.tick(0, book(0, {"A": "300"}))
    to_two = replace(CLOSE, id="lever", leverage=Decimal(2))
    assert desk.tick(1, book(1, {"A": "300"}), events=(to_two,)) == {"A": Decimal(100)}
    assert desk.tick(2, book(2, {}), events=(CLOSE,)) == {"A": Decimal(300)}


@pytest.mark.parametrize(("answers", "expected"), [((1, 2), {"A": ONE}), ((1, 2, 3), {"A": ONE}), ((1, 3, 6), {})])
def test_a_position_counts_as_gone_after_three_answers_and_five_seconds(
    desk: Desk, answers: tuple[int, ...], expected: object
) -> None:
    """The rule by which the executor accepts it, too."""
    desk.tick(0, book(0, {"A": "1"}))
    for second in answers:
        desk.tick(second, book(second, {}))
    assert desk.tick(answers[-1] + 0.5, book(answers[-1], {}), events=(CLOSE,)) == expected


def test_a_position_that_only_a_later_answer_shows_is_closed_too(desk: Desk) -> None:
    """The first answer that the process reads is the short one: nothing was known before."""
    assert desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,)) == {"A": ONE}
    assert desk.tick(2, book(2, {"A": "1", "B": "2"})) == {"B": TWO}
    assert desk.tick(3, book(3, {"A": "1", "B": "2"})) == {}
    desk.end(number=0)
    desk.end(number=1)
    assert [desk.tick(second, book(second, {})) for second in (4, 5)] == [{}, {}]
    assert desk.pending == []
    (notice,) = desk.notices
    assert (notice.severity, notice.subject) == ("info", "hand-1")
    assert notice.text.startswith("the close by hand is complete: 1 further close closed what appeared after the first")


def test_a_close_ends_after_two_answers_without_a_position(desk: Desk) -> None:
    """Not with the first, and not while its orders are at work."""
    desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,))
    assert desk.tick(2, book(2, {})) == {}
    desk.end()
    assert desk.tick(3, book(3, {})) == {}
    assert desk.tick(3.5, book(3, {})) == {}, "the same answer does not count twice"
    assert [each.id for each in desk.pending] == ["hand-1"]
    assert desk.tick(4, book(4, {})) == {}
    assert desk.pending == []


def test_a_venue_that_sets_its_clock_back_keeps_no_close_active(desk: Desk) -> None:
    """Its answers are dated an hour earlier from then on: each is another answer all the same."""
    desk.tick(1, book(3600, {"A": "1"}), events=(CLOSE,))
    desk.end()
    desk.tick(2, book(3601, {}))
    desk.tick(3, book(3, {}))
    assert desk.pending == []


def test_a_row_of_nothing_is_no_position(desk: Desk) -> None:
    """Some venues list what was closed with a size of zero: the command ends as if the row were not there."""
    desk.tick(1, book(1, {"A": "1", "B": "0"}), events=(CLOSE,))
    desk.end()
    assert [desk.tick(second, book(second, {"A": "0", "B": "0"}, margin_used="0")) for second in (2, 3)] == [{}, {}]
    assert desk.pending == []
    assert (len(desk.decisions), desk.notices) == (1, ())


def test_an_empty_answer_without_a_figure_for_the_margin_needs_three(desk: Desk) -> None:
    """It may be an incomplete one, as for the executor."""
    desk.tick(1, book(1, {}, margin_used=None), events=(CLOSE,))
    desk.tick(2, book(2, {}, margin_used=None))
    assert [each.id for each in desk.pending] == ["hand-1"]
    desk.tick(3, book(3, {}, margin_used=None))
    assert desk.pending == []


def test_what_was_closed_is_closed_again_only_on_an_answer_after_its_end(desk: Desk) -> None:
    """An answer from before the end of the close still shows what has been sold."""
    desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,))
    desk.end()
    assert desk.tick(2, book(1.5, {"A": "1"})) == {}
    assert desk.tick(2.5, book(1.5, {"A": "1"})) == {}
    assert desk.tick(3, book(3, {"A": "1"})) == {"A": ONE}, "somebody has opened it again"


def test_what_is_opened_again_and_again_is_closed_with_growing_pauses(desk: Desk) -> None:
    """One second after the first further close, two after the second, four after the third."""
    desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,))
    closed_at = []
    for step in range(2, 40):
        second = step / 2
        if second > 1 and desk.tick(second, book(second, {"A": "1"})):
            closed_at.append(second)
        desk.end()
    gaps = [after - before for before, after in pairwise(closed_at)]
    assert gaps[:3] == [1.0, 2.0, 4.0]


def test_what_the_venue_takes_no_order_for_is_not_tried_again(desk: Desk) -> None:
    """The close of B ended blocked, which pages; the command ends with it."""
    desk.tick(1, book(1, {"A": "1", "B": "2"}), events=(CLOSE,))
    desk.end(Residual("main", "B", "long", TWO))
    assert [desk.tick(second, book(second, {"B": "2"})) for second in (2, 3, 4)] == [{}, {}, {}]
    assert desk.pending == []


def test_after_ten_minutes_nothing_is_ordered_and_what_is_open_is_a_page(desk: Desk) -> None:
    """A position that appears then is of another time than the command."""
    desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,))
    desk.end()
    desk.tick(2, book(2, {}))
    assert desk.tick(602, book(602, {"C": "3"})) == {}
    assert desk.pending == []
    (notice,) = desk.notices
    assert notice.severity == "page"
    assert "has ended, and not everything is seen closed: long C in main is open" in notice.text


def test_an_account_that_cannot_be_read_again_is_named_at_the_end(desk: Desk) -> None:
    """Nobody has seen that it is flat."""
    desk.tick(1, book(1, {"A": "1"}), events=(CLOSE,))
    desk.end()
    down = account(None, None, quality="down", reason="timeout")
    assert desk.tick(300, down) == {}
    desk.tick(602, down)
    assert [each.severity for each in desk.notices] == ["page"]
    assert "main is down: timeout" in desk.notices[0].text


@pytest.mark.parametrize("named", [{"symbols": ("A",)}, {"side": "long", "symbols": ("A",)}])
def test_a_close_of_a_symbol_leaves_what_appears_elsewhere(desk: Desk, named: dict[str, Any]) -> None:
    """B is not named; A is closed again, and the command ends without A."""
    desk.tick(1, book(1, {}), events=(replace(CLOSE, **named),))
    assert desk.tick(2, book(2, {"A": "1", "B": "2"})) == {"A": ONE}
    desk.end()
    for second in (3, 4):
        assert desk.tick(second, book(second, {"B": "2"})) == {}
    assert desk.pending == []


def test_a_close_to_a_leverage_looks_again_where_a_position_was_left_out(desk: Desk) -> None:
    """Equity 1,000: 300 of A at 10 is three times it, and 200 of B makes it five: then three of five are sold.

    The price of what was shown is no reason to sell a second time.
    """
    to_two = replace(CLOSE, leverage=Decimal(2))
    assert desk.tick(1, book(1, {"A": "300"}), events=(to_two,)) == {"A": Decimal(100)}
    assert desk.tick(2, book(2, {"A": "250", "B": "200"})) == {}, "its orders are at work"
    desk.end()
    sold = desk.tick(3, book(3, {"A": "200", "B": "200"}))
    assert sum(sold.values()) == Decimal(200)
    desk.end()
    for second in (4, 5):
        assert desk.tick(second, book(second, {"A": "200", "B": "10"})) == {}
    assert desk.pending == []


def test_an_unarmed_account_is_not_followed() -> None:
    """No order is sent there, so that it would never be seen flat."""
    interpreter = Interpreter(CALM, armed=())
    interpreter.tick(snapshot(after(seconds=1), book(1, {"A": "1"}), events=(CLOSE,)))
    assert interpreter.unfinished_closes() == {}
