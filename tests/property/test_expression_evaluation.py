"""Expressions: their meaning here, compared with the evaluation of Google's CEL itself."""

from __future__ import annotations

from typing import Any

from cel_expr_python import cel
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.graph.expressions.expression import condition
from killswitch.graph.lowering import FALSE, TRUE, UNKNOWN, lower_one
from killswitch.graph.nodes import ConditionNode
from killswitch.graph.resolution.triggers import SignalIndex
from killswitch.graph.wording import condition_text
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import Level

# signals without a unit, so that any of them may be compared with and added to any other
PLAIN = ("exposure.leverage", "exposure.margin_ratio", "exposure.largest_share", "venue.malformed")
ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(PLAIN, cel.Type.DOUBLE))

# mostly small numbers: among large ones every comparison is decided by the largest, and a wrong sign goes unseen
values = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, -2.0, 3.0]) | st.floats(-9.0, 9.0)
literals = values.map(lambda value: f"{value:.6f}")
names = st.sampled_from(PLAIN)
numbers = st.recursive(
    names | literals,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner) | st.builds("-({})".format, inner)
    ),
    max_leaves=4,
)
comparisons = st.builds("{} {} {}".format, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
expressions = st.recursive(
    comparisons | st.sampled_from(["true", "false"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["&&", "||"]), inner)
        | st.builds("!({})".format, inner)
        | st.builds("{} && {} || {}".format, inner, inner, inner)
    ),
    max_leaves=5,
)


def compiled(text: str, level: Level = "scope") -> tuple[ConditionNode | None, tuple[str, ...], SignalIndex]:
    columns = SignalIndex()
    node, problems = condition(text, level, columns.of)
    return node, tuple(problem.code for problem in problems), columns


def evaluated_by_cel(text: str, known: dict[str, float]) -> Any:
    return ENVIRONMENT.compile(text).eval(data=known).value()


@settings(max_examples=300)
@given(comparisons | expressions, st.lists(values, min_size=len(PLAIN), max_size=len(PLAIN)))
def test_with_every_signal_known_an_expression_has_the_value_of_cel(text: str, known: list[float]) -> None:
    """Where the verdict is not unknown it is CEL's own; only a division by zero leaves unknown."""
    node, codes, columns = compiled(text)
    if node is None:
        assert set(codes) <= {"KS4006", "KS4009"}
        return
    by_name = dict(zip(PLAIN, known, strict=True))
    column = [by_name[signal.name] for signal in columns.signals]
    verdict = lower_one(node)(column, column, [None] * len(column))
    if verdict == UNKNOWN:
        assert "/" in text
    else:
        assert verdict == (TRUE if evaluated_by_cel(text, by_name) else FALSE)


@given(expressions)
def test_a_rendered_condition_parses_to_the_same_meaning(text: str) -> None:
    """The text that `graph` and `explain` show is an expression of the same meaning."""
    node, _, columns = compiled(text)
    if node is None:
        return
    shown = condition_text(node, columns.signals)
    again, codes, columns_again = compiled(shown)
    if "KS4006" in codes:
        return  # its parentheses nest deeper than CEL reads
    assert codes == ()
    assert again is not None
    for known in (0.0, 0.75, 2.0, -3.0):
        column = [known] * len(columns.signals)
        column_again = [known] * len(columns_again.signals)
        texts: list[str | None] = [None] * len(column)
        assert lower_one(node)(column, column, texts) == lower_one(again)(column_again, column_again, texts)


@given(st.text(max_size=60) | st.text(alphabet='equity.valudrawn("15m") <>=&|!+-*/0123456789\n\'\\%', max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    """For any text there is a condition or a problem inside the text, never an exception."""
    node, codes, _ = compiled(text)
    assert (node is None) == (codes != ())
    _, problems = condition(text, "scope", lambda _: 0)
    for problem in problems:
        assert 0 <= problem.start <= len(text)
        assert problem.length >= 1


def test_all_units_of_the_plain_signals_are_alike() -> None:
    """The generators above rely on it."""
    assert all(BY_NAME[name].unit in ("ratio", "fraction", "count") for name in PLAIN)
