"""How each signal is used: its group in the reference, an example, the false alarm that it is known for, and words.

A guide is for readers: no compiler and no tick imports it. The example is compiled by `tests/unit/docs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Group = Literal["loss", "exposure", "market", "venue", "system", "ownership", "position"]


class Guide(Struct, frozen=True):
    """How a signal is used.

    `example`: the comparison of a threshold trigger and further keys of it (`at_least: 5%, confirm: 1m`), or an
    expression: of a trigger, of `close.where` for a signal of a position. `false_alarm`: what makes it fire without
    harm, or hides harm from it, and what to do about it.
    """

    group: Group
    example: str
    false_alarm: str


def _group(group: Group, **guides: tuple[str, str]) -> dict[str, Guide]:
    """The guides of signals of one group, by name with two underscores for the point."""
    return {name.replace("__", "."): Guide(group, *texts) for name, texts in guides.items()}


_LOSS = _group(
    "loss",
    equity__value=(
        "below: 9000 USDT",
        "A withdrawal lowers it as a loss does. For what a transfer must not fire, take a loss of the unit value.",
    ),
    equity__drawdown=(
        "at_least: 10%, confirm: 1m",
        "Percentages of equity contain the book's leverage: a 3× long book that gained 86% in a calm month was 5% "
        "below its 48 h peak on 27 of 30 days. One stray print can do it too: confirm it, or corroborate the stage.",
    ),
    equity__drawdown_from_peak=(
        "at_least: 20%",
        "It stays until an operator resets: closing cannot cure it, and an old peak counts for ever.",
    ),
    equity__loss_from_start=(
        "at_least: 15%",
        "A book that has gained 40% may lose it all before this is above 0: combine it with a fall from the peak.",
    ),
    equity__unexplained=(
        "at_most: -500 USDT, confirm: 5m",
        "Ledger rows of a withdrawal arrive seconds to minutes after the money has moved: confirm it for longer.",
    ),
    equity__unexplained_share=(
        "at_least: 5%, confirm: 5m",
        "Ledger rows arrive later than the money moves: confirm it. A deposit is no fall, and is not in it.",
    ),
    equity__profit=(
        "at_least: 20%",
        "It counts from the start of observation or the last reset by hand, not from the bot's own first trade.",
    ),
    equity__best_profit=(
        "equity.best_profit >= 0.02 && equity.profit < 0.01",
        "It never falls: alone it is true for ever once reached. Compare the profit of now as well.",
    ),
    equity__given_back=(
        "equity.given_back >= 0.5 && equity.best_profit >= 0.02",
        "All of a profit of 0.01% is given back within a minute: combine it with the least best profit that matters.",
    ),
    equity__loss_since=(
        "at_least: 5%",
        "It forgets at the open: 5% before midnight and 5.9% after it never reach 6%. Add a fall within 24 h.",
    ),
    equity__loss_sum=(
        "at_least: 1000 USDT",
        "Of hedged accounts one always loses, and no gain of another is set against it.",
    ),
    equity__above_floor=(
        "at_most: 0 USDT",
        "With `intraday` the highest equity has open profit that was never booked. `end_of_day` does not see it.",
    ),
    equity__loss_from_capital=(
        "at_least: 5%",
        "Money moved before the first observation is not known: declare the capital of the day on which you start.",
    ),
    pnl__unrealised=(
        "at_most: -500 USDT",
        "A daily settlement sets entries to the mark: it goes from −900 to 0, or from 900 to 0, and nothing happened.",
    ),
    pnl__unrealised_share=(
        "at_most: -10%",
        "Its denominator shrinks with the loss: 10,000 lost of 100,000 are 11.1% of the 90,000 that are left.",
    ),
    pnl__realised=(
        "at_most: -500 USDT",
        "Funding at 00:00, 08:00 and 16:00 UTC, daily settlement, and venues that book by tax lot.",
    ),
    pnl__funding_paid=(
        "at_least: 100 USDT",
        "It comes in steps, most at 08:00 UTC; a new listing pays hourly.",
    ),
    pnl__funding_paid_share=(
        "at_least: 1%",
        "It comes in steps, most at 08:00 UTC; and a withdrawal makes the same payment a larger share.",
    ),
    positions__worst_loss=(
        'positions.worst_loss("equity") >= 0.08 && equity.drawdown("1h") >= 0.04',
        "The losing leg of a hedge: 9% of equity on it while the book lost 0.5%. Combine it with a fall of the scope. "
        "Against `margin` it scales with leverage: 6% at 10× are a move of 0.6%.",
    ),
    positions__losing=(
        'positions.losing("any", "equity", 0.01) >= 3.0 && equity.drawdown("1h") >= 0.03',
        "The losing legs of hedges: combine it with a fall of the scope. A book of two never has three losers.",
    ),
    positions__worst_bleed=(
        "at_least: 500",
        "The losing leg of a hedge: combine it with a fall of the scope. Taking part of a profit is no loss.",
    ),
    attribution__long_share=(
        'attribution.long_share("1h") >= 0.65 && equity.drawdown("1h") >= 0.05',
        "A share of next to nothing: 100% of a loss of one dollar. Combine it with the size of the loss.",
    ),
    attribution__short_share=(
        'attribution.short_share("1h") >= 0.65 && equity.drawdown("1h") >= 0.05',
        "A share of next to nothing: combine it with the size of the loss. "
        "The short leg of a cash-and-carry loses in every rise.",
    ),
    attribution__source=(
        'attribution.source("1h") == "SHORT" && equity.drawdown("1h") >= 0.05',
        "The side that lost next to nothing: combine it with the size of the loss.",
    ),
    trades__count=(
        "at_least: 4",
        "A grid or a market maker has fifty losing round trips on an ordinary day.",
    ),
    trades__losing_streak=(
        "at_least: 5",
        "Averaging down never closes: its open loss is in no streak. Add a fall of equity.",
    ),
    trades__profit=(
        "at_most: -0.05",
        "One large and one small trade weigh alike.",
    ),
    trades__drawdown=(
        "at_least: 0.2",
        "It has closed trades only; `equity.drawdown` also has what is open, and is the better one.",
    ),
    trades__since_close=(
        "below: 5m",
        "It is true after winners as well.",
    ),
)
_EXPOSURE = _group(
    "exposure",
    exposure__gross=("above: 300000 USDT", "Both legs of a hedge count: a market-neutral book has twice its size."),
    exposure__net=("at_least: 100000 USDT", "Negative for shorts: a limit on them is `at_most`."),
    exposure__leverage=(
        "above: 3",
        "A limit equal to the book's own target: 2.9× long is 3.017× after −2%, and 2.9× short 3.016× after +1%. A "
        "withdrawal raises it, too. Bots add again after a cut: limit the recoveries.",
    ),
    exposure__largest_share=(
        "at_least: 60%, confirm: 5m",
        "40% is true for every book of one or two positions, and while any book is opened.",
    ),
    exposure__imbalance=(
        "at_least: 80%",
        "Signed: a limit on shorts is `at_most: -80%`. A spot leg and its perpetual net only if both are in the scope.",
    ),
    exposure__herfindahl=(
        "at_least: 0.6",
        "At least 1/n by arithmetic: a limit of 0.5 or less holds for every book of two positions.",
    ),
    exposure__group_share=(
        "at_least: 60%",
        "A symbol of another venue or quote is a member only if the group names it.",
    ),
    exposure__group_net=(
        "at_least: 50000 USDT",
        "Negative for shorts. A symbol of another venue or quote is a member only if the group names it.",
    ),
    exposure__liquidation_distance=(
        "at_most: 5%",
        "In cross margin the liquidation price moves with every other position, and is useless for a hedged book: take "
        "`exposure.liquidation_buffer` there.",
    ),
    exposure__liquidation_buffer=(
        "at_most: 5%",
        "Positions that offset each other count in full: it is the move of everything against you at once.",
    ),
    exposure__margin_ratio=(
        "at_least: 0.5",
        "A withdrawal, a change of the venue's tiers, and hedge mode switched on or off move it without a trade.",
    ),
    exposure__margin_ratio_change=(
        "at_least: 0.2, confirm: 1m",
        "A withdrawal, a change of the venue's tiers, and hedge mode switched on or off: each jumps at once, while the "
        "market moves it in steps.",
    ),
    exposure__turnover=("at_least: 20", "The roll of a future doubles it. Our own closes are left out."),
)
_MARKET = _group(
    "market",
    market__volatility=(
        "at_least: 1.5",
        "Of the sampling: at 1 m it reads 8% higher than at 1 h on BTC in a calm month, and a window of 1 h has 12 "
        "returns at 5 m. On ETH, 50% a year is an ordinary day.",
    ),
    market__volatility_ratio=(
        "at_least: 3",
        "The short window is part of the long one. It is 2 or more in 2% of all minutes of a calm month (1 h of 24 h).",
    ),
    market__move=("at_most: -10%", "Splits, delistings and the first hours of a listing are unknown, not moves."),
    market__jump=(
        'market.jump("BTC/USDT:USDT", "1h", "1m") >= 8.0 && market.move("BTC/USDT:USDT", "1m") <= -0.02',
        "In a quiet night five deviations are 0.05%: combine it with the least move that matters.",
    ),
    equity__expected_move=(
        "at_least: 3%",
        "A new position makes it unknown for the window, unless its symbol is on the watch list. Of a hedged book it "
        "is tiny: 0.14% an hour.",
    ),
    market__correlation=(
        "at_least: 0.95",
        "Of returns, not of positions: near 1 in every crash, and 0.8 on ordinary days of one market.",
    ),
    market__spread=("at_least: 1%, confirm: 1m", "In auctions and maintenance the sides vanish: unknown, and not 0."),
    market__worst_spread=("at_least: 1%, confirm: 1m", "One illiquid token of the book decides it."),
    market__depth=("below: 50000 USDT, confirm: 1m", "Depth vanishes for seconds around large trades: confirm it."),
    market__depth_cover=(
        "below: 3, confirm: 1m",
        "Depth vanishes for seconds around large trades, and a book refills while a close takes its time.",
    ),
    market__price_age=("at_least: 5m", "Illiquid marks are minutes old by nature."),
    market__crossed=(
        "is: true, confirm: 30s",
        "Depth vanishes for seconds around large trades, and a book refills while a close takes its time.",
    ),
    market__price_gap=("at_least: 1%, confirm: 1m", "The basis of a dated future is no gap."),
    market__venue_gap=(
        "at_least: 2%, confirm: 1m",
        "USD, USDT and USDC quotes differ by the peg: they are not compared.",
    ),
    market__quorum=("below: 2", "A venue in maintenance does not agree: it is no dispute about the price."),
    market__peg_deviation=(
        "at_least: 1%, confirm: 5m",
        "An account's own price of its own currency is 1 by definition and no source; nor is a declared rate. The "
        "policy has a `reference`.",
    ),
    market__state=(
        'market.state("BTC/USDT:USDT", "always") == "halted"',
        "A rule counts until it is given again, so that `open` may be old. A limit state of US shares lasts 15 s.",
    ),
)
_VENUE = _group(
    "venue",
    venue__age=("at_least: 60s", "A poll interval of 30 s makes it 30 s at any time: stay above two of them."),
    venue__latency=("at_least: 2000ms, confirm: 1m", "One slow poll: confirm it, or take the quantile."),
    venue__latency_quantile=("at_least: 1500ms", "A request that timed out counts as the time that it was waited for."),
    venue__error_rate=("at_least: 20%, confirm: 1m", "Of three requests one failure is 33%."),
    venue__malformed=("at_least: 3", "A change of the venue's answers shows here before anything else does."),
    venue__consecutive_failures=("at_least: 5", "It counts polls, not time: `venue.age` is the time."),
    venue__limit_headroom=("below: 10%, confirm: 2m", "A burst of requests after a reconnection lasts a minute."),
    venue__clock_skew=("at_least: 500ms", "It contains up to half of the latency."),
    venue__withdrawals_suspended=("is: true, confirm: 6h", "Maintenance of the wallet of one chain is routine."),
    venue__equity_share=("at_least: 60%, confirm: 1h", "A transfer in transit is at neither venue."),
    positions__adl_rank=(
        "positions.adl_rank >= 1.0 && exposure.leverage >= 2.0",
        "A very profitable position is always at the top.",
    ),
    fills__closed_by_venue=(
        "at_least: 1",
        "On the day of expiry everything is delivered: ask for `all` only if that counts.",
    ),
    fills__closed_by_venue_share=(
        "at_least: 5%",
        "A withdrawal makes the same fills a larger share; on the day of expiry everything is delivered.",
    ),
)
_SYSTEM = _group(
    "system",
    orders__unconfirmed=("at_least: 1", "An outage leaves the last order unconfirmed until the venue answers again."),
    orders__rejected=(
        "at_least: 3",
        "A withdrawal makes the same fills a larger share; on the day of expiry everything is delivered.",
    ),
    orders__rate=("at_least: 60", "What is placed and gone between two polls is not seen: `at_most` is never true."),
    orders__largest_share=("above: 1", "Stops far away, and take-profits that lack the mark reduce-only."),
    runner__tick_lateness=("at_least: 5s, confirm: 30s", "The first tick after a restart is on time by definition."),
    heartbeat__age=(
        'heartbeat.age("bot") >= 120.0 && !flag.set("bot-stopped")',
        "A planned stop of the bot: set a flag first, with an end.",
    ),
    alert__active=("is: true, confirm: 1m", "Silencing an alert does not resolve it; one webhook may carry several."),
    flag__set=("is: true", "A flag of another scope is not set here; give it an end."),
    clock__within=("is: true", "An hour of the night may last none or two where clocks change."),
)
_OWNERSHIP = _group(
    "ownership",
    hedge__broken=("is: true, confirm: 2m", "While it is opened, one leg is ahead of its partner: confirm it."),
    ownership__unowned_orders=("at_least: 1", "Orders by hand."),
    ownership__unowned_share=("at_least: 10%", "Positions by hand, and what was held before anybody looked."),
)
_POSITION = _group(
    "position",
    position__pnl_delta=('position.pnl_delta("1h") <= -500.0', "A position that fell and is still in profit has lost."),
    position__bleed_rate=("position.bleed_rate >= 200.0", "The losing leg of a hedge."),
    position__loss=("position.loss >= 500.0", "The losing leg of a hedge."),
    position__liquidation_distance=(
        "position.liquidation_distance <= 0.05",
        "In cross margin the liquidation price moves with every other position.",
    ),
    position__notional_share=("position.notional_share >= 0.4", "In a book of two, one of them has half."),
    position__margin_loss=("position.margin_loss >= 0.5", "It scales with leverage: 6% at 10× are a move of 0.6%."),
    position__score=("position.score >= 0.8", "Relative to the book: some position is always the worst."),
)

GUIDES: Mapping[str, Guide] = {**_LOSS, **_EXPOSURE, **_MARKET, **_VENUE, **_SYSTEM, **_OWNERSHIP, **_POSITION}
"""Signal → how it is used."""

FIELD_WORDS: tuple[tuple[str, str], ...] = (
    ("ADL, deleveraging queue", "`positions.adl_rank`; after the fact `fills.closed_by_venue`"),
    ("Alert of a monitoring system", "`alert.active`"),
    ("API errors, API down", "`venue.error_rate`, `venue.consecutive_failures`, `venue.age`"),
    (
        "Bleeding position",
        "`positions.worst_bleed`; many `positions.losing`; to rank `position.bleed_rate`",
    ),
    ("Concentration", "`exposure.largest_share`; by squares `exposure.herfindahl`; of a group `exposure.group_share`"),
    ("Consecutive losses", "`trades.losing_streak`"),
    ("Cooldown after a trade (freqtrade: CooldownPeriod)", "`trades.since_close`"),
    ("Counterparty risk", "`venue.equity_share`, `venue.withdrawals_suspended`"),
    ("Daily loss limit", "`equity.loss_since` with `utc_day` or a session; without netting `equity.loss_sum`"),
    ("Dead bot, heartbeat", "`heartbeat.age`"),
    ("Delta, directional exposure", "`exposure.net`, `exposure.imbalance`"),
    ("Depeg of a stable coin", "`market.peg_deviation`"),
    ("Drawdown within a time, fall from a rolling peak", "`equity.drawdown`"),
    ("Fat finger, runaway bot", "`orders.largest_share`, `orders.rate`, `exposure.turnover`"),
    ("Flash crash, price shock", "`market.move`, `market.jump`"),
    ("Floor that trails (funded accounts)", "`equity.above_floor`"),
    ("Funding cost", "`pnl.funding_paid`, `pnl.funding_paid_share`"),
    ("Hedge broken, legging risk", "`hedge.broken`"),
    ("Leverage", "`exposure.leverage`"),
    ("Liquidation near", "`exposure.liquidation_buffer`; in isolated margin `exposure.liquidation_distance`"),
    ("Loss of capital, loss in per cent of the start", "`equity.loss_from_capital`, `equity.loss_from_start`"),
    ("Low-profit pairs (freqtrade: LowProfitPairs)", "`trades.profit` with `per: worst_symbol`"),
    ("Manual switch, maintenance", "`flag.set`"),
    ("Margin level, margin call", "`exposure.margin_ratio`, and how fast it grows `exposure.margin_ratio_change`"),
    ("Market hours, weekend", "`clock.within`; of a market `market.state`"),
    ("Maximum drawdown", "`equity.drawdown_from_peak`; of closed trades (freqtrade: MaxDrawdown) `trades.drawdown`"),
    ("Orphaned orders and positions", "`ownership.unowned_orders`, `ownership.unowned_share`"),
    ("Position loss, stop of a position", "`positions.worst_loss`"),
    ("Price feed stale or in dispute", "`market.price_age`, `market.price_gap`, `market.venue_gap`, `market.quorum`"),
    ("Profit lock, give-back", "`equity.given_back` with `equity.best_profit`"),
    ("Rate limits", "`venue.limit_headroom`"),
    ("Rejected or unconfirmed orders", "`orders.rejected`, `orders.unconfirmed`"),
    ("Slippage, liquidity", "`market.spread`, `market.depth_cover`"),
    ("Stop-loss guard (freqtrade: StoplossGuard)", "`trades.count` with `outcome: stop`"),
    ("The same loss again", "`trades.count` with `outcome: loss` and `per: worst_symbol`"),
    ("Trading halt, limit up and limit down", "`market.state`"),
    ("Value at risk, expected move", "`equity.expected_move`, which is one standard deviation"),
    ("Volatility, its regime", "`market.volatility`, `market.volatility_ratio`"),
    ("Was liquidated", "`fills.closed_by_venue`, `fills.closed_by_venue_share`"),
    ("Where the loss came from", "`attribution.source`, `attribution.long_share`, `attribution.short_share`"),
    ("Which diversification is left", "`market.correlation`"),
)
"""What the field calls it → the signals that measure it."""
