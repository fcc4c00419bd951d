"""`ksctl size`: how large a position may be, by one of several methods. Sends nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from killswitch.cli import EXIT_TROUBLE, completion, options
from killswitch.cli.options import option
from killswitch.cli.terminal import encode_record, print_answer

if TYPE_CHECKING:
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.operations.book_sizing import BookMarket, BookRequest
    from killswitch.operations.sizing import Single, SizeRequest


def _number(text: str) -> Decimal:
    from killswitch.model.magnitude import readable_number

    is_percent = text.strip().endswith("%")
    found = readable_number(text.strip().removesuffix("%").strip())
    if found is None:
        raise ValueError(f"{text!r} is not a number: write 100000, 0.02 or 2%")
    return found / 100 if is_percent else found


NUMBER = options.ParsedParam("number", _number)
"""A decimal number, or a percentage as a fraction."""

_MARKET = (
    ("--equity", "Equity of the account, in its currency."),
    ("--price", "Price of the market, at which the position is entered."),
    ("--step", "Smallest step of an amount, in contracts."),
    ("--contract-size", "Base units of a contract; of an inverse one, its face value in quote."),
    ("--min-amount", "Smallest order, in contracts."),
    ("--min-notional", "Smallest order, in quote currency."),
    ("--others", "Gross notional of the account's other positions, which the leverage cap counts too."),
)
_BY_STOP = (
    "ksctl size fixed-fractional BTC/USDT:USDT --fraction 1% --stop 57000 --side long --costs 0.1% --leverage-cap 3"
)
_BY_KELLY = "ksctl size kelly BTC/USDT:USDT --wins 66 --losses 54 --gain 3% --loss 2% --fraction 50% --leverage-cap 3"
_BY_TARGET = "ksctl size volatility-target BTC/USDT:USDT --target 20% --floor 10% --leverage-cap 3"
_BY_RISK = (
    "ksctl size risk-parity --asset BTC/USDT:USDT,side=long,volatility=60% "
    "--asset ETH/USDT:USDT,side=short,volatility=80% --correlation BTC/USDT:USDT ETH/USDT:USDT 0.8 "
    "--target 20% --leverage-cap 3"
)
MOST_BYTES = 1_000_000
"""A longer request is cut, and cannot be read."""
_ACCOUNT = " --account main --policies policies"


def _account_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The account that numbers are read from, and how the answer is printed."""
    for decorate in (
        options.output,
        options.read_timeout("30s"),
        options.policies(required=False),
        click.option(
            "--account", metavar="NAME", shell_complete=completion.accounts,
            help="Read what is not given from this account, once.",
        ),
        click.option("--leverage-cap", "leverage_cap", type=NUMBER, required=True,
                     help="Most notional of the account ÷ its equity."),
    ):  # fmt: skip
        function = decorate(function)
    return function


def _market_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The symbol, and the numbers of its market and of the account that replace what is read."""
    function = _account_options(function)
    function = click.option("--inverse", is_flag=True, default=None, help="The contract settles in its base coin.")(
        function
    )
    for name, meaning in reversed(_MARKET):
        function = click.option(name, type=NUMBER, help=f"{meaning} Default: the account's.")(function)
    return click.argument("symbol")(function)


@click.group(epilog=options.example_text(_BY_STOP + _ACCOUNT))
def size() -> None:
    """How large a position may be. Sends nothing, and changes nothing.

    Prints the size, what bounds it, and its inputs with their ages. Exits 4 if a size is unknown.
    """


@options.verb(_BY_STOP + _ACCOUNT, group=size, name="fixed-fractional")
@click.option("--fraction", type=NUMBER, required=True, help="Fraction of equity that the stop costs.")
@click.option("--stop", type=NUMBER, required=True, help="Price of the stop.")
@click.option("--side", type=click.Choice(["long", "short"]), required=True, help="Side of the position.")
@click.option("--costs", type=NUMBER, required=True, help="Costs of entry and exit, as a fraction of the price; or 0.")
@_market_options
def fixed_fractional(fraction: Decimal, stop: Decimal, side: str, costs: Decimal, **market: Any) -> int:
    """The position that loses a fraction of equity at its stop: f·E ÷ (|entry − stop| + costs)."""
    from killswitch.operations.sizing import FixedFractional

    return _single(FixedFractional(fraction, stop, "long" if side == "long" else "short", costs), market)


@options.verb(
    "ksctl size fixed-notional BTC/USDT:USDT --fraction 10% --leverage-cap 3" + _ACCOUNT, group=size,
    name="fixed-notional",
)  # fmt: skip
@click.option("--fraction", type=NUMBER, required=True, help="Notional ÷ equity.")
@_market_options
def fixed_notional(fraction: Decimal, **market: Any) -> int:
    """The position whose notional is a fraction of equity: f·E ÷ price."""
    from killswitch.operations.sizing import FixedNotional

    return _single(FixedNotional(fraction), market)


@options.verb(_BY_KELLY + _ACCOUNT, group=size)
@click.option("--wins", type=options.COUNT, required=True, help="Closed trades that won.")
@click.option("--losses", type=options.COUNT, required=True, help="Closed trades that lost.")
@click.option("--gain", type=NUMBER, required=True, help="Mean gain of those that won, per unit of notional.")
@click.option("--loss", type=NUMBER, required=True, help="Mean loss of those that lost, per unit of notional.")
@click.option("--fraction", type=NUMBER, required=True, help="Fraction of Kelly, up to 1.")
@option(
    "--probability", type=click.Choice(["lower-bound", "estimate"]), default="lower-bound",
    help="Probability of a win: its lower Wilson bound of 95%, or the estimate itself.",
)  # fmt: skip
@_market_options
def kelly(
    wins: int, losses: int, gain: Decimal, loss: Decimal, fraction: Decimal, probability: str, **market: Any
) -> int:
    """A fraction of Kelly from closed trades: p ÷ loss − q ÷ gain. Unknown under 100 trades or without a loss."""
    from killswitch.operations.sizing import Kelly

    return _single(
        Kelly(fraction, wins, losses, gain, loss, "estimate" if probability == "estimate" else "lower-bound"), market
    )


@options.verb(
    "ksctl size continuous-kelly BTC/USDT:USDT --mean 20% --rate 4% --fraction 25% --leverage-cap 2" + _ACCOUNT,
    group=size, name="continuous-kelly",
)  # fmt: skip
@click.option("--mean", type=NUMBER, required=True, help="Expected return of a year.")
@click.option("--rate", type=NUMBER, required=True, help="Rate of a year at which equity is borrowed or lent.")
@click.option("--volatility", type=NUMBER, help="Volatility of a year. Default: the account's.")
@click.option("--fraction", type=NUMBER, required=True, help="Fraction of Kelly, up to 1.")
@_market_options
def continuous_kelly(mean: Decimal, rate: Decimal, volatility: Decimal | None, fraction: Decimal, **market: Any) -> int:
    """A fraction of Kelly from mean and volatility: (mean − rate) ÷ volatility²."""
    from killswitch.operations.sizing import ContinuousKelly

    return _single(ContinuousKelly(fraction, mean, rate, volatility), market)


@options.verb(_BY_TARGET + _ACCOUNT, group=size, name="volatility-target")
@click.option("--target", type=NUMBER, required=True, help="Volatility of a year that the position shall have.")
@click.option("--floor", type=NUMBER, required=True, help="Least volatility of a year that is divided by.")
@click.option("--volatility", type=NUMBER, help="Volatility of a year. Default: the account's.")
@_market_options
def volatility_target(target: Decimal, floor: Decimal, volatility: Decimal | None, **market: Any) -> int:
    """The position with a declared volatility: target ÷ the larger of volatility and floor."""
    from killswitch.operations.sizing import VolatilityTarget

    return _single(VolatilityTarget(target, floor, volatility), market)


def _book_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The markets of a book, and the correlation of each pair."""
    function = click.option("--others", type=NUMBER, help=f"{_MARKET[-1][1]} Default: the account's.")(function)
    function = click.option("--equity", type=NUMBER, help=f"{_MARKET[0][1]} Default: the account's.")(function)
    function = click.option(
        "--correlation", "correlations", nargs=3, type=(str, str, NUMBER), multiple=True,
        metavar="SYMBOL SYMBOL NUMBER",
        help="Correlation of two markets. Required of each pair.",
    )(_account_options(function))  # fmt: skip
    return click.option(
        "--asset", "assets", multiple=True, required=True, metavar="SYMBOL,KEY=VALUE,…",
        help="A market: side, volatility, and mean, budget, price, step, contract_size, min_amount, min_notional, "
        "inverse. Repeat it for each.",
    )(function)  # fmt: skip


@options.verb(_BY_RISK + _ACCOUNT, group=size, name="risk-parity")
@click.option("--target", type=NUMBER, required=True, help="Volatility of a year that the book shall have.")
@_book_options
def risk_parity(target: Decimal, **book: Any) -> int:
    """Several markets, each with its budget of the risk, at a volatility of the book."""
    from killswitch.operations.book_sizing import RiskParity

    return _book(RiskParity(target), book)


@options.verb(
    "ksctl size book-kelly --asset BTC/USDT:USDT,side=long,volatility=60%,mean=20% --rate 4% --fraction 25% "
    "--leverage-cap 2" + _ACCOUNT,
    group=size, name="book-kelly",
)  # fmt: skip
@click.option("--fraction", type=NUMBER, required=True, help="Fraction of Kelly, up to 1.")
@click.option("--rate", type=NUMBER, required=True, help="Rate of a year at which equity is borrowed or lent.")
@_book_options
def book_kelly(fraction: Decimal, rate: Decimal, **book: Any) -> int:
    """Several markets by a fraction of Kelly: the inverse of their covariance × (mean − rate), none negative."""
    from killswitch.operations.book_sizing import BookKelly

    return _book(BookKelly(fraction, rate), book)


@options.verb("ksctl size request request.json", group=size)
@click.argument("request", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@options.policies(required=False)
@options.read_timeout("30s")
@options.output
def request(request: Path, policies_at: tuple[Path, ...], read_timeout: float, output: str) -> int:
    """Answer a request in JSON: one method, a consensus of several, or a book. `-` reads stdin."""
    from killswitch.operations.book_sizing import decode_request
    from killswitch.risk.sizing.answer import SizingError

    with options.file_errors(f"{request} cannot be read"):
        body = sys.stdin.buffer.read(MOST_BYTES) if str(request) == "-" else request.read_bytes()
    try:
        found = decode_request(body[:MOST_BYTES])
    except SizingError as error:
        raise click.UsageError(str(error)) from error
    return _answer(found, policies_at, read_timeout, output)


def _single(by: Single, market: dict[str, Any]) -> int:
    from killswitch.operations.sizing import SizeRequest

    printed = {name: market.pop(name) for name in ("policies_at", "read_timeout", "output")}
    return _answer(SizeRequest(size_by=by, **market), **printed)


def _book(by: Any, book: dict[str, Any]) -> int:
    from killswitch.operations.book_sizing import BookRequest

    printed = {name: book.pop(name) for name in ("policies_at", "read_timeout", "output")}
    markets = tuple(_book_market(each) for each in book.pop("assets"))
    return _answer(BookRequest(markets, size_by=by, **book), **printed)


_WORDS = {"side": ("long", "short"), "inverse": ("true", "false")}
"""The keys of `--asset` that are no numbers."""


def _book_market(text: str) -> BookMarket:
    """The market of one `--asset`; UsageError for a key that is unknown, missing, there twice or without a number."""
    from msgspec.structs import fields

    from killswitch.operations.book_sizing import BookMarket

    symbol, *pairs = text.split(",")
    known = [each.name for each in fields(BookMarket)][1:]
    found: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = (part.strip() for part in pair.partition("="))
        if key not in known or key in found:
            raise click.UsageError(f"--asset {symbol}: {key!r} is there twice or not one of {', '.join(known)}.")
        if key in ("side", "inverse"):
            if value not in _WORDS[key]:
                raise click.UsageError(f"--asset {symbol}: {key} is one of {', '.join(_WORDS[key])}.")
            found[key] = value == "true" if key == "inverse" else value
        else:
            found[key] = NUMBER.convert(value, None, None)
    if missing := [key for key in ("side", "volatility") if key not in found]:
        raise click.UsageError(
            f"--asset {symbol}: {' and '.join(missing)} missing: write {symbol},side=long,volatility=60%."
        )
    return BookMarket(symbol, **found)


def _answer(request: SizeRequest | BookRequest, policies_at: tuple[Path, ...], read_timeout: float, output: str) -> int:
    from killswitch.operations.book_sizing import sizes_of
    from killswitch.operations.pages.size import SizeRecord, is_known, size_page
    from killswitch.risk.sizing.answer import SizingError

    account = _account(request.account, policies_at, read_timeout)
    now = datetime.now(UTC)
    try:
        record = SizeRecord(sizes_of(request, account, now), now)
    except SizingError as error:
        raise click.UsageError(str(error)) from error
    print_answer(output, lambda: encode_record(record), lambda: size_page(record))
    return 0 if is_known(record.sizes) else EXIT_TROUBLE


def _account(name: str | None, policies_at: tuple[Path, ...], read_timeout: float) -> AccountSnapshot | None:
    """The account, read once as `ksctl snapshot` reads it; None without a name."""
    if name is None:
        return None
    if not policies_at:
        raise click.UsageError("--account needs --policies: the folder with its Account document.")
    from killswitch.accounts.opening import open_accounts, read_once
    from killswitch.cli.session import load_policies
    from killswitch.cli.venues.verbs import chosen_accounts
    from killswitch.runner import process

    (document,) = chosen_accounts(load_policies(policies_at), (name,))
    (found,) = process.run(read_once(open_accounts([document], live=False), read_timeout))
    return found
