"""The residual of an account's equity between two snapshots: the part that neither prices nor fills explain.

It can be computed in two ways, each before ledger rows other than fills: by the wallet, Rw = ΔW − what fills put into
it, and by marks, Rb = ΔE − C − M (see `decomposition`). They agree unless the two snapshots are of several moments, a
trade has no fill, or unrealised profit was settled. `CASES` is the rule: the first case that applies is used.

Money is Decimal in the account's currency.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from msgspec import Struct

from killswitch.valuation.position_measures import ZERO

ABOUT = Decimal("0.05")
"""The relative difference up to which two amounts are one: prices move between two snapshots."""


class Evidence(Struct, frozen=True):
    """What two snapshots and the fills between them show.

    `noise` is n, `bound` the possible effect on Rb of slippage and of answers of different moments,
    `unrealized_change` ΔU since equity and positions were last of one moment. `settled`: the profit that moved from
    positions into the wallet according to entry prices, None if an entry is unknown. `carried`: the part of earlier
    Rw that counted for nothing since equity and positions are out of step; Rb and `settled` include theirs.
    `dropped`: the same after they were out of step for long. `partly`: a position shrank without a fill. `in_step`,
    `was_in_step`: equity and positions of the later snapshot, and of the last one before they were out of step, are
    of one moment; None if unknown. `waits`: positions and equity may still catch up with each other.
    """

    by_wallet: Decimal | None
    by_marks: Decimal | None
    noise: Decimal
    bound: Decimal = ZERO
    unrealized_change: Decimal | None = None
    settled: Decimal | None = ZERO
    carried: Decimal = ZERO
    dropped: Decimal = ZERO
    traded: bool = False
    partly: bool = False
    in_step: bool | None = None
    was_in_step: bool | None = None
    waits: bool = False

    @property
    def is_wallet_still(self) -> bool:
        """Whether the wallet moved by no more than noise, apart from fills."""
        return self.by_wallet is not None and abs(self.by_wallet) <= self.noise

    @property
    def whole_by_wallet(self) -> Decimal | None:
        """Rw since equity and positions were last of one moment."""
        return None if self.by_wallet is None else self.by_wallet + self.carried

    @property
    def is_of_one_moment(self) -> bool:
        """Whether nothing was traded, and equity and positions of both snapshots agree."""
        return self.in_step is True and self.was_in_step is True and not self.traded and not self.partly

    @property
    def is_unrealized_still(self) -> bool:
        """Whether unrealised profit moved by no more than noise."""
        return self.unrealized_change is not None and abs(self.unrealized_change) <= self.noise


class ChosenResidual(Struct, frozen=True):
    """The residual; `amount` is None if it cannot be computed.

    `by_wallet`: it follows the wallet, which marks of another moment cannot distort. `netted`: the part of Rw that
    unrealised profit offsets. `others`: what else it may be, if rows show that.
    """

    case: str
    amount: Decimal | None
    by_wallet: bool
    netted: Decimal = ZERO
    others: tuple[Decimal, ...] = ()


class ResidualCase(Struct, frozen=True):
    """One row of the rule: when it applies, and the residual then.

    `by_wallet`: the residual follows the wallet. `nets`: unrealised profit may offset a part of what the wallet moved.
    """

    name: str
    applies: Callable[[Evidence], bool]
    amount: Callable[[Evidence], Decimal | None]
    by_wallet: bool = False
    nets: bool = False


def residual_of(evidence: Evidence) -> ChosenResidual:
    """The residual by the first case that applies."""
    case = next(each for each in CASES if each.applies(evidence))
    amount = case.amount(evidence)
    by_wallet = evidence.whole_by_wallet
    netted = ZERO if amount is None or by_wallet is None or not case.nets else by_wallet - amount
    return ChosenResidual(
        case.name,
        amount,
        by_wallet=case.by_wallet or (amount is not None and amount == evidence.by_wallet),
        netted=netted if abs(netted) > evidence.noise else ZERO,
        others=tuple(each for each in (by_wallet, evidence.by_marks) if each is not None and each != amount),
    )


def _is_flow_behind_loss(evidence: Evidence) -> bool:
    """Whether a loss that the positions show only now was netted against a flow before."""
    by_marks = evidence.by_marks
    if not evidence.dropped or by_marks is None or evidence.in_step is not True or not evidence.is_wallet_still:
        return False
    return by_marks * evidence.dropped > ZERO and abs(by_marks) > evidence.noise


def _settled_part(evidence: Evidence) -> Decimal:
    """The part of the change of unrealised profit that was settled: the smaller in size of s and −D, D = Rb − Rw."""
    settled, by_wallet, by_marks = evidence.settled, evidence.whole_by_wallet, evidence.by_marks
    if settled is None or by_wallet is None or by_marks is None or abs(settled) <= evidence.noise:
        return ZERO
    moved = by_wallet - by_marks
    return min(settled, moved, key=abs) if settled * moved > ZERO else ZERO


def _is_settlement(evidence: Evidence) -> bool:
    """Whether entry prices show a settlement: in snapshots of one moment, else by as much as Rw differs from Rb."""
    part = _settled_part(evidence)
    if not part or evidence.partly:
        return False
    if evidence.in_step and evidence.was_in_step:
        return True
    by_wallet, by_marks = evidence.whole_by_wallet or ZERO, evidence.by_marks or ZERO
    return abs(by_wallet - by_marks - (evidence.settled or ZERO)) <= evidence.noise + ABOUT * abs(part)


def _is_unseen_settlement(evidence: Evidence) -> bool:
    """Whether wallet and unrealised profit offset each other while positions are unknown."""
    by_wallet, change = evidence.by_wallet, evidence.unrealized_change
    if evidence.by_marks is not None or by_wallet is None or change is None or abs(by_wallet) <= evidence.noise:
        return False
    return abs(by_wallet + change) <= evidence.noise + ABOUT * abs(by_wallet)


def _less_settled(evidence: Evidence) -> Decimal | None:
    by_wallet = evidence.whole_by_wallet
    if evidence.traded:  # positions whose size changed were settled, too, and all fills are known
        return evidence.by_marks
    return None if by_wallet is None else by_wallet - _settled_part(evidence)


def _nearest_to_nothing(evidence: Evidence) -> Decimal | None:
    """The middle one of 0, Rb and Rw: the smaller of two of one sign, and nothing where their signs differ."""
    if evidence.by_wallet is None or evidence.by_marks is None:
        return evidence.by_marks if evidence.by_wallet is None else evidence.by_wallet
    return sorted((ZERO, evidence.by_marks, evidence.by_wallet))[1]


CASES = (
    ResidualCase(
        # The equity does not contain yet what the positions show, or the other way round.
        "positions lag",
        lambda it: it.waits and it.is_wallet_still,
        lambda it: it.by_wallet,
        by_wallet=True,
    ),
    ResidualCase(
        # Only settlements, transfers and rows move the wallet; entry prices tell how much was settled.
        "settlement",
        _is_settlement,
        _less_settled,
        by_wallet=True,
        nets=True,
    ),
    ResidualCase(
        # Nobody shows entry prices: as much as the wallet gained left unrealised profit, and equity stood still.
        "settlement, positions unknown",
        _is_unseen_settlement,
        lambda it: ZERO,
        by_wallet=True,
        nets=True,
    ),
    ResidualCase(
        # Nothing was settled: only transfers and rows move the wallet.
        "wallet",
        lambda it: it.is_of_one_moment and (it.by_wallet is None or it.settled is not None or it.is_unrealized_still),
        lambda it: it.whole_by_wallet,
        by_wallet=True,
    ),
    ResidualCase(
        # Equal in size, a flow and a loss that the positions showed later looked like a settlement.
        "flow behind a loss",
        _is_flow_behind_loss,
        lambda it: min(it.by_marks or ZERO, it.dropped, key=abs),
    ),
    ResidualCase(
        # The wallet contains P&L realised against unknown prices.
        "trade without fills, small",
        lambda it: it.partly and it.is_wallet_still and it.by_marks is not None and abs(it.by_marks) <= it.bound,
        lambda it: it.by_wallet,
        by_wallet=True,
    ),
    ResidualCase(
        "trade without fills",
        lambda it: it.partly and it.by_marks is not None,
        lambda it: it.by_marks,
        nets=True,
    ),
    ResidualCase(
        # Marks of another moment than the wallet distort Rb only; unrealised profit that is settled distorts Rw only.
        "nearest",
        lambda it: True,
        _nearest_to_nothing,
        nets=True,
    ),
)
