"""Mistakes in stages: levels, triggers of a stage, cooldowns, resets."""

from __future__ import annotations

from tests.corpus.mutant import IDLE, NO_LONGER, RESET, Edit, breaker, mutant, stage, trigger, without_stage
from tests.corpus.triggers import CAPITAL, CIRCUIT, DEGROSS, FREQTRADE, FUTURES, SIX, VENUE

PUBLISHED = "slow-bleed-published"
CALM = "reset: {auto: {when: 'equity.drawdown(\"1h\") < 0.02', for: 60m}}"

LEVELS = (
    mutant("levels", FUTURES, "levels-exchanged", "`close-losing-side` at level 3, `close-everything` at level 2",
           stage("close-losing-side", "level: 2", "level: 3"), stage("close-everything", "level: 3", "level: 2"),
           loosens=True, against=None, codes="KS3022"),
    mutant("levels", FUTURES, "first-level-on-top", "`trim-top-risk`: level 1 → 4",
           stage("trim-top-risk", "level: 1", "level: 4"), loosens=True, against=None, codes="KS3022"),
    mutant("levels", FUTURES, "two-stages-of-one-level", "`close-losing-side`: level 2 → 1",
           stage("close-losing-side", "level: 2", "level: 1"),
           # On some books level 1 closes what level 2 keeps.
           loosens=True, against="NEITHER", codes="KS5009", scenarios="fails"),
    mutant("levels", FUTURES, "triggers-of-two-levels-exchanged", "`any` of levels 1 and 2 exchanged",
           stage("trim-top-risk", "[fall-15m-1, fall-1h-1]", "[fall-15m-2, fall-1h-2]"),
           stage("close-losing-side", "[fall-15m-2, fall-1h-2]", "[fall-15m-1, fall-1h-1]"),
           loosens=True, against=None, codes="KS3022"),
    mutant("levels", FUTURES, "notice-on-top", "a level 4 at 25% in an hour that only notifies",
           Edit("  triggers:\n    # Two", "  triggers:\n    fall-1h-4: {signal: equity.drawdown, window: 1h, "
                "at_least: 25%, on_unknown: hold, grace: 75m}\n    # Two"),
           Edit("  stages:\n", "  stages:\n    - name: call-everybody\n      level: 4\n      any: [fall-1h-4]\n"
                "      cooldown: 6h\n      reset: manual\n      actions: []\n      notify: [risk-desk]\n\n"),
           # Only the highest level fires: a fall of 25% in one evaluation closes nothing.
           loosens=True, against="LOOSENING", scenarios="covers less"),
    mutant("levels", FUTURES, "last-level-removed", "`close-everything` removed", without_stage("close-everything"),
           loosens=True, against="LOOSENING", codes="KS5001", scenarios="fails"),
    mutant("levels", "futures-directional", "first-level-removed", "`close-at-first-fall` removed",
           without_stage("close-at-first-fall", "close-everything"),
           loosens=True, against="LOOSENING", codes="KS5001", scenarios="fails"),
)  # fmt: skip

TRIGGERS = (
    mutant("triggers", FUTURES, "slide-forgotten", "`close-everything` without `fall-1h-3`",
           stage("close-everything", "[fall-15m-3, fall-1h-3]", "[fall-15m-3]"),
           loosens=True, against="LOOSENING", codes="KS5001", scenarios="fails"),
    mutant("triggers", FUTURES, "crash-forgotten", "`trim-top-risk` without `fall-15m-1`, which is removed",
           stage("trim-top-risk", "[fall-15m-1, fall-1h-1]", "[fall-1h-1]"),
           Edit("    fall-15m-1: {signal", "", until="    fall-1h-1: "),
           Edit("        fall-15m-1: {at_least: 3%}\n", ""),
           # It also chose a window in which a side has lost.
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("triggers", FUTURES, "all-for-any", "`close-everything`: any → all",
           stage("close-everything", "any:", "all:"),
           # A crash of 10% within 15m that is no 14% within 1h demands no last level, nor does a slide.
           loosens=True, against="LOOSENING", scenarios="fails", proofs=[NO_LONGER]),
    mutant("triggers", VENUE, "all-for-any-at-a-venue", "`lock-venue`: any → all", stage("lock-venue", "any:", "all:"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("triggers", PUBLISHED, "any-for-all", "`bleed-l2`: all → any", Edit("all: [fall-48h", "any: [fall-48h"),
           loosens=False, against="TIGHTENING", scenarios="fails"),
    mutant("triggers", CIRCUIT, "trigger-of-the-lower-level", "`trip` by `loss-3`",
           # It closes more, at once: nothing less.
           stage("trip", "[loss-5]", "[loss-3]"),
           loosens=False, against="TIGHTENING", codes="KS5001 KS5008", scenarios="fails"),
    mutant("triggers", CIRCUIT, "only-with-leverage", "`trip` also needs a leverage of 1.5",
           Edit("  stages:\n",
                "    levered: {signal: exposure.leverage, at_least: 1.5, on_unknown: hold}\n  stages:\n"),
           stage("trip", "any: [loss-5]", "any: [loss-5]\n      all: [levered]"),
           # It re-arms the level, so that it also fires again without a new loss.
           loosens=True, against="NEITHER", scenarios="covers less", proofs=[NO_LONGER]),
    mutant("triggers", DEGROSS, "trigger-added-that-is-implied", "`cut-half` also at 4.8% within 15m for 2m",
           Edit("    fall-1h-1:  {signal", "    fall-15m-0: {signal: equity.drawdown, window: 15m, at_least: 4.8%, "
                "confirm: 2m, on_unknown: hold, grace: 20m}\n    fall-1h-1:  {signal"),
           stage("cut-half", "[fall-15m-1, fall-1h-1]", "[fall-15m-1, fall-15m-0, fall-1h-1]"),
           loosens=False, against="EQUIVALENT", scenarios="covers less", proofs=[IDLE]),
    mutant("triggers", DEGROSS, "same-threshold-twice", "`fall-1h-1` is a copy of `fall-15m-1`",
           trigger("fall-1h-1", "window: 1h, at_least: 7%, ", "window: 15m, at_least: 4.5%, "),
           loosens=True, against="LOOSENING", codes="KS7212", scenarios="fails", proofs=[IDLE]),
)  # fmt: skip

COOLDOWNS = (
    mutant("cooldown", FUTURES, "cooldown-in-hours", "`trim-top-risk`: 30m → 30h",
           stage("trim-top-risk", "cooldown: 30m", "cooldown: 30h"),
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("cooldown", FUTURES, "cooldown-in-minutes", "`close-everything`: 6h → 6m",
           stage("close-everything", "cooldown: 6h", "cooldown: 6m"),
           loosens=False, against="TIGHTENING", scenarios="fails"),
    mutant("cooldown", FUTURES, "cooldown-of-days", "`close-everything`: 6h → 60h",
           stage("close-everything", "cooldown: 6h", "cooldown: 60h"), loosens=True, against="LOOSENING"),
    mutant("cooldown", CIRCUIT, "cooldown-in-seconds", "`trip`: 6h → 6s", stage("trip", "cooldown: 6h", "cooldown: 6s"),
           loosens=False, against="TIGHTENING", scenarios="fails"),
    mutant("cooldown", CAPITAL, "cooldown-missing", "`cooldown` removed", Edit("    cooldown: 6h\n", ""),
           loosens=True, against=None, codes="KS2002"),
    mutant("cooldown", SIX, "breaker-sleeps-for-days", "`leverage`: 15m → 15d",
           breaker("leverage", "cooldown: 15m", "cooldown: 15d"),
           loosens=True, against="NEITHER", scenarios="fails"),
)  # fmt: skip

RESETS = (
    mutant("reset", CIRCUIT, "trip-resets-by-itself", "`trip`: manual → auto below 3%",
           stage("trip", "reset: manual", "reset: {auto: {when: 'equity.loss_from_start < 0.03', for: 60m}}"),
           loosens=True, against="NEITHER", scenarios="covers less"),
    mutant("reset", FUTURES, "everything-resets-by-a-quarter", "`close-everything`: manual → auto on 15m below 2%",
           stage("close-everything", "reset: manual", CALM.replace("1h", "15m")),
           loosens=True, against="NEITHER", scenarios="covers less", proofs=[NO_LONGER, RESET]),
    mutant("reset", FUTURES, "reset-at-a-fifth", "`trim-top-risk`: reset below 2% → 20%",
           stage("trim-top-risk", "< 0.02", "< 0.2"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("reset", FUTURES, "reset-while-it-falls", "`trim-top-risk`: reset < 2% → > 2%",
           stage("trim-top-risk", "< 0.02", "> 0.02"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("reset", FUTURES, "calm-for-seconds", "`trim-top-risk`: reset for 60m → 60s",
           stage("trim-top-risk", "for: 60m", "for: 60s"), loosens=True, against="NEITHER", scenarios="fails"),
    mutant("reset", FUTURES, "calm-of-a-quarter", "`close-losing-side`: reset on 1h → 15m",
           stage("close-losing-side", '"1h"', '"15m"'),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("reset", SIX, "recovery-above-its-threshold", "`leverage`: recovery below 2 → 4, tripped at 3",
           breaker("leverage", "< 2.0", "< 4.0"),
           # The cooldown hides it in the scenario, which recovers when that is over: its condition is never false.
           loosens=True, against="NEITHER", scenarios="covers less", proofs=[RESET]),
    mutant("reset", SIX, "ten-times-as-many-recoveries", "`leverage`: at_most 3 → 30",
           breaker("leverage", "at_most: 3}", "at_most: 30}"), loosens=True, against="NEITHER"),
    mutant("reset", SIX, "recoveries-without-limit", "`position-loss`: `at_most` removed",
           breaker("position-loss", ", at_most: 3", ""), loosens=True, against=None, codes="KS2209"),
    mutant("reset", SIX, "a-loss-that-recovers", "`portfolio-loss`: manual → auto",
           breaker("portfolio-loss", "recovery: manual",
                   "recovery: {auto: {when: 'equity.loss_from_start < 0.1', for: 60m, at_most: 1}}"),
           loosens=True, against=None, codes="KS3071"),
    mutant("reset", FREQTRADE, "cooldown-period-never-ends", "`cooldown-period`: reset at < 1 → < 0",
           Edit('trades.count("2h", "any", "scope", "any") < 1.0', 'trades.count("2h", "any", "scope", "any") < 0.0'),
           loosens=True, against="NEITHER", codes="KS5003", scenarios="fails"),
)  # fmt: skip

IN_STAGES = (*LEVELS, *TRIGGERS, *COOLDOWNS, *RESETS)
