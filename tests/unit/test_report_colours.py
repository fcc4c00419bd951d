"""The report on a terminal: what is coloured, and that colour says nothing alone."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from killswitch.cli.markdown import THEME, FittedMarkdown
from killswitch.cli.terminal import coloured_words

REPORT = """# Incident 4cd0: cut-most on account/main

**NOT CLOSED: 1 position left, -9,487.35 USDT**

## In short

| | |
|---|---|
| highest level | 2 cut-most |
| loss at 04:13:00, cut-half | 6.15% in 15m |
| delay cost | -3.00 USDT (below zero is a gain) |

### 04:13:00 level 3 close-all

8 orders decided, lock reduce\\_only: done. The equity is unknown.

| of | name | net | unrealised P&L | unknown |
|---|---|---|---|---|
| asset | BTC | -38,019.08 | 1,980.62 | – |
| asset | ADA | 33,390.85 | -2,609.15 | – |

- [x] **Proved**: by the record
- [ ] **Open**: for a person
"""
_ESCAPE = re.compile(r"\x1b\[([\d;]*)m")
_COLOURS = {"31": "red", "32": "green", "33": "yellow", "36": "cyan"}


def rendered(width: int = 80, *, no_color: bool = False) -> str:
    """The report as a terminal gets it."""
    shown = StringIO()
    console = Console(
        file=shown, force_terminal=True, width=width, color_system="standard", no_color=no_color, theme=THEME
    )
    console.print(FittedMarkdown(REPORT, coloured_words))
    return shown.getvalue()


def coloured(text: str) -> set[tuple[str, str]]:
    """(colour, words) of every coloured piece."""
    found, colour = set(), ""
    for number, piece in enumerate(_ESCAPE.split(text)):
        if number % 2:
            colour = next((_COLOURS[code] for code in piece.split(";") if code in _COLOURS), "")
        elif colour and piece.strip():
            found.add((colour, piece.strip()))
    return found


def test_levels_locks_losses_and_heads_are_coloured() -> None:
    """Red: what is not closed, losses, level 3. Yellow: level 2, a lock, the unknown, what is open. Green: proved."""
    assert coloured(rendered()) >= {
        ("red", "NOT CLOSED"), ("red", "-9,487.35 USDT"), ("red", "loss at 04:13:00"), ("red", "level 3 close-all"),
        ("red", "-2,609.15"), ("yellow", "2 cut-most"), ("yellow", "lock reduce_only"), ("yellow", "unknown"),
        ("yellow", "[ ]"), ("green", "[x]"), ("cyan", "In short"),
        ("cyan", "of     name  net         unrealised P&L  unknown"),
    }  # fmt: skip


def test_what_is_no_loss_is_not_red() -> None:
    """A short position in the net, and a delay cost below zero, which is a gain."""
    words = {word for colour, word in coloured(rendered()) if colour == "red"}
    assert not {"-38,019.08", "-3.00 USDT"} & words


@pytest.mark.parametrize("width", [80, 120])
def test_without_colours_every_word_is_the_same(width: int) -> None:
    """With NO_COLOR or `--color never` no colour is left, and no word and no space differs."""
    plain = rendered(width, no_color=True)
    assert coloured(plain) == set()
    assert _ESCAPE.sub("", plain) == _ESCAPE.sub("", rendered(width))
    assert all(len(line) <= width for line in _ESCAPE.sub("", plain).split("\n"))
