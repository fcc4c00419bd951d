"""The first policy set of a desk: a shipped set with the desk's own accounts, and the commands to begin with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import Final, cast, get_args

from msgspec import Struct

from killswitch.lab.book import BacktestBook, BookAccount, BookPosition, demo_book
from killswitch.model.words import Market
from killswitch.policy.kinds import KINDS
from killswitch.policy.loader import load
from killswitch.policy.schema.json_schema import schema_of_all
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.signals.catalogue import TRIGGER_SIGNALS

PAPER: Final = "paper"
"""The adapter of the paper venue, which `ksctl paper` serves on loopback."""
PAPER_PORT: Final = 8701
BOOKS: Final[Mapping[str, tuple[str, str]]] = {
    "hedged": ("one-exchange-hedged", "longs and shorts that hold against each other, at one exchange"),
    "directional": ("one-exchange-directional", "all or nearly all on one side, at one exchange"),
    "concentrated": ("one-exchange-directional", "mostly one position, at one exchange"),
    "several": ("several-exchanges", "hedges whose legs are at several exchanges"),
    "spot": ("spot-drawdown", "coins that are held to trade"),
}
"""Kind of book → the recommended shipped set, and what the kind means."""

REFUTED: Final[Mapping[str, str]] = {
    "slow-bleed-published": "exits 1: the published rules lack properties, which docs/proofs.md lists",
}
"""Shipped set → why `ksctl prove` refutes a property of it; docs/proofs.md has each with its witness."""

_SCHEMA_FILE = "killswitch.schema.json"
_EDITOR_LINE = f"# yaml-language-server: $schema={_SCHEMA_FILE}\n"
_BOOK_FILE = "paper-book.json"
_MARKETS: tuple[Market, ...] = get_args(Market)


class FirstAccount(Struct, frozen=True):
    """An account to watch. `venue`: its name in scopes where that is not the exchange; `credentials`: their names."""

    name: str
    adapter: str
    market: Market
    currency: str
    exchange: str | None = None
    venue: str | None = None
    endpoint: str | None = None
    credentials: tuple[str, ...] = ()

    @property
    def secrets(self) -> dict[str, str]:
        """Credential → the environment variable that its reference names."""
        stem = re.sub(r"\W", "_", self.name).upper()
        return {name: f"{stem}_{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', name).upper()}" for name in self.credentials}


class FirstSet(Struct, frozen=True):
    """A shipped set, by its folder, for these accounts; they are all at the paper venue, or none is."""

    shipped: Path
    accounts: tuple[FirstAccount, ...]

    @property
    def is_on_paper(self) -> bool:
        return all(each.adapter == PAPER for each in self.accounts)


def markets_of(shipped: Path) -> tuple[Market, ...]:
    """The markets whose accounts every policy of the set watches, in the order of preference of a first account."""
    found = set(_MARKETS)
    for document in load([shipped]).documents:
        if isinstance(document.model, PolicyDocument) and document.model.spec.scope.match.market is not None:
            found &= {cast("Market", each) for each in document.model.spec.scope.match.market}
    return tuple(each for each in _MARKETS if each in found)


def files_of(chosen: FirstSet, folder: Path) -> dict[str, str]:
    """File name → text of everything that the folder holds.

    The shipped documents are unchanged, so that their scenarios, proofs and measured results hold. Each YAML file
    begins with the line by which editors find the schema.
    """
    found = {
        each.name: _EDITOR_LINE + each.read_text(encoding="utf-8")
        for each in sorted(chosen.shipped.glob("*.yaml"))
        if each.name != "account.yaml"
    }
    found["account.yaml"] = _EDITOR_LINE + "---\n".join(_account(each) for each in chosen.accounts)
    found[_SCHEMA_FILE] = json.dumps(schema_of_all(KINDS, TRIGGER_SIGNALS), indent=2, ensure_ascii=False) + "\n"
    if chosen.is_on_paper:
        found[_BOOK_FILE] = paper_book(chosen).model_dump_json(indent=2, exclude_none=True) + "\n"
    found["README.md"] = _readme(chosen, folder)
    return found


def first_commands(chosen: FirstSet, folder: Path) -> tuple[str, ...]:
    """The commands of the first hour, in their order. None of them sends an order."""
    at = quote(str(folder))
    return (
        *_before(chosen, folder),
        f"ksctl validate {at} --strict",
        f"ksctl lint {at} --strict",
        f"ksctl test {at}",
        f"ksctl prove {at}{_remark(chosen)}",
        f"ksctl plan --policies {at}",
        f"ksctl run --policies {at} --store {quote(f'{folder}.sqlite')} --ticks 5",
    )


def _remark(chosen: FirstSet) -> str:
    why = REFUTED.get(chosen.shipped.name)
    return "" if why is None else f"  # {why}"


def editor_lines(folder: Path) -> tuple[str, str]:
    """The two commands that let an editor complete and check the folder, from the root of its workspace."""
    at = quote(str(folder))
    setting = json.dumps({"yaml.schemas": {f"{folder}/{_SCHEMA_FILE}": f"{folder}/**/*.yaml"}})
    return (
        f"ksctl schema > {at}/{_SCHEMA_FILE}",
        f"mkdir -p .vscode && echo {quote(setting)} > .vscode/settings.json",
    )


def paper_book(chosen: FirstSet) -> BacktestBook:
    """Positions for the accounts at the paper venue, in the symbols of its generated crash."""
    (demo,) = demo_book().accounts
    one_sided = BOOKS["directional"][0] == chosen.shipped.name
    longs = tuple(each for each in demo.positions if each.side == "long")
    cash = tuple(BookPosition(symbol=each.symbol, side="long", notional=Decimal(15000)) for each in longs)
    return BacktestBook(
        name="first",
        accounts=tuple(
            BookAccount(
                account=each.name, venue=each.venue or PAPER, market=each.market, currency=each.currency,
                equity=demo.equity,
                positions=cash if each.market in ("spot", "equity") else longs if one_sided else demo.positions,
            )
            for each in chosen.accounts
        ),
    )  # fmt: skip


def _before(chosen: FirstSet, folder: Path) -> Iterator[str]:
    """What the other commands need: a paper venue, or the secrets of the accounts and a check of each."""
    if chosen.is_on_paper:
        book = quote(str(folder / _BOOK_FILE))
        yield f"ksctl paper --crash 7 --skip 240 --speed 60 --book {book} --port {PAPER_PORT} &"
        return
    for account in chosen.accounts:
        for name in account.secrets.values():
            yield f"export {name}=…"
    yield f"ksctl venues check --policies {quote(str(folder))}"


def _account(account: FirstAccount) -> str:
    keys: list[tuple[str, str]] = [("adapter", account.adapter)]
    for name in ("exchange", "venue"):
        if (value := getattr(account, name)) is not None:
            keys.append((name, value))
    keys += [("market", account.market), ("currency", account.currency)]
    if account.endpoint is not None:
        keys.append(("endpoint", f"'{account.endpoint}'"))
    lines = [f"  {key}: {value}" for key, value in keys]
    if account.secrets:
        lines += ["  credentials:", *(f"    {name}: 'env:{variable}'" for name, variable in account.secrets.items())]
    body = "\n".join(lines)
    return f"""# It observes: nothing is sent before this says `execution: live` and the runner is started with --live.
apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: {account.name}}}
spec:
{body}
  execution: observe
"""


def _readme(chosen: FirstSet, folder: Path) -> str:
    about = (chosen.shipped / "README.md").read_text(encoding="utf-8").partition("\n\n")[2].partition("\n\n")[0]
    about = re.sub(r" ?\(\[[^\]]*\]\([^)]*\)\)", "", re.sub(r"\s+", " ", about))  # the links are of the shipped page
    commands = "\n".join(first_commands(chosen, folder))
    lines = "\n".join(editor_lines(folder))
    return f"""# {folder.name}

The shipped set `{chosen.shipped.name}`. {about}

## First commands

```sh
{commands}
```

`account.yaml` observes. Before it says `execution: live`, read what `ksctl plan` prints, and let it run for some days.
`route.yaml` writes to the log of the runner, and wakes nobody: add your own targets.

## In an editor

Each file names the schema in its first line. Where an editor ignores that, two commands in the root of the workspace
set it up:

```sh
{lines}
```
"""


def shipped_names(policies: Path) -> Sequence[str]:
    """The names of all shipped sets."""
    return sorted(each.name for each in policies.iterdir() if (each / "policy.yaml").is_file())
