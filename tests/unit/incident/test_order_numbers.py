"""Lists of order numbers are printed briefly, and no number is lost."""

from __future__ import annotations

import pytest

from killswitch.render.formats import order_numbers


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3], "order 3"),
        ([1, 2], "orders 1 and 2"),
        ([2, 1, 3], "orders 1 to 3"),
        (list(range(1, 26)), "orders 1 to 25"),
        ([1, 4, 7, 8, 9], "orders 1, 4 and 7 to 9"),
        ([1, 2, 3, 9], "orders 1 to 3 and 9"),
        (list(range(1, 38, 2)), "orders 1, 3, 5, 7, 9, 11 and 13 more"),
        ([1, 3, 5, 7, 9, 11, 21, 22, 23], "orders 1, 3, 5, 7, 9, 11 and 3 more"),
    ],
)
def test_consecutive_numbers_are_a_range_and_many_are_counted(numbers: list[int], text: str) -> None:
    """The odd numbers from 1 to 37 are nineteen: six are named and thirteen counted."""
    assert order_numbers(numbers) == text
