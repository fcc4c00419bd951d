"""The maximum of a trailing window, compared with its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from killswitch.lab.path import even_step, highest_in

VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=120)


def by_definition(at: list[int], value: list[float], window: int) -> list[float]:
    return [max(v for t, v in zip(at, value, strict=True) if instant - window <= t <= instant) for instant in at]


@given(VALUES, st.integers(1, 7), st.integers(0, 200))
def test_over_even_instants_every_answer_is_the_maximum_of_its_window(value, step, window) -> None:
    """Both ends of the window are in it; the answer is one of the values, to the bit."""
    at = [step * place for place in range(len(value))]
    found = highest_in(np.array(at), np.array(value), window, even_step(np.array(at)))
    assert found.tolist() == by_definition(at, value, window)


@given(VALUES, st.data(), st.integers(0, 200))
def test_over_uneven_instants_every_answer_is_the_maximum_of_its_window(value, data, window) -> None:
    """Missing minutes of a venue leave fewer values in a window, not other ones."""
    gaps = data.draw(st.lists(st.integers(1, 30), min_size=len(value), max_size=len(value)))
    at = np.cumsum(gaps).tolist()
    found = highest_in(np.array(at), np.array(value), window, even_step(np.array(at)))
    assert found.tolist() == by_definition(at, value, window)
