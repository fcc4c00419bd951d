"""What a proof may assume of a signal holds for every book, history and argument."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from math import isinf

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from killswitch.graph.nodes import SignalRef
from killswitch.model.snapshot import Snapshot
from killswitch.proof.axioms import related
from killswitch.signals.arguments import Argument, Value
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.declaration import Axioms, ScopeSignal, SignalSpec
from killswitch.signals.signal_values import ColumnReader, SignalColumns
from tests.property.test_signal_ranges import ticks
from tests.worlds.signals import WINDOW, arguments_of, history_of, some_value, view_of

ASSUMING = [
    spec for spec in CATALOGUE if isinstance(spec, ScopeSignal) and spec.axioms != Axioms(is_kept=spec.axioms.is_kept)
]


def larger(argument: Argument) -> Value:
    """A larger value of the argument than `some_value`."""
    small = some_value(argument)
    if argument.kind == "duration":
        return WINDOW + WINDOW // 2
    if isinstance(small, str):
        raise TypeError(f"{argument.key} is a {argument.kind}, which has no order")
    if argument.kind == "money":
        return small * 2
    most = argument.range[1] if argument.range is not None else math.inf
    return small * 2 if small * 2 <= most else small + (type(small)(most) - small) / 2


def claims(spec: SignalSpec) -> Iterator[tuple[SignalRef, SignalRef]]:
    """Pairs of which the first is never greater than the second, at either end."""
    small = arguments_of(spec)
    keys = [each.key for each in spec.arguments]
    for key in (*spec.axioms.grows_with, *spec.axioms.falls_with):
        place = keys.index(key)
        moved = (*small[:place], larger(spec.arguments[place]), *small[place + 1 :])
        pair = SignalRef(spec.name, small), SignalRef(spec.name, moved)
        yield pair if key in spec.axioms.grows_with else (pair[1], pair[0])
    for key, narrow, wide in spec.axioms.within:
        place = keys.index(key)
        one, other = ((*small[:place], word, *small[place + 1 :]) for word in (narrow, wide))
        yield SignalRef(spec.name, one), SignalRef(spec.name, other)
    given_by = dict(zip(keys, small, strict=True))
    for name in spec.axioms.at_most:
        greater = BY_NAME[name]
        yield (
            SignalRef(spec.name, small),
            SignalRef(name, tuple(given_by.get(each.key, some_value(each)) for each in greater.arguments)),
        )


def broken(pairs: Sequence[tuple[SignalRef, SignalRef]], columns: SignalColumns) -> list[str]:
    """The pairs of which an end of the first is greater; values differ by rounding of floats at most."""
    found = []
    for place, (lesser, greater) in enumerate(pairs):
        for ends in (columns.lo, columns.hi):
            one, other = ends[2 * place], ends[2 * place + 1]
            if one > other and (isinf(other) or one - other > 1e-9 * max(1.0, abs(other))):
                found.append(f"{lesser} is {one}, and {greater} is {other}")
    return found


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in ASSUMING])
@settings(max_examples=60)
@given(recording=st.tuples(*(ticks(minute) for minute in range(5))))
def test_what_a_proof_may_assume_of_a_signal_holds(spec: SignalSpec, recording: tuple[Snapshot, ...]) -> None:
    """A wrong axiom would prove a policy that is wrong: each is compared with the reader at every snapshot."""
    pairs = list(claims(spec))
    references = [each for pair in pairs for each in pair]
    history, reader = history_of(references), ColumnReader(references)
    for seen in recording:
        view = view_of(seen)
        history.observe(view)
        assert broken(pairs, reader.read(history, view)) == []


CLAIMS = [(f"{lesser.name}-{number}", lesser, greater) for spec in ASSUMING
          for number, (lesser, greater) in enumerate(claims(spec))]  # fmt: skip


TOLD_BY_HAND = {"equity.expected_move-0", "trades.count-1", "trades.count-4"}
"""Claims of which random recordings rarely tell both sides apart: the horizon of an expected move, stops among losses,
and longs among trades. Their unit tests have values that differ."""


MOST_ROUNDS = 12


def test_the_recordings_tell_both_sides_of_an_axiom_apart() -> None:
    """Turned round, each axiom is broken by some recording, so that a wrong one would be noticed.

    Which recordings are drawn depends on the modules that are loaded: more are drawn until each is told apart.
    """
    told: set[str] = set()
    references = list(dict.fromkeys(each for _, *pair in CLAIMS for each in pair))
    turned = [(name, references.index(greater), references.index(lesser)) for name, lesser, greater in CLAIMS]
    names = {name for name, *_ in CLAIMS} - TOLD_BY_HAND

    @settings(max_examples=60, database=None, phases=[Phase.generate])
    @given(recording=st.tuples(*(ticks(minute) for minute in range(5))))
    def observe(recording: tuple[Snapshot, ...]) -> None:
        history, reader = history_of(references), ColumnReader(references)
        for seen in recording:
            view = view_of(seen)
            history.observe(view)
            columns = reader.read(history, view)
            told.update(name for name, i, j in turned for ends in (columns.lo, columns.hi) if ends[i] > ends[j])

    for number in range(MOST_ROUNDS):
        seed(number)(observe)()
        if names <= told:
            break
    assert names - told == set()


def test_the_words_of_axioms_are_those_of_their_arguments() -> None:
    """A word that no policy can write assumes nothing."""
    for spec in CATALOGUE:
        words = {each.key: (*each.words, "scope", "worst_symbol") for each in spec.arguments}
        assert all({narrow, wide} <= set(words[key]) for key, narrow, wide in spec.axioms.within)


def test_arguments_that_move_together_are_related_step_by_step() -> None:
    """Stops of five minutes are among all trades of a day; longs of a day are not among those of five minutes."""

    def count(minutes: int, outcome: str, side: str = "any") -> SignalRef:
        return SignalRef("trades.count", (minutes * 60_000_000, outcome, "scope", side))

    signals = [count(5, "stop"), count(1440, "any"), count(1440, "loss", "long"), count(5, "liquidated", "long")]
    assert related(signals) == [(0, 1), (2, 1), (3, 1)]


def test_signals_named_in_axioms_exist() -> None:
    """An axiom about a signal that does not exist assumes nothing."""
    assert {name for spec in CATALOGUE for name in spec.axioms.at_most} <= BY_NAME.keys()


@pytest.mark.parametrize(
    "spec", [pytest.param(s, id=s.name) for s in CATALOGUE if isinstance(s, ScopeSignal) and s.unit == "count"]
)
@settings(max_examples=30)
@given(recording=st.tuples(*(ticks(minute) for minute in range(4))))
def test_a_count_is_a_whole_number(spec: SignalSpec, recording: tuple[Snapshot, ...]) -> None:
    """A proof assumes that both ends of a count are whole: `above 0` is then at least 1."""
    references = [SignalRef(spec.name, arguments_of(spec))]
    history, reader = history_of(references), ColumnReader(references)
    for seen in recording:
        view = view_of(seen)
        history.observe(view)
        columns = reader.read(history, view)
        assert all(isinf(end) or end == int(end) for end in (*columns.lo, *columns.hi))


@pytest.mark.parametrize(
    "spec", [pytest.param(s, id=s.name) for s in CATALOGUE if isinstance(s, ScopeSignal) and s.partly_known == "never"]
)
@settings(max_examples=30)
@given(recording=st.tuples(*(ticks(minute) for minute in range(4))))
def test_a_signal_that_is_never_partly_known_is_known_or_unknown(
    spec: SignalSpec, recording: tuple[Snapshot, ...]
) -> None:
    """A proof assumes that both ends are equal unless the signal is unknown, and that `never` unknown means it."""
    references = [SignalRef(spec.name, arguments_of(spec))]
    history, reader = history_of(references), ColumnReader(references)
    for seen in recording:
        view = view_of(seen)
        history.observe(view)
        columns = reader.read(history, view)
        is_unknown = (columns.lo[0], columns.hi[0]) == (-math.inf, math.inf)
        assert columns.lo[0] == columns.hi[0] or (is_unknown and spec.unknown != "never")
