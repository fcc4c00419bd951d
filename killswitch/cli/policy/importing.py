"""`ksctl import`: policies from the configurations of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, EXIT_WARNINGS, options
from killswitch.cli.options import WORD, option
from killswitch.cli.policy.init import problems_of, write_folder
from killswitch.cli.terminal import print_json, print_page

if TYPE_CHECKING:
    from killswitch.operations.importing.report import ImportedFolder

_FREQTRADE = "ksctl import freqtrade config.json --strategy strategy.py --out policies-of-bot"


@click.group(name="import", epilog=options.example_text(_FREQTRADE))
def import_() -> None:
    """Turn the configuration of another tool into a folder of policies.

    Never guesses: what has no equivalent is listed with file and line. No secret is copied; the folder refers to
    environment variables.
    """


@options.verb(_FREQTRADE, group=import_)
@click.argument("configs", metavar="CONFIG…", nargs=-1, required=True, type=options.IN_FILE)
@click.option("--strategy", type=options.IN_FILE, help="File of the strategy class, which has the protections.")
@click.option(
    "--env-file", "variables", multiple=True, type=options.IN_FILE,
    help="File of FREQTRADE__ variables, which override the configuration. May be given more than once.",
)  # fmt: skip
@click.option("--out", "folder", type=options.PATH, required=True, help="Folder to write, new or empty.")
@option("--account", type=WORD, default="freqtrade", help="Name of the account.")
@click.option("--strict", is_flag=True, help="Exit 3 if a setting has no equivalent.")
@options.output
def freqtrade(
    configs: tuple[Path, ...], strategy: Path | None, variables: tuple[Path, ...], folder: Path, account: str,
    strict: bool, output: str,
) -> int:  # fmt: skip
    """Import a freqtrade bot: its account, its protections, its stop and its routes.

    Of several CONFIGs the later wins, as in freqtrade. The strategy is read as text and never run: literals count, code
    is listed. The account observes, whatever `dry_run` is. The folder is checked before it is written, and no file is
    ever overwritten.
    """
    from killswitch.accounts.plug_ins import load_plug_ins
    from killswitch.operations.importing.freqtrade import import_freqtrade

    found = import_freqtrade(configs, strategy, variables, load_plug_ins(), account)
    return _written(found, folder, strict, output)


_V6 = "ksctl import killswitch-v6 config.yaml --env-file .env --out my-policies"


@options.verb(_V6, group=import_, name="killswitch-v6")
@click.argument("config", type=options.IN_FILE)
@click.option(
    "--env-file", "variables", multiple=True, type=options.IN_FILE,
    help="File of the variables that the configuration names; only their names are read.",
)  # fmt: skip
@click.option("--out", "folder", type=options.PATH, required=True, help="Folder to write, new or empty.")
@click.option("--strict", is_flag=True, help="Exit 3 if a setting has no equivalent.")
@options.output
def killswitch_v6(config: Path, variables: tuple[Path, ...], folder: Path, strict: bool, output: str) -> int:
    """Import a configuration of killswitch version 6: its accounts, stages, tiers and routes.

    The accounts observe, whatever `dry_run` is. The folder is checked before it is written, and no file is ever
    overwritten.
    """
    from killswitch.operations.importing.killswitch_v6 import import_v6

    return _written(import_v6(config, variables), folder, strict, output)


def _written(found: ImportedFolder, folder: Path, strict: bool, output: str) -> int:
    """Check the folder, write it, and print the report; EXIT_FAILED where it does not validate."""
    from killswitch.operations.importing.report import import_page
    from killswitch.policy.diagnostics.diagnostic import as_json, diagnostics_page, has_errors

    problems = problems_of(found.files)
    if has_errors(problems):  # a defect of the importer: nothing is left behind
        if output == "json":
            print_json({"written": False, "diagnostics": as_json(problems)})
        else:
            print_page(diagnostics_page(problems, f"nothing was written to {folder}"))
        return EXIT_FAILED
    write_folder(found.files, folder)
    commands = _commands(folder)
    if output == "json":
        import msgspec

        settings = [msgspec.to_builtins(each) for each in found.settings]
        print_json({
            "written": True, "folder": str(folder), "files": sorted(found.files), "settings": settings,
            "variables": list(found.variables), "commands": list(commands),
        })  # fmt: skip
    else:
        print_page(import_page(found, folder, commands))
    return EXIT_WARNINGS if strict and not found.has_all else 0


def _commands(folder: Path) -> Sequence[str]:
    at = quote(str(folder))
    return (f"ksctl validate {at}", f"ksctl venues check --policies {at}", f"ksctl plan --policies {at}")
