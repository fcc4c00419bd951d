"""The core of a dialect: the account, its client, the rules of the venue's markets; its inspection and its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import Row
from killswitch.model.snapshot import Fill
from killswitch.model.venue import AccountSpec, VenueError
from killswitch_ccxt import fills
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.client import Client
from killswitch_ccxt.traits import Exchange


class DialectCore(Exchange):
    """The account at its exchange, and the names, rules and rows of its markets."""

    def __init__(self, client: Client, spec: AccountSpec) -> None:
        self.client = client
        self.spec = spec
        self._corrected_rules: tuple[Mapping[str, Row] | None, Mapping[str, Row]] = (None, {})
        """ccxt's markets that were corrected last, and the result."""

    def concerns(self, rule: Row) -> bool:
        """Whether this account may hold a market of the venue."""
        # One account holds perpetual and dated contracts, whichever of the two its document names.
        return any(rule.get(kind) for kind in (("spot",) if self.is_spot else ("swap", "future")))

    @property
    def is_spot(self) -> bool:
        """Whether the account holds assets and no contracts: a spot or a margin account."""
        return self.spec.market in ("spot", "margin")

    @property
    def rules(self) -> Mapping[str, Row]:
        """ccxt's markets by symbol, each as `corrected_rule` returns it. They are loaded before any other request."""
        markets: Mapping[str, Row] = self.client.ccxt.markets or {}
        if markets is not self._corrected_rules[0]:
            self._corrected_rules = markets, {symbol: self.corrected_rule(rule) for symbol, rule in markets.items()}
        return self._corrected_rules[1]

    def corrected_rule(self, rule: Row) -> Row:
        """One of ccxt's markets, corrected where ccxt parses it wrongly or leaves something out."""
        return rule

    def id_of(self, symbol: str) -> str:
        """The venue's name of a symbol. NoSuchSymbolError where the rules do not have it."""
        if symbol not in self.rules:
            raise NoSuchSymbolError(f"the venue's rules have no {symbol}")
        return str(self.rules[symbol]["id"])

    def rule_of(self, name: object) -> Any:
        """ccxt's market for the venue's name of a symbol, among those that are `is_ours`. NoSuchSymbolError where there
        is none."""
        known = (self.client.ccxt.markets_by_id or {}).get(str(name)) or ()
        found = next((rule for rule in known if self.is_ours(rule)), None)
        if found is None:
            raise NoSuchSymbolError(f"the venue's rules have no {name}")
        return found

    def is_ours(self, rule: Row) -> bool:
        """Whether a row of this account can refer to a market, where several markets have the same name."""
        return True

    def symbol_of(self, name: object) -> str:
        """ccxt's symbol for the venue's name of it. NoSuchSymbolError where the rules do not have it."""
        return str(self.rule_of(name)["symbol"])

    def order_of(self, row: Row) -> Row:
        """The order of one of the venue's own rows, under ccxt's names."""
        return self.refine_order(self.client.ccxt.parse_order(dict(row), self.rule_of(row.get("symbol"))))

    def fills_of(self, rows: Iterable[Row]) -> tuple[Fill, ...]:
        """The fills of the venue's own rows."""
        trades = (self.client.ccxt.parse_trade(row, self.rule_of(row.get("symbol"))) for row in rows)
        return fills.fills(trades, self.refine_fill)

    def refine_order(self, row: Row) -> Row:
        """ccxt's order, with fields of the venue's own row under ccxt's names."""
        return row

    def refine_fill(self, fill: Fill, info: Row) -> Fill:
        """Add what only the venue's own row states: realised profit, cause, position side."""
        return fill

    async def call_all(self, *requests: tuple[str, Row]) -> list[Any]:
        """The answers to several concurrent requests, each a method and its params."""
        return await asyncio.gather(*(self.client.call(method, params) for method, params in requests))


class Inspected(DialectCore):
    """The rights of the key, the status of the venue, and the margin mode."""

    async def rights(self) -> KeyRights:
        """What the credentials may do."""
        return KeyRights(note=self.rights_note)

    async def status(self) -> str | None:
        """`ok`, or the venue's own text; None where it states no status."""
        if not self.client.ccxt.has.get("fetchStatus"):
            return None
        return str((await self.client.call("fetch_status")).get("status"))

    async def margin_mode(self) -> str | None:
        """`cross` or `isolated`, where the account has one mode for all positions."""
        return None


class Streamed(DialectCore):
    """The private streams, by ccxt's methods."""

    async def watch(self, method: str) -> None:
        """Wait for the next message of a stream. `method`: ccxt's."""
        await self.client.call(method)

    @classmethod
    def refusal_of(cls, message: Any) -> VenueError | None:
        """The error of a stream message that is a refusal, where ccxt would wait on; None for every other message."""
        return None
