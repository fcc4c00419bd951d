"""Filters of templates and reports; first of all, values of others as Markdown text."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from killswitch.incident.record.document import Command, WrittenAt
from killswitch.render import formats
from killswitch.render.formats import instant, money, order_numbers

UNKNOWN = "unknown"

_ALWAYS = re.compile(r"([\\`*\[\]<>|#~!{}]|&(?=#|\w+;))")
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_AT_THE_START = re.compile(r"^(\s*)(?:([-+=:](?=\s|$|[-=:|\s]))|(\d{1,9})([.)])(?=\s|$))")
_ONLY_RULES = re.compile(r"^[-=_: ]+$")
_BLANKS = re.compile(r"\s+")


def plain(value: object) -> str:
    """Return a value as one line of text: `unknown` for None, UTC for instants, control characters and line ends
    made harmless."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    if not text.isprintable():  # one test of the whole text is far faster than one of each character
        text = "".join(_harmless(each) for each in text)
    return _BLANKS.sub(" ", text).strip()


def _harmless(character: str) -> str:
    """Replace control characters by blanks, and directional or unencodable ones by their code point."""
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return f"<U+{ord(character):04X}>" if category in ("Cf", "Cs", "Co") else character


def escape(value: object) -> Markup:
    """Escape a value as plain Markdown text; Markup is returned as it is."""
    if isinstance(value, Markup):
        return value
    text = _ALWAYS.sub(r"\\\1", plain(value))
    text = _UNDERSCORE.sub(r"\\_", text)
    if _ONLY_RULES.match(text):
        text = "\\" + text
    return Markup(_AT_THE_START.sub(_escape_start, text))


def _escape_start(found: re.Match[str]) -> str:
    """Escape what would begin a list or underline a heading."""
    return f"{found[1]}\\{found[2]}" if found[2] else f"{found[1]}{found[3]}\\{found[4]}"


def code(value: object) -> Markup:
    """Return a value as code; as escaped text where code cannot contain it."""
    text = plain(value)
    if value is None or not text or re.search(r"[`|\\]", text):
        return escape(value)
    return Markup(f"`{text}`")


def fenced(lines: str | Iterable[str], language: str = "") -> Markup:
    """Return a block of code, with a fence longer than any run of backticks in it."""
    texts = [lines] if isinstance(lines, str) else list(lines)
    body = "\n".join("".join(each if each in " \n" else _harmless(each) for each in text) for text in texts)
    runs = [len(run) for run in re.findall(r"`+", body)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return Markup(f"{fence}{language}\n{body}\n{fence}")


_ONE_LINE = 60
"""The longest command in characters that is written on one line."""
_MOST_DECIMALS = 20


def percent(share: str | float | Decimal | None, digits: int = 1) -> str:
    """Format a fraction as a percentage with `digits` decimals."""
    value = share if isinstance(share, Decimal) else None if share is None else float(share)
    return "unknown" if value is None else f"{value:.{_decimals(digits)}%}"


def fixed(value: float | None, digits: int = 1) -> str:
    """Format a number with `digits` decimals; ValueError for more than a float has."""
    return "unknown" if value is None else f"{value:,.{_decimals(digits)}f}"


def _decimals(digits: int) -> int:
    if not 0 <= digits <= _MOST_DECIMALS:
        raise ValueError(f"a number has 0 to {_MOST_DECIMALS} decimals, not {digits}")
    return digits


def price(value: Decimal | None) -> str:
    """Format a price to eight significant digits without an exponent; a dash for None."""
    if value is None:
        return "–"
    shown = f"{value:.8g}"
    return f"{Decimal(shown):f}"


def amount(value: Decimal | None) -> str:
    """Format an amount without exponent and trailing zeros; a dash for None."""
    if value is None:
        return "–"
    shown = f"{value:f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown) or "0"


def place(account: str | None, symbol: str | None, side: str | None) -> str:
    """Return the name of a position: `ETH/USDT:USDT long on main`."""
    return f"{symbol} {side or ''}".rstrip() + f" on {account}"


def clock(at: datetime | None, day: datetime | None = None) -> str:
    """Format the time of day in UTC to the second, with the date where it differs from that of `day`."""
    if at is None:
        return "–"
    same = day is None or at.date() == day.date()
    return f"{at:%H:%M:%S}" if same else f"{at:%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Format seconds as a duration in its two largest units."""
    return formats.duration_text(timedelta(seconds=seconds))


def quoted(line: WrittenAt | None) -> Markup:
    """Return a policy's line as code, with its place."""
    if line is None:
        return Markup("the policy's line is not known")
    where = escape(f"{line.file}:{line.line}")
    return Markup(f"{code(line.text)} ({where})") if line.text else where


def shell(command: Command) -> Markup:
    """Return a command as a code block; a long one has a line for each option."""
    lines: list[str] = []
    for word in command.words:
        quoted_word = shlex.quote(word)
        if lines and (not word.startswith("--") or len(command.line) <= _ONE_LINE):
            lines[-1] += f" {quoted_word}"
        else:
            lines.append(f"  {quoted_word}" if lines else quoted_word)
    return fenced(" \\\n".join(lines), "sh")


def join(values: Iterable[object], between: str = ", ") -> Markup:
    """Join escaped values with a text of the template."""
    return Markup(between).join(escape(value) for value in values)


_BY_NAME: tuple[Callable[..., Any], ...] = (
    *(amount, clock, code, fenced, fixed, join),
    *(money, percent, price, quoted, shell),
)
FILTERS: Mapping[str, Callable[..., Any]] = {each.__name__: each for each in _BY_NAME} | {
    "lasting": duration,
    "numbered": order_numbers,
}
"""The filters of this program. `length`, `first`, `last`, `lower`, `upper` and `trim` are Jinja2's own."""

OWN_OF_JINJA = ("length", "first", "last", "lower", "upper", "trim")
TESTS = ("none", "true", "false", "string", "number", "eq", "ne", "lt", "le", "gt", "ge")
