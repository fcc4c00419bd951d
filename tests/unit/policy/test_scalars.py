"""Scalars: durations, shares and thresholds as policies write them, converted to internal units."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.policy.schema import expectation, limits, scalars
from killswitch.policy.schema.part import MistakeError
from killswitch.policy.schema.scalars import Confirm, Quantity

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.decimals(), st.text(max_size=40), st.lists(st.text(max_size=5)),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    st.from_regex(r"[+-]?[0-9.]{1,30}(e[+-]?[0-9]{1,4})?( ?%|[a-z]{1,2}| [A-Z]{3})?", fullmatch=True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", "90"),
        ("15m", "900"),
        ("6h", "21600"),
        ("2d", "172800"),
        ("250ms", "0.25"),
        ("1h30m", "5400"),
        ("1.5h", "5400"),
        (" 1m30s ", "90"),
    ],
)
def test_a_duration_is_a_number_with_its_unit(written: str, seconds: str) -> None:
    """Microseconds, exactly; parts add up."""
    assert scalars.duration(written) == Decimal(seconds) * 1_000_000


@pytest.mark.parametrize("written", ["10", 10, "m", "1x", "1h 30m", "-5m", "", None, True, ["1m"], "1m2", "٣m" + "s"])
def test_a_value_without_a_unit_is_no_duration(written: object) -> None:
    """No unit is guessed."""
    with pytest.raises(MistakeError) as raised:
        scalars.duration(written)
    assert raised.value.code == "KS2101"


@given(parts=st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["ms", "s", "m", "h"])), min_size=1, max_size=5))
def test_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    """However they are combined and ordered."""
    micros = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
    written = "".join(f"{number}{unit}" for number, unit in parts)
    assert scalars.duration_or_zero(written) == sum(number * micros[unit] for number, unit in parts)


@pytest.mark.parametrize(
    ("written", "share"), [("4.5%", "0.045"), ("4.5 %", "0.045"), (Decimal("0.045"), "0.045"), ("0.5", "0.5"), (1, "1")]
)
def test_a_percentage_and_its_fraction_are_the_same(written: object, share: str) -> None:
    """Decimal, exactly as written."""
    assert scalars.fraction(written) == Decimal(share)


@pytest.mark.parametrize(
    "written", ["0%", 0, "100.1%", 50, "-5%", "five", True, Decimal("NaN"), Decimal("Infinity"), "5 5%"]
)
def test_a_share_is_above_zero_and_at_most_one(written: object) -> None:
    """Fifty is neither 50% nor 5000%."""
    with pytest.raises(MistakeError) as raised:
        scalars.fraction(written)
    assert raised.value.code == "KS2102"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("4.5%", Quantity(Decimal("0.045"), "percent", None, "4.5%")),
        (Decimal("0.045"), Quantity(Decimal("0.045"), "plain", None, "0.045")),
        (3, Quantity(Decimal(3), "plain", None, "3")),
        ("-500 USDT", Quantity(Decimal(-500), "money", "USDT", "-500 USDT")),
        ("1e4 USDT", Quantity(Decimal(10_000), "money", "USDT", "1e4 USDT")),
        ("250ms", Quantity(Decimal("0.25"), "time", None, "250ms")),
        ("1h30m", Quantity(Decimal(5400), "time", None, "1h30m")),
    ],
)
def test_a_threshold_keeps_its_unit_and_its_spelling(written: object, wanted: Quantity) -> None:
    """Fractions for percent, seconds for time; whether it fits the signal is checked later."""
    assert scalars.quantity(written) == wanted


@pytest.mark.parametrize("written", ["10,000 USDT", "USDT 10", "10000USDT", "", None, True, Decimal("NaN"), [1]])
def test_an_invalid_number_or_unit_is_no_threshold(written: object) -> None:
    """KS2103, with examples in the fix."""
    with pytest.raises(MistakeError) as raised:
        scalars.quantity(written)
    assert (raised.value.code, raised.value.fix) == ("KS2103", scalars.QUANTITY_FIX)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("2m", Confirm(120_000_000, 0)), ("3 ticks", Confirm(0, 3)), ("1 tick", Confirm(0, 1)), ("0s", Confirm(0, 0))],
)
def test_confirmation_is_in_time_or_in_ticks(written: str, wanted: Confirm) -> None:
    """Never in both."""
    assert scalars.confirm(written) == wanted


def test_a_refused_credential_is_not_repeated() -> None:
    """The value may be the secret itself."""
    with pytest.raises(MistakeError) as raised:
        scalars.reference("hunter2")
    assert "hunter2" not in raised.value.message + raised.value.fix
    assert scalars.reference("env:BINANCE_KEY") == "env:BINANCE_KEY"
    assert scalars.reference("file:/run/secrets/key") == "file:/run/secrets/key"


READERS = [
    scalars.duration, scalars.duration_or_zero, scalars.fraction, scalars.majority, scalars.weight, scalars.quantity,
    scalars.confirm, scalars.name, scalars.venue_name, scalars.market, scalars.text, scalars.reference,
    scalars.endpoint, scalars.local_time, expectation.at_most, limits.limit_size,
    scalars.whole_number(1, 9).parse, scalars.one_of_several(scalars.venue_name, {}).parse, scalars.manual,
]  # fmt: skip


@given(written=ANYTHING)
def test_any_value_is_read_or_refused_with_a_fix(written: object) -> None:
    """No reader raises anything but a mistake with a code, a message and a fix."""
    for read in READERS:
        try:
            read(written)
        except MistakeError as mistake:
            assert mistake.code.startswith("KS2")
            assert mistake.message
            assert mistake.fix
