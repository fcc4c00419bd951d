"""`top_up_margin`: move margin to the account of a scope from another account, within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from killswitch.graph.actions.kind import ActionKind, Surroundings, check_account
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action, SignalRef
from killswitch.graph.wording import percent
from killswitch.model.words import Place
from killswitch.policy.schema import actions, policy
from killswitch.policy.yaml.source_map import Path

ZERO = Decimal(0)


@frozen_from(actions.TopUpMargin, by_hand=["at_most", "keep"], source="from")
class TopUpMargin(Action, frozen=True):
    """Margin from `source` until maintenance margin ÷ equity is `to_ratio`; amounts in `currency`."""

    source: str
    to_ratio: Decimal
    at_most: Decimal
    """What is moved within 24 hours."""
    keep: Decimal
    """What stays free in the source."""
    currency: str
    place: Place
    partial_to: Decimal | None = None
    """The ratio that a smaller amount must reach; None: only the whole amount is moved."""


def top_up_text(action: TopUpMargin, _: Sequence[SignalRef] = ()) -> str:
    """Text of it: `top up margin from treasury to a ratio of 30%, at most 1000 USDT in 24h, keep 500 USDT there`."""
    parts = [f"top up margin from {action.source} to a ratio of {percent(action.to_ratio)}"]
    if action.partial_to is not None:
        parts.append(f"or at least {percent(action.partial_to)}")
    parts.append(f"at most {_money(action.at_most, action)} in 24h")
    parts.append(f"keep {_money(action.keep, action)} there")
    return ", ".join(parts)


def _money(amount: Decimal, action: TopUpMargin) -> str:
    return f"{amount.normalize():f} {action.currency}"


def _top_up(written: actions.TopUpMargin, _: policy.Stage, path: Path, around: Surroundings) -> TopUpMargin:
    found = around.found
    if not found.gaps.has_flaw((*path, "from")):
        check_account(written.source, (*path, "from"), around)
    flawed = found.gaps.has_flaw(path)  # then nothing else is checked, and the policy is not compiled
    return freeze(
        written, TopUpMargin,
        at_most=ZERO if flawed else written.at_most.value, keep=ZERO if flawed else written.keep.value,
        currency="" if flawed else written.at_most.currency or "", place=found.place(path, key=True),
    )  # fmt: skip


KIND: ActionKind[actions.TopUpMargin, TopUpMargin] = ActionKind(
    key="top_up_margin",
    node=TopUpMargin,
    effects=("transfer",),
    is_reversible=False,
    needs_the_book=True,
    resolve=_top_up,
    text=top_up_text,
    selection=lambda _: "part",  # a stage that moves nothing does not latch
)
