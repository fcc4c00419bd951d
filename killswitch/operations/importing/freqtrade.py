"""`ksctl import freqtrade`: the account, the protections, the stop and the routes of a freqtrade bot as policies.

What the bot decides by itself (pricing, order types, pair lists, exits by profit) has no equivalent: Killswitch stops a
book, it trades none. The account observes, whatever `dry_run` says: it is armed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.accounts.plug_ins import NoSuchVenueError, PlugIns
from killswitch.model.venue import VenueListing
from killswitch.operations.importing.freqtrade_config import ConfigSetting, Keys, read_config
from killswitch.operations.importing.freqtrade_protections import ProtectedBook, minutes_of, protection_policies
from killswitch.operations.importing.freqtrade_strategy import PROTECTIONS, StrategyClass, read_strategy
from killswitch.operations.importing.report import (
    ImportedFolder,
    ImportedSetting,
    ImportRefusedError,
    Outcome,
    folder_files,
)

FUTURES: Final[Mapping[str, str]] = {"binance": "binanceusdm", "kraken": "krakenfutures"}
"""Exchanges whose futures are an exchange of another name."""
CREDENTIALS: Final[Mapping[str, str]] = {
    "key": "key", "secret": "secret", "password": "passphrase", "walletAddress": "wallet_address",
    "privateKey": "private_key",
}  # fmt: skip
"""freqtrade's names of credentials → those of adapters."""
NO_EQUIVALENT: Final[Mapping[str, str]] = {
    "entry_pricing": "the bot prices its own orders", "exit_pricing": "the bot prices its own orders",
    "unfilledtimeout": "the bot cancels its own orders", "order_types": "the bot chooses its own orders",
    "order_time_in_force": "the bot chooses its own orders", "pairlists": "the bot chooses its own pairs",
    "freqai": "a model of the strategy", "minimal_roi": "an exit by profit, which the bot keeps",
    "trailing_stop": "a stop that follows the price, which the bot keeps",
    "trailing_stop_positive": "a stop that follows the price, which the bot keeps",
    "trailing_stop_positive_offset": "a stop that follows the price, which the bot keeps",
    "trailing_only_offset_is_reached": "a stop that follows the price, which the bot keeps",
    "use_custom_stoploss": "a stop that is code", "max_open_trades": "no limit counts positions before an order",
    "stake_amount": "the bot sizes its own entries", "tradable_balance_ratio": "the bot sizes its own entries",
    "available_capital": "the bot sizes its own entries", "api_server": "the bot's own server",
    "webhook": "its bodies are freqtrade's own; add an `apprise` target json://HOST:PORT to the route",
    "protections": "freqtrade refuses it here since the end of 2024; they belong in the strategy class",
}  # fmt: skip
NAME: Final = "freqtrade"


class _Bot(Struct, frozen=True):
    """What was read of one bot."""

    config: Mapping[Keys, ConfigSetting]
    strategy: StrategyClass | None
    is_futures: bool

    def setting(self, *keys: str) -> object:
        """The value in the configuration; None without one."""
        found = self.config.get(keys)
        return None if found is None else found.value

    def traded(self, name: str) -> tuple[object, str, int] | None:
        """(value, file, line) of a setting of trading: the configuration's, else the strategy's literal."""
        if (found := self.config.get((name,))) is not None:
            return found.value, found.file, found.line
        literal = None if self.strategy is None else self.strategy.settings.get(name)
        if self.strategy is None or literal is None or not literal.is_literal:
            return None
        return literal.value, self.strategy.file, literal.line


def import_freqtrade(
    configs: Sequence[Path], strategy: Path | None, variables: Sequence[Path], plug_ins: PlugIns, account: str = NAME
) -> ImportedFolder:
    """The folder and the report. ImportRefusedError for what cannot be read, and for an exchange that is not known.

    `strategy`: the file of the strategy class; None reads no protections. `variables`: files in the format of `.env`.
    """
    config = read_config(configs, variables)
    wanted = config.get(("strategy",))
    name = wanted.value if strategy is not None and wanted is not None and isinstance(wanted.value, str) else None
    read = None if strategy is None else read_strategy(strategy, name)
    bot = _Bot(config, read, _is_futures(config))
    settings: list[ImportedSetting] = []
    account_text, references = _account(bot, plug_ins, account, settings)
    policies, of_protections = _protections(bot, account)
    settings += of_protections
    policies += _stoploss(bot, account, settings)
    limits = _limits(bot, account, settings)
    route, addresses = _route(bot, settings)
    settings += _rest(bot, {(each.file, each.line, each.key) for each in settings})
    ordered = tuple(sorted(settings, key=lambda each: (each.file, each.line, each.key)))
    source = ", ".join(path.name for path in (*configs, *([strategy] if strategy is not None else [])))
    documents = {
        "account.yaml": [account_text], "policy.yaml": policies, "limits.yaml": limits, "route.yaml": [route],
    }  # fmt: skip
    return folder_files(source, documents, ordered, (*references, *addresses))


def _is_futures(config: Mapping[Keys, ConfigSetting]) -> bool:
    mode = config.get(("trading_mode",))
    if mode is None or mode.value == "spot":
        return False
    if mode.value != "futures":
        raise ImportRefusedError(f"{mode.file}:{mode.line}: trading_mode is spot or futures")
    return True


# The account


def _account(bot: _Bot, plug_ins: PlugIns, name: str, settings: list[ImportedSetting]) -> tuple[str, tuple[str, ...]]:
    """The Account document, and the variables of its credentials."""
    exchange, currency = _text(bot, "exchange", "name"), _text(bot, "stake_currency")
    found = FUTURES.get(str(exchange.value), str(exchange.value)) if bot.is_futures else str(exchange.value)
    market = "swap" if bot.is_futures else "spot"
    listing = _listing(plug_ins, found, market, exchange)
    _note(settings, "imported", ("exchange", "name"), exchange, f"exchange: {found}, market: {market}", name)
    _note(settings, "imported", ("stake_currency",), currency, f"currency: {currency.value}", name)
    if (mode := bot.config.get(("trading_mode",))) is not None:
        _note(settings, "imported", ("trading_mode",), mode, f"market: {market}", name)
    if (dry := bot.config.get(("dry_run",))) is not None:
        is_dry = dry.value is True
        text = "execution: observe" if is_dry else "the account observes until you write `execution: live`"
        _note(settings, "imported" if is_dry else "approximated", ("dry_run",), dry, text, name)
    variables = {credential: f"FREQTRADE__EXCHANGE__{_own(credential).upper()}" for credential in listing.credentials}
    for key, setting in bot.config.items():
        if key[0] == "exchange" and CREDENTIALS.get(key[-1]) in variables and len(key) == 2 and setting.value:
            variable = variables[CREDENTIALS[key[-1]]]
            text = f"credentials: {CREDENTIALS[key[-1]]}: 'env:{variable}'; the value was not copied"
            _note(settings, "imported", key, setting, text, name)
    lines = [
        f"  adapter: {listing.adapter}",
        *([f"  exchange: {found}"] if listing.exchange or found != listing.adapter else []),
    ]
    lines += [f"  market: {market}", f"  currency: {currency.value}", "  execution: observe"]
    if variables:
        lines += ["  credentials:", *(f"    {each}: 'env:{variable}'" for each, variable in variables.items())]
    body = "\n".join(lines)
    return (
        f"""# It observes: nothing is sent before this says `execution: live` and the runner is started with --live.
# A key of its own is better than the bot's: it needs no right to withdraw, and is revoked without stopping the other.
apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: {name}}}
spec:
{body}
""",
        tuple(variables.values()),
    )


def _own(credential: str) -> str:
    """freqtrade's name of a credential of adapters."""
    return next((name for name, ours in CREDENTIALS.items() if ours == credential), credential)


def _listing(plug_ins: PlugIns, exchange: str, market: str, written: ConfigSetting) -> VenueListing:
    where = f"{written.file}:{written.line}"
    try:
        listing = plug_ins.named(exchange)[0]
    except NoSuchVenueError as error:
        raise ImportRefusedError(f"{where}: {error}") from error
    if market not in listing.markets:
        raise ImportRefusedError(
            f"{where}: {exchange} has {', '.join(listing.markets)} here, and the bot trades {market}"
        )
    return listing


def _text(bot: _Bot, *keys: str) -> ConfigSetting:
    found = bot.config.get(keys)
    if found is None:
        raise ImportRefusedError(f"{'.'.join(keys)} is missing: freqtrade needs it too; name the file that has it")
    if not isinstance(found.value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", found.value):
        raise ImportRefusedError(f"{found.file}:{found.line}: {'.'.join(keys)} is not a name")
    return found


# The policies


def _protections(bot: _Bot, account: str) -> tuple[list[str], list[ImportedSetting]]:
    """The policies of the protections, and what became of each."""
    strategy = bot.strategy
    if strategy is None:
        return [], []
    timeframe = bot.traded("timeframe")
    leverage = strategy.leverage.value if bot.is_futures else 1
    book = ProtectedBook(
        account, strategy.file, None if timeframe is None else minutes_of(timeframe[0]),
        Decimal(str(leverage)) if strategy.leverage.is_literal or not bot.is_futures else None,
        bot.is_futures and _has_shorts(strategy), _stops_rest(bot),
    )  # fmt: skip
    texts, settings = protection_policies(strategy.protections, book)
    if timeframe is not None and texts:
        settings.append(
            ImportedSetting("imported", "timeframe", timeframe[1], timeframe[2], "periods in candles are in minutes")
        )
    return texts, settings


def _has_shorts(strategy: StrategyClass) -> bool:
    written = strategy.settings.get("can_short")
    return written is not None and not (written.is_literal and written.value is False)


def _stops_rest(bot: _Bot) -> bool:
    """Whether the stops of the bot are orders at the exchange: only where that is written as a literal."""
    if (found := bot.setting("order_types", "stoploss_on_exchange")) is not None:
        return found is True
    written = bot.traded("order_types")
    return written is not None and isinstance(written[0], dict) and written[0].get("stoploss_on_exchange") is True


def _stoploss(bot: _Bot, account: str, settings: list[ImportedSetting]) -> list[str]:
    """A policy that closes a position which has lost what the bot's stop allows, if the bot has not closed it."""
    written = bot.traded("stoploss")
    if written is None:
        return []
    value, file, line = written
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    lost = -Decimal(str(value)) if is_number else Decimal(0)
    if not 0 < lost < 1:
        settings.append(ImportedSetting("no equivalent", "stoploss", file, line, "a stop is a loss between 0 and 1"))
        return []
    leverage = bot.strategy.leverage if bot.strategy is not None else None
    is_known = not bot.is_futures or (leverage is not None and leverage.is_literal)
    against = "entry" if is_known else "margin"
    divisor = Decimal(str(leverage.value)) if bot.is_futures and is_known and leverage is not None else Decimal(1)
    percent = f"{lost / divisor * 100:.6f}".rstrip("0").rstrip(".")
    text = f"closes what the bot's stop has not: by the mark, {percent}% of the {against}, without fees"
    settings.append(ImportedSetting("approximated", "stoploss", file, line, text, f"{NAME}-stoploss"))
    return [
        f"""apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {NAME}-stoploss, labels: {{imported-from: freqtrade}}}}
spec:
  mode: enforce
  scope: {{each: symbol, match: {{account: {account}}}}}
  max_gap: 10m
  triggers:
    lost:
      {{signal: positions.worst_loss, against: {against}, at_least: {percent}%, confirm: 1m, on_unknown: hold,
       grace: 1h}}
  stages:
    - name: stoploss
      level: 1
      any: [lost]
      cooldown: 5m
      reset: {{auto: {{when: 'positions.worst_loss("{against}") <= 0.0', for: 1m}}}}
      actions:
        - cancel_orders: {{kind: entry}}
        - close: {{side: both, fraction: 100%}}
      notify: [freqtrade]
"""
    ]


def _limits(bot: _Bot, account: str, settings: list[ImportedSetting]) -> list[str]:
    """Limits that ban the pairs of the blacklist; none where one of its entries is a pattern that is no base asset."""
    written = bot.config.get(("exchange", "pair_blacklist"))
    if written is None or not isinstance(written.value, list) or not written.value:
        return []
    banned = [_banned(each) for each in written.value]
    keys = ("exchange", "pair_blacklist")
    if None in banned:
        text = "not imported: an entry is a pattern; BASE/.* is read as that base asset, and a pair as itself"
        _note(settings, "no equivalent", keys, written, text, account)
        return []
    text = "banned at the gate, also where the bot does not ask for its list; stale_after: 10s is this import's own"
    _note(settings, "approximated", keys, written, text, account)
    names = ", ".join(dict.fromkeys(each for each in banned if each is not None))
    return [
        f"""# What the gate denies: the pairs that the bot must not enter. See docs/gate.md for the other limits.
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {{name: {account}}}
spec:
  match: {{account: {account}}}
  # Older data of the account prove nothing.
  stale_after: 10s
  banned: [{names}]
"""
    ]


def _banned(written: object) -> str | None:
    """The symbol or the base asset of an entry of the blacklist; None for any other pattern."""
    found = re.fullmatch(r"([A-Z0-9]{1,20})/(\.\*|[A-Z0-9]{1,20}(?::[A-Z0-9]{1,20})?)", str(written))
    if found is None:
        return None
    return found[1] if found[2] == ".*" else found[0]


# The routes


def _route(bot: _Bot, settings: list[ImportedSetting]) -> tuple[str, tuple[str, ...]]:
    """The route, and the variables of its addresses."""
    targets, variables = ["    - log: {level: warning}"], []
    services = (
        ("telegram", ("token",), "FREQTRADE_TELEGRAM_URL", "tgram://TOKEN/CHAT_ID"),
        ("discord", ("webhook_url",), "FREQTRADE_DISCORD_URL", "the webhook's URL"),
    )
    for service, keys, variable, form in services:
        switch, secret = bot.config.get((service, "enabled")), bot.config.get((service, *keys))
        if switch is None or switch.value is not True or secret is None:
            continue
        targets.append(f"    - apprise: {{url: 'env:{variable}'}}")
        variables.append(f"{variable} ({form})")
        _note(settings, "imported", (service,), switch, f"apprise: url: env:{variable}, which is {form}", "freqtrade")
    listed = "\n".join(targets)
    return (
        f"""apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {{name: freqtrade}}
spec:
  match: {{}}
  targets:
{listed}
""",
        tuple(variables),
    )


# What is left


def _rest(bot: _Bot, done: set[tuple[str, int, str]]) -> Iterator[ImportedSetting]:
    """Every setting that nothing above has used, each group once, and the code of the strategy."""
    used = {key for _, _, key in done}
    seen: set[str] = set()
    for keys, setting in bot.config.items():
        group = ".".join(keys[:2]) if keys[0] == "exchange" else keys[0]
        if group in seen or group in used or ".".join(keys) in used or keys == ("strategy",):
            continue
        seen.add(group)
        text = NO_EQUIVALENT.get(keys[0], "of the bot itself")
        yield ImportedSetting("no equivalent", group, setting.file, setting.line, text)
    if bot.strategy is None:
        first = next(iter(bot.config.values()))
        yield ImportedSetting(
            "no equivalent", PROTECTIONS, first.file, 1,
            "not read: they are in the strategy class, not in the configuration; give its file with --strategy",
        )  # fmt: skip
        return
    for name, literal in bot.strategy.settings.items():
        if name not in used and name not in seen and (name,) not in bot.config and name in NO_EQUIVALENT:
            text = NO_EQUIVALENT[name] if literal.is_literal else "it is code"
            yield ImportedSetting("no equivalent", name, bot.strategy.file, literal.line, text)
        elif name == "stoploss" and not literal.is_literal:
            yield ImportedSetting("no equivalent", name, bot.strategy.file, literal.line, "it is code")
    for line, name, text in bot.strategy.code:
        yield ImportedSetting("no equivalent", name, bot.strategy.file, line, text)


def _note(
    settings: list[ImportedSetting], outcome: Outcome, keys: Keys, setting: ConfigSetting, text: str, document: str
) -> None:
    settings.append(ImportedSetting(outcome, ".".join(keys), setting.file, setting.line, text, document))
