"""`ksctl snapshot`: one snapshot of one account, as text or in the public format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import click

from killswitch.cli import EXIT_FAILED, completion, options
from killswitch.cli.options import option
from killswitch.cli.terminal import print_answer, print_note
from killswitch.cli.venues.verbs import chosen_accounts
from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Flow, Instrument, Order, Position, Snapshot
from killswitch.render.document import Items, Page, Section, Table
from killswitch.render.formats import count_of, exact, instant, money, number


@options.verb("ksctl snapshot main --policies policies >> run.jsonl")
@click.argument("account", shell_complete=completion.accounts)
@options.policies(required=True)
@options.read_timeout("30s")
@option("--output", type=click.Choice(["json", "text"]), default="json", help="A line of a recording, or tables.")
def snapshot(account: str, policies_at: tuple[Path, ...], read_timeout: float, output: str) -> int:
    """Read one account once, and print it as a line of a recording. Changes nothing, anywhere.

    `replay --snapshots` and `plan --snapshot` read the output. Exits 1 if the snapshot is not sound; it is printed with
    the reason on stderr.
    """
    from datetime import UTC, datetime

    from killswitch.accounts.opening import open_accounts, read_once
    from killswitch.cli.session import load_policies
    from killswitch.model.snapshot import encode_snapshot
    from killswitch.runner import process

    (document,) = chosen_accounts(load_policies(policies_at), (account,))
    read = process.run(read_once(open_accounts([document], live=False), read_timeout))
    seen = Snapshot(datetime.now(UTC), read, "killswitch.snapshot/v1")
    print_answer(output, lambda: encode_snapshot(seen), lambda: snapshot_page(seen))
    (found,) = seen.accounts
    if found.quality == "ok":
        return 0
    print_note(f"Error: account {found.account} is {found.quality}: {found.reason or 'no reason given'}")
    return EXIT_FAILED


T = TypeVar("T")

UNKNOWN = "unknown"


def snapshot_page(seen: Snapshot) -> Page:
    """Every account in the snapshot."""
    return Page("Snapshot", sections=tuple(each for account in seen.accounts for each in _account(seen, account)))


def _account(seen: Snapshot, account: AccountSnapshot) -> Iterator[Section]:
    reason = f" ({account.reason})" if account.reason else ""
    where = f"{account.account} at {account.venue}, {account.market} in {account.currency}"
    title = f"{where}, read {instant(account.observed_at or seen.as_of)}: {account.quality}{reason}"
    head = ("equity", "free", "margin used", "maintenance", "margin mode", "position mode")
    row = (
        money(account.equity), money(account.free), money(account.margin_used),
        money(account.maintenance_margin), account.margin_mode or UNKNOWN, account.position_mode or UNKNOWN,
    )  # fmt: skip
    yield Section(title, (Table(head, (row,)), Items(tuple(_health(account)))))
    yield _rows("position", account.positions, POSITIONS, _position)
    yield _rows("resting order", account.orders, ORDERS, _order)
    yield _rows("balance", account.balances, ("asset", "amount", "price", "haircut"), _balance)
    yield _rows("fill", account.fills, ("at", "symbol", "side", "amount", "price", "fee", "cause"), _fill)
    yield _rows("flow", account.flows, ("at", "kind", "amount", "currency"), _flow)
    held = {each.symbol for each in account.positions or ()} | {each.symbol for each in account.orders or ()}
    rules = None if account.instruments is None else [each for each in account.instruments if each.symbol in held]
    if held:
        yield _rows("rule set", rules, RULES, _rules)


POSITIONS = ("symbol", "side", "contracts", "entry", "mark", "notional", "unrealized", "liquidation", "leverage")
ORDERS = ("id", "symbol", "side", "type", "amount", "filled", "price", "trigger", "reduce-only", "client id")
RULES = ("symbol", "contract size", "step", "least", "most", "least notional", "price step", "state")


def _health(account: AccountSnapshot) -> Iterator[str]:
    found = account.health
    if found is None:
        return
    parts = [] if found.latency_ms is None else [f"latency {number(found.latency_ms, 'milliseconds')}"]
    counts = (
        ("requests", found.requests), ("errors", found.errors), ("timeouts", found.timeouts),
        ("malformed", found.malformed), ("rate limited", found.rate_limited),
    )  # fmt: skip
    parts += [f"{name} {count}" for name, count in counts if count]
    parts += [] if found.clock_skew_ms is None else [f"clock skew {found.clock_skew_ms:+.0f} ms"]
    if parts:
        yield ", ".join(parts)


def _rows(what: str, rows: Sequence[T] | None, head: tuple[str, ...], cells: Callable[[T], tuple[str, ...]]) -> Section:
    if rows is None:
        return Section("", (f"{what.capitalize()}s: {UNKNOWN}",))
    return Section(count_of(len(rows), what), (Table(head, tuple(map(cells, rows))),) if rows else ())


def _position(each: Position) -> tuple[str, ...]:
    return (
        each.symbol, each.side, f"{each.contracts:f}", exact(each.entry_price), exact(each.mark_price),
        money(each.notional), money(each.unrealized_pnl), exact(each.liquidation_price), exact(each.leverage),
    )  # fmt: skip


def _order(each: Order) -> tuple[str, ...]:
    flag = {True: "yes", False: "no", None: UNKNOWN}[each.reduce_only]
    return (
        each.id, each.symbol, each.side, each.type or UNKNOWN, f"{each.amount:f}", exact(each.filled),
        exact(each.price, "-"), exact(each.trigger_price, "-"), flag, each.client_order_id or "-",
    )  # fmt: skip


def _balance(each: Balance) -> tuple[str, ...]:
    return (each.asset, exact(each.amount), exact(each.price), exact(each.haircut))


def _fill(each: Fill) -> tuple[str, ...]:
    fee = UNKNOWN if each.fee is None else f"{each.fee:f} {each.fee_currency or ''}".rstrip()
    return (instant(each.at), each.symbol, each.side, f"{each.amount:f}", f"{each.price:f}", fee, each.cause)


def _flow(each: Flow) -> tuple[str, ...]:
    return (instant(each.at), each.kind, f"{each.amount:f}", each.currency)


def _rules(each: Instrument) -> tuple[str, ...]:
    return (
        each.symbol, exact(each.contract_size), exact(each.amount_step), exact(each.min_amount),
        exact(each.max_amount, "-"), exact(each.min_notional, "-"), exact(each.price_step), each.state or UNKNOWN,
    )  # fmt: skip
