"""One position of either sign, linear or inverse, whose profits and losses are given as shares of the first equity."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Final, Literal

from tests.worlds.bookings import carry, close_all, deposit_all, settle_profits, withdraw_all
from tests.worlds.families import CALM, view
from tests.worlds.judge import Setup
from tests.worlds.venue_view import View
from tests.worlds.world import Book, Move, Side, World, exact, walk

LINEAR, INVERSE = "BTC/USDT:USDT", "BTC/USD:BTC"
Kind = Literal["linear", "inverse in coins", "inverse in dollars"]
KINDS: Final[tuple[Kind, ...]] = ("linear", "linear", "inverse in coins", "inverse in dollars")
Gain = tuple[float, float, float]
"""(begin, seconds, what the account gains in them as a share of its first equity; negative: loses)."""


class Futures:
    """A futures account with one position, whose `gains` come one after the other; `carried`: profit from before."""

    def __init__(
        self,
        rng: Random,
        gains: Sequence[Gain] = (),
        *,
        seconds: float = 180.0,
        carried: float = 0.0,
        kind: Kind | None = None,
        gross: float | None = None,
        world: World | None = None,
        name: str = "main",
        vol: float = CALM / 4,
    ) -> None:
        self.rng, self.kind = rng, kind or rng.choice(KINDS)
        self.world = world or World(seconds)
        self.side: Side = "long" if rng.random() < 0.5 else "short"
        self.gross = gross or rng.uniform(2.2, 3.5)
        self.symbol = LINEAR if self.kind == "linear" else INVERSE
        if name != "main" and self.kind == "linear":
            self.symbol = f"{name}/USDT:USDT"
        path = walk(rng, 60_000.0, seconds, vol, self._moves(gains), digits=2)
        currency = {"linear": "USDT", "inverse in coins": "BTC", "inverse in dollars": "USD"}[self.kind]
        if self.kind == "linear":
            wallet = float(rng.choice([20_000, 100_000, 1_000_000]))
            self.book = Book(self.world, name, {"USDT": wallet})
            self.book.list(self.symbol, path)
        else:
            self.world.prices["BTC"] = path
            self.book = Book(self.world, name, {"BTC": rng.uniform(2.0, 20.0)}, currency=currency)
            self.book.list(self.symbol, path, settle="BTC", size=Decimal(10), inverse=True, step=Decimal(1))
        self.first = self.book.equity(0.0)
        self.book.open(self.symbol, self.side, self.first * self.gross)
        if carried:
            carry(self.book, carried)

    def _moves(self, gains: Sequence[Gain]) -> list[Move]:
        """The price moves that bring the gains, ignoring the little noise of the path."""
        sign, total, level, moves = (1 if self.side == "long" else -1), 0.0, 1.0, []
        for begin, lasts, gain in gains:
            total += gain
            if self.kind == "linear":
                goal = 1 + sign * total / self.gross
            elif self.kind == "inverse in coins":
                goal = 1 / (1 - sign * total / self.gross)
            else:
                goal = 1 + total / (1 + sign * self.gross)
            moves.append((begin, begin + lasts, goal / level - 1))
            level = goal
        return moves

    @property
    def asset(self) -> str:
        """What the wallet is of."""
        return self.book.contracts[self.symbol].settle

    def amount(self, share: float) -> float:
        """A share of the first equity in units of the wallet."""
        return share * self.first / float(self.book.price(self.asset, 0.0))

    def settle(self, t: float, lag: float, rows: Literal["one", "each"] = "one") -> None:
        """All unrealised profit becomes wallet."""
        text = f"settled, row {lag:g} s after it"
        self.world.at(t, lambda now: settle_profits(self.book, now, lag=lag, rows=rows), text)

    def move(self, t: float, share: float, lag: float) -> None:
        """A share of the first equity comes (+) or leaves (−)."""
        kind = "deposit" if share > 0 else "withdrawal"
        self.world.at(
            t, lambda now: self.book.flow(now, kind, self.amount(share), asset=self.asset, lag=lag),
            f"{kind} of {abs(share):.1%}, row {lag:g} s after it",
        )  # fmt: skip

    def leave(self, t: float, *, fills: float, lag: float, steps: int = 1, dust: float = 0.0) -> dict[str, Decimal]:
        """Everything is closed, and all money leaves in steps of a second; what left is in the result as it does."""
        left: dict[str, Decimal] = {}
        self.world.at(t, lambda now: close_all(self.book, now, lag=fills), f"closed, rows {fills:g} s after it")

        def go(now: float, share: float) -> None:
            for asset, amount in withdraw_all(self.book, now, lag=lag, share=share).items():
                left[asset] = left.get(asset, Decimal(0)) + amount

        for k in range(steps):
            share = 1 / (steps - k) if k < steps - 1 else 1.0 - dust
            self.world.at(
                t + 0.02 + 1.4 * k, lambda now, s=share: go(now, s), f"{share:.2%} leaves, row {lag:g} s after it"
            )  # fmt: skip
        return left

    def back(self, t: float, left: dict[str, Decimal], *, lag: float, reopens: bool = True, part: float = 1.0) -> None:
        """What left comes back, or a part of it, and a second later the position is opened again."""

        def come(now: float) -> None:
            deposit_all(self.book, now, {k: exact(x * Decimal(str(part))) for k, x in left.items()}, lag=lag)

        self.world.at(t, come, f"{part:.0%} comes back, row {lag:g} s after it")
        if reopens:
            order: Literal["buy", "sell"] = "buy" if self.side == "long" else "sell"

            def reopen(now: float) -> None:
                contract = self.book.contracts[self.symbol]
                mark = float(contract.path.at(now))
                value = self.book.equity(now) * self.gross / float(self.book.price(contract.settle, now))
                count = value / float(contract.size) * (mark if contract.inverse else 1 / mark)
                self.book.trade(now, self.symbol, order, count, lag=0.5, fee=0.0001)

            self.world.at(t + 1.5, reopen, "opened again")

    def setup(self, shown: View | None = None, **more: object) -> Setup:
        return Setup(self.world, {self.book.name: shown or view(self.rng)}, **more)  # type: ignore[arg-type]  # options of the setup
