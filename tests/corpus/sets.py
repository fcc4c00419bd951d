"""Mistakes in a policy and its set: scope, mode, messages, names, variants, whole documents."""

from __future__ import annotations

from tests.corpus.mutant import DELIVERED, Edit, breaker, mutant, stage, trigger
from tests.corpus.stages import PUBLISHED
from tests.corpus.triggers import BLEED, CIRCUIT, DEGROSS, FREQTRADE, FUTURES, SIX, VENUE

ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: NAME}
spec: {adapter: ccxt, exchange: VENUE, market: MARKET, currency: USDT, execution: observe}
"""


def account(name: str, venue: str, market: str) -> str:
    """The text of an Account document."""
    return ACCOUNT.replace("NAME", name).replace("VENUE", venue).replace("MARKET", market)


BOTH_MARKETS = Edit(
    "", account("main", "binanceusdm", "swap") + "---\n" + account("wallet", "binance", "spot"), file="accounts.yaml"
)
DESK_ROUTE = Edit("match: {}", "match: {notify: risk-desk}", file="route.yaml")
DEAD_MAN = Edit(
    "",
    "apiVersion: killswitch.dev/v1\nkind: DeadMansSwitch\nmetadata: {name: timer}\n"
    "spec: {accounts: [main], at_venue: true, timeout: 60s, refresh: 15s}\n",
    file="timer.yaml",
)

POLICY = "apiVersion: killswitch.dev/v1\nkind: Policy\n"

SCOPES = (
    mutant("scope", FUTURES, "market-forgotten", "`match`: [swap, future] → [future]",
           Edit("[swap, future]", "[future]"),
           loosens=True, against="LOOSENING", codes="KS5010", scenarios="fails"),
    mutant("scope", FUTURES, "every-market", "`match`: {market: [swap, future]} → {}",
           Edit("match: {market: [swap, future]}", "match: {}"), given=[BOTH_MARKETS],
           loosens=False, against="TIGHTENING", codes="KS7214"),
    mutant("scope", "spot-drawdown", "swaps-too", "`match`: spot → [spot, swap]",
           Edit("market: spot", "market: [spot, swap]"), loosens=False, against="TIGHTENING"),
    mutant("scope", FUTURES, "one-portfolio", "`each`: account → portfolio", Edit("each: account", "each: portfolio"),
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("scope", CIRCUIT, "account-misspelt", "`match`: every market → {account: mian}",
           Edit("match: {market: [swap, future, margin, spot, equity]}", "match: {account: mian}"),
           given=[BOTH_MARKETS],
           # Neither account has a policy that watches it.
           loosens=True, against="NEITHER", codes="KS5006 KS5010", scenarios="fails"),
    mutant("scope", SIX, "futures-only", "`drawdown-24h`: [swap, future, margin] → [future]",
           breaker("drawdown-24h", "[swap, future, margin]", "[future]"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("scope", FREQTRADE, "pairs-locked-together", "`low-profit-pairs`: each symbol → account",
           Edit("each: symbol", "each: account", at="low-profit-pairs"),
           loosens=True, against="NEITHER", scenarios="fails"),
)  # fmt: skip

MODES = (
    mutant("mode", CIRCUIT, "only-observes", "`mode`: enforce → observe", Edit("enforce", "observe"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("mode", SIX, "one-breaker-observes", "`leverage`: enforce → observe",
           breaker("leverage", "enforce", "observe"), loosens=True, against="LOOSENING"),
    mutant("mode", FUTURES, "disabled-for-years", "disabled until 2099",
           Edit("  mode: enforce\n", "  mode: enforce\n  disabled: {reason: a test, until: '2099-01-01T00:00:00Z'}\n"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("mode", FUTURES, "data-never-stale", "`stale_after: 10h` instead of the adapter's judgement",
           Edit("  max_gap: 10m\n", "  max_gap: 10m\n  stale_after: 10h\n"),
           loosens=True, against="UNDECIDED"),
    mutant("mode", FUTURES, "no-lock-on-suspicion", "`on_suspicion`: page",
           Edit("  max_gap: 10m\n", "  max_gap: 10m\n  on_suspicion: page\n"), loosens=True, against="UNDECIDED"),
)  # fmt: skip

MESSAGES = (
    mutant("messages", FUTURES, "no-route", "`route.yaml` removed",
           Edit("# Where", "", until="", file="route.yaml"),
           # The scenarios expect texts, which nobody reads any more.
           loosens=False, against="EQUIVALENT", codes="KS5020", scenarios="fails"),
    mutant("messages", FUTURES, "route-of-another-severity", "route: {} → {severity: info}",
           Edit("match: {}", "match: {severity: info}", file="route.yaml"),
           loosens=False, against="EQUIVALENT", codes="KS5022", scenarios="fails", proofs=[DELIVERED]),
    mutant("messages", FUTURES, "route-of-another-level", "route: {} → {level: {at_least: 5}}",
           Edit("match: {}", "match: {level: {at_least: 5}}", file="route.yaml"),
           loosens=False, against="EQUIVALENT", codes="KS5020 KS5021 KS5022", scenarios="fails",
           proofs=[DELIVERED]),
    mutant("messages", CIRCUIT, "notify-misspelt",
           "`trip`: notify [risk-desk] → [risk-desc], with a route for risk-desk",
           stage("trip", "[risk-desk]", "[risk-desc]"), given=[DESK_ROUTE],
           loosens=False, against="EQUIVALENT", codes="KS5020", scenarios="fails"),
    mutant("messages", CIRCUIT, "notify-misspelt-beside-a-route-for-all", "`trip`: notify [risk-desk] → [risk-desc]",
           stage("trip", "[risk-desk]", "[risk-desc]"), loosens=False, against="EQUIVALENT"),
    mutant("messages", FUTURES, "nobody-notified", "`close-losing-side` without `notify`",
           stage("close-losing-side", "      notify: [risk-desk]\n", ""),
           loosens=False, against="EQUIVALENT", codes="KS7203"),
    mutant("messages", FUTURES, "runbook-removed", "`close-everything` without `runbook`",
           stage("close-everything", "      runbook: close-everything\n", ""),
           loosens=False, against="EQUIVALENT", codes="KS7204"),
    mutant("messages", FUTURES, "runbook-misspelt", "`runbook`: close-everything → close-everythin",
           stage("close-everything", "runbook: close-everything", "runbook: close-everythin"),
           loosens=False, against="EQUIVALENT", codes="KS6110"),
    mutant("messages", FUTURES, "runbook-of-another-stage", "`trim-top-risk`: the runbook of `close-everything`",
           stage("trim-top-risk", "runbook: trim-top-risk", "runbook: close-everything"),
           loosens=False, against="EQUIVALENT"),
    mutant("messages", FUTURES, "no-owner", "label `owner` removed", Edit("  labels: {owner: risk-desk}\n", ""),
           loosens=False, against="EQUIVALENT", codes="KS7210"),
)  # fmt: skip

NAMES = (
    mutant("names", FUTURES, "key-misspelt", "`confirm` → `confrim`", trigger("fall-15m-1", "confirm", "confrim"),
           loosens=False, against=None, codes="KS2001"),
    mutant("names", FUTURES, "filter-misspelt", "`market` → `markets` in `match`", Edit("{market:", "{markets:"),
           loosens=False, against=None, codes="KS2001"),
    mutant("names", FUTURES, "trigger-misspelt", "`fall-15m-3` → `fall-15m3` in `any`",
           stage("close-everything", "[fall-15m-3", "[fall-15m3"), loosens=True, against=None, codes="KS3010 KS5001"),
    mutant("names", CIRCUIT, "signal-misspelt", "`equity.loss_from_start` → `equity.loss_from_starts`",
           trigger("loss-5", "loss_from_start", "loss_from_starts"), loosens=True, against=None, codes="KS3001"),
    mutant("names", FUTURES, "ranking-misspelt", "`rank`: default → defalt",
           stage("trim-top-risk", "rank: default", "rank: defalt"), loosens=False, against=None, codes="KS3011"),
    mutant("names", FUTURES, "key-twice", "`level` twice", stage("trim-top-risk", "      level: 1\n",
                                                                "      level: 1\n      level: 2\n"),
           loosens=True, against=None, codes="KS1103"),
    mutant("names", PUBLISHED, "ranking-unused", "`bleed-l0` ranks by bleed-rate",
           Edit("rank: largest-loss", "rank: bleed-rate"), loosens=True, against="NEITHER", codes="KS7216"),
    mutant("names", FUTURES, "notified-twice", "`close-everything`: notify [risk-desk, risk-desk]",
           stage("close-everything", "[risk-desk]", "[risk-desk, risk-desk]"),
           loosens=False, against="EQUIVALENT", codes="KS7205"),
)  # fmt: skip

VARIANTS = (
    mutant("variant", FUTURES, "variant-out-of-order", "`tight`: fall-15m-1 3% → 5%, as fall-15m-2",
           Edit("fall-15m-1: {at_least: 3%}", "fall-15m-1: {at_least: 5%}"),
           loosens=True, against=None, codes="KS3022"),
    mutant("variant", FUTURES, "variant-a-little-looser", "`tight`: fall-15m-1 3% → 4.4%, not selected",
           Edit("fall-15m-1: {at_least: 3%}", "fall-15m-1: {at_least: 4.4%}"), loosens=False, against="EQUIVALENT"),
    mutant("variant", FUTURES, "variant-without-effect", "`tight`: fall-1h-1 4.7% → 7%, as without the variant",
           Edit("fall-1h-1:  {at_least: 4.7%}", "fall-1h-1:  {at_least: 7%}"),
           loosens=False, against="EQUIVALENT", codes="KS5012"),
    mutant("variant", FUTURES, "variant-of-no-trigger", "`tight`: fall-1h-3 → fall-1h-9",
           Edit("fall-1h-3:  {at_least: 11.2%}", "fall-1h-9:  {at_least: 11.2%}"),
           loosens=False, against=None, codes="KS3010"),
    mutant("variant", DEGROSS, "tight-selected", "`variant: tight`",
           Edit("  variants:\n", "  variant: tight\n  variants:\n"),
           loosens=False, against="TIGHTENING", scenarios="fails"),
)  # fmt: skip

SETS = (
    mutant("set", SIX, "breaker-removed", "the policy `portfolio-loss` removed",
           Edit("apiVersion", "", at="apiVersion", until=f"{POLICY}metadata: {{name: position-loss,"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("set", BLEED, "alert-removed", "the policy `slow-bleed-position` removed",
           Edit("---\n", "", at="runbook: close-bleed", until="---\n# How the closes"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("set", "one-exchange-hedged", "slow-fall-removed", "the policy `one-exchange-hedged-slow` removed",
           Edit("---\n", "", at="runbook: close-everything", until="---\n# How the closes"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("scope", "several-exchanges", "each-alone", "`several-exchanges`: portfolio → account",
           Edit("each: portfolio", "each: account", at="name: several-exchanges\n"),
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("triggers", "one-exchange-directional", "slow-fall-forgotten", "`close-at-first-fall` without `fall-48h`",
           stage("close-at-first-fall", ", fall-48h]", "]"),
           loosens=True, against="LOOSENING", codes="KS5001", scenarios="fails"),
    mutant("set", SIX, "copied-and-not-renamed", "`position-loss-alert` is named `position-loss`, too",
           Edit("name: position-loss-alert", "name: position-loss"), loosens=True, against=None, codes="KS1207"),
    mutant("set", VENUE, "timer-removed", "a dead man's switch removed",
           Edit("apiVersion", "", until="", file="timer.yaml"),
           given=[BOTH_MARKETS, DEAD_MAN], loosens=True, against="LOOSENING"),
)  # fmt: skip

IN_SETS = (*SCOPES, *MODES, *MESSAGES, *NAMES, *VARIANTS, *SETS)
