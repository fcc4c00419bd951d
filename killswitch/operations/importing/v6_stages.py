"""The stages of killswitch version 6 as stages of a policy: thresholds, confirmations, modes and locks.

`stage_1` to `stage_3` are levels 1 to 3. `tier_a` is the older form of stage 1, `tier_b` of stage 3, also for spot
accounts. A stage that cannot be declared as it is meant is not imported, and the report names the key that is to blame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from killswitch.operations.importing.v6_config import (
    ConfigSection,
    V6Import,
    as_number,
    asset_names,
    list_rest,
    window_minutes,
)

NAME: Final = "killswitch-v6"
RANKING: Final = "killswitch-v6-1h"
STAGES: Final = (("stage_1", "tier_a", 1), ("stage_2", None, 2), ("stage_3", "tier_b", 3))
OF_FUTURES: Final = (
    "CLOSE_TOP_RISK_CONTRIBUTORS", "CLOSE_DOMINANT_LOSS_DIRECTION", "CLOSE_ALL_POSITIONS", "CLOSE_LONGS_ONLY",
)  # fmt: skip
OF_SPOT: Final = ("SELL_BLACKLIST_ONLY_KEEP_STABLES", "SELL_ALL_NON_USDT_KEEP_STABLES")
RUNBOOKS: Final[Mapping[str, str]] = {
    "CLOSE_TOP_RISK_CONTRIBUTORS": "trim-top-risk", "CLOSE_DOMINANT_LOSS_DIRECTION": "close-losing-side",
    "CLOSE_ALL_POSITIONS": "close-everything", "SELL_BLACKLIST_ONLY_KEEP_STABLES": "sell-listed",
    "SELL_ALL_NON_USDT_KEEP_STABLES": "sell-all-but-stable",
}  # fmt: skip
"""The shipped runbook of a mode."""


class NoStageError(Exception):
    """A stage that no policy can declare: the key that is to blame, and why."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


RANKING_DOCUMENT: Final = f"""# The score of version 6 over the hour in which it attributes losses.
apiVersion: killswitch.dev/v1
kind: Ranking
metadata: {{name: {RANKING}}}
spec: {{formula: killswitch-v6, window: 1h}}
"""


def stage_policy(reading: V6Import, name: str, account: ConfigSection, *, is_spot: bool) -> list[str]:
    """The policy of an account; none if no stage of it can be declared."""
    windows = {str(each): minutes for each in _listed(account.value("windows")) if (minutes := window_minutes(each))}
    triggers, stages = list[str](), list[str]()
    for key, older, level in STAGES:
        written = key if account.value(key) is not None or older is None else older
        section = account.section(written)
        if older is not None and written == key and account.value(older) is not None:
            reading.note("no equivalent", account, older, f"{key} is there, and version 6 uses that")
        if section is None:
            continue
        try:
            of_stage, text = _stage(reading, section, level, windows, is_spot=is_spot)
        except NoStageError as error:
            reading.note("no equivalent", section, error.key, f"the stage is not imported: {error}")
            continue
        triggers, stages = [*triggers, *of_stage], [*stages, text]
        reading.note("approximated", account, written, _stage_notes(level, is_spot=is_spot), name)
        list_rest(reading, section)
    list_rest(reading, account)
    if not stages:
        return []
    lines = "".join(triggers)
    return [
        f"""apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}, labels: {{imported-from: killswitch-v6}}}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: {name}}}}}
  max_gap: 10m
  triggers:
{lines}  stages:
{"".join(stages)}"""
    ]


def _stage_notes(level: int, *, is_spot: bool) -> str:
    notes = [
        "deposits and withdrawals are no falls",
        "the same stage again needs a new loss",
        "each window is confirmed by itself",
    ]
    notes += [] if is_spot or level == 3 else ["losses are attributed over the window of the trigger"]
    notes += ["the lock lasts until a reset, as documented"] if level == 3 and not is_spot else []
    return "; ".join(notes)


def _stage(
    reading: V6Import, stage: ConfigSection, level: int, windows: Mapping[str, int], *, is_spot: bool
) -> tuple[list[str], str]:
    """The triggers of a stage and its text."""
    mode = stage.value("mode")
    if mode not in (OF_SPOT if is_spot else OF_FUTURES):
        raise NoStageError("mode", f"the mode is not one of {', '.join(OF_SPOT if is_spot else OF_FUTURES)}")
    cooldown, confirm = _whole(stage, "cooldown_min", 60, 1), _whole(stage, "confirm_consecutive", 1, 0)
    wait = max(0, confirm - 1) * reading.poll
    triggers = list(_triggers(reading, stage, level, windows, wait))
    names = ", ".join(name for name, _ in triggers)
    locks = not is_spot and stage.flag("set_trading_lock", default=True)
    until = "" if level == 3 else f", for: {cooldown}m"
    actions = [f"lock_trading: {{mode: reduce_only{until}}}"] if locks else []
    if not is_spot and (stage.flag("cancel_entry_orders_before_close", default=True) or mode == "CLOSE_ALL_POSITIONS"):
        actions.append("cancel_orders: {kind: entry}")
    attribution, closes = _closes(reading, stage, str(mode))
    listed = "".join(f"        - {each}\n" for each in (*actions, *closes))
    runbook = f"      runbook: {RUNBOOKS[mode]}\n" if isinstance(mode, str) and mode in RUNBOOKS else ""
    written = f"""    - name: stage-{level}
      level: {level}
      any: [{names}]
      cooldown: {cooldown}m
      reset: manual
{attribution}      actions:
{listed}      notify: [{NAME}]
{runbook}"""
    return [text for _, text in triggers], written


def _triggers(
    reading: V6Import, stage: ConfigSection, level: int, windows: Mapping[str, int], wait: int
) -> Iterator[tuple[str, str]]:
    """(name, text) of a trigger for each threshold of a window that the account measures."""
    thresholds = stage.section("thresholds")
    found = False
    for key, value in () if thresholds is None else thresholds.pairs():
        minutes, fall = windows.get(key), as_number(value)
        if fall is None or not 0 < fall <= 1:
            raise NoStageError("thresholds", f"the threshold of {key} is not a fraction between 0 and 1")
        if minutes is None:
            if thresholds is not None:
                text = "version 6 does not measure this window, because it is not in `windows`: it never fires"
                reading.note("no equivalent", thresholds, key, text)
            continue
        found = True
        name, confirm = f"fall-{minutes}m-{level}", f"confirm: {wait}s, " if wait else ""
        percent = f"{fall * 100:f}".rstrip("0").rstrip(".") if "." in f"{fall * 100:f}" else f"{fall * 100:f}"
        yield (
            name,
            (
                f"    {name}:\n      {{signal: equity.drawdown, window: {minutes}m, at_least: {percent}%, {confirm}"
                f"on_unknown: hold, grace: {minutes + 15}m}}\n"
            ),
        )
    if not found:
        raise NoStageError("thresholds", "no threshold is of a window that is in `windows`")


def _closes(reading: V6Import, stage: ConfigSection, mode: str) -> tuple[str, list[str]]:
    """The line of the attribution, and the closes of a mode."""
    attribution = ""
    if mode in ("CLOSE_TOP_RISK_CONTRIBUTORS", "CLOSE_DOMINANT_LOSS_DIRECTION"):
        share = stage.number("source_threshold", "0.65")
        if share is None or not Decimal("0.5") < share <= 1:
            raise NoStageError(
                "source_threshold", "source_threshold is above 0.5 and at most 1: else two sides reach it"
            )
        attribution = (
            f"      attribution: {{source_at_least: {share}, if_mixed: worst_ranked, if_unknown: worst_ranked}}\n"
        )
    if mode == "CLOSE_TOP_RISK_CONTRIBUTORS":
        return _top_risk(stage, attribution)
    if mode == "CLOSE_DOMINANT_LOSS_DIRECTION":
        close = f"close: {{side: losing, rank: {RANKING}, worst: 60%, fraction: 100%}}"
        return attribution, [close]
    if mode == "CLOSE_ALL_POSITIONS":
        return "", ["close: {side: both, fraction: 100%}", "cancel_orders: {kind: all}"]
    if mode == "CLOSE_LONGS_ONLY":
        return "", ["close: {side: long, fraction: 100%}"]
    kept = ", ".join(reading.stables)
    if mode == "SELL_ALL_NON_USDT_KEEP_STABLES":
        return "", [f"close: {{side: both, fraction: 100%, except_assets: [{kept}]}}"]
    sold = asset_names(stage.value("blacklist"))
    if not sold:
        raise NoStageError("blacklist", "without a blacklist version 6 sells everything, which the mode does not say")
    return "", [f"close: {{side: both, fraction: 100%, symbols: [{', '.join(sold)}], except_assets: [{kept}]}}"]


def _top_risk(stage: ConfigSection, attribution: str) -> tuple[str, list[str]]:
    """The close of stage 1: the worst of the losing side, or of the side that `source_mode` names."""
    sides = {"AUTO": "losing", "LONG": "long", "SHORT": "short", "MIXED": "both"}
    source = stage.value("source_mode")
    side = sides.get("AUTO" if source is None else str(source))
    if side is None:
        raise NoStageError("source_mode", f"source_mode is one of {', '.join(sides)}")
    top, fraction = _whole(stage, "top_n", 3, 1), stage.number("close_fraction", "0.5")
    near = stage.number("full_close_if_liq_distance_below_pct", "0.03")
    if fraction is None or not 0 < fraction <= 1:
        raise NoStageError("close_fraction", "close_fraction is above 0 and at most 1")
    if near is None or not 0 <= near < 1:
        raise NoStageError("full_close_if_liq_distance_below_pct", "it is a fraction from 0 to 1")
    whole = f", all_if: 'position.liquidation_distance <= {float(near)}'" if near else ""
    close = f"close: {{side: {side}, rank: {RANKING}, top: {top}, fraction: {fraction}{whole}}}"
    return attribution if side == "losing" else "", [close]


def _whole(section: ConfigSection, key: str, default: int, least: int) -> int:
    found = section.number(key, str(default))
    if found is None or found != int(found) or not least <= found <= 1_000_000:
        raise NoStageError(key, f"{key} is not a whole number from {least}")
    return int(found)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
