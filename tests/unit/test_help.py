"""The example at the end of every verb's help is valid, and shell completion offers the program's own values."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from killswitch.cli import VERBS, ksctl

ACCOUNTS = "".join(
    f"apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\n"
    "spec: {adapter: paper, market: swap, currency: USDT, execution: observe, endpoint: 'http://127.0.0.1:1'}\n---\n"
    for name in ("main", "hedge")
)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb that is not a group, by its path."""
    context = click.Context(ksctl)
    for verb in VERBS:
        command = ksctl.get_command(context, verb)
        assert command is not None
        inner = command.commands.items() if isinstance(command, click.Group) else ()
        yield from ((f"{verb} {name}", each) for name, each in inner)
        if not isinstance(command, click.Group):
            yield verb, command


COMMANDS = dict(commands())
MAX_COLUMNS = 80


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_a_verb_ends_with_a_valid_example(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example is of this verb, and each of its arguments and options exists."""
    monkeypatch.chdir(tmp_path)
    for file in (
        "trim.plan.json",
        "run.jsonl.gz",
        "book.yaml",
        "source.yaml",
        "id_ed25519",
        "request.json",
        "proof.json",
        "anchors.toml",
        "retention.toml",
        "ks.backup.sqlite",
        "config.json",
        "strategy.py",
        "config.yaml",
        ".env",
    ):
        (tmp_path / file).touch()
    (tmp_path / "bars").mkdir()
    examples = re.sub(r" \\\n +", " ", COMMANDS[path].epilog or "").splitlines()[2:]
    assert examples
    for example in examples:
        words = shlex.split(example.split(" >")[0])
        begin = ["ksctl", *path.split()]
        assert words[: len(begin)] == begin
        COMMANDS[path].make_context(path, words[len(begin) :])


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_a_verb_fits_eighty_columns(path: str) -> None:
    """Examples included: a shell joins their lines."""
    context = click.Context(COMMANDS[path], info_name=f"ksctl {path}", terminal_width=80, max_content_width=80)
    assert [line for line in COMMANDS[path].get_help(context).splitlines() if len(line) > MAX_COLUMNS] == []


def completions(words: str, folder: Path) -> list[str]:
    """The completions that bash gets at the end of the words."""
    environment = os.environ | {
        "_KSCTL_COMPLETE": "bash_complete", "COMP_WORDS": f"ksctl {words}", "COMP_CWORD": str(len(words.split(" "))),
    }  # fmt: skip
    program = "import sys; sys.argv = ['ksctl']; from killswitch.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("va", ["validate"]),
        ("schema Run", ["Runbook"]),
        ("explain ks2101", ["KS2101"]),
        ("snapshot --policies accounts.yaml m", ["main"]),
        ("venues check --policies accounts.yaml h", ["hedge"]),
        ("reset --policies accounts.yaml account/", ["account/main", "account/hedge"]),
        ("close --policies accounts.yaml --scope venue", ["venue/paper"]),
        ("venues list krakenf", ["krakenfutures"]),
        ("close --dry", ["--dry-run"]),
        ("reset --policies nowhere account/", []),
    ],
)
def test_a_shell_completes_a_prefix(words: str, offered: list[str], tmp_path: Path) -> None:
    """Verbs, kinds, codes, accounts and scopes of the given policies, venues and options; otherwise nothing."""
    (tmp_path / "accounts.yaml").write_text(ACCOUNTS)
    assert completions(words, tmp_path) == offered


PARTS = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main, labels: {desk: alpha}}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: observe}
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {account: main}, order_ids: grid-}
"""
DRAWN = """
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: NAME}
spec:
  mode: observe
  scope: {SCOPE, match: {currency: USDT}}
  max_gap: 10m
  triggers: {size: {signal: exposure.gross, above: 1 USDT, on_unknown: hold}}
  stages: [{name: a, level: 1, any: [size], cooldown: 1h, reset: manual, actions: [{lock_trading: {mode: all}}]}]
"""


@pytest.mark.parametrize("verb", ["lock", "unlock", "reset", "close --scope"])
def test_a_shell_completes_the_strategies_symbols_and_labels_of_the_policies(verb: str, tmp_path: Path) -> None:
    """What can be locked and closed by hand besides accounts, venues and the portfolio."""
    labels = DRAWN.replace("NAME", "desks").replace("SCOPE", "each: label, label: desk")
    symbols = DRAWN.replace("NAME", "symbols").replace("SCOPE", "each: symbol, symbol: [BTC_USDT]")
    (tmp_path / "policies.yaml").write_text(PARTS + labels + symbols, encoding="utf-8")
    command = verb.split(" ", maxsplit=1)[0]
    words = f"{command} --policies . " + ("--scope " if "--scope" in verb else "")
    offered = set(completions(words, tmp_path))
    assert {"strategy/grid", "symbol/BTC_USDT", "label/desk=alpha", "account/main", "portfolio"} <= offered
