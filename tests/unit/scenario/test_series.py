"""The notation of series: every item, its value at each step, and every mistake at its place."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.scenario.series import MOST_STEPS, Value, parse_series, values

NUMBERS = st.decimals(min_value=0, max_value=10**9, places=4, allow_nan=False, allow_infinity=False)


def read(text: str, steps: int | None = None) -> list[Value]:
    """The values of a series of an account's equity without a problem."""
    parsed = parse_series(text, unread=True)
    assert parsed.problems == ()
    return values(parsed, parsed.least if steps is None else steps)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("100 =x2", ["100", "100", "100"]),
        ("100 -1%x2", ["100", "99", "98.01"]),
        ("100 +50% -50%", ["100", "150", "75"]),
        ("100 -20 +5.5", ["100", "80", "85.5"]),
        ("5 =-20 +30", ["5", "-20", "10"]),
        ("100 _x2 -10", ["100", None, None, "90"]),
        ("100 stale down malformed =", ["100", "stale", "down", "malformed", "100"]),
        ("100x2 7", ["100", "100", "7"]),
    ],
)
def test_each_item_is_one_value_for_each_repetition(text: str, wanted: list[str | None]) -> None:
    """A change is of the last number, whatever could not be read since."""
    words = ("stale", "down", "malformed", None)
    assert read(text) == [each if each in words else Decimal(str(each)) for each in wanted]


def test_a_single_number_never_changes_and_a_last_item_is_repeated_until_the_end() -> None:
    """Both fit into a scenario of any length."""
    assert read("3", 4) == [Decimal(3)] * 4
    assert read("3 -1 =x*", 5) == [Decimal(3), *[Decimal(2)] * 4]
    assert parse_series("3").steps is parse_series("3 -1 =x*").steps is None
    assert parse_series("3 -1 =x2").steps == 4


@given(NUMBERS, st.lists(st.tuples(st.decimals(min_value=-9, max_value=9, places=2), st.integers(1, 5)), max_size=6))
def test_changes_add_up(first: Decimal, changes: list[tuple[Decimal, int]]) -> None:
    """The last value is the first one and the sum of all changes with their repetitions."""
    items = " ".join(f"{'+' if change >= 0 else '-'}{abs(change):f}x{count}" for change, count in changes)
    found = read(f"={first:f} {items}")
    assert len(found) == 1 + sum(count for _, count in changes)
    assert found[-1] == first + sum((change * count for change, count in changes), Decimal(0))


@given(NUMBERS, st.integers(1, 99), st.integers(1, 20))
def test_shares_multiply(first: Decimal, percent: int, count: int) -> None:
    """N falls of p% leave (1 − p/100)^N of the first value, up to the rounding of 28 digits."""
    found = read(f"{first:f} -{percent}%x{count}")[-1]
    assert isinstance(found, Decimal)
    assert float(found) == pytest.approx(float(first) * (1 - percent / 100) ** count, rel=1e-12, abs=1e-12)


@given(st.text(alphabet="0123456789.+-=%x_*anstledowifNI ()", max_size=30))
def test_no_text_is_anything_else_than_a_series_or_problems_in_it(text: str) -> None:
    """A problem underlines characters of the text; a series without problems has as many values as steps."""
    parsed = parse_series(text, unread=True)
    for problem in parsed.problems:
        assert problem.fix
        assert 0 <= problem.start <= problem.start + problem.length - 1 <= max(len(text) - 1, 0)
    if not parsed.problems and parsed.least <= 1000:
        assert len(values(parsed, parsed.least)) == parsed.least


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("100 NaN", 4, "`NaN` is not a number that an account can have"),
        ("100 -inf", 4, "`-inf` is not a number"),
        ("100 5%", 4, "`5%` is a share of nothing"),
        ("100 =x0", 4, "repeated 0 times"),
        ("100 =x*  90", 9, "nothing follows an item that is repeated until the end"),
        ("-1% 100", 0, "no number comes before it"),
        ("_ = 100", 2, "no number comes before it"),
        ("100 1e3", 4, "`1e3` is not an item of a series"),
        ("100 stael", 4, "`stael` is not an item of a series"),
        ("   ", 0, "the series is empty"),
    ],
)
def test_a_mistake_has_its_place_in_the_text(text: str, start: int, message: str) -> None:
    """The first problem is at the item that is wrong."""
    problem = parse_series(text, unread=True).problems[0]
    assert (problem.code, problem.start) == ("KS7010", start)
    assert message in problem.message


def test_only_equity_has_steps_at_which_the_account_could_not_be_read() -> None:
    """`stale` in a price is a mistake, whose fix says where it belongs."""
    (problem,) = parse_series("100 stale").problems
    assert "write `stale` in its `equity`" in problem.fix


def test_a_series_is_bounded() -> None:
    """A slip of a digit does not fill the memory."""
    assert parse_series(f"1 =x{MOST_STEPS}").problems[0].message == f"the series has more than {MOST_STEPS} steps"
    assert parse_series("1 =x99999999999999999999").problems != ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(1 0)x3", ["1", "0", "1", "0", "1", "0"]),
        ("10 (+1 -2)x2 =", ["10", "11", "9", "10", "8", "8"]),
        ("5 ( 6 )x2 7x2 (= _)x1", ["5", "6", "6", "7", "7", "7", None]),
    ],
)
def test_a_group_repeats_its_items_in_their_order(text: str, wanted: list[str | None]) -> None:
    """Relative items continue from the last number, also from one round to the next."""
    assert read(text) == [None if each is None else Decimal(each) for each in wanted]


@given(st.integers(1, 40), st.integers(1, 9))
def test_a_group_is_its_items_written_again(times: int, count: int) -> None:
    """`(A B)xN` is A B, N times."""
    assert parse_series(f"100 (+1%x{count} -2)x{times}").problems == ()
    assert read(f"100 (+1%x{count} -2)x{times}") == read("100" + f" +1%x{count} -2" * times)


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("1 (2 3", 2, "the group does not end"),
        ("1 2)x3", 3, "no group begins before it"),
        ("1 (2 (3)x2)x2", 5, "a group is inside of another"),
        ("1 (2 3)", 6, "it does not say how often"),
        ("1 (2 3)x0", 6, "it does not say how often"),
        ("1 (2 3)x*", 6, "it does not say how often"),
        ("1 ()x2", 3, "the group is empty"),
        ("1 (2x* )x2", 7, "an item of the group is repeated until the end"),
        ("1 (2 3)x99999", 6, "has more than 100000 steps"),
        ("(+1 2)x2", 1, "no number comes before it"),
    ],
)
def test_a_mistake_in_a_group_has_its_place(text: str, start: int, message: str) -> None:
    """At the parenthesis, or at the item."""
    problem = parse_series(text).problems[0]
    assert (problem.code, problem.start) == ("KS7010", start)
    assert message in problem.message
    assert problem.fix


@pytest.mark.parametrize("text", ["nope -1%x3", "nope = +5", "(nope)x3 10", "100x* nope 5", "5% -1% 100"])
def test_one_wrong_item_is_one_problem(text: str) -> None:
    """What follows is of a number that was meant and cannot be read; it is no second mistake."""
    (problem,) = parse_series(text, unread=True).problems
    assert problem.code == "KS7010"


def test_a_mistake_before_a_wrong_item_is_still_a_problem() -> None:
    """Only what follows a wrong item is left out."""
    assert len(parse_series("-1% nope", unread=True).problems) == 2
