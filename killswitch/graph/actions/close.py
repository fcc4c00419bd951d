"""`close`: close positions, worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from killswitch.graph.actions.kind import ActionKind, Selection, Surroundings, check_ranking, check_unwinding
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action, ConditionNode, SignalRef
from killswitch.graph.problems import Findings
from killswitch.graph.resolution.triggers import expression
from killswitch.graph.resolution.unwindings import unwinding_name
from killswitch.graph.wording import condition_text, percent
from killswitch.model.words import Place
from killswitch.policy.schema import actions, policy
from killswitch.policy.yaml.source_map import Path
from killswitch.render.formats import count_of


@frozen_from(actions.Close, by_hand=["all_if", "where", "unwinding"], ranking="rank", worst_share=("worst", float))
class Close(Action, frozen=True):
    """Positions to close, and the fraction.

    `top` and `worst_share` bound the number of positions by rank; `worst_share` applies if attribution falls back to
    the worst ranked (0.6 of the positions, at least one). Both None: all selected positions. `all_if` and `where` are
    conditions on the position columns `Graph.position_signals`: a position for which `all_if` is true is closed
    completely, and one for which `where` is false is not selected.
    """

    side: Literal["losing", "long", "short", "both"]
    ranking: str
    top: int | None
    worst_share: float | None
    fraction: Decimal
    all_if: ConditionNode | None
    symbols: tuple[str, ...] | None
    """Only these symbols, or base assets of spot symbols; None: any."""
    except_assets: tuple[str, ...]
    """Base assets that are never sold (stable coins)."""
    place: Place
    share_cap: Decimal | None = None
    """Maximum remaining value of a selected position, as a fraction of the scope's gross at firing; None: no cap."""
    spread: Literal["each", "by_rank"] = "each"
    """Whether the fraction applies to each position, or to their gross, closing the worst ranked first."""
    where: ConditionNode | None = None
    where_unknown: Literal["close", "keep"] | None = None
    """Whether a position for which `where` is unknown is selected; None only without `where`."""
    daily_cap: int | None = None
    """Positions that capped closes of the policy may select on a scope within 24 hours; None: not limited, and without
    a group not counted."""
    cap_group: str | None = None
    """The policies that name it count their closes on a scope together."""
    unwinding: str | None = None
    """Name in `PolicySet.unwindings`; None: market orders as fast as the venue allows."""
    order: Literal["worst_first", "risk_first"] = "worst_first"
    """Whether orders go by rank, or by the component risk of what is left."""


def close_text(close: Close, position_signals: Sequence[SignalRef]) -> str:
    """Text of a close: `close 50% of both by default, no position above 12.5% of the gross`."""
    bounds = [] if close.top is None else [f"top {close.top}"]
    if close.daily_cap is not None:
        group = "" if close.cap_group is None else f" with {close.cap_group}"
        bounds.append(f"at most {count_of(close.daily_cap, 'position')} a day{group}")
    elif close.cap_group is not None:
        bounds.append(f"counted with {close.cap_group}")
    if close.worst_share is not None:
        bounds.append(f"worst {close.worst_share:.12g}")
    if close.share_cap is not None:
        bounds.append(f"no position above {percent(close.share_cap)} of the gross")
    if close.symbols is not None:
        bounds.append("only " + " ".join(close.symbols))
    if close.except_assets:
        bounds.append("not " + " ".join(close.except_assets))
    if close.where is not None:
        bounds.append(f"only where {condition_text(close.where, position_signals)} (unknown: {close.where_unknown})")
    if close.all_if is not None:
        bounds.append(f"all if {condition_text(close.all_if, position_signals)}")
    if close.unwinding is not None:
        bounds.append(f"unwinding {close.unwinding}")
    if close.order == "risk_first":
        bounds.append("risk first")
    what = f"close {percent(close.fraction)} of {close.side} by {close.ranking}"
    if close.spread == "by_rank":
        what = f"close {percent(close.fraction)} of the gross of {close.side}, worst first by {close.ranking}"
    return ", ".join([what, *bounds])


def _close(written: actions.Close, stage: policy.Stage, path: Path, around: Surroundings) -> Close:
    check_ranking(written.rank, path, around)
    check_unwinding(written.unwinding, path, around)
    _risk_is_ranked(written, path, around)
    _worst_applies(written, stage, path, around.found)
    _part_applies(written, path, around.found)
    return freeze(
        written, Close,
        all_if=_condition(written.all_if, (*path, "all_if"), around),
        where=_condition(written.where, (*path, "where"), around),
        unwinding=unwinding_name(written.unwinding, around.unwindings),
        place=around.found.place(path, key=True),
    )  # fmt: skip


def _risk_is_ranked(written: actions.Close, path: Path, around: Surroundings) -> None:
    """Report an order by risk with a ranking that computes none."""
    rule = around.rankings.get(written.rank)
    if written.order == "risk_first" and rule is not None and rule.formula != "component-risk":
        message = f"the ranking `{written.rank}` has no component risk to order by"
        fix = "write `rank: component-risk`, or take `order` out"
        around.found.error("KS3064", (*path, "order"), message, fix)


def _condition(written: str | None, path: Path, around: Surroundings) -> ConditionNode | None:
    """Compile a condition on positions; None without one, or if it has a mistake, which is reported."""
    if written is None:
        return None
    condition = expression(written, "position", path, around.position_columns, around.found)
    if condition is not None:
        around.position_conditions.append((path, condition))
    return condition


def _part_applies(written: actions.Close, path: Path, found: Findings) -> None:
    """Report an `all_if` and a spread with a fraction of 100%, and a share cap that never applies."""
    if written.all_if is not None and written.fraction == 1 and not found.gaps.has_flaw(path):
        found.error(
            "KS3036", (*path, "all_if"), "`all_if` does nothing here: `fraction: 100%` closes every selected position",
            "write `where` to close only the positions for which the condition is true, or close less than 100%",
            key=True,
        )  # fmt: skip
    if written.spread == "by_rank" and written.fraction == 1 and not found.gaps.has_flaw(path):
        message = "`by_rank` has no effect where everything is closed"
        found.warning("KS5013", (*path, "spread"), message, "take it out, or close less", key=True)
    cap = written.share_cap
    kept = 1 - (written.fraction if written.spread == "each" else Decimal(int(written.fraction)))
    if cap is None or cap < kept or found.gaps.is_hole((*path, "share_cap")) or found.gaps.is_hole((*path, "fraction")):
        return
    message, fix = "`share_cap` never applies here: `fraction` closes everything", "take it out"
    if kept:
        limit = percent(kept)
        message = f"`share_cap` never applies here: the fraction leaves no position more than {limit} of the gross"
        fix = f"write a cap below {limit}, or take it out"
    found.warning("KS5011", (*path, "share_cap"), message, fix, key=True)


def _worst_applies(written: actions.Close, stage: policy.Stage, path: Path, found: Findings) -> None:
    rule = stage.attribution
    falls_back = written.side == "losing" and rule is not None and "worst_ranked" in (rule.if_mixed, rule.if_unknown)
    known = not found.gaps.has_flaw((*path, "side")) and not found.gaps.has_flaw((*path[:3], "attribution"))
    if written.worst is not None and not falls_back and known:
        found.warning(
            "KS5007", (*path, "worst"),
            "`worst` never applies here: it bounds what is closed when attribution falls back to worst_ranked",
            "take it out, or bound the number of positions with `top`",
            key=True,
        )  # fmt: skip


def _selection(close: Close) -> Selection:
    everything = close.side == "both" and close.where is None and close.symbols is None and not close.except_assets
    return "whole" if everything and close.daily_cap is None else "part"  # a cap that is reached leaves nothing


KIND: ActionKind[actions.Close, Close] = ActionKind(
    key="close",
    node=Close,
    effects=("orders",),
    is_reversible=False,
    needs_the_book=True,
    resolve=_close,
    text=close_text,
    selection=_selection,
    rankings=lambda close: (close.ranking,),
    unwindings=lambda close: (close.unwinding,),
    position_conditions=lambda close: {"all_if": close.all_if, "where": close.where},
)


def sides_closed(actions: Iterable[Action]) -> frozenset[str]:
    """The sides that the `close` actions among these close."""
    return frozenset(action.side for action in actions if isinstance(action, Close))


def closes_among(actions: Iterable[Action]) -> list[Close]:
    """The `close` actions among these, in order."""
    return [action for action in actions if isinstance(action, Close)]


def whole_close(actions: Iterable[Action], rankings: Iterable[str]) -> Close | None:
    """A close of everything that the `close` actions among these may sell, with the first unwinding; None without one.

    It ranks by `default` where that is among `rankings`.
    """
    closes = closes_among(actions)
    if not closes:
        return None
    kept = set(closes[0].except_assets).intersection(*(each.except_assets for each in closes[1:]))
    return replace(
        closes[0], side="both", ranking="default" if "default" in rankings else closes[0].ranking, top=None,
        worst_share=None, fraction=Decimal(1), all_if=None, where=None, where_unknown=None, symbols=None,
        except_assets=tuple(asset for asset in closes[0].except_assets if asset in kept),
    )  # fmt: skip
