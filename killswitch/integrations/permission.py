"""May a bot's order be sent? One rule for every bot, by the gate over HTTP or by the account's lock file alone.

    permits = OrderPermits("main", gate="http://127.0.0.1:8600", lock_file="/var/lib/killswitch/account__main.json")
    permission = permits.ask({"symbol": "BTC/USDT:USDT", "side": "buy", "amount": "0.5", "unit": "base"})

Orders are written as `killswitch.pretrade/v1` has them. Without a gate the lock file decides by what the order says of
itself: while it is not open, only `reduce_only`, `close_position` and `is_exit` pass, and under `all` nothing does. The
sentinel, a file whose existence halts everything, is looked for at each question and directly before an order is sent,
where its path is given. An error in here is no consent: what opens is not sent.

After a lock, entries come back one at a time: strategies and executors that were refused keep asking, and would all be
sent in the second in which the lock lifts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple  # noqa: TID251 - a bot's environment may have no msgspec

from killswitch.client.gate import (
    LockMode,
    Order,
    PretradeAnswer,
    PretradeGate,
    claims_to_reduce,
    is_halted,
    lock_mode,
)
from killswitch.client.heartbeat import monotonic_seconds

HELD_BACK: Final = frozenset(
    ["lock_all", "sentinel", "locked", "symbol_locked", "side_locked", "paused", "maintenance", "no_verdict"]
)
"""Reasons for which entries that rest already are cancelled as well, and after which entries come back slowly."""
PAUSE: Final = 10.0
"""Seconds between two entries after a lock."""
WAY_BACK: Final = 600.0
"""Seconds after a lock in which entries are spaced."""
UNGRANTABLE: Final = "1000000000"
"""Base units of the order with which the gate is asked whether entries are held back: no limit allows it."""

_LOG: Final = logging.getLogger("killswitch.integrations")


class OrderNotSentError(Exception):
    """An order was not sent; the text has the reason. `permission`: what was decided, where a question was put."""

    def __init__(self, text: str, permission: Permission | None = None) -> None:
        super().__init__(text)
        self.permission = permission


class Permission(NamedTuple):
    """Whether the orders may be sent as a whole.

    `reason`: a reason of `killswitch.verdict/v1`, or `no_verdict`, `way_back` (too soon after a lock) or `error`.
    `answer`: that of the gate; None where the lock file decided.
    """

    may_send: bool
    reason: str
    text: str
    orders: tuple[Order, ...] = ()
    answer: PretradeAnswer | None = None

    @property
    def is_proved_exit(self) -> bool:
        """Whether the gate has proved that the only order of the question reduces, so that the venue may be asked to
        see to it.
        """
        legs = None if self.answer is None or self.answer.verdict is None else self.answer.verdict.get("legs")
        return self.may_send and isinstance(legs, list) and len(legs) == 1 and legs[0].get("effect") == "proved"


class OrderPermits:
    """Answers for one account. Safe to call from several threads."""

    def __init__(
        self,
        account: str | None = None,
        *,
        gate: str | PretradeGate | None = None,
        token: str | None = None,
        lock_file: str | None = None,
        sentinel: str | None = None,
        timeout: float = 1.0,
        pause_after_lock: float = PAUSE,
        clock: Callable[[], float] = monotonic_seconds,
    ) -> None:
        """`gate`: the address of a server, which needs the `account`. `lock_file`: the account's; one of both at least.

        `token`: left out, that of `KILLSWITCH_TOKEN`. `sentinel`: the file whose existence halts everything; left out,
        it is not looked for here. `timeout`: seconds for one question. `pause_after_lock`: seconds between two entries
        in the ten minutes after a lock; 0: none. ValueError if nothing could ever be known.
        """
        if gate is None and lock_file is None:
            raise ValueError("name the address of a gate, or the account's lock file, or both")
        if gate is not None and not account:
            raise ValueError("a gate is asked about an account: name it as its Account document does")
        if isinstance(gate, str):
            gate = PretradeGate(gate, token, lock_file=lock_file, timeout=timeout)
        self._account = account or ""
        self._gate = gate
        self._lock_file = lock_file
        self._sentinel = sentinel
        self._pause = pause_after_lock
        self._clock = clock
        self._one_at_a_time = threading.RLock()
        self._held_back_at: float | None = None
        self._next_entry_at = 0.0

    def ask(self, *orders: Order) -> Permission:
        """Whether these orders may be sent, as a whole. Never raises, and no error becomes a consent."""
        with self._one_at_a_time:
            try:
                found = self._by_gate(orders) if self._gate is not None else self._by_lock_file(orders)
                return self._spaced(found)
            except Exception as error:  # noqa: BLE001 - an error of ours decides as a gate that is gone does
                _LOG.exception("an order could not be judged")
                return self._without_judgement(orders, f"{type(error).__name__}: {error}")

    def held_back(self, symbol: str, side: str) -> str | None:
        """Why no entry on this side may be sent or rest now; None if none is held back. For entries that rest already.

        Limits do not count: they were compared when the order was sent. Never raises.
        """
        with self._one_at_a_time:
            try:
                found = self._probe(symbol, side)
            except Exception as error:  # noqa: BLE001 - what is not known is held back
                _LOG.exception("whether entries are held back could not be found out")
                found = Permission(False, "no_verdict", f"{type(error).__name__}: {error}")
            self._note(found)
            return None if found.may_send or found.reason not in HELD_BACK else found.text

    def may_still_send(self, permission: Permission) -> bool:
        """Whether the orders may be sent now: directly before. What may not is reported as not sent. Never raises."""
        try:
            if not permission.may_send:
                return False
            if permission.answer is None or self._gate is None:
                return self._passes(permission.orders)
            orders = tuple(map(_as_reducing(permission), permission.orders))
            # Without a verdict the lock file was read just now, and the claim decided.
            is_fine = self._gate.may_still_send(permission.answer, *orders) and not self._halts(orders)
        except Exception:  # noqa: BLE001 - as in `ask`
            _LOG.exception("an order could not be judged again")
            is_fine = False
        if not is_fine:
            self.report(permission, "not_sent")
        return is_fine

    def report(self, permission: Permission, outcome: str) -> None:
        """Report `not_sent`, or `refused` where the venue said no readably. Never raises."""
        if self._gate is None or permission.answer is None or not permission.may_send or outcome == "sent":
            return
        with self._one_at_a_time:
            self._gate.report(self._account, permission.answer, "refused" if outcome == "refused" else "not_sent")

    def _by_gate(self, orders: tuple[Order, ...]) -> Permission:
        assert self._gate is not None
        answer = self._gate.ask(self._account, *orders)
        found = Permission(answer.may_send, answer.reason, answer.text, orders, answer)
        if not found.may_send or not self._halts(tuple(map(_as_reducing(found), orders))):
            return found
        self.report(found, "not_sent")
        return self._by_sentinel(orders)

    def _by_lock_file(self, orders: tuple[Order, ...]) -> Permission:
        mode = self._mode()
        if mode == "open" and self._halts(orders):
            return self._by_sentinel(orders)
        if self._passes(orders, mode):
            return Permission(True, "exit" if mode != "open" else "allowed", f"the lock file is {mode}", orders)
        reason, hint = ("lock_all", "") if mode == "all" else ("locked", ": an exit must say so (reduce-only)")
        return Permission(False, reason, f"the lock file says {mode}, or cannot be read{hint}", orders)

    def _passes(self, orders: tuple[Order, ...], mode: LockMode | None = None) -> bool:
        mode = self._mode() if mode is None else mode
        if mode == "open":
            return not self._halts(orders)
        return mode == "reduce_only" and bool(orders) and all(map(claims_to_reduce, orders))

    def _halts(self, orders: tuple[Order, ...]) -> bool:
        """Whether the sentinel is there and one of the orders is no exit."""
        is_exit = bool(orders) and all(map(claims_to_reduce, orders))
        return self._sentinel is not None and not is_exit and is_halted(self._sentinel)

    def _by_sentinel(self, orders: tuple[Order, ...] = ()) -> Permission:
        text = f"everything is halted by the sentinel file {self._sentinel}: an exit must say so (reduce-only)"
        return Permission(False, "sentinel", text, orders)

    def _mode(self) -> LockMode:
        return "reduce_only" if self._lock_file is None else lock_mode(self._lock_file)

    def _probe(self, symbol: str, side: str) -> Permission:
        """Whether entries are held back: by the lock file, else by the gate's answer to what no limit allows."""
        if self._lock_file is not None and (mode := self._mode()) != "open":
            return Permission(False, "lock_all" if mode == "all" else "locked", f"the lock file says {mode}")
        if self._halts(()):
            return self._by_sentinel()
        if self._gate is None:
            return Permission(True, "allowed", "the lock file is open")
        found = self._by_gate(({"symbol": symbol, "side": side, "amount": UNGRANTABLE, "unit": "base"},))
        if found.may_send:
            self.report(found, "not_sent")
        return found

    def _spaced(self, found: Permission) -> Permission:
        """The permission, unless it is one of an entry that comes too soon after a lock."""
        self._note(found)
        entries = sum(not claims_to_reduce(each) and each.get("parent") is None for each in found.orders)
        if not found.may_send or found.reason == "exit" or not entries or self._held_back_at is None:
            return found
        now = self._clock()
        if now - self._held_back_at > WAY_BACK:
            self._held_back_at = None
            return found
        if now < self._next_entry_at:
            self.report(found, "not_sent")
            left = self._next_entry_at - now
            text = f"after a lock entries are sent {self._pause:g} s apart: the next one in {left:.1f} s"
            return Permission(False, "way_back", text, found.orders)
        self._next_entry_at = now + self._pause * entries
        return found

    def _note(self, found: Permission) -> None:
        if not found.may_send and found.reason in HELD_BACK:
            self._held_back_at = self._clock()

    def _without_judgement(self, orders: tuple[Order, ...], why: str) -> Permission:
        try:
            is_exit = bool(orders) and all(map(claims_to_reduce, orders))
            is_locked = self._lock_file is not None and self._mode() == "all"
        except Exception:  # noqa: BLE001 - an order that is none claims nothing
            is_exit, is_locked = False, True
        return Permission(is_exit and not is_locked, "error", f"the order could not be judged ({why})", orders)


def permits_of(settings: Mapping[str, Any]) -> OrderPermits:
    """The permits of a section of a bot's configuration: `account`, `gate`, `token`, `lock_file`, `sentinel`,
    `timeout`, `pause_after_lock`. ValueError for any other key, or if nothing could be known.
    """
    known = {"account", "gate", "token", "lock_file", "sentinel", "timeout", "pause_after_lock"}
    if not isinstance(settings, Mapping) or not settings.keys() <= known:
        strange = sorted(map(str, settings.keys() - known)) if isinstance(settings, Mapping) else [repr(settings)]
        raise ValueError(f"`killswitch` has {', '.join(strange)}, and may have {', '.join(sorted(known))}")
    return OrderPermits(**settings)


def is_refusal(error: BaseException) -> bool:
    """Whether an error of ccxt, or one that was raised from it, is a readable no of the venue, so that no order exists.

    A time-out, a lost connection, a 5xx and an error without a class of its own are none: the order may exist.
    """
    seen: BaseException | None = error
    while seen is not None:
        names = [each.__name__ for each in type(seen).__mro__]
        if "BaseError" in names and any("ccxt" in each.__module__ for each in type(seen).__mro__):
            return bool(READABLE & set(names)) and not UNREADABLE & set(names)
        seen = seen.__cause__
    return False


READABLE: Final = frozenset(
    ["InvalidOrder", "InsufficientFunds", "BadRequest", "AuthenticationError", "ArgumentsRequired", "OperationRejected",
     "NotSupported"]
)  # fmt: skip
UNREADABLE: Final = frozenset(["DuplicateOrderId", "OrderNotFound", "OperationFailed"])
"""The first says that an order with this id exists."""


def new_client_order_id() -> str:
    """A client order id that most venues accept: 32 letters and digits."""
    return "ks" + os.urandom(15).hex()


def _as_reducing(permission: Permission) -> Callable[[Order], Order]:
    """An exit that the gate has proved passes a lock that was written since, as one that says so."""
    is_exit = permission.reason == "exit"
    return lambda order: {**order, "is_exit": True} if is_exit else order
