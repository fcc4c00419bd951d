"""Effects of decisions, and the registry of their kinds.

Policies declare actions, decisions have effects; several actions may have the same effect. `EFFECTS` lists every kind
in the order of a decision record; `rank` is the order of execution. `killswitch.execution.effects` executes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.instant import rfc3339
from killswitch.model.lock_parts import latest_end, merged_parts, parts_text, strictest_mode
from killswitch.model.registry import require_same_keys
from killswitch.model.snapshot import Instant, LockPart, OrderSide, Side
from killswitch.model.words import CancelWhy, LockMode, place_text


class OwnClose(Struct, frozen=True):
    """Contracts of a shared position that belong to `strategy` and are closed."""

    strategy: str
    contracts: Decimal


class Intent(Struct, frozen=True, omit_defaults=True):
    """One intended order towards a target, exact in venue units.

    `contracts` is the amount to trade; `target` is the remaining size of the position, both in contracts. `exact` is
    false if the venue's rules for the symbol are unknown, so that nothing was rounded. `band` is the maximum slippage
    as a fraction of the mark. A `hop` sells what the intent at index `after` of the same decision has bought, and
    nothing held before: its `contracts` are an estimate, and its `target` is the earlier holding. A hop without `after`
    sells `contracts` of a holding on another market than the one that it is listed on. A `hedge` opens `contracts`
    instead of reducing. Hops and hedges are counted by their own fills. `parts`: the strategies whose parts of the
    position the decision closes; nothing is then closed beyond them, whatever the position becomes meanwhile.
    `at_market`: its orders skip the steps of the ladder before the first market order, because no fresh mark bounds
    them.
    """

    account: str
    symbol: str
    position_side: Side
    side: OrderSide
    contracts: Decimal
    target: Decimal
    reduce_only: bool
    rank: int
    score: str | None = None
    exact: bool = True
    band: Decimal | None = None
    purpose: Literal["reduce", "hop", "hedge"] = "reduce"
    after: int | None = None
    parts: tuple[OwnClose, ...] = ()
    at_market: bool = False


class Cancel(Struct, frozen=True):
    """One resting order to cancel, and why."""

    account: str
    symbol: str
    order: str
    why: CancelWhy


class LockOrder(Struct, frozen=True, omit_defaults=True):
    """A lock to write; with `until` null it does not expire.

    `only`: the parts of the scope that it locks, of which `mode` is the strictest and `until` the latest; empty: all of
    the scope.
    """

    scope: str
    mode: LockMode
    until: Instant | None
    only: tuple[LockPart, ...] = ()

    @property
    def parts(self) -> tuple[LockPart, ...]:
        """What it locks, as parts."""
        return self.only or (LockPart(self.mode, self.until),)

    @classmethod
    def of(cls, scope: str, parts: Iterable[LockPart]) -> LockOrder:
        """The order that locks these parts, of which there is at least one."""
        merged = merged_parts(parts)
        mode, until = strictest_mode([part.mode for part in merged]), latest_end(part.until for part in merged)
        return cls(scope, mode, until, () if all(part.is_everything for part in merged) else merged)

    def with_ends(self, end: Callable[[datetime], datetime]) -> LockOrder:
        """The order with `end` of each of its ends; what has no end keeps none."""
        parts = (part if part.until is None else replace(part, until=end(part.until)) for part in self.parts)
        return LockOrder.of(self.scope, parts)

    def ending(self, at: datetime) -> LockOrder:
        """The order that ends at `at`, and no part of it later."""
        ends = [at if part.until is None else min(part.until, at) for part in self.only]
        only = tuple(replace(part, until=end) for part, end in zip(self.only, ends, strict=True))
        return replace(self, until=at, only=only)


class Orders(Struct, frozen=True, tag="orders", tag_field="kind"):
    """Orders at venues, in the order of closing; client order ids contain the index of the intent."""

    intents: tuple[Intent, ...]


class Cancels(Struct, frozen=True, tag="cancels", tag_field="kind"):
    """Resting orders to cancel: entries before closing, others after it."""

    cancels: tuple[Cancel, ...]


class Lock(Struct, frozen=True, tag="lock", tag_field="kind"):
    """A trading lock of a scope, which bots read."""

    order: LockOrder


class Transfer(Struct, frozen=True, tag="transfer", tag_field="kind"):
    """Money that moves between two accounts of one venue, in the currency of both; sent once, whatever is answered."""

    source: str = field(name="from")
    account: str = field(name="to")
    currency: str
    amount: Decimal


class ProcessExit(Struct, frozen=True, tag="process_exit", tag_field="kind"):
    """The exit of the run's process, after every close of the run has ended."""


Effect = Orders | Cancels | Lock | ProcessExit | Transfer

E = TypeVar("E", bound=Struct)


class Reversal(Struct, Generic[E], frozen=True):
    """How an effect is reversed: `until` is its expiry (None: never), `ending` returns it with another expiry."""

    until: Callable[[E], datetime | None]
    ending: Callable[[E, datetime], E]


class EffectKind(Struct, Generic[E], frozen=True):
    """One kind of effect.

    `rank`: the order of execution, smallest first. `noun` and `size`: the unit and the count; an effect of size 0 is
    dropped. `text`: a line for people. `accounts`: the accounts that it acts on; `only`: its part on some accounts
    (None: nothing), unchanged for an effect that acts on no account. `merged`: the combination of two effects of a
    decision. A kind with a `reversal` may be executed on the pessimistic bound of a condition, any other on the
    optimistic bound. `needs`: the capability of `VenueAdapter` that an account's adapter must offer; None:
    any adapter. `is_worked_off`: whether the executors of its accounts execute it, whose journal entries name the
    account.
    """

    effect: type[E]
    rank: int
    noun: str
    size: Callable[[E], int]
    text: Callable[[E], str]
    merged: Callable[[E, E], E]
    accounts: Callable[[E], Iterable[str]] = lambda _: ()
    only: Callable[[E, Collection[str]], E | None] = lambda effect, _: effect
    reversal: Reversal[E] | None = None
    needs: str | None = None
    is_worked_off: bool = False

    @property
    def key(self) -> str:
        """The tag that identifies the kind in stored records and in the journal."""
        return tag_of(self.effect)

    @property
    def is_reversible(self) -> bool:
        return self.reversal is not None


def tag_of(effect: type[Struct]) -> str:
    """The tag of an effect's class."""
    return str(effect.__struct_config__.tag)


def wanted_intents(intents: Sequence[Intent], is_wanted: Callable[[Intent], bool]) -> tuple[Intent, ...]:
    """The wanted intents. A second hop follows its first one, and its `after` is the first one's new index."""
    kept: list[Intent] = []
    place: dict[int, int] = {}
    for index, intent in enumerate(intents):
        if intent.after is None and is_wanted(intent):
            place[index] = len(kept)
            kept.append(intent)
        elif intent.after is not None and intent.after in place:
            place[index] = len(kept)
            kept.append(replace(intent, after=place[intent.after]))
    return tuple(kept)


def _orders_only(orders: Orders, accounts: Collection[str]) -> Orders | None:
    kept = wanted_intents(orders.intents, lambda intent: intent.account in accounts)
    return Orders(kept) if kept else None


def _orders_merged(one: Orders, other: Orders) -> Orders:
    raise ValueError("a decision has only one effect of orders: targets must be merged before unwinding")


def _cancels_only(cancels: Cancels, accounts: Collection[str]) -> Cancels | None:
    kept = tuple(cancel for cancel in cancels.cancels if cancel.account in accounts)
    return Cancels(kept) if kept else None


def _cancels_merged(one: Cancels, other: Cancels) -> Cancels:
    """Every order once, in the order of the longer effect."""
    long, short = sorted((one.cancels, other.cancels), key=len, reverse=True)
    known = {(each.account, each.symbol, each.order) for each in long}
    return Cancels((*long, *(each for each in short if (each.account, each.symbol, each.order) not in known)))


def _lock_merged(one: Lock, other: Lock) -> Lock:
    """The stricter mode, and the later end; different parts of the scope are kept apart."""
    return Lock(LockOrder.of(one.order.scope, (*one.order.parts, *other.order.parts)))


def _lock_text(lock: Lock) -> str:
    until = "it is lifted" if lock.order.until is None else rfc3339(lock.order.until)
    return f"lock {place_of(lock.order)}: {lock.order.mode} until {until}"


def locked_place(order: LockOrder) -> str:
    """What an order locks, without modes and ends: its scope, or `long in BTC_USDT of account/main`."""
    parts = " and ".join(place_text(part.side, part.symbols) for part in order.only)
    return f"{parts} of {order.scope}" if parts else order.scope


def place_of(order: LockOrder) -> str:
    """What an order locks, for people: its scope, and the parts of it if it does not lock all of it."""
    return order.scope if not order.only else f"{order.scope}, only {parts_text(order.only)}"


def _transfer_only(transfer: Transfer, accounts: Collection[str]) -> Transfer | None:
    return transfer if {transfer.source, transfer.account} <= set(accounts) else None


def _transfer_merged(one: Transfer, other: Transfer) -> Transfer:
    raise ValueError("a decision moves money once: a stage has one `top_up_margin`")


def _transfer_text(transfer: Transfer) -> str:
    amount = f"{transfer.amount.normalize():f} {transfer.currency}"
    return f"move {amount} of margin from {transfer.source} to {transfer.account}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


EXIT_CODE: Final = 1
"""Exit code of a run that a `ProcessExit` ends."""

EFFECTS: Final[tuple[EffectKind[Any], ...]] = (
    EffectKind(
        effect=Orders,
        rank=30,
        noun="order",
        size=lambda orders: len(orders.intents),
        text=lambda orders: f"send {_counted(len(orders.intents), 'order')}",
        merged=_orders_merged,
        accounts=lambda orders: (intent.account for intent in orders.intents),
        only=_orders_only,
        is_worked_off=True,
    ),
    EffectKind(
        effect=Cancels,
        rank=20,
        noun="cancel",
        size=lambda cancels: len(cancels.cancels),
        text=lambda cancels: f"cancel {_counted(len(cancels.cancels), 'resting order')}",
        merged=_cancels_merged,
        accounts=lambda cancels: (cancel.account for cancel in cancels.cancels),
        only=_cancels_only,
        is_worked_off=True,
    ),
    EffectKind(
        effect=Lock,
        rank=10,
        noun="lock",
        size=lambda _: 1,
        text=_lock_text,
        merged=_lock_merged,
        reversal=Reversal(until=lambda lock: lock.order.until, ending=lambda lock, at: Lock(lock.order.ending(at))),
    ),
    EffectKind(
        effect=ProcessExit,
        rank=90,
        noun="process exit",
        size=lambda _: 1,
        text=lambda _: f"exit the process with code {EXIT_CODE} once no close is in progress",
        merged=lambda one, _: one,
    ),
    EffectKind(
        effect=Transfer,
        rank=40,
        noun="transfer",
        size=lambda _: 1,
        text=_transfer_text,
        merged=_transfer_merged,
        accounts=lambda transfer: (transfer.source, transfer.account),
        only=_transfer_only,
        needs="transfers",
    ),
)

WITH_OWN_KEYS: Final = (Orders, Cancels, Lock)
"""The kinds with keys of their own in a decision record; all others are in its key `effects`."""

require_same_keys("EFFECTS", [kind.key for kind in EFFECTS], "Effect", [tag_of(each) for each in get_args(Effect)])


class UnknownEffectError(Exception):
    """The kind of an effect is not registered in EFFECTS."""


def kind_of(effect: Effect | type[Struct]) -> EffectKind[Any]:
    """The kind of an effect, or of an effect's class; UnknownEffectError for any other."""
    wanted = effect if isinstance(effect, type) else type(effect)
    for kind in EFFECTS:
        if kind.effect is wanted:
            return kind
    raise UnknownEffectError(f"{effect!r} is not of a kind in EFFECTS")


def kind_named(key: str) -> EffectKind[Any]:
    """The kind with this key; UnknownEffectError for any other."""
    for kind in EFFECTS:
        if kind.key == key:
            return kind
    keys = ", ".join(kind.key for kind in EFFECTS)
    raise UnknownEffectError(f"`{key}` is not a kind of effect: the kinds are {keys}")


def expiry_of(effect: Effect) -> datetime | None:
    """The expiry of an effect; None if it does not expire or cannot be reversed."""
    reversal = kind_of(effect).reversal
    until: datetime | None = None if reversal is None else reversal.until(effect)
    return until


def with_expiry(effect: Effect, at: datetime) -> Effect:
    """A copy of the effect that expires at `at`; UnknownEffectError if it cannot be reversed."""
    reversal = kind_of(effect).reversal
    if reversal is None:
        raise UnknownEffectError(f"{effect!r} cannot be reversed, so it has no expiry")
    ended: Effect = reversal.ending(effect, at)
    return ended


def of_kind(effects: Iterable[Effect], effect: type[E]) -> E | None:
    """The effect of this class; None if there is none."""
    return next((each for each in effects if isinstance(each, effect)), None)


def merge_effects(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """The effects merged to one of each kind, in the order of execution, without those of size 0."""
    found: dict[type, Effect] = {}
    for effect in effects:
        kind = kind_of(effect)
        if kind.size(effect):
            found[kind.effect] = kind.merged(found[kind.effect], effect) if kind.effect in found else effect
    return tuple(sorted(found.values(), key=lambda each: kind_of(each).rank))


def in_record_order(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """The effects in the order of a decision record."""
    places = {kind.effect: place for place, kind in enumerate(EFFECTS)}
    return tuple(sorted(effects, key=lambda each: places[kind_of(each).effect]))


def accounts_of(effects: Iterable[Effect]) -> tuple[str, ...]:
    """The accounts that the effects act on, each once, in the order of a decision record."""
    names = (name for effect in in_record_order(effects) for name in kind_of(effect).accounts(effect))
    return tuple(dict.fromkeys(names))


def sizes_of(effects: Iterable[Effect]) -> dict[str, int]:
    """The size of each kind of effect by key, in the order of a decision record; 0 for a kind that is absent."""
    found = tuple(effects)
    return {kind.key: sum(kind.size(effect) for effect in found if type(effect) is kind.effect) for kind in EFFECTS}


def only_on(effects: Iterable[Effect], accounts: Collection[str]) -> tuple[Effect, ...]:
    """The parts of the effects on these accounts, and the effects that act on no account."""
    found = (kind_of(effect).only(effect, accounts) for effect in effects)
    return tuple(effect for effect in found if effect is not None)
