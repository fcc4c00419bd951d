"""A naive implementation of `futures-drawdown` as an oracle: what fires when, from a recording file.

This module shares no line with the product: it reads the file with `json`, computes with exact
fractions, evaluates the whole window at every snapshot, and knows nothing of policies in YAML. Where it
and the product differ, one of them has misread the rules.

Its domain: every change of equity is explained by positions, fills and flows (it has no ledger),
marks agree with index and last prices, and a stage that fires finds something to close. Outside of it,
where it can tell, it raises `OutsideDomainError` instead of guessing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from msgspec import Struct, field

MINUTE = timedelta(minutes=1)
MAX_GAP = 10 * MINUTE
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE

CLEAR_BELOW = Fraction(2, 100)
CLEAR_FOR = 60 * MINUTE


class Rule(Struct, frozen=True):
    """One level: falls over 15 minutes and over the hour, how long they must last, and the cooldown."""

    level: int
    fall_quarter: Fraction
    fall_hour: Fraction
    confirm: timedelta
    cooldown: timedelta
    resets_itself: bool


RULES = (
    Rule(1, Fraction(45, 1000), Fraction(7, 100), 2 * MINUTE, 30 * MINUTE, resets_itself=True),
    Rule(2, Fraction(7, 100), Fraction(10, 100), 1 * MINUTE, 90 * MINUTE, resets_itself=True),
    Rule(3, Fraction(10, 100), Fraction(14, 100), 0 * MINUTE, 360 * MINUTE, resets_itself=False),
)
TIGHT = (
    Rule(1, Fraction(3, 100), Fraction(47, 1000), 2 * MINUTE, 30 * MINUTE, resets_itself=True),
    Rule(2, Fraction(5, 100), Fraction(71, 1000), 1 * MINUTE, 90 * MINUTE, resets_itself=True),
    Rule(3, Fraction(8, 100), Fraction(112, 1000), 0 * MINUTE, 360 * MINUTE, resets_itself=False),
)
"""The variant `tight`: other thresholds, and nothing else."""


class OutsideDomainError(Exception):
    """The recording contains a case for which the naive implementation has no rule."""


class LevelChange(Struct, frozen=True, order=True):
    """A stage of `level` fired, or the scope went back to level 0."""

    at: datetime
    account: str
    level: int
    reset: bool = False


class Condition(Struct):
    """One trigger's state: since when its condition is true, and whether it has been true for long."""

    true_since: datetime | None = None
    confirmed: bool = False

    def update(self, answer: bool | None, at: datetime, confirm: timedelta) -> None:
        """True starts or continues, false restarts, unknown (None) keeps the state."""
        if answer is False:
            self.true_since, self.confirmed = None, False
        elif answer is True:
            if self.true_since is None:
                self.true_since = at
            if at - self.true_since >= confirm:
                self.confirmed = True


class Watch(Struct):
    """The state of one account."""

    account: str
    rules: tuple[Rule, ...] = RULES
    units: Fraction | None = None
    seen: list[tuple[datetime, Fraction]] = field(default_factory=list)
    """(time, value of a unit) of every snapshot on which it was known, oldest first."""
    flow_ids: set[str] = field(default_factory=set)
    begun: datetime | None = None
    """The last reset: windows begin here."""
    level: int = 0
    fired_at: datetime | None = None
    fired_value: Fraction | None = None
    conditions: dict[tuple[int, str], Condition] = field(default_factory=dict)
    clear_since: datetime | None = None

    def value_of_unit(self, account: dict[str, Any]) -> Fraction | None:
        """Deposits, withdrawals and transfers issue or redeem units at the value just before them."""
        fresh = [flow for flow in account.get("flows") or () if flow["id"] not in self.flow_ids]
        self.flow_ids.update(flow["id"] for flow in fresh)
        if self.units is not None:
            for flow in fresh:
                if flow["kind"] in {"deposit", "withdrawal", "transfer"}:
                    self._issue(flow, account["currency"])
        if not is_known(account):
            return None
        equity = Fraction(account["equity"])
        if self.units is None:
            if equity <= 0:
                raise OutsideDomainError("observation begins with nothing")
            self.units = equity
        return equity / self.units

    def _issue(self, flow: dict[str, Any], currency: str) -> None:
        if flow["currency"] != currency:
            raise OutsideDomainError("a flow in a foreign currency")
        before = self.seen[-1][1]
        if before <= 0:
            raise OutsideDomainError("money entered or left a wiped-out account")
        assert self.units is not None
        self.units += Fraction(flow["amount"]) / before
        if self.units <= 0:
            raise OutsideDomainError("more was withdrawn than there was")

    def fall(self, at: datetime, window: timedelta) -> tuple[Fraction, Fraction]:
        """The interval [lowest, highest] that the drawdown over `window` can be; a value is known at `at`."""
        start = at - window
        if self.begun is not None and self.begun > start:
            start = self.begun
        inside = [value for then, value in self._since(start) if then <= at]
        now, highest = inside[-1], max(inside)
        fell = Fraction(1) if now <= 0 else 1 - now / highest
        return (fell, fell) if self._complete(start, at) else (fell, Fraction(1))

    def _since(self, start: datetime) -> list[tuple[datetime, Fraction]]:
        found: list[tuple[datetime, Fraction]] = []
        for then, value in reversed(self.seen):
            if then < start:
                break
            found.append((then, value))
        return found[::-1]

    def _complete(self, start: datetime, at: datetime) -> bool:
        """Whether history reaches back to `start`, without a gap longer than MAX_GAP since."""
        later = at
        for then, _ in reversed(self.seen):
            if self.begun is not None and then < self.begun:
                break
            if later - then > MAX_GAP:
                return False
            if then <= start:
                return True
            later = then
        return self.begun is not None and later - self.begun <= MAX_GAP

    def reset(self, at: datetime) -> LevelChange:
        """Back to level 0; windows begin now, triggers start afresh."""
        self.level, self.fired_at, self.fired_value = 0, None, None
        self.begun, self.clear_since = at, None
        self.conditions.clear()
        return LevelChange(at, self.account, 0, reset=True)

    def evaluate(self, at: datetime, value: Fraction | None) -> Iterator[LevelChange]:
        """One snapshot: update every condition, fire the highest level that may, else perhaps reset."""
        quarter = hour = None
        if value is not None:
            self.seen.append((at, value))
            quarter, hour = self.fall(at, QUARTER), self.fall(at, HOUR)
        for rule in self.rules:
            for name, interval, threshold in (
                ("quarter", quarter, rule.fall_quarter),
                ("hour", hour, rule.fall_hour),
            ):
                condition = self.conditions.setdefault((rule.level, name), Condition())
                condition.update(at_least(interval, threshold), at, rule.confirm)
        fired = self._fire(at, value)
        if fired is not None:
            yield fired
        elif self._cleared(at, hour):
            yield self.reset(at)

    def _fire(self, at: datetime, value: Fraction | None) -> LevelChange | None:
        confirmed = [level for (level, _), condition in self.conditions.items() if condition.confirmed]
        highest = max(confirmed, default=0)
        if highest == 0 or highest < self.level or (highest == self.level and not self._again(at, value)):
            return None
        self.level, self.fired_at, self.fired_value, self.clear_since = highest, at, value, None
        return LevelChange(at, self.account, highest)

    def _again(self, at: datetime, value: Fraction | None) -> bool:
        """The same level fires again only after its cooldown, and only if more has been lost since."""
        assert self.fired_at is not None
        if at < self.fired_at + self.rules[self.level - 1].cooldown or value is None:
            return False
        return self.fired_value is not None and value < self.fired_value

    def _cleared(self, at: datetime, hour: tuple[Fraction, Fraction] | None) -> bool:
        """Whether the hour's fall has been known to be small for long enough, and the cooldown is over."""
        if self.level == 0 or not self.rules[self.level - 1].resets_itself:
            return False
        if hour is None or not hour[1] < CLEAR_BELOW:
            self.clear_since = None
            return False
        if self.clear_since is None:
            self.clear_since = at
        assert self.fired_at is not None
        return at - self.clear_since >= CLEAR_FOR and at >= self.fired_at + self.rules[self.level - 1].cooldown


def at_least(interval: tuple[Fraction, Fraction] | None, threshold: Fraction) -> bool | None:
    """Whether the whole interval is at or above, or below, the threshold; else None, unknown."""
    if interval is None:
        return None
    if interval[0] >= threshold:
        return True
    return False if interval[1] < threshold else None


def is_known(account: dict[str, Any]) -> bool:
    """Whether the account's equity can be trusted: margin in use without a position cannot."""
    if account["quality"] != "ok" or account.get("equity") is None:
        return False
    margin = account.get("margin_used")
    return not (account.get("positions") == [] and margin is not None and Fraction(margin) > 0)


def read_snapshots(path: Path) -> Iterator[dict[str, Any]]:
    """The snapshots of a recording file, oldest first; a name in `.gz` is compressed."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def level_changes(snapshots: Iterable[dict[str, Any]], rules: tuple[Rule, ...] = RULES) -> list[LevelChange]:
    """Every firing and every reset of `futures-drawdown` over the snapshots, in order; `rules` may be a variant's."""
    watches: dict[str, Watch] = {}
    found: list[LevelChange] = []
    for snapshot in snapshots:
        at = datetime.fromisoformat(snapshot["as_of"])
        resets = [event["scope"] for event in snapshot.get("events") or () if event["kind"] == "reset"]
        for account in snapshot["accounts"]:
            if account["market"] not in {"swap", "future"}:
                continue
            name = account["account"]
            watch = watches.setdefault(name, Watch(name, rules))
            value = watch.value_of_unit(account)
            if f"account/{name}" in resets and watch.level > 0:  # nothing latched, nothing to reset
                if value is None:
                    raise OutsideDomainError("a reset while the value at which windows begin is unknown")
                found.append(watch.reset(at))
            found.extend(watch.evaluate(at, value))
    return found


def read(path: Path) -> list[LevelChange]:
    """Every firing and every reset of `futures-drawdown` over the recording at `path`, in order."""
    return level_changes(read_snapshots(path))
