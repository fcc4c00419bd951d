"""Parsers of written values: durations, percentages, thresholds with their units, names, references.

Each function takes the YAML value (str, int, Decimal, bool, None) and returns it in internal units (microseconds for
time, fractions for percentages), or raises a MistakeError with the fix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Literal, TypeVar, get_args
from zoneinfo import available_timezones

from msgspec import Struct
from pydantic import Discriminator, Field, Tag

from killswitch.model.instant import HOUR, MINUTE, SECOND, LocalTime, UnknownZoneError, to_micros, zone_named
from killswitch.model.words import Market
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Scalar

QuantityUnit = Literal["plain", "percent", "money", "time"]

_STEP = {"ms": SECOND // 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": 24 * HOUR}
_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d{1,9})?(?:ms|s|m|h|d)){1,5}", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
# digits are bounded so that no number is too large to compute with
_NUMBER = r"[+-]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][+-]?\d{1,2})?"
_PERCENT = re.compile(rf"({_NUMBER})\s*%", re.ASCII)
_MONEY = re.compile(rf"({_NUMBER})\s+([A-Za-z][A-Za-z0-9]{{1,14}})", re.ASCII)
_PLAIN = re.compile(_NUMBER, re.ASCII)
_TICKS = re.compile(r"(\d{1,6})\s*ticks?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_LOCAL_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s+([A-Za-z][A-Za-z0-9_+\-/]{0,63})", re.ASCII)
_SCHEMES = (("env:", "name of the variable", "RISK_DESK_URL"), ("file:", "path", "/run/secrets/risk-desk"))
REFERENCE = r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+"
_WORD = re.compile(r"\S+")

_LONG_UNIT = re.compile(r"(\d{1,9}) ?(s|m|h|d)(?:ec|in|ecs|ins|r|rs|ay|ays|econds?|inutes?|ours?)", re.IGNORECASE)
"""A number with a unit that is written out: `15 minutes`, `2 days`."""
DURATION_FIX = "write a number with its unit: 90s, 15m, 6h, 2d, 250ms or 1h30m"
PERCENT_FIX = "write 4.5% or the fraction 0.045"
QUANTITY_FIX = (
    "write the number with the unit of the signal: 4.5%, 10000 USDT, 30s, 250ms, or a plain number for a ratio"
)
REFERENCE_FIX = "write env:NAME or file:PATH, and rotate the secret if it was real: it has been stored in a file"
LONGEST = 3660 * _STEP["d"]
"""Ten years; a longer duration is a mistake."""


class Quantity(Struct, frozen=True):
    """A threshold: `value` as a fraction for percent, in seconds for time, else unchanged; `written` is the original
    text."""

    value: Decimal
    unit: QuantityUnit
    currency: str | None
    written: str


class Confirm(Struct, frozen=True):
    """How long a trigger must have been true: microseconds, or scheduled ticks; at once if both are 0."""

    micros: int
    ticks: int


AT_ONCE = Confirm(0, 0)


def quoted(value: object) -> str:
    """A written value, shortened for use in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}…`"


def duration(value: object) -> int:
    """The microseconds of a duration such as `1h30m`, greater than zero and at most ten years."""
    micros = written_micros(value)
    if micros is None:
        raise MistakeError("KS2101", f"{quoted(value)} is not a duration", _duration_fix(value))
    if not 0 < micros <= LONGEST:
        fix = "write more than 0 and at most 3660d"
        raise MistakeError("KS2101", f"{quoted(value)} is outside the range of durations", fix)
    return micros


def breach_pause(value: object) -> int:
    """The microseconds of a duration of at most a minute."""
    micros = duration(value)
    if micros > MINUTE:
        raise MistakeError("KS2103", f"{quoted(value)} is longer than 60s", "write at most 60s")
    return micros


def duration_or_zero(value: object) -> int:
    """The microseconds of a duration, which may be `0s`."""
    return 0 if written_micros(value) == 0 else duration(value)


def moment(value: object) -> int:
    """The microseconds since 1970 of a time with its zone, such as `2026-12-01T08:00:00Z`."""
    fix = "write a date and time with its zone, such as 2026-12-01T08:00:00Z"
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise MistakeError("KS2108", f"{quoted(value)} is not a time with its zone", fix)
    return to_micros(found)


def local_time(value: object) -> LocalTime:
    """A time of the day with its zone, such as `08:00 Europe/Berlin`."""
    fix = "write hours and minutes with an IANA time zone, such as 08:00 Europe/Berlin, or 22:30 UTC"
    found = _LOCAL_TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise MistakeError("KS2115", f"{quoted(value)} is not a time of the day with its zone", fix)
    try:
        zone_named(found[3])
    except UnknownZoneError as error:
        near = get_close_matches(found[3], available_timezones(), n=1)
        raise MistakeError("KS2115", str(error), f"did you mean {near[0]}?" if near else fix) from error
    return LocalTime(int(found[1]), int(found[2]), found[3])


def written_micros(value: object) -> int | None:
    """The microseconds of a duration of any length, zero included; None for any other value."""
    text = value.strip() if isinstance(value, str) else ""
    if _DURATION.fullmatch(text) is None:
        return None
    return int(sum(Decimal(number) * _STEP[unit] for number, unit in _DURATION_PART.findall(text)))


def _duration_fix(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return f"{DURATION_FIX}; did you mean {value}s or {value}m?"
    found = _LONG_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    return DURATION_FIX if found is None else f"{DURATION_FIX}; did you mean {found[1]}{found[2].lower()}?"


def fraction(value: object) -> Decimal:
    """A fraction greater than 0 and at most 1, from `4.5%` or `0.045`."""
    return _share(value, lambda share: 0 < share <= 1, "above 0% and at most 100%", "write more than 0%, up to 100%")


def proper_share(value: object) -> Decimal:
    """A fraction greater than 0 and less than 1."""
    fix = "write a share below 100%, such as 50%"
    return _share(value, lambda share: 0 < share < 1, "above 0% and below 100%", fix)


def majority(value: object) -> Decimal:
    """A fraction greater than one half and at most 1, which only one of two sides can reach."""
    fix = "write a share above 50%, such as 0.65"
    return _share(value, lambda share: Decimal("0.5") < share <= 1, "above 50% and at most 100%", fix)


def _share(value: object, is_allowed: Callable[[Decimal], bool], bounds: str, fix: str) -> Decimal:
    """A percentage or a plain fraction within bounds; the fix for a plain 65 suggests 65%."""
    number = plain_number(value)
    found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if number is None and found is None:
        raise MistakeError("KS2102", f"{quoted(value)} is not a percentage", PERCENT_FIX)
    share = number if found is None else Decimal(found[1]) / 100
    if share is not None and is_allowed(share):
        return share
    if number is not None and number > 1 and is_allowed(number / 100):
        fix = f"write {number:f}% (or {number / 100})"
    raise MistakeError("KS2102", f"{quoted(value)} is not {bounds}", fix)


def weight(value: object) -> Decimal:
    """A plain number, zero or more."""
    fix = "write a plain number, 0 or more, such as 0.25"
    return number_within(value, lambda number: number >= 0, "a weight", fix)


def number(value: object) -> Decimal:
    """A plain number."""
    return number_within(value, lambda _: True, "a plain number", "write a number without a unit, such as 2.5")


def price(value: object) -> Decimal:
    """A plain number above zero."""
    return number_within(value, lambda number: number > 0, "a price", "write a plain number above 0, such as 1.08")


def number_within(value: object, is_allowed: Callable[[Decimal], bool], wanted: str, fix: str) -> Decimal:
    """A plain number within its bounds; `wanted` names it in the message."""
    number = plain_number(value)
    if number is None or not is_allowed(number):
        raise MistakeError("KS2103", f"{quoted(value)} is not {wanted}", fix)
    return number


def plain_number(value: object) -> Decimal | None:
    """A number written without a unit; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        number = Decimal(value)
        return number if number.is_finite() else None
    if isinstance(value, str) and _PLAIN.fullmatch(value.strip()):
        return Decimal(value.strip())
    return None


def quantity(value: object) -> Quantity:
    """A threshold with its unit; the graph checks whether the unit fits the signal."""
    number = plain_number(value)
    if number is not None:
        return Quantity(number, "plain", None, str(value))
    text = value.strip() if isinstance(value, str) else ""
    if found := _PERCENT.fullmatch(text):
        return Quantity(Decimal(found[1]) / 100, "percent", None, text)
    if (micros := written_micros(text)) is not None:
        return Quantity(Decimal(micros) / SECOND, "time", None, text)
    if found := _MONEY.fullmatch(text):
        return Quantity(Decimal(found[1]), "money", found[2], text)
    raise MistakeError("KS2103", f"{quoted(value)} is not a threshold", QUANTITY_FIX)


def money(value: object) -> Quantity:
    """An amount of money greater than zero, such as `50000 USDT`."""
    fix = "write the number and its currency, such as 50000 USDT"
    try:
        written = quantity(value)
    except MistakeError:
        raise MistakeError("KS2103", f"{quoted(value)} is not an amount of money", fix) from None
    if written.unit != "money" or written.value <= 0:
        raise MistakeError("KS2103", f"{quoted(value)} is not an amount of money above zero", fix)
    return written


def confirm(value: object) -> Confirm:
    """A confirmation such as `2m` or `3 ticks`; `0s` is at once."""
    if isinstance(value, str) and (found := _TICKS.fullmatch(value.strip())):
        ticks = int(found[1])
        if not 1 <= ticks <= 1000:
            fix = "write 1 to 1000 ticks, or a duration"
            raise MistakeError("KS2104", f"{quoted(value)} is outside the range of confirmations", fix)
        return Confirm(0, ticks)
    if written_micros(value) is None:
        fix = "write a duration such as 2m, or `3 ticks`"
        raise MistakeError("KS2104", f"{quoted(value)} is not a confirmation", fix)
    return Confirm(duration_or_zero(value), 0)


def name(value: object) -> str:
    """A name: at most 63 lowercase letters, digits, `-` and `.`, beginning and ending with a letter or digit."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    fix = "use at most 63 lowercase letters, digits, - and ., beginning and ending with a letter or digit"
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        fix = f'YAML reads this as a number; write it in quotes: "{value}"'
    elif isinstance(value, str) and _NAME.fullmatch(suggestion := _as_name(value)):
        fix += f"; for example {suggestion}"
    raise MistakeError("KS2105", f"{quoted(value)} is not a name", fix)


def _as_name(value: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", value.strip().lower()).strip("-.")


def venue_name(value: object) -> str:
    """A venue's name of a symbol, account or currency: not empty, no spaces."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    fix = "write it without spaces"
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        fix = f'YAML reads this as a number; write it in quotes: "{value}"'
    raise MistakeError("KS2105", f"{quoted(value)} is not a name", fix)


def market(value: object) -> str:
    """A kind of market."""
    if value not in get_args(Market):
        known = ", ".join(get_args(Market))
        raise MistakeError("KS2004", f"{quoted(value)} is not a kind of market", f"write one of {known}")
    return str(value)


def text(value: object) -> str:
    """Text that is not empty or blank."""
    if isinstance(value, str) and value.strip():
        return value
    fix = "write some text"
    if isinstance(value, int | Decimal):
        fix = f'YAML does not parse this as text; write it in quotes: "{quoted(value).strip("`")}"'
    raise MistakeError("KS2003", f"{quoted(value)} is not text", fix)


def reference(value: object) -> str:
    """A reference to a secret: `env:NAME` or `file:PATH`. Messages never repeat the value, which may be a secret."""
    return secret_reference(value, REFERENCE, "a credential must be a reference, not a value")


def secret_reference(value: object, pattern: str, message: str, more: str = "") -> str:
    """A value that matches the pattern; no message repeats any other value, which may be a secret."""
    if isinstance(value, str) and re.fullmatch(pattern, value):
        return value
    for scheme, part, example in _SCHEMES:
        if value == scheme:
            raise MistakeError("KS2106", f"after `{scheme}` the {part} is missing", f"write it as {scheme}{example}")
    raise MistakeError("KS2106", message, REFERENCE_FIX + more)


def manual(value: object) -> str:
    """The word `manual`; the alternative is a mapping."""
    if value == "manual":
        return "manual"
    fix = "write `manual`, or {auto: {when: 'equity.drawdown(\"1h\") < 0.02', for: 60m}}"
    raise MistakeError("KS2004", f"{quoted(value)} is not a kind of reset", fix)


def endpoint(value: object) -> str:
    """An http(s) or ws(s) address without user or password in it."""
    if not isinstance(value, str) or not re.fullmatch(r"(https?|wss?)://\S+", value):
        raise MistakeError("KS2107", "this is not an address", "write it as http://127.0.0.1:8700")
    if "@" in value.split("/")[2]:
        fix = "remove the part before the @, and reference it under `credentials`"
        raise MistakeError("KS2106", "an address must not carry a user or a password", fix)
    return value


def whole_number(low: int, high: int) -> Scalar:
    """A whole number from `low` to `high`."""

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        message = f"{quoted(value)} is not a whole number from {low} to {high}"
        raise MistakeError("KS2006", message, f"write {low} to {high}")

    return Scalar(read, {"type": "integer", "minimum": low, "maximum": high})


def one_of_several(parse: Callable[[object], str], json: Mapping[str, object]) -> Scalar:
    """A single value in the place of a list: it is read as a list of one."""
    return Scalar(lambda value: (parse(value),), json)


def _one_or_several(value: object) -> str:
    return "several" if isinstance(value, list) else "one"


One = TypeVar("One")
Each = TypeVar("Each")
OneOrSeveral = Annotated[
    Annotated[One, Tag("one")] | Annotated[tuple[Each, ...], AtLeastOne(), Tag("several")],
    Discriminator(_one_or_several),
]
"""A value, or a list of values that is not empty."""


def pattern_json(pattern: str, *examples: object) -> dict[str, object]:
    return {"type": "string", "pattern": f"^(?:{pattern})$", "examples": list(examples)}


_SHARE_JSON = {
    "anyOf": [
        {"type": "string", "pattern": rf"^{_NUMBER}\s*%$"},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    ],
    "examples": ["4.5%", 0.045],
}
_PROPER_SHARE_JSON = {
    "anyOf": [_SHARE_JSON["anyOf"][0], {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}],
    "examples": ["50%", 0.5],
}
_QUANTITY_JSON = {"type": ["string", "number"], "examples": ["4.5%", "10000 USDT", "30s", "250ms", 3]}
_NAME_JSON: dict[str, object] = {"type": "string", "pattern": f"^{_NAME.pattern}$"}
_WORD_JSON: dict[str, object] = {"type": "string", "pattern": r"^\S+$"}
_MARKET_JSON: dict[str, object] = {"enum": list(get_args(Market))}
_REFERENCE_JSON = pattern_json(REFERENCE, "env:BINANCE_KEY", "file:/run/secrets/key")
_CONFIRMATION_JSON = pattern_json(rf"{_DURATION.pattern}|{_TICKS.pattern}", "2m", "3 ticks")
_DURATION_JSON = pattern_json(_DURATION.pattern, "90s", "15m", "6h", "2d", "250ms", "1h30m")

Duration = Annotated[int, Scalar(duration, _DURATION_JSON)]
BreachPause = Annotated[int, Scalar(breach_pause, _DURATION_JSON)]
DurationOrZero = Annotated[int, Scalar(duration_or_zero, _DURATION_JSON)]
ZonedTime = Annotated[LocalTime, Scalar(local_time, pattern_json(_LOCAL_TIME.pattern, "08:00 Europe/Berlin"))]
Moment = Annotated[int, Scalar(moment, {"type": "string", "format": "date-time"})]
Fraction = Annotated[Decimal, Scalar(fraction, _SHARE_JSON)]
ProperShare = Annotated[Decimal, Scalar(proper_share, _PROPER_SHARE_JSON)]
Majority = Annotated[Decimal, Scalar(majority, _SHARE_JSON)]
Weight = Annotated[Decimal, Scalar(weight, {"type": "number", "minimum": 0})]
Number = Annotated[Decimal, Scalar(number, {"type": "number"})]
Price = Annotated[Decimal, Scalar(price, {"type": "number", "exclusiveMinimum": 0})]
Money = Annotated[Quantity, Scalar(money, {"type": "string", "pattern": r"^[0-9.]+\s+[A-Za-z][A-Za-z0-9]+$"})]
Threshold = Annotated[Quantity, Scalar(quantity, _QUANTITY_JSON)]
Confirmation = Annotated[Confirm, Scalar(confirm, _CONFIRMATION_JSON)]
Name = Annotated[str, Scalar(name, _NAME_JSON)]
Word = Annotated[str, Scalar(venue_name, _WORD_JSON)]
Words = OneOrSeveral[Annotated[tuple[str, ...], one_of_several(venue_name, _WORD_JSON)], Word]
MarketKind = Annotated[str, Scalar(market, _MARKET_JSON)]
Markets = OneOrSeveral[Annotated[tuple[str, ...], one_of_several(market, _MARKET_JSON)], MarketKind]
Text = Annotated[str, Scalar(text, {"type": "string", "minLength": 1})]
Expression = Annotated[Text, Field(description="A condition in CEL over signals.")]
Reference = Annotated[str, Scalar(reference, _REFERENCE_JSON, is_confidential=True)]
Manual = Annotated[str, Scalar(manual, {"const": "manual"})]
Endpoint = Annotated[str, Scalar(endpoint, pattern_json(r"(https?|wss?)://\S+", "http://127.0.0.1:8700"))]
StageLevel = Annotated[int, whole_number(1, 9)]
PeopleCount = Annotated[int, whole_number(0, 9)]
RankCount = Annotated[int, whole_number(1, 1000)]
ReturnCount = Annotated[int, whole_number(2, 100_000)]
OrderNumber = Annotated[int, whole_number(0, 10_000)]
