"""`neutralise`: reduce what makes a scope depend on the market, with the fewest orders."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from killswitch.graph.actions.kind import ActionKind, Surroundings, check_account, check_ranking, check_unwinding
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action, NetExposureRule, OpenedHedge, SignalRef, is_member
from killswitch.graph.problems import unknown_name
from killswitch.graph.resolution.unwindings import unwinding_name
from killswitch.graph.wording import percent
from killswitch.model.words import Place
from killswitch.policy.schema import actions, policy
from killswitch.policy.yaml.source_map import Path
from killswitch.signals.arguments import HedgeLegs, SymbolGroup, span


@frozen_from(actions.Neutralise, by_hand=["unwinding", "open"], ranking="rank")
class Neutralise(Action, frozen=True):
    """A cut to an exposure of zero, or by the least variance; times in microseconds."""

    by: Literal["beta", "component-risk", "notional"]
    hub: str | None
    keep: Decimal | None
    """The share of the gross that is kept by component risk."""
    window: int
    sample: int
    least: int
    if_unknown: Literal["notional", "close", "nothing"]
    fallback: Literal["close", "nothing"]
    ranking: str
    place: Place
    group: str | None = None
    members: tuple[tuple[str | None, str], ...] | None = None
    """Account (None: any) and symbol of each member of the group; None: the whole scope."""
    open: OpenedHedge | None = None
    unwinding: str | None = None
    """Name in `PolicySet.unwindings`; None: market orders as fast as the venue allows."""

    def counts(self, account: str, symbol: str) -> bool:
        """Whether a position is counted and may be reduced."""
        return is_member(self.members, account, symbol)


def neutralise_text(action: Neutralise, _: Sequence[SignalRef] = ()) -> str:
    """Text of it: `neutralise by beta on BTC/USDT:USDT, unknown: notional, else nothing`."""
    what = "neutralise" if action.group is None else f"neutralise {action.group}"
    how = f"{what} by {action.by}"
    if action.hub is not None:
        how += f" on {action.hub}"
    if action.keep is not None:
        how += f", keep {percent(action.keep)} of the gross"
    parts = [
        how, f"returns of {span(action.sample)} over {span(action.window)}, at least {action.least}",
        f"unknown: {action.if_unknown}", f"otherwise {action.fallback}",
    ]  # fmt: skip
    if action.open is not None:
        most = f"{action.open.at_most.normalize():f} {action.open.currency or ''}".rstrip()
        parts.append(f"may open {action.open.instrument} on {action.open.account} up to {most}")
    if action.unwinding is not None:
        parts.append(f"unwinding {action.unwinding}")
    return ", ".join(parts)


def _neutralise(written: actions.Neutralise, _: policy.Stage, path: Path, around: Surroundings) -> Neutralise:
    check_ranking(written.rank, path, around)
    check_unwinding(written.unwinding, path, around)
    opened = None
    if written.open is not None and not around.found.gaps.has_flaw((*path, "open")):
        opened = _opened(written.open, (*path, "open"), around)
    return freeze(
        written, Neutralise,
        unwinding=unwinding_name(written.unwinding, around.unwindings), open=opened,
        members=_members(written.group, (*path, "group"), around), place=around.found.place(path, key=True),
    )  # fmt: skip


def net_exposure(written: actions.NetExposure | None, around: Surroundings) -> NetExposureRule | None:
    """What a policy shows of its exposure; reports unknown accounts and groups."""
    path: Path = ("spec", "net_exposure")
    if written is None or around.found.gaps.has_flaw(path):
        return None
    return freeze(
        written, NetExposureRule, members=_members(written.group, (*path, "group"), around),
        instruments=tuple(
            _opened(each, (*path, "instruments", number), around) for number, each in enumerate(written.instruments)
        ),
        place=around.found.place(path, key=True),
    )  # fmt: skip


def _opened(written: actions.OpenedHedge, path: Path, around: Surroundings) -> OpenedHedge:
    check_account(written.account, (*path, "account"), around)
    return freeze(written, OpenedHedge, at_most=written.at_most.value, currency=written.at_most.currency)


def _members(name: str | None, path: Path, around: Surroundings) -> tuple[tuple[str | None, str], ...] | None:
    """The members of a correlation group or a hedge group; reports an unknown one."""
    if name is None:
        return None
    declared = around.columns.declared.by_kind
    group = declared.get("CorrelationGroup", {}).get(name) or declared.get("HedgeGroup", {}).get(name)
    if isinstance(group, SymbolGroup):
        return tuple((None, symbol) for symbol in group.symbols)
    if isinstance(group, HedgeLegs):
        return tuple((leg.account, leg.symbol) for leg in group.legs)
    others = around.others
    if not (others.can_have("CorrelationGroup", name) or others.can_have("HedgeGroup", name)):
        known = [*declared.get("CorrelationGroup", {}), *declared.get("HedgeGroup", {})]
        message, fix = unknown_name("correlation group", name, known)
        around.found.error("KS3032", path, message, fix)
    return ()


KIND: ActionKind[actions.Neutralise, Neutralise] = ActionKind(
    key="neutralise",
    node=Neutralise,
    effects=("orders",),
    is_reversible=False,
    needs_the_book=True,
    resolve=_neutralise,
    text=neutralise_text,
    selection=lambda _: "part",
    rankings=lambda action: (action.ranking,),
    unwindings=lambda action: (action.unwinding,),
    is_absolute=True,
)
