"""`ksctl import killswitch-v6`: the accounts and the stages of version 6 as policies.

Version 6 measures the fall of equity from its highest in each window, confirms it at a number of polls in a row, and
escalates only: a stage is never left but by hand. `tier_a` is its older form of stage 1, `tier_b` of stage 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from killswitch.operations.importing.report import (
    ImportedFolder,
    ImportedSetting,
    ImportRefusedError,
    folder_files,
)
from killswitch.operations.importing.v6_config import (
    ConfigSection,
    V6Import,
    asset_names,
    list_rest,
    read_v6,
    variable_names,
    variable_of,
)
from killswitch.operations.importing.v6_stages import NAME, RANKING_DOCUMENT, stage_policy

VENUES: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("binance", "futures"): ("binanceusdm", "swap"),
    ("binance", "spot"): ("binance", "spot"),
    ("bybit", "futures"): ("bybit", "swap"),
    ("bybit", "spot"): ("bybit", "spot"),
    ("bitget", "futures"): ("bitget", "swap"),
}
"""(exchange, account) of version 6 → exchange and market here."""
CREDENTIALS: Final = (("api_key", "key"), ("api_secret", "secret"), ("password", "passphrase"))
DEFAULT_STABLES: Final = ("USDT", "USDC", "DAI", "FDUSD")


def import_v6(config: Path, variables: Sequence[Path]) -> ImportedFolder:
    """The folder and the report. ImportRefusedError for what cannot be read, and where no account is left.

    `variables`: files in the format of `.env`, of which only the names are read.
    """
    root = read_v6(config)
    reading = _shared(root)
    accounts: list[str] = []
    policies: list[str] = []
    names: list[str] = []
    exchanges = root.section("exchanges")
    for exchange, section in () if exchanges is None else exchanges.sections():
        if not section.flag("enabled", default=False):
            reading.note("imported", section, "enabled", "not enabled: its accounts are left out")
            continue
        references = _references(reading, exchange, section)
        for market, account in _accounts(section):
            text = _account(reading, exchange, market, account, references)
            if text is not None:
                accounts.append(text)
                names += [each for _, each in references if each not in names]
                policies += stage_policy(reading, f"{exchange}-{market}", account, is_spot=market == "spot")
        list_rest(reading, section)
    if not accounts:
        raise ImportRefusedError(f"{config}:1: no account is enabled that this program knows; nothing to import")
    route, addresses = _route(reading)
    list_rest(reading, root)
    listed = tuple(sorted(reading.settings, key=lambda each: (each.line, each.key)))
    known = variable_names(variables)
    missing = [f"{each} (not in the files of variables)" if variables and each not in known else each for each in names]
    documents = {"account.yaml": accounts, "policy.yaml": [RANKING_DOCUMENT, *policies], "route.yaml": [route]}
    return folder_files(config.name, documents, listed, (*missing, *addresses))


def _shared(root: ConfigSection) -> V6Import:
    """The settings of the whole configuration."""
    settings: list[ImportedSetting] = []
    poll = root.number("poll_seconds", "60")
    if poll is None or not 1 <= poll <= 86_400 or poll != int(poll):
        raise ImportRefusedError(f"{root.file}:{root.line('poll_seconds')}: poll_seconds is a whole number of seconds")
    stables = root.value("stables_keep")
    kept = DEFAULT_STABLES if stables is None else asset_names(stables)
    if kept is None:
        raise ImportRefusedError(f"{root.file}:{root.line('stables_keep')}: stables_keep is a list of assets")
    reading = V6Import(root, int(poll), kept, settings)
    if root.value("poll_seconds") is not None:
        reading.note(
            "approximated", root, "poll_seconds", f"start with --interval {poll}s; confirmations are times here"
        )
    if stables is not None:
        reading.note("imported", root, "stables_keep", f"never sold: {', '.join(kept)}")
    if (dry := root.value("dry_run")) is not None:
        text = "execution: observe" if dry is True else "the accounts observe until you write `execution: live`"
        reading.note("imported" if dry is True else "approximated", root, "dry_run", text)
    if (lock := root.value("trading_lock_file")) is not None:
        text = "start with --lock-file and this path; the lock names its mode, and bots may reduce under reduce_only"
        reading.note("approximated" if isinstance(lock, str) else "no equivalent", root, "trading_lock_file", text)
    return reading


# Accounts


def _accounts(section: ConfigSection) -> Iterator[tuple[str, ConfigSection]]:
    accounts = section.section("accounts")
    if accounts is not None:
        yield from accounts.sections()


def _references(reading: V6Import, exchange: str, section: ConfigSection) -> tuple[tuple[str, str], ...]:
    """(credential, variable) of an exchange. A value that is written in the file is not copied."""
    found = []
    for name, ours in CREDENTIALS:
        of_name, written = section.value(f"{name}_env"), section.value(name)
        value, key = (of_name, f"{name}_env") if of_name else (written, name)
        if not value:
            continue
        variable = variable_of(value)
        if variable is None:
            variable = f"{exchange}_{name}".upper().replace("-", "_")
            text = f"credentials: {ours}: 'env:{variable}'; the value was not copied: set this variable"
        else:
            text = f"credentials: {ours}: 'env:{variable}'"
        if ours == "passphrase" and exchange != "bitget":
            reading.note("no equivalent", section, key, f"{exchange} has no passphrase")
            continue
        reading.note("imported", section, key, text)
        found.append((ours, variable))
    wanted = ["key", "secret", *(["passphrase"] if exchange == "bitget" else [])]
    if missing := [name for name, ours in CREDENTIALS if ours in wanted and ours not in dict(found)]:
        where = f"{section.file}:{section.line('enabled')}"
        raise ImportRefusedError(f"{where}: {exchange} has no {' and no '.join(missing)}, which version 6 refuses too")
    return tuple(found)


def _account(
    reading: V6Import, exchange: str, market: str, account: ConfigSection, references: Sequence[tuple[str, str]]
) -> str | None:
    """The Account document; None where the account is not enabled, or is of no venue that is known here."""
    if not account.flag("enabled", default=False):
        reading.note("imported", account, "enabled", "not enabled: the account is left out")
        return None
    venue = VENUES.get((exchange, market))
    if venue is None:
        reading.note("no equivalent", account, "enabled", f"{exchange} {market} is no account that is known here")
        return None
    name = f"{exchange}-{market}"
    reading.note("imported", account, "enabled", f"exchange: {venue[0]}, market: {venue[1]}, currency: USDT", name)
    lines = "".join(f"\n    {credential}: 'env:{variable}'" for credential, variable in references)
    credentials = f"\n  credentials:{lines}" if references else ""
    return f"""# It observes: nothing is sent before this says `execution: live` and the runner is started with --live.
apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: {name}}}
spec:
  adapter: ccxt
  exchange: {venue[0]}
  market: {venue[1]}
  currency: USDT
  execution: observe{credentials}
"""


# Routes, and what is left


def _route(reading: V6Import) -> tuple[str, tuple[str, ...]]:
    """The route, and the variable of its address."""
    notifications = reading.root.section("notifications")
    telegram = None if notifications is None else notifications.section("telegram")
    targets, variables = "    - log: {level: warning}\n", tuple[str, ...]()
    if telegram is not None and telegram.flag("enabled", default=False):
        telegram.value("bot_token_env"), telegram.value("chat_id_env")
        targets += "    - apprise: {url: 'env:KILLSWITCH_TELEGRAM_URL'}\n"
        variables = ("KILLSWITCH_TELEGRAM_URL (tgram://TOKEN/CHAT_ID)",)
        text = "apprise: url: env:KILLSWITCH_TELEGRAM_URL, which is tgram://TOKEN/CHAT_ID"
        reading.note("imported", telegram, "enabled", text, NAME)
    return (
        f"""apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {{name: {NAME}}}
spec:
  match: {{}}
  targets:
{targets}""",
        variables,
    )
