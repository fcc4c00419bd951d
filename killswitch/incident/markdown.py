"""Values of others as Markdown: a symbol, a reason or a venue's words can break neither a table nor a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from markupsafe import Markup

from killswitch.model.spelling import instant

UNKNOWN = "unknown"

_ALWAYS = re.compile(r"([\\`*\[\]<>|#~!{}]|&(?=#|\w+;))")
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_AT_THE_START = re.compile(r"^(\s*)(?:([-+=:](?=\s|$|[-=:|\s]))|(\d{1,9})([.)])(?=\s|$))")
_ONLY_RULES = re.compile(r"^[-=_: ]+$")
_BLANKS = re.compile(r"\s+")


def plain(value: object) -> str:
    """A value as one line of text: unknown for none, UTC for instants, controls and line ends made harmless."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    return _BLANKS.sub(" ", "".join(_harmless(each) for each in str(value))).strip()


def _harmless(character: str) -> str:
    """Controls become blanks; what turns the direction of text or cannot be written is shown as its number."""
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return f"<U+{ord(character):04X}>" if category in ("Cf", "Cs", "Co") else character


def escape(value: object) -> Markup:
    """A value as Markdown text that is nothing but text; what is Markup stays as it is."""
    if isinstance(value, Markup):
        return value
    text = _ALWAYS.sub(r"\\\1", plain(value))
    text = _UNDERSCORE.sub(r"\\_", text)
    if _ONLY_RULES.match(text):
        text = "\\" + text
    return Markup(_AT_THE_START.sub(_held, text))


def _held(found: re.Match[str]) -> str:
    """What would begin a list or underline a heading, made text."""
    return f"{found[1]}\\{found[2]}" if found[2] else f"{found[1]}{found[3]}\\{found[4]}"


def code(value: object) -> Markup:
    """A value in code type; where that could not hold it, as escaped text."""
    text = plain(value)
    if value is None or not text or re.search(r"[`|\\]", text):
        return escape(value)
    return Markup(f"`{text}`")


def fenced(lines: str | Iterable[str], language: str = "") -> Markup:
    """A block of code. The fence is longer than any run of backticks in it."""
    texts = [lines] if isinstance(lines, str) else list(lines)
    body = "\n".join("".join(each if each in " \n" else _harmless(each) for each in text) for text in texts)
    runs = [len(run) for run in re.findall(r"`+", body)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return Markup(f"{fence}{language}\n{body}\n{fence}")
