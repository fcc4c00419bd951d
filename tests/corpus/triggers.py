"""Mistakes in triggers: thresholds, units, signs, windows, confirmations, answers to unknown.

Scenarios of the futures sets fall by 5%, 7.5% and 10.5% within minutes, and by an hour's slide to 7%, 10% and 14%.
"""

from __future__ import annotations

from tests.corpus.mutant import DEEPER, IDLE, RESET, Edit, breaker, mutant, trigger

FUTURES, CIRCUIT, CAPITAL = "futures-drawdown", "circuit-breaker", "capital-breaker"
SIX, VENUE, BLEED, FREQTRADE = "breakers-six", "venue-trouble", "slow-bleed", "freqtrade-protections"
DEGROSS = "futures-degross"

THRESHOLDS = (
    mutant("threshold", FUTURES, "thresholds-swapped", "`fall-15m-1` 4.5% and `fall-15m-2` 7% exchanged",
           trigger("fall-15m-1", "4.5%", "7%"), trigger("fall-15m-2", "7%", "4.5%"),
           loosens=True, against=None, codes="KS3022"),
    mutant("threshold", FUTURES, "digit-too-many", "`fall-15m-1`: 4.5% → 45%", trigger("fall-15m-1", "4.5%", "45%"),
           loosens=True, against=None, codes="KS3022"),
    mutant("threshold", DEGROSS, "comma-slipped", "`fall-15m-1`: 4.5% → 0.45%",
           trigger("fall-15m-1", "4.5%", "0.45%"),
           # The reset at an hour below 2% lifts what a quarter of an hour at 0.45% holds.
           loosens=False, against="TIGHTENING", scenarios="fails", proofs=[RESET]),
    mutant("threshold", DEGROSS, "threshold-below-its-reset", "`fall-1h-1`: 7% → 1.5%, reset below 2%",
           trigger("fall-1h-1", "7%", "1.5%"),
           # A quarter of an hour at 4.5% is then implied by the hour.
           loosens=False, against="TIGHTENING", scenarios="fails", proofs=[IDLE, RESET]),
    mutant("threshold", DEGROSS, "first-level-later", "`fall-15m-1`: 4.5% → 5.5%",
           trigger("fall-15m-1", "4.5%", "5.5%"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("threshold", DEGROSS, "slide-later", "`fall-1h-2`: 10% → 11%", trigger("fall-1h-2", "10%", "11%"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("threshold", FUTURES, "last-slide-later", "`fall-1h-3`: 14% → 15%", trigger("fall-1h-3", "14%", "15%"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("threshold", FUTURES, "last-crash-a-little-later", "`fall-15m-3`: 10% → 10.4%",
           trigger("fall-15m-3", "10%", "10.4%"), loosens=True, against="LOOSENING"),
    mutant("threshold", DEGROSS, "second-crash-a-little-later", "`fall-15m-2`: 7% → 7.4%",
           trigger("fall-15m-2", "7%", "7.4%"), loosens=True, against="LOOSENING"),
    mutant("threshold", CIRCUIT, "levels-meet", "`loss-5`: 5% → 3%, as `loss-3`", trigger("loss-5", "5%", "3%"),
           loosens=False, against=None, codes="KS3022"),
    mutant("threshold", CIRCUIT, "warning-below-its-reset", "`loss-3`: 3% → 1%, reset below 1.5%",
           trigger("loss-3", "3%", "1%"), loosens=False, against="TIGHTENING", scenarios="fails", proofs=[RESET]),
    mutant("threshold", FUTURES, "only-the-confirmation-differs", "`fall-15m-2`: 7% for 1m → 4.5% for 5m",
           trigger("fall-15m-2", "at_least: 7%, confirm: 1m", "at_least: 4.5%, confirm: 5m"),
           loosens=True, against="NEITHER", codes="KS5004", scenarios="fails"),
    mutant("threshold", SIX, "concentration-at-a-tenth", "`concentration`: 40% → 4%",
           breaker("concentration", "at_least: 40%", "at_least: 4%"),
           # A condition of the book that is false less often is re-armed less often, too.
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("threshold", SIX, "concentration-out-of-reach", "`concentration`: 40% → 140%",
           breaker("concentration", "at_least: 40%", "at_least: 140%"),
           loosens=True, against=None, codes="KS5003 KS3021"),
    mutant("threshold", BLEED, "floor-above-cap", "`fall-12h`: floor 5% → 15%, cap 12%",
           Edit("floor: 5%", "floor: 15%", at="fall-12h:"), loosens=True, against=None, codes="KS3072"),
    mutant("threshold", BLEED, "multiple-too-large", "`fall-12h`: 2.5 → 25 times the expected move",
           Edit("times: 2.5", "times: 25"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("threshold", FREQTRADE, "forty-stops", "`stops`: 4 → 40 within a day",
           Edit(">= 4.0", ">= 40.0"), loosens=True, against="NEITHER", scenarios="fails"),
    mutant("threshold", CAPITAL, "capital-a-digit-short", "`capital`: 10000 → 1000 USDT",
           Edit("10000 USDT", "1000 USDT"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("threshold", CAPITAL, "capital-a-digit-too-many", "`capital`: 10000 → 100000 USDT",
           Edit("10000 USDT", "100000 USDT"), loosens=False, against="TIGHTENING", scenarios="fails"),
    mutant("threshold", "spot-drawdown", "sells-later", "`fall-1h`: 12% → 13.5%",
           trigger("fall-1h", "12%", "13.5%"), loosens=True, against="LOOSENING", scenarios="fails"),
)  # fmt: skip

UNITS = (
    mutant("unit", FUTURES, "percent-lost", "`fall-15m-3`: 10% → 10", trigger("fall-15m-3", "10%", "10"),
           loosens=True, against=None, codes="KS3004"),
    mutant("unit", FUTURES, "share-without-percent", "`fall-15m-1`: 4.5% → 0.045",
           trigger("fall-15m-1", "4.5%", "0.045"), loosens=False, against="EQUIVALENT", codes="KS7211"),
    mutant("unit", FUTURES, "share-with-percent", "`fall-15m-3`: 10% → 0.10%",
           trigger("fall-15m-3", "10%", "0.10%"), loosens=False, against=None, codes="KS3022"),
    mutant("unit", CAPITAL, "money-as-share", "5% → 500 USDT", Edit("at_least: 5%", "at_least: 500 USDT"),
           loosens=False, against=None, codes="KS3004"),
    mutant("unit", CAPITAL, "capital-of-another-currency", "`capital`: 10000 USDT → 10000 USDC",
           Edit("10000 USDT", "10000 USDC"), loosens=True, against=None, codes="KS3008"),
    mutant("unit", SIX, "leverage-in-percent", "`leverage`: 3 → 3%",
           # A ratio may be written in percent, as a volatility is; 0.03 is below the recovery at 2.
           breaker("leverage", "at_least: 3,", "at_least: 3%,"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("unit", VENUE, "rate-without-percent", "`errors`: 30% → 30", trigger("errors", "30%", "30"),
           # No upper bound of `venue.error_rate` is declared, so that 3000% is no error.
           loosens=True, against="NEITHER", codes="KS7211", scenarios="fails"),
    mutant("unit", VENUE, "seconds-as-milliseconds", "`slow`: 5s → 5ms", trigger("slow", "5s", "5ms"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("unit", VENUE, "minutes-for-seconds", "`stale`: 45s → 45m", trigger("stale", "45s", "45m"),
           loosens=True, against=None, codes="KS3022"),
    mutant("unit", VENUE, "hours-for-minutes", "`gone`: 5m → 5h", trigger("gone", "at_least: 5m", "at_least: 5h"),
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("unit", SIX, "percent-in-an-expression", "`position-loss`: a drawdown of 0.02 → 2.0",
           breaker("position-loss", ">= 0.02", ">= 2.0"), loosens=True, against=None, codes="KS5003 KS3021"),
    mutant("unit", SIX, "warnings-without-percent", "`portfolio-loss`: `warn_at` [60%, 80%] → [60, 80]",
           breaker("portfolio-loss", "[60%, 80%]", "[60, 80]"), loosens=False, against=None, codes="KS2102"),
    mutant("unit", FUTURES, "duration-without-unit", "`cooldown` of level 1: 30m → 30",
           Edit("cooldown: 30m", "cooldown: 30"), loosens=True, against=None, codes="KS2101"),
)  # fmt: skip

SIGNS = (
    mutant("sign", FUTURES, "at-most-for-at-least", "`fall-15m-3`: at_least → at_most",
           # The variant `tight` overrides `at_least`.
           trigger("fall-15m-3", "at_least", "at_most"), loosens=True, against=None, codes="KS3016 KS5018"),
    mutant("sign", CIRCUIT, "trips-without-a-loss", "`loss-5`: at_least → at_most",
           trigger("loss-5", "at_least", "at_most"),
           loosens=True, against="NEITHER", codes="KS5018", scenarios="fails", proofs=[DEEPER]),
    mutant("sign", CIRCUIT, "above-for-at-least", "`loss-3`: at_least → above",
           # The text that the scenario expects has the comparison.
           trigger("loss-3", "at_least", "above"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("sign", CAPITAL, "above-for-at-least-of-the-capital", "at_least → above",
           Edit("at_least", "above"), loosens=True, against="LOOSENING"),
    mutant("sign", SIX, "above-for-at-least-where-it-matters", "`portfolio-loss`: at_least → above",
           breaker("portfolio-loss", "at_least", "above"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("sign", SIX, "less-for-more", "`position-loss`: worst loss >= 25% → < 25%",
           breaker("position-loss", '("entry") >= 0.25', '("entry") < 0.25'),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("sign", SIX, "or-for-and", "`position-loss`: && → ||", breaker("position-loss", "&&", "||"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("sign", SIX, "concentration-at-most", "`concentration`: at_least → at_most",
           breaker("concentration", "at_least", "at_most"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
    mutant("sign", SIX, "leverage-at-most", "`leverage`: at_least → at_most",
           breaker("leverage", "at_least: 3", "at_most: 3"), loosens=True, against=None, codes="KS3070"),
    mutant("sign", VENUE, "malformed-at-least-zero", "`malformed`: above 0 → at_least 0",
           trigger("malformed", "above", "at_least"),
           loosens=True, against="NEITHER", codes="KS5002", scenarios="fails", proofs=[RESET]),
    mutant("sign", FUTURES, "loss-below-zero", "`fall-1h-1`: 7% → -7%", trigger("fall-1h-1", "7%", "-7%"),
           loosens=False, against=None, codes="KS3004"),
)  # fmt: skip

WINDOWS = (
    mutant("window", FUTURES, "seconds-for-minutes", "`fall-15m-1`: window 15m → 15s",
           # It also chooses the window in which a side has lost.
           trigger("fall-15m-1", "window: 15m", "window: 15s"),
           loosens=True, against="NEITHER", codes="KS7213", scenarios="fails"),
    mutant("window", DEGROSS, "seconds-for-minutes-of-both-sides", "`fall-15m-1`: window 15m → 15s",
           trigger("fall-15m-1", "window: 15m", "window: 15s"),
           loosens=True, against="LOOSENING", codes="KS7213", scenarios="fails"),
    mutant("window", DEGROSS, "days-for-minutes", "`fall-15m-1`: window 15m → 15d",
           # An hour at 7% implies 15 days at 4.5%, and an hour below 2% does not end them.
           trigger("fall-15m-1", "window: 15m", "window: 15d"),
           loosens=False, against="TIGHTENING", scenarios="fails", proofs=[IDLE, RESET]),
    mutant("window", BLEED, "minutes-for-hours", "`fall-12h`: window 12h → 12m",
           Edit("window: 12h", "window: 12m"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("window", FUTURES, "gap-as-long-as-the-window", "`max_gap`: 10m → 15m", Edit("max_gap: 10m", "max_gap: 15m"),
           loosens=True, against="NEITHER", codes="KS7213"),
    mutant("window", FUTURES, "gap-a-little-longer", "`max_gap`: 10m → 14m", Edit("max_gap: 10m", "max_gap: 14m"),
           loosens=True, against="NEITHER"),
    mutant("window", FUTURES, "gap-in-seconds", "`max_gap`: 10m → 10s", Edit("max_gap: 10m", "max_gap: 10s"),
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("window", CIRCUIT, "gap-without-a-window", "`max_gap`: 10m → 10h", Edit("max_gap: 10m", "max_gap: 10h"),
           loosens=False, against="EQUIVALENT"),
    mutant("window", SIX, "volatility-of-another-symbol", "`volatility`: BTC → ETH",
           # The recovery still reads BTC.
           breaker("volatility", "symbol: BTC/USDT:USDT", "symbol: ETH/USDT:USDT"),
           loosens=True, against="NEITHER", scenarios="fails", proofs=[RESET]),
)  # fmt: skip

CONFIRMATIONS = (
    mutant("confirmation", DEGROSS, "confirmation-in-hours", "`fall-15m-1`: 2m → 2h",
           trigger("fall-15m-1", "confirm: 2m", "confirm: 2h"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("confirmation", FUTURES, "confirmation-in-ticks", "`fall-15m-1`: 2m → 2 ticks",
           trigger("fall-15m-1", "confirm: 2m", "confirm: 2 ticks"),
           loosens=True, against="NEITHER", codes="KS5005", scenarios="fails"),
    mutant("confirmation", DEGROSS, "confirmation-removed", "`fall-15m-1`: at once",
           trigger("fall-15m-1", "confirm: 2m, ", ""), loosens=False, against="TIGHTENING", scenarios="fails"),
    mutant("confirmation", FUTURES, "last-level-waits", "`fall-15m-3`: at once → 1h",
           trigger("fall-15m-3", "at_least: 10%,", "at_least: 10%, confirm: 1h,"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("confirmation", SIX, "concentration-confirms-longer", "`concentration`: 5m → 50m",
           breaker("concentration", "confirm: 5m", "confirm: 50m"),
           loosens=True, against="LOOSENING", scenarios="fails"),
)  # fmt: skip

UNKNOWNS = (
    mutant("unknown", FUTURES, "trips-on-a-young-window", "`fall-15m-3`: hold → trip",
           trigger("fall-15m-3", "on_unknown: hold", "on_unknown: trip"),
           loosens=False, against="TIGHTENING", codes="KS5019", scenarios="fails"),
    mutant("unknown", DEGROSS, "missing-data-forgives", "`fall-15m-1`: hold → warn",
           trigger("fall-15m-1", "on_unknown: hold", "on_unknown: warn"),
           loosens=True, against="LOOSENING", codes="KS7206"),
    mutant("unknown", VENUE, "never-read-is-gone", "`gone`: hold → trip",
           trigger("gone", "on_unknown: hold", "on_unknown: trip"),
           loosens=False, against="TIGHTENING", scenarios="fails"),
    mutant("unknown", VENUE, "errors-forgotten", "`errors`: hold → warn",
           trigger("errors", "on_unknown: hold", "on_unknown: warn"), loosens=True, against="LOOSENING"),
    mutant("unknown", FUTURES, "answer-to-unknown-missing", "`fall-1h-3` without `on_unknown`",
           trigger("fall-1h-3", "on_unknown: hold, ", ""), loosens=True, against=None, codes="KS2002"),
    mutant("unknown", FUTURES, "grace-in-hours", "`fall-1h-1`: grace 75m → 75h",
           trigger("fall-1h-1", "grace: 75m", "grace: 75h"), loosens=False, against="EQUIVALENT"),
    mutant("unknown", FUTURES, "grace-shorter-than-the-window", "`fall-1h-3`: grace 75m → 5m",
           trigger("fall-1h-3", "grace: 75m", "grace: 5m"), loosens=False, against="EQUIVALENT"),
)  # fmt: skip

IN_TRIGGERS = (*THRESHOLDS, *UNITS, *SIGNS, *WINDOWS, *CONFIRMATIONS, *UNKNOWNS)
