"""Books: the positions of accounts at the beginning of a backtest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from killswitch.market.account import CASH_MARKETS
from killswitch.model.snapshot import Market, Side


class BookError(Exception):
    """A book cannot be used. Each line of the message is one mistake: `file:line:column: path: reason`."""


def _plain_number(value: object) -> object:
    """Return a float from YAML as it was written: 0.1 is not 0.1000000000000000055…."""
    return repr(value) if isinstance(value, float) else value


Number = Annotated[Decimal, BeforeValidator(_plain_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BookPosition(_Part):
    """A position to open at the first bar's close: `notional` in the account's currency.

    `leverage` is required where there is margin, and refused where there is none.
    """

    symbol: str
    side: Side
    notional: Positive
    leverage: Positive | None = None


class BookAccount(_Part):
    """An account with its `equity` after the positions have been opened, in `currency`.

    One without positions is money that a stage may move: a treasury, or another wallet.
    """

    account: str
    venue: str = "paper"
    market: Market
    currency: str
    equity: Number
    positions: tuple[BookPosition, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        twice = _repeated(position.symbol for position in self.positions)
        if twice:
            raise ValueError(f"{twice} is held twice; accounts are in one-way mode")
        for position in self.positions:
            self._check(position)
        return self

    def _check(self, position: BookPosition) -> None:
        if self.market not in CASH_MARKETS:
            if position.leverage is None:
                raise ValueError(f"{position.symbol}: leverage is missing (a {self.market} position has margin)")
            return
        if position.side == "short":
            raise ValueError(f"{position.symbol}: a {self.market} account cannot be short")
        if position.leverage is not None:
            raise ValueError(f"{position.symbol}: leverage means nothing in a {self.market} account")


def _repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


class BacktestBook(_Part):
    """Accounts with their positions. Account names are unique."""

    name: str
    accounts: tuple[BookAccount, ...]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if not self.accounts:
            raise ValueError("there is no account")
        twice = _repeated(account.account for account in self.accounts)
        if twice:
            raise ValueError(f"account {twice} is given twice")
        return self

    @property
    def symbols(self) -> frozenset[str]:
        """All symbols that any account holds."""
        return frozenset(position.symbol for account in self.accounts for position in account.positions)


def demo_book() -> BacktestBook:
    """Return the book that the generated crash is made for: five longs and three shorts of its symbols, gross 3.

    The longs move more than the market and the shorts less, so the fall hits the longs; once the longs are closed, the
    rebound squeezes the remaining shorts (case D20).
    """
    longs = ("ETH_USDT", "ADA_USDT", "DOT_USDT", "LINK_USDT", "DOGE_USDT")
    shorts = ("BTC_USDT", "XRP_USDT", "BCH_USDT")
    five = Decimal(5)
    held = [BookPosition(symbol=s, side="long", notional=Decimal(36000), leverage=five) for s in longs]
    held += [BookPosition(symbol=s, side="short", notional=Decimal(40000), leverage=five) for s in shorts]
    account = BookAccount(account="main", market="swap", currency="USDT", equity=Decimal(100000), positions=tuple(held))
    return BacktestBook(name="demo", accounts=(account,))


def read_book(path: Path) -> BacktestBook:
    """Read the book in the YAML file `path`. BookError names every mistake with its place."""
    written = _parse(path)
    try:
        return BacktestBook.model_validate(written)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            where = ".".join(str(part) for part in fault["loc"])
            lines.append(f"{path}{_place(written, fault['loc'])}: {where + ': ' if where else ''}{_reason(fault)}")
        raise BookError("\n".join(lines)) from error


_REASONS = {
    "missing": "is missing",
    "tuple_type": "a list is needed",
    "model_type": "keys with values are needed",
    "dict_type": "keys with values are needed",
    "string_type": "a text is needed",
    "decimal_type": "a number is needed",
    "decimal_parsing": "a number is needed",
    "finite_number": "a finite number is needed",
    "greater_than": "a number above 0 is needed",
    "literal_error": "one of {expected} is needed",
}
"""Kind of a mistake in pydantic → the reason in words."""
_KEYS: dict[str, type[_Part]] = {
    "name": BacktestBook, "accounts": BookAccount, "positions": BookPosition,
}  # fmt: skip
"""The list that a part of a book is an entry of → what the part is; the book itself has a name."""


def _reason(fault: ErrorDetails) -> str:
    """Return what is wrong and what is needed, in words."""
    if fault["type"] == "extra_forbidden":
        lists = [part for part in fault["loc"][:-1] if isinstance(part, str)]
        known = ", ".join(_KEYS[lists[-1] if lists else "name"].model_fields)
        return f"unknown key; known keys: {known}"
    text = _REASONS.get(fault["type"])
    return fault["msg"].removeprefix("Value error, ") if text is None else text.format(**fault.get("ctx", {}))


def _parse(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        return YAML(typ="rt", pure=True).load(text)
    except OSError as error:
        raise BookError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BookError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise BookError(f"{path}{place}: {error.problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise BookError(f"{path}: not readable as YAML: {error}") from error


def _place(written: object, where: tuple[int | str, ...]) -> str:
    """Return `:line:column` of the deepest written part of `where`, counted from 1; empty if there is none."""
    place = ""
    for part in where:
        marks = getattr(getattr(written, "lc", None), "data", None) or {}
        if part not in marks:
            break
        line, column = marks[part][:2]
        place = f":{line + 1}:{column + 1}"
        written = written[part]  # type: ignore[index] # what has marks is a mapping or a sequence
    return place
