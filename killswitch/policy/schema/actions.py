"""Actions of a stage: one part for each kind, and `Action`, which contains exactly one of them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from killswitch.model.words import LockMode
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import (
    Duration,
    Expression,
    Fraction,
    Money,
    Name,
    Price,
    ProperShare,
    RankCount,
    ReturnCount,
    Word,
    Words,
    ZonedTime,
)


class LockTrading(Part):
    """Lock trading: bots that read the lock stop."""

    mode: LockMode
    """`reduce_only` forbids new risk; `all` forbids every order."""
    side: Literal["long", "short"] | None = None
    """The side of which no position may be opened or enlarged. A bot that does not know the key `only` of the lock file
    sees the whole scope locked. Left out: both."""
    symbols: Words | None = None
    """The symbols that are locked, as the venue writes them. A bot that does not know the key `only` of the lock file
    sees the whole scope locked. Left out: all."""
    positions: Literal["closed"] | None = None
    """`closed`: only what the closes of the stage select, each symbol on the side that is closed, of what `side` and
    `symbols` name. Where they select nothing, or before it is known, the lock reaches all that these name. Left out: it
    does not depend on the closes."""
    duration: Annotated[Duration | None, Field(alias="for")] = None
    """How long the lock lasts. Left out: until it is lifted, or as `until` or `until_session` says."""
    until: ZonedTime | None = None
    """The time of the day at which it ends, the next one after the firing. Where the clocks of the zone skip it, the
    first instant after; where they show it twice, the first time. Left out: as `for` says."""
    until_session: Name | None = None
    """The `Session` at whose next open after the firing it ends. Left out: as `for` or `until` says."""


class CancelOrders(Part):
    """Cancel resting orders."""

    kind: Literal["entry", "all"]
    """`entry` cancels orders that would add risk; `all` also cancels protective orders."""


class Close(Part):
    """Close positions, worst first."""

    side: Literal["losing", "long", "short", "both"]
    """Which positions. `losing` requires the stage's `attribution`."""
    rank: Name = "default"
    """The ranking that orders the positions. Left out: `default`."""
    top: RankCount | None = None
    """The maximum number of positions, by rank. Left out: all selected positions."""
    daily_cap: RankCount | None = None
    """How many positions the closes of this policy that have a cap select on one scope within 24 hours. What is beyond
    is not closed, and pages. A close without the key neither counts nor is limited: leave it out of the last level.
    Left out: no cap."""
    cap_group: Name | None = None
    """A name under which the closes of several policies count together on one scope: `daily_cap` then bounds the closes
    of all policies that name it. Without `daily_cap` a close counts in it, and is not limited. Left out: the policy
    counts its own closes alone."""
    worst: Fraction | None = None
    """The share of the positions, by rank and at least one, to select when attribution falls back to `worst_ranked`.
    Left out: all of them, or `top`."""
    fraction: Fraction
    """The fraction of each position to close."""
    share_cap: Fraction | None = None
    """The maximum notional of each selected position after the close, as a fraction of the scope's gross notional at
    firing. Positions of unknown notional do not count in the gross, which can only lower the cap; a selected position
    of unknown notional is closed completely, and the decision records it. Left out: no cap."""
    spread: Literal["each", "by_rank"] = "each"
    """`each` closes the fraction of every selected position; `by_rank` closes the fraction of the selected gross
    notional, starting with the worst ranked position. With component risk, this is the cut that minimises the variance
    of the scope's P&L. While a notional or the component risk is unknown, the close uses `each`, and the decision
    records it. Left out: each."""
    order: Literal["worst_first", "risk_first"] = "worst_first"
    """`worst_first` sends the orders by rank. `risk_first` sends each for the position with the largest component risk
    of what is left, computed again after each order; it requires a ranking with the formula `component-risk`, and
    orders by rank while that is unknown. Correlation groups go in their own order first. Left out: worst_first."""
    all_if: Expression | None = None
    """A condition over `position.*` signals; where true, the whole position is closed. Left out: never."""
    where: Expression | None = None
    """A condition over `position.*` signals; only positions for which it is true are selected. If none is, the stage
    does everything but the close, does not latch, and evaluates the condition again at each tick. Left out: every
    position."""
    where_unknown: Literal["close", "keep"] | None = None
    """Whether a position is closed for which `where` is unknown; required with `where`. Left out: there is no
    `where`."""
    symbols: Annotated[tuple[Word, ...] | None, AtLeastOne()] = None
    """Only these symbols, or base assets of spot symbols. Left out: all symbols."""
    except_assets: tuple[Word, ...] = ()
    """Base assets that the close never sells. Left out: none."""
    unwinding: Name | None = None
    """The Unwinding that executes the close. Left out: the one called `default` if there is one, else market orders as
    fast as the venue allows."""

    without_unknown_key: ClassVar[str] = (
        "a close without it may close more than you mean: say what it restricts with `where`, `symbols`, "
        "`except_assets`, `side`, `top` or `fraction`"
    )

    @classmethod
    def instead_of(cls, key: str) -> str | None:
        """Words for what stays open: no key has a condition for that, only its opposite."""
        if key.lower().replace("-", "_") not in _KEPT:
            return None
        return (
            "write its opposite, `where: '…'` over `position.*` for what is closed, with `where_unknown: close` or "
            "`keep`; or `except_assets: […]` for base assets that are never sold"
        )


_KEPT = frozenset(
    ("unless", "not", "keep", "keep_if", "keep_where", "keep_when", "except_if", "except_where", "exclude_if", "skip")
) | {"skip_if", "ignore", "hold", "hold_if"}
"""Words for positions that stay open."""


class Reduce(Part):
    """Reduce the leverage of the scope, or of another account, to a declared one. It never adds."""

    to: Price
    """The leverage after it, notional ÷ equity. `E` is the equity, `A` the notional and `c` the cost: it sells
    (A − to × E) ÷ (1 − to × c), at most everything, less what closes in progress will sell. With an equity of 0 or less
    it sells everything."""
    of: Literal["gross", "net"]
    """`gross` counts the sum of absolute notionals and cuts both sides; `net` counts long minus short, and cuts the
    heavier side."""
    order: Literal["proportion", "rank"]
    """`proportion` cuts the same share of each position; `rank` closes the worst ranked first."""
    rank: Name = "default"
    """The ranking that orders the positions. Left out: `default`."""
    flows: Literal["page", "reduce"]
    """A withdrawal raises leverage without a loss. `page`: what was withdrawn within 24 hours, net of deposits, counts
    as equity, so that nothing is sold for it, and it pages. `reduce`: it sells for a withdrawal too; triggers of
    leverage then need a `confirm`."""
    adverse_move: ProperShare | None = None
    """The further adverse move of the market that the trigger must not be met by again. It is required where a trigger
    of the stage is `exposure.leverage` above a number, and `to` must leave room for it. Left out: such a trigger is not
    there, or the leverage is that of another account."""
    cost: ProperShare | None = None
    """The cost of selling, as a fraction of what is sold, which lowers the equity. Left out: none."""
    account: Name | None = None
    """The account whose leverage is reduced, instead of the scope's. Left out: the scope."""
    at_most_per_day: RankCount | None = None
    """How often it may sell on one scope within 24 hours. What is beyond sells nothing, and pages. Left out: any
    number."""
    unwinding: Name | None = None
    """The Unwinding that executes it. Left out: the one called `default` if there is one, else market orders as fast as
    the venue allows."""


class OpenedHedge(Part):
    """The one position that `neutralise` may open, against what its reductions leave."""

    account: Name
    """The account that it is opened on; never one that is locked for every order."""
    instrument: Word
    """The symbol on that account."""
    at_most: Money
    """The maximum value of it, with what the account holds of the instrument on that side already, in the currency of
    the account. What the account's free margin does not carry is not opened either."""


class NetExposure(Part):
    """What the scope depends on the market with, by beta, and the orders that would take it out. `plan`, a firing and
    its report show it for the scope now and for what is left after each stage. Nothing is sent for it: `neutralise`
    does that, with the same keys."""

    hub: Word
    """The symbol of the market whose returns betas are measured on. Positions of its base asset have a beta of 1. An
    account must hold it, or have it in its `watch`."""
    window: Duration
    """The window of the returns."""
    sample: Duration
    """The interval between two marks."""
    least: ReturnCount
    """The minimum number of returns in the window. With fewer a beta, or the covariance, is unknown."""
    if_unknown: Literal["notional", "nothing"]
    """What applies to positions of an unknown beta. `notional`: they count with a beta of 1, which is shown.
    `nothing`: the exposure is unknown."""
    group: Name | None = None
    """A `CorrelationGroup`, or a `HedgeGroup`, whose positions alone are counted. Left out: all of the scope."""
    instruments: tuple[OpenedHedge, ...] = ()
    """What could be opened against it, each judged by itself: copy one to `open` of a `neutralise` to have it opened.
    Left out: only orders that reduce are suggested."""


class Neutralise(Part):
    """Bring the exposure of the scope to the market to zero, with the fewest orders that reduce. After rounding the
    variance of the book must not be larger than before, or nothing is sent and `fallback` applies."""

    by: Literal["beta", "component-risk", "notional"]
    """How positions count. `beta`: by notional × beta to the `hub`, the slope of a least-squares line. `notional`: by
    notional, which takes a book for neutral that is not, where betas differ. `component-risk`: no exposure is brought
    to zero; the book is cut to the share `keep` of its gross, so that its variance is minimal."""
    hub: Word | None = None
    """The symbol of the market whose returns betas are measured on; required by `by: beta`. Positions of its base asset
    have a beta of 1. An account must hold it, or have it in its `watch`. Left out: not used."""
    keep: ProperShare | None = None
    """The share of the gross that is kept; required by `by: component-risk`. Left out: not used."""
    window: Duration
    """The window of the returns."""
    sample: Duration
    """The interval between two marks."""
    least: ReturnCount
    """The minimum number of returns in the window. With fewer a beta, or the covariance, is unknown."""
    if_unknown: Literal["notional", "close", "nothing"]
    """What applies to positions of an unknown beta, and while the covariance is unknown. `notional`: they count by
    notional, and where the covariance is unknown its guard does not apply. `close`: they are closed. `nothing`: nothing
    is sent."""
    fallback: Literal["close", "nothing"]
    """What applies where the reductions would make the variance larger, or a price, a size or a wallet is unknown:
    `close` closes every position that it counts, `nothing` sends nothing, and pages."""
    group: Name | None = None
    """A `CorrelationGroup`, or a `HedgeGroup`, whose positions alone are counted and reduced. Left out: all of the
    scope."""
    open: OpenedHedge | None = None
    """What may be opened against the exposure that no reduction can remove. Left out: nothing is opened."""
    rank: Name = "default"
    """The ranking that orders positions that are closed. Left out: `default`."""
    unwinding: Name | None = None
    """The Unwinding that executes it. Left out: the one called `default` if there is one, else market orders as fast as
    the venue allows."""


class TopUpMargin(Part):
    """Move margin to the account of the scope from another account, so that its margin ratio falls to a declared one.
    It feeds the loss: what is moved can be lost too, and `reduce` ends the same alarm without it. It is moved at most
    once: what was decided counts as moved within 24 hours until the account shows it, whatever the venue answered."""

    source: Annotated[Name, Field(alias="from")]
    """The account that it is moved from, in the same currency, at a venue that moves money between the two. It must not
    be in the scope."""
    to_ratio: ProperShare
    """The margin ratio after it: maintenance margin ÷ equity. The amount is maintenance ÷ to_ratio − equity, less what
    is on the way."""
    partial_to: ProperShare | None = None
    """The margin ratio that a smaller amount must reach, where the bound or the source does not allow the whole one: it
    should end the alarm. Left out: nothing is moved then."""
    at_most: Money
    """What is moved to one account within 24 hours, by this policy."""
    keep: Money
    """What stays free in the source, its own limit; what is on the way from it has left it already."""


class ExitProcess(Part):
    """Exit the process of the run with code 1, once no close of the run is in progress."""


class Action(Part):
    """One action: exactly one key. Killswitch determines the order of execution, not the file."""

    without_unknown_key: ClassVar[str] = (
        "if it restricts an action, write it below that: without it the action may do more than you mean"
    )
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    @classmethod
    def instead_of(cls, key: str) -> str | None:
        """Words for an action, a receiver or a key of `close`, each with the place where it belongs."""
        word = key.lower().replace("-", "_")
        if word in Close.model_fields:
            return f"write it inside of its action: `close: {{…, {word}: …}}`; beside it, the close would not have it"
        return next((fix for words, fix in _ELSEWHERE.items() if word in words.split()), None)

    lock_trading: LockTrading | None = None
    """Lock trading: bots that read the lock stop."""
    cancel_orders: CancelOrders | None = None
    """Cancel resting orders."""
    close: Close | None = None
    """Close positions."""
    reduce: Reduce | None = None
    """Reduce the leverage to a declared one."""
    neutralise: Neutralise | None = None
    """Reduce what makes the scope depend on the market."""
    top_up_margin: TopUpMargin | None = None
    """Move margin to the account from another one."""
    exit_process: ExitProcess | None = None
    """Exit the process of the run with code 1, once no close of any policy is in progress; `{}`. The stage stays
    latched, so that a restarted run goes on with all other scopes."""

    @property
    def written(self) -> Mapping[str, Part]:
        """Key → its part: exactly one in a valid document, none where the action could not be parsed."""
        return {key: part for key in ACTIONS if (part := getattr(self, key)) is not None}


_ELSEWHERE = {
    "lock lock_trade halt pause stop_trading": "write `lock_trading: {mode: reduce_only}`",
    "notify page alert message": "write `notify: [NAME]` as a key of the stage; a NotificationRoute names its targets",
    "close_all close_positions flatten sell sell_all liquidate": "write `close: {side: …, fraction: …}`: neither has a "
    "default",
    "top_up add_margin transfer": "write `top_up_margin: {from: …, to_ratio: …, at_most: …, keep: …}`: none "
    "has a default",
    "cancel cancel_all cancel_order": "write `cancel_orders: {kind: …}`: it has no default",
}
"""Words of other programs for actions, and how they are written here."""

ACTIONS = tuple(Action.model_fields)
"""The keys of all actions."""
