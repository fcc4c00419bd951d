"""What decisions do, kind by kind: the effects, and all that is asked of one without knowing which it is.

An action is what a policy says, an effect is what a decision does; several actions may have the same effect. `EFFECTS`
has every kind in the order in which a decision record lists them; `rank` is the order in which they are performed. What
performs them lives above: `killswitch.execution.effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.instant import rfc3339
from killswitch.model.record import require_same_keys
from killswitch.model.snapshot import Instant, OrderSide, Side
from killswitch.model.words import CancelWhy as CancelWhy
from killswitch.model.words import LockMode as LockMode


class Intent(Struct, frozen=True, omit_defaults=True):
    """One order towards a target, exact in venue units.

    `contracts` is what to trade; `target` is what should be left of the position, both in contracts.
    `exact` is false when the venue's rules for the symbol are unknown, so nothing could be rounded.
    `band` is the fraction of the mark that the order may slip. A `hop` sells what the intent at index `after` of the
    same decision has bought, and nothing that was there before: its `contracts` are an estimate, and its `target` is
    what was there. One that comes `after` nothing sells `contracts` of a holding on another market than the one that it
    is listed on. A `hedge` opens `contracts` instead of reducing. Both are counted by their own fills.
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


class Cancel(Struct, frozen=True):
    """One resting order to cancel, and why."""

    account: str
    symbol: str
    order: str
    why: CancelWhy


class LockOrder(Struct, frozen=True):
    """A lock to write; `until` null is a lock without end."""

    scope: str
    mode: LockMode
    until: Instant | None


class Orders(Struct, frozen=True, tag="orders", tag_field="kind"):
    """Orders at venues, in the order of closing: the index of an intent is inside every client order id of it."""

    intents: tuple[Intent, ...]


class Cancels(Struct, frozen=True, tag="cancels", tag_field="kind"):
    """Resting orders to cancel: entries before closing, the rest after it."""

    cancels: tuple[Cancel, ...]


class Lock(Struct, frozen=True, tag="lock", tag_field="kind"):
    """A lock of a scope, which bots read."""

    order: LockOrder


Effect = Orders | Cancels | Lock

E = TypeVar("E", bound=Struct)


@dataclass(frozen=True, slots=True)
class Reversal(Generic[E]):
    """How an effect is taken back: `until` when it ends by itself (None: never), `ending` makes it end then."""

    until: Callable[[E], datetime | None]
    ending: Callable[[E, datetime], E]


@dataclass(frozen=True, slots=True)
class EffectKind(Generic[E]):
    """One kind of effect.

    `rank`: what is performed first has the smallest. `noun` and `size`: what of it there is, and how many; one of size
    0 is none. `text` is a line for people. `accounts` are those that it acts on, `only` is what of it concerns some of
    them (None: nothing); what acts on no account by itself stays as it is. `merged`: what two of a decision come to. A
    kind with a `reversal` may be performed on the pessimistic bound of what is known, any other on the optimistic one.
    `needs`: the protocol of `killswitch.model.venue` that an account's adapter must have; None: every adapter will do.
    `is_worked_off`: by the executors of its accounts, whose journal entries name the account.
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
    needs: type[Any] | None = None
    is_worked_off: bool = False

    @property
    def key(self) -> str:
        """The tag by which it is stored, and journaled."""
        return tag_of(self.effect)

    @property
    def is_reversible(self) -> bool:
        return self.reversal is not None


def tag_of(effect: type[Struct]) -> str:
    """The tag of an effect's class."""
    return str(effect.__struct_config__.tag)


def wanted_intents(intents: Sequence[Intent], is_wanted: Callable[[Intent], bool]) -> tuple[Intent, ...]:
    """The intents that are wanted. A second hop goes with the first, whose place it names anew."""
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
    raise ValueError("a decision has one effect of orders: targets are merged before they are unwound")


def _cancels_only(cancels: Cancels, accounts: Collection[str]) -> Cancels | None:
    kept = tuple(cancel for cancel in cancels.cancels if cancel.account in accounts)
    return Cancels(kept) if kept else None


def _cancels_merged(one: Cancels, other: Cancels) -> Cancels:
    """Each order once, in the order of the longer one."""
    long, short = sorted((one.cancels, other.cancels), key=len, reverse=True)
    known = {(each.account, each.symbol, each.order) for each in long}
    return Cancels((*long, *(each for each in short if (each.account, each.symbol, each.order) not in known)))


def _lock_merged(one: Lock, other: Lock) -> Lock:
    """The stricter mode, and the later end."""
    mode: LockMode = "all" if "all" in (one.order.mode, other.order.mode) else "reduce_only"
    ends = [each.order.until for each in (one, other)]
    until = None if None in ends else max(end for end in ends if end is not None)
    return Lock(LockOrder(one.order.scope, mode, until))


def _lock_text(lock: Lock) -> str:
    until = "it is lifted" if lock.order.until is None else rfc3339(lock.order.until)
    return f"lock {lock.order.scope}: {lock.order.mode} until {until}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
        reversal=Reversal(
            until=lambda lock: lock.order.until,
            ending=lambda lock, at: Lock(replace(lock.order, until=at)),
        ),
    ),
)

WITH_OWN_KEYS: Final = (Orders, Cancels, Lock)
"""The kinds that a decision record has keys of their own for; all others are in its key `effects`."""

require_same_keys("EFFECTS", [kind.key for kind in EFFECTS], "Effect", [tag_of(each) for each in get_args(Effect)])
_KINDS: Final = {kind.effect: kind for kind in EFFECTS}
_BY_KEY: Final = {kind.key: kind for kind in EFFECTS}


class UnknownEffectError(Exception):
    """An effect of a kind that is not registered."""


def kind_of(effect: Effect | type[Struct]) -> EffectKind[Any]:
    """The kind of an effect, or of an effect's class; UnknownEffectError for any other."""
    found = _KINDS.get(effect if isinstance(effect, type) else type(effect))
    if found is None:
        raise UnknownEffectError(f"{effect!r} is of no kind that EFFECTS has")
    return found


def kind_named(key: str) -> EffectKind[Any]:
    """The kind with this key; UnknownEffectError for any other."""
    if key not in _BY_KEY:
        raise UnknownEffectError(f"`{key}` is no effect: there are {', '.join(_BY_KEY)}")
    return _BY_KEY[key]


def until_of(effect: Effect) -> datetime | None:
    """When an effect ends by itself; None for one without end, and for one that cannot be taken back."""
    reversal = kind_of(effect).reversal
    until: datetime | None = None if reversal is None else reversal.until(effect)
    return until


def ending(effect: Effect, at: datetime) -> Effect:
    """The effect made to end then; UnknownEffectError for one that cannot be taken back."""
    reversal = kind_of(effect).reversal
    if reversal is None:
        raise UnknownEffectError(f"{effect!r} cannot be taken back, so that it has no end")
    ended: Effect = reversal.ending(effect, at)
    return ended


def of_kind(effects: Iterable[Effect], effect: type[E]) -> E | None:
    """The one among the effects that is of this class; None where there is none."""
    return next((each for each in effects if isinstance(each, effect)), None)


def merged(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """One effect of each kind, in the order in which they are performed; those of size 0 are left out."""
    found: dict[type, Effect] = {}
    for effect in effects:
        kind = kind_of(effect)
        if kind.size(effect):
            found[kind.effect] = kind.merged(found[kind.effect], effect) if kind.effect in found else effect
    return tuple(sorted(found.values(), key=lambda each: kind_of(each).rank))


def listed(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """The effects in the order in which a decision record has them."""
    places = {kind.effect: place for place, kind in enumerate(EFFECTS)}
    return tuple(sorted(effects, key=lambda each: places[kind_of(each).effect]))


def accounts_of(effects: Iterable[Effect]) -> tuple[str, ...]:
    """The accounts that the effects act on, each once, as a decision record lists them."""
    return tuple(dict.fromkeys(name for effect in listed(effects) for name in kind_of(effect).accounts(effect)))


def sizes_of(effects: Iterable[Effect]) -> dict[str, int]:
    """How much of each kind there is, by key, as a decision record lists them; 0 of a kind that there is none of."""
    found = tuple(effects)
    return {kind.key: sum(kind.size(effect) for effect in found if type(effect) is kind.effect) for kind in EFFECTS}


def only_on(effects: Iterable[Effect], accounts: Collection[str]) -> tuple[Effect, ...]:
    """What of the effects concerns these accounts, and what acts on no account by itself."""
    found = (kind_of(effect).only(effect, accounts) for effect in effects)
    return tuple(effect for effect in found if effect is not None)
