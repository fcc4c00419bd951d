"""`ksctl init`: a folder with the recommended policy set for a book, and the accounts that it watches."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.options import WORD, option
from killswitch.cli.terminal import print_json, print_page, stdin_is_terminal
from killswitch.render.document import Items, Page, Section

if TYPE_CHECKING:
    from killswitch.model.words import Market
    from killswitch.operations.first_set import FirstAccount, FirstSet
    from killswitch.policy.diagnostics.diagnostic import Diagnostic


@options.verb(
    "ksctl init my-policies --venue paper --book hedged",
    "ksctl init desk --venue binanceusdm --venue bybit --account main --account hedge --book several",
)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--venue",
    "venues",
    multiple=True,
    metavar="NAME",
    type=WORD,
    help="Venue of an account, as `ksctl venues list` names it, or paper. Repeat it for several accounts.",
)
@click.option(
    "--account",
    "names",
    multiple=True,
    metavar="NAME",
    type=WORD,
    help="Name of the account, in the order of --venue. Default: main, or with several the venue's.",
)
@click.option(
    "--book", type=WORD, metavar="KIND", help="Kind of the book: hedged, directional, concentrated, several, spot."
)
@click.option("--set", "shipped", type=WORD, metavar="NAME", help="A shipped set by its name, instead of --book.")
@click.option(
    "--market", type=WORD, help="What the accounts trade. Default: the first that set and venue have in common."
)
@option("--currency", type=WORD, default="USDT", help="Currency of account.")
@options.output
@click.pass_context
def init(
    context: click.Context, folder: Path | None, venues: tuple[str, ...], names: tuple[str, ...], book: str | None,
    shipped: str | None, market: str | None, currency: str, output: str,
) -> None:  # fmt: skip
    """Write FOLDER with the recommended policies for a book, its accounts, a route and scenarios.

    What is not given is asked on a terminal, and required elsewhere. The accounts observe: nothing is sent. The set is
    checked before it is written, as `ksctl validate` does, and the output lists the first commands. FOLDER must be new
    or empty; no file is ever overwritten.
    """
    from killswitch.operations.first_set import BOOKS, FirstSet, files_of

    folder, venues, set_at = _answers(folder, venues, book, shipped)
    if not names and stdin_is_terminal():
        own = click.prompt("Names of the accounts", default=" ".join(_own_names(venues)), err=True)
        names = tuple(WORD.convert(each, None, context) for each in own.split())
    chosen = FirstSet(set_at, _accounts(set_at, venues, names, market, currency))
    if set_at.name == BOOKS["several"][0] and len(chosen.accounts) == 1:
        raise click.UsageError(f"{set_at.name} needs two accounts or more: give --venue for each of them.")
    files = files_of(chosen, folder)
    problems = problems_of(files)
    if problems:  # a warning too: the printed commands must work
        from killswitch.policy.diagnostics.diagnostic import as_json, diagnostics_page

        if output == "json":
            print_json({"written": False, "diagnostics": as_json(problems)})
        else:
            print_page(diagnostics_page(problems, f"nothing was written to {folder}"))
        context.exit(EXIT_FAILED)
    write_folder(files, folder)
    _print(chosen, folder, files, output)


def _answers(
    folder: Path | None, venues: tuple[str, ...], book: str | None, shipped: str | None
) -> tuple[Path, tuple[str, ...], Path]:
    """Folder, venues and the shipped set: as given, else as answered on the terminal. UsageError without one."""
    from killswitch.content import policies_folder
    from killswitch.operations.first_set import BOOKS, PAPER, shipped_names

    if book is not None and shipped is not None:
        raise click.UsageError("Give either --book or --set.")
    if stdin_is_terminal():
        folder = folder or click.prompt("Folder", default="my-policies", type=click.Path(path_type=Path), err=True)
        venues = venues or tuple(
            click.prompt("Venues of the accounts, with blanks between them", default=PAPER, err=True).split()
        )
        if book is None and shipped is None:
            for kind, (_, meaning) in BOOKS.items():
                click.echo(f"  {kind}: {meaning}", err=True)
            book = click.prompt("Kind of book", type=click.Choice(list(BOOKS)), default="hedged", err=True)
    missing = [
        name
        for name, given in (("FOLDER", folder), ("--venue", venues), ("--book or --set", book or shipped))
        if not given
    ]
    if folder is None or missing:
        raise click.UsageError(f"Without a terminal to ask, these are required: {', '.join(missing)}.")
    policies = policies_folder()
    if book is not None:
        if book not in BOOKS:
            raise click.UsageError(f"--book is one of {', '.join(BOOKS)}; {book} is not.{_near(book, tuple(BOOKS))}")
        return folder, venues, policies / BOOKS[book][0]
    known = shipped_names(policies)
    if shipped not in known:
        raise click.UsageError(f"--set is one of {', '.join(known)}.{_near(shipped or '', known)}")
    return folder, venues, policies / (shipped or "")


def _accounts(
    set_at: Path, venues: Sequence[str], names: Sequence[str], market: str | None, currency: str
) -> tuple[FirstAccount, ...]:
    """The accounts, one for each venue. UsageError where the set watches no account of a venue."""
    from killswitch.operations.first_set import markets_of

    if names and len(names) != len(venues):
        raise click.UsageError(f"--account is given {len(names)} times and --venue {len(venues)} times: one for each.")
    watched = markets_of(set_at)
    own = names or _own_names(venues)
    if twice := [name for name, count in Counter(own).items() if count > 1]:
        raise click.UsageError(f"--account {twice[0]} is given twice: each account needs a name of its own.")
    labels = _distinct(venues)
    return tuple(
        _account(
            name, venue, label if len(venues) > 1 and label != venue else None, watched, (market, currency), set_at
        )
        for name, venue, label in zip(own, venues, labels, strict=True)
    )


def _account(
    name: str, venue: str, label: str | None, watched: Sequence[Market], wanted: tuple[str | None, str], set_at: Path
) -> FirstAccount:
    """`label`: the venue's name in scopes, if another account is at the same venue. `wanted`: market and currency."""
    from killswitch.accounts.plug_ins import NoSuchVenueError, load_plug_ins
    from killswitch.operations.first_set import PAPER, PAPER_PORT, FirstAccount

    market, currency = wanted
    if venue == PAPER:
        found = _common(venue, watched, watched, market, set_at)
        return FirstAccount(name, PAPER, found, currency, venue=label, endpoint=f"http://127.0.0.1:{PAPER_PORT}")
    try:
        listing = load_plug_ins().named(venue)[0]
    except NoSuchVenueError as error:
        raise click.ClickException(f"{error}\n{PAPER} is the paper venue, which needs no account") from error
    return FirstAccount(
        name, listing.adapter, _common(venue, listing.markets, watched, market, set_at), currency, listing.exchange,
        label, credentials=listing.credentials,
    )  # fmt: skip


def _common(
    venue: str, offered: Sequence[Market], watched: Sequence[Market], market: str | None, set_at: Path
) -> Market:
    """The market of an account; UsageError if venue and set have none in common, or not the wanted one."""
    both = [each for each in watched if each in offered]
    found = next((each for each in both if market in (None, each)), None)
    if found is None:
        wanted = "" if market is None else f"--market {market}: "
        raise click.UsageError(
            f"{wanted}{set_at.name} watches accounts of {', '.join(watched)}, and {venue} has {', '.join(offered)}: "
            + (f"give --market {both[0]}" if both else "choose another --book, --set or --venue")
        )
    return found


def _own_names(venues: Sequence[str]) -> tuple[str, ...]:
    """The names of accounts that are given none."""
    return ("main",) if len(venues) == 1 else _distinct(venues)


def _distinct(venues: Sequence[str]) -> tuple[str, ...]:
    """The venues' names, with a number where one is there twice."""
    counts, seen = Counter(venues), Counter[str]()
    found = []
    for venue in venues:
        seen[venue] += 1
        found.append(venue if counts[venue] == 1 else f"{venue}-{seen[venue]}")
    return tuple(found)


def problems_of(files: Mapping[str, str]) -> Sequence[Diagnostic]:
    """What `ksctl validate` would report of the files."""
    from killswitch.accounts.validation import account_misfits
    from killswitch.incident.report.runbooks import compile_all
    from killswitch.model.applied_set import PolicyFile
    from killswitch.policy.diagnostics.diagnostic import in_order
    from killswitch.policy.loader import load_texts

    loaded = load_texts(PolicyFile(name, text.encode()) for name, text in files.items() if name.endswith(".yaml"))
    return in_order((*compile_all(loaded)[1], *account_misfits(loaded)))


def write_folder(files: Mapping[str, str], folder: Path) -> None:
    """Write all files, or none: they appear together. ClickException if the folder holds anything."""
    with options.file_errors(f"{folder} cannot be written"):
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise click.ClickException(f"{folder} is there and is not empty: name another folder; nothing was changed")
        folder.parent.mkdir(parents=True, exist_ok=True)
        built = folder.parent / f".{folder.name}-{secrets.token_hex(4)}"
        built.mkdir()
        try:
            for name, text in files.items():
                (built / name).write_text(text, encoding="utf-8")
            built.rename(folder)  # fails if somebody has put a file there meanwhile
        finally:
            shutil.rmtree(built, ignore_errors=True)


def _print(chosen: FirstSet, folder: Path, files: Mapping[str, str], output: str) -> None:
    from killswitch.operations.first_set import editor_lines, first_commands

    commands, editor = first_commands(chosen, folder), editor_lines(folder)
    if output == "json":
        print_json({
            "written": True, "folder": str(folder), "set": chosen.shipped.name, "files": sorted(files),
            "commands": commands, "editor": editor,
        })  # fmt: skip
        return
    print_page(
        Page(
            f"{folder}: the set {chosen.shipped.name}",
            sections=(
                Section("Written", (Items(tuple(f"{folder}/{name}" for name in sorted(files))),)),
                Section("Next", (Items(commands),)),
                Section("For an editor that ignores the first line of a file", (Items(editor),)),
            ),
        )
    )


def _near(word: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return f" Did you mean {near[0]}?" if near else ""
