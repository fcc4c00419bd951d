"""The gate as a bot asks it: may this order be sent? Standard library only.

    gate = PretradeGate("http://127.0.0.1:8600", token, lock_file="/var/lib/ks.sqlite.locks/account__main.json")
    answer = gate.ask("main", {"symbol": "BTC/USDT:USDT", "side": "buy", "amount": "0.5", "unit": "base"})
    if answer.may_send:
        ...

Only an answer of status 200 to this question is a verdict. Without one (no server, a time-out, any other status, an
unknown word) the order's own claim decides: what opens is not sent, and what says that it only reduces is, unless the
lock file says `all`. An error in here is no consent: every failure ends in the same rule.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple  # noqa: TID251 - a bot's environment may have no msgspec

from killswitch.client.heartbeat import TOKEN, monotonic_seconds

FORMAT: Final = "killswitch.verdict/v1"
LARGEST_ANSWER: Final = 1 << 20
"""Bytes."""
LONGEST_LIFE: Final = 86400.0
"""Seconds for which a lock file may claim to be kept alive."""

LockMode = Literal["open", "reduce_only", "all"]
Order = Mapping[str, Any]
"""An order as `killswitch.pretrade/v1` has it: symbol, side, amount, unit, and what else it states."""

_ADDRESS = re.compile(r"(https?)://([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?(/[^\s?#]*)?", re.ASCII)


class PretradeAnswer(NamedTuple):
    """What the gate says, or what follows where it says nothing.

    `is_verdict`: whether the gate has judged; without a verdict `reason` is `no_verdict`. `until`: seconds, as
    `monotonic_seconds` counts them, until which the order may be sent; ask again after that. `verdict`: the whole
    answer of the gate.
    """

    question: str
    may_send: bool
    reason: str
    text: str
    is_verdict: bool
    until: float
    verdict: Mapping[str, Any] | None = None


class PretradeGate:
    """Asks the gate of a server, one request at a time on a connection that is kept."""

    def __init__(
        self, address: str, token: str | None = None, *, lock_file: str | None = None, timeout: float = 1.0,
        sentinel: str | None = None,
    ) -> None:  # fmt: skip
        """`address`: http(s)://HOST:PORT. `token`: left out, that of `KILLSWITCH_TOKEN`.

        `lock_file`: the account's lock file, which is read again before an order is sent; left out, it is not.
        `sentinel`: the file whose existence halts everything, which is looked for then; left out, it is not.
        `timeout`: seconds for one question. ValueError for an address that is none.
        """
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise ValueError(f"{address!r} is no address of a gate: write http://HOST:PORT")
        self._scheme, self._host, self._port, path = found.groups()
        self._path = (path or "").rstrip("/")
        self._token = token if token is not None else os.environ.get(TOKEN)
        self._lock_file = lock_file
        self._sentinel = sentinel
        self._timeout = timeout
        self._connection: Any = None

    def ask(self, account: str, *orders: Order, question: str | None = None) -> PretradeAnswer:
        """Ask whether these orders may be sent, as a whole. Never raises for what the gate or the network does.

        `question`: the id of the question; the same one asked again within its validity reserves nothing a second time.
        ValueError without an order.
        """
        if not orders:
            raise ValueError("a question has at least one order")
        id_, put_at = question or os.urandom(16).hex(), monotonic_seconds()
        body = {"id": id_, "account": account, "orders": [dict(each) for each in orders]}
        try:
            verdict = self._verdict(id_, json.dumps(body, default=str).encode())
            allowed = verdict["allowed"] is True
            until = put_at + float(verdict.get("valid_for_ms") or 0) / 1000
            answer = PretradeAnswer(id_, allowed, str(verdict["reason"]), str(verdict["text"]), True, until, verdict)
        except Exception as error:  # noqa: BLE001 - whatever fails here, the order's own claim decides
            self._drop()
            return self._without_verdict(id_, orders, put_at, f"{type(error).__name__}: {error}")
        return answer

    async def ask_async(self, account: str, *orders: Order, question: str | None = None) -> PretradeAnswer:
        """`ask` from a coroutine, in a thread."""
        import asyncio  # a bot without coroutines does not pay for it

        return await asyncio.to_thread(self.ask, account, *orders, question=question)

    def may_still_send(self, answer: PretradeAnswer, *orders: Order) -> bool:
        """Whether the order may be sent now: directly before sending it. Time, sentinel and lock file decide.

        `orders`: those of the question. An exit passes a lock of mode `reduce_only`, and the sentinel. A lock of one
        side or of some symbols holds the orders that it reaches, once the gate has judged them: it knows the symbols by
        the names that the file has. Without its verdict such a lock counts as one of everything.
        """
        if not answer.may_send or monotonic_seconds() > answer.until:
            return False
        if self._sentinel is not None and is_halted(self._sentinel) and not all(map(claims_to_reduce, orders)):
            return False
        if self._lock_file is None:
            return True
        found = _lock_in(self._lock_file)
        return all(_passes(found.mode_for(each) if answer.is_verdict else found.mode, each) for each in orders or ({},))

    def report(self, account: str, answer: PretradeAnswer, outcome: Literal["sent", "not_sent", "refused"]) -> bool:
        """Report what became of an allowed order, so that the gate counts it no longer; whether it has taken that.

        `refused`: the venue has refused it, readably. A time-out or a lost connection is no outcome: report nothing.
        """
        body = json.dumps({"question": answer.question, "outcome": outcome}).encode()
        try:
            status, _ = self._post(f"/v1/pretrade/{account}/result", body)
        except Exception:  # noqa: BLE001 - the reservation then ends by what the gate reads at the venue
            self._drop()
            return False
        return status == 204

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _verdict(self, id_: str, body: bytes) -> Mapping[str, Any]:
        status, content = self._post("/v1/pretrade", body)
        if status != 200:
            raise ValueError(f"status {status}: {content[:300].decode(errors='replace')}")
        found = json.loads(content)
        if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("question") != id_:
            raise ValueError("the answer is not that of a gate to this question")
        return found

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        from http.client import HTTPConnection, HTTPSConnection  # takes longer to import than all else here

        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        is_kept = self._connection is not None
        if self._connection is None:
            kind = HTTPSConnection if self._scheme == "https" else HTTPConnection
            port = None if self._port is None else int(self._port)
            self._connection = kind(self._host.strip("[]"), port, timeout=self._timeout)
        try:
            self._connection.request("POST", self._path + path, body, headers)
            answer = self._connection.getresponse()
        except ConnectionError:
            self._drop()
            if not is_kept:
                raise
            return self._post(path, body)  # the server has closed an idle connection; the question has the same id
        content: bytes = answer.read(LARGEST_ANSWER)
        return int(answer.status), content

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _without_verdict(self, id_: str, orders: Sequence[Order], put_at: float, why: str) -> PretradeAnswer:
        """What follows without a verdict: entries are not sent, exits are, unless everything is locked."""
        until = put_at + self._timeout + 2.0
        if not all(map(claims_to_reduce, orders)):
            text = f"the gate gives no verdict ({why}): what opens a position is not sent"
            return PretradeAnswer(id_, False, "no_verdict", text, False, until)
        if self._lock_file is not None and lock_mode(self._lock_file) == "all":
            text = f"the gate gives no verdict ({why}), and the lock file says `all`"
            return PretradeAnswer(id_, False, "no_verdict", text, False, until)
        text = f"the gate gives no verdict ({why}): what says that it only reduces is sent"
        return PretradeAnswer(id_, True, "no_verdict", text, False, until)


def is_halted(sentinel: str) -> bool:
    """Whether everything is halted: something is at this path, or nobody can find out. It is never opened."""
    try:
        os.lstat(sentinel)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return True


def claims_to_reduce(order: Order) -> bool:
    """Whether an order says that it only reduces: by the venue's flag, or by the bot's claim. Only `True` says it."""
    return any(order.get(key) is True for key in ("reduce_only", "close_position", "is_exit"))


def lock_mode(path: str) -> LockMode:
    """How the lock file at `path` locks now. Missing, unreadable and stale files are `reduce_only`.

    A lock of a part of the scope counts as one of the whole: the gate knows the parts.
    """
    return _lock_in(path).mode


class _Lock(NamedTuple):
    """A lock file as it is now. `only`: the parts that are locked, as the file has them; None: all of the scope."""

    mode: LockMode
    only: object = None

    def mode_for(self, order: Order) -> LockMode:
        """How this order is locked. Parts that cannot be understood are a lock of everything."""
        if not isinstance(self.only, list) or not self.only or not all(map(_is_part, self.only)):
            return self.mode
        modes = [part["mode"] for part in self.only if _reaches(part, order)]
        return "all" if "all" in modes else "reduce_only" if modes else "open"


def _lock_in(path: str) -> _Lock:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - measured: half the time of Path.read_bytes, before every order
            found = json.loads(file.read(LARGEST_ANSWER))
        mode: LockMode = "all" if found.get("mode") == "all" else "reduce_only"
        if found["locked"] is not False:
            return _Lock(mode, found.get("only"))
        left = float(found["alive_until"]) - time.time()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Lock("reduce_only")
    return _Lock("open" if 0 <= left <= LONGEST_LIFE else "reduce_only")


def _is_part(found: object) -> bool:
    """Whether it is a part of a lock as `docs/lock.md` has them."""
    if not isinstance(found, dict) or found.get("mode") not in ("reduce_only", "all"):
        return False
    symbols = found.get("symbols")
    are_names = isinstance(symbols, list) and all(isinstance(each, str) for each in symbols)
    return found.get("side") in (None, "long", "short") and (symbols is None or are_names)


def _reaches(part: Mapping[str, Any], order: Order) -> bool:
    """Whether the part of a lock reaches the position that the order opens; an order that is not understood is."""
    opened = order.get("position_side") or {"buy": "long", "sell": "short"}.get(str(order.get("side")))
    other = {"long": "short", "short": "long"}.get(str(part.get("side")))
    symbols, symbol = part.get("symbols"), order.get("symbol")
    is_other_symbol = symbols is not None and isinstance(symbol, str) and symbol not in symbols
    return not ((other is not None and opened == other) or is_other_symbol)


def _passes(mode: LockMode, order: Order) -> bool:
    return mode == "open" or (mode == "reduce_only" and claims_to_reduce(order))
