"""`reduce`: reduce the leverage of a scope or an account to a declared one."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from killswitch.graph.actions.kind import ActionKind, Surroundings, check_account, check_ranking, check_unwinding
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action, SignalRef
from killswitch.graph.resolution.unwindings import unwinding_name
from killswitch.graph.wording import percent
from killswitch.model.words import Place
from killswitch.policy.schema import actions, policy
from killswitch.policy.yaml.source_map import Path

ZERO = Decimal(0)


@frozen_from(actions.Reduce, by_hand=["unwinding"], ranking="rank")
class Reduce(Action, frozen=True):
    """A cut to a leverage: notional ÷ equity."""

    to: Decimal
    of: Literal["gross", "net"]
    order: Literal["proportion", "rank"]
    ranking: str
    flows: Literal["page", "reduce"]
    """Whether what was withdrawn within 24 hours counts as equity."""
    place: Place
    adverse_move: Decimal | None = None
    """The further adverse move that must not meet the trigger again, as a fraction of the price."""
    cost: Decimal = ZERO
    """Cost of selling, as a fraction of what is sold."""
    account: str | None = None
    """The account that is reduced; None: the scope."""
    at_most_per_day: int | None = None
    unwinding: str | None = None
    """Name in `PolicySet.unwindings`; None: market orders as fast as the venue allows."""


def room(limit: Decimal, target: Decimal) -> Decimal:
    """The smallest adverse move after which a book that was cut to `target` is at `limit` again, as a fraction.

    A price that moves by m against a long book of leverage T leaves T(1 − m) ÷ (1 − T·m), against a short one
    T(1 + m) ÷ (1 − T·m). These are the limit L at m = (L − T) ÷ (T(L − 1)) and at m = (L − T) ÷ (T(L + 1)), of which
    the second is always the smaller one.
    """
    return (limit - target) / (target * (limit + 1))


def reduce_text(reduce: Reduce, _: Sequence[SignalRef] = ()) -> str:
    """Text of a cut: `reduce gross leverage to 2.5 in proportion, at most 3 times a day`."""
    how = "in proportion" if reduce.order == "proportion" else f"worst first by {reduce.ranking}"
    whose = "" if reduce.account is None else f" of {reduce.account}"
    bounds = ["for withdrawals too" if reduce.flows == "reduce" else "not for withdrawals"]
    if reduce.adverse_move is not None:
        bounds.append(f"room for an adverse move of {percent(reduce.adverse_move)}")
    if reduce.cost:
        bounds.append(f"at a cost of {percent(reduce.cost)}")
    if reduce.at_most_per_day is not None:
        bounds.append(f"at most {reduce.at_most_per_day} times a day")
    if reduce.unwinding is not None:
        bounds.append(f"unwinding {reduce.unwinding}")
    return ", ".join([f"reduce {reduce.of} leverage{whose} to {reduce.to.normalize():f} {how}", *bounds])


def _reduce(written: actions.Reduce, _: policy.Stage, path: Path, around: Surroundings) -> Reduce:
    check_ranking(written.rank, path, around)
    check_unwinding(written.unwinding, path, around)
    if written.account is not None:
        check_account(written.account, (*path, "account"), around)
    found = around.found
    if written.cost is not None and written.to * written.cost >= 1 and not found.gaps.has_flaw(path):
        found.error(
            "KS3043", (*path, "cost"),
            f"at a leverage of {written.to.normalize():f} selling costs as much equity as it frees",
            f"write a cost below {percent(1 / written.to)}, such as 0.1%",
        )  # fmt: skip
    return freeze(
        written, Reduce,
        unwinding=unwinding_name(written.unwinding, around.unwindings), place=found.place(path, key=True),
    )  # fmt: skip


KIND: ActionKind[actions.Reduce, Reduce] = ActionKind(
    key="reduce",
    node=Reduce,
    effects=("orders",),
    is_reversible=False,
    needs_the_book=True,
    resolve=_reduce,
    text=reduce_text,
    selection=lambda _: "part",
    rankings=lambda reduce: (reduce.ranking,),
    unwindings=lambda reduce: (reduce.unwinding,),
    is_absolute=True,
)
