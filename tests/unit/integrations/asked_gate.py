"""A gate that answers as a test says, and a lock file as a runner writes it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from killswitch.client import PretradeAnswer, PretradeGate
from killswitch.client.gate import Order

ENTRY = {"symbol": "BTC/USDT:USDT", "side": "buy", "amount": "1", "unit": "contracts"}
EXIT = {"symbol": "BTC/USDT:USDT", "side": "sell", "amount": "1", "unit": "contracts", "reduce_only": True}


class AskedGate(PretradeGate):
    """`verdicts`: reason of each answer in turn, the last one for ever; `allowed` and `exit` allow."""

    def __init__(self, *verdicts: str, effect: str = "entry", lock_file: str | None = None) -> None:
        super().__init__("http://127.0.0.1:9", "kst_test", lock_file=lock_file)
        self.verdicts = list(verdicts)
        self.effect = effect
        self.asked: list[tuple[Order, ...]] = []
        self.reported: list[str] = []
        self.seconds = 2.0

    def ask(self, account: str, *orders: Order, question: str | None = None) -> PretradeAnswer:
        self.asked.append(orders)
        reason = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        if reason == "broken":
            raise RuntimeError("a defect of the class")
        legs = {"legs": [{"effect": self.effect} for _ in orders]}
        until = _now() + self.seconds
        return PretradeAnswer(f"q{len(self.asked)}", reason in ("allowed", "exit"), reason, reason, True, until, legs)

    def report(self, account: str, answer: PretradeAnswer, outcome: str) -> bool:
        self.reported.append(outcome)
        return True


def _now() -> float:
    from killswitch.client.heartbeat import monotonic_seconds

    return monotonic_seconds()


def lock_at(path: Path, mode: str = "open") -> str:
    """Write the lock file `path` as open or in this mode; its name."""
    record: dict[str, Any] = {"locked": mode != "open", "mode": "all" if mode == "all" else "reduce_only"}
    path.write_text(json.dumps({**record, "alive_until": time.time() + 3600}))
    return str(path)
