"""Generates docs/reference/cli.md from the commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from killswitch.cli import VERBS, ksctl
from tools.reference.markdown import code, page, sentence, table

INTRODUCTION = """\
`ksctl --help` and `ksctl VERB --help` show the same in the terminal. A DURATION is written `90s`, `15m`, `1h30m`.
`--output json` is for programs: output with a format name is [a public format](formats.md).

On a terminal, text is wrapped to its width. A table that is too wide loses its least important columns, ids are
shortened to what is unique on the page, and times of the commonest day have no date: the last line names what is left
out, and `-o wide` shows it. States are colored: failures and firing triggers red, warnings
yellow, normal states green. `ksctl --color auto|always|never VERB` overrides this; with `auto`, the default,
`NO_COLOR` disables colors. A pipe or a file gets one line per row and no color, and JSON is never colored.

Shells complete verbs, options, files, kinds of documents, codes, venues, and the accounts and scopes of the policies
named before (or in `KSCTL_POLICIES`), if this line is in the shell's start-up file:

```sh
eval "$(_KSCTL_COMPLETE=bash_source ksctl)"     # bash 4.4 or newer; zsh_source in zsh
_KSCTL_COMPLETE=fish_source ksctl | source      # fish
```

| exit code | means |
| --- | --- |
| 0 | success |
| 1 | failure; of `ksctl run`: an error after the first tick, or the action `exit_process` |
| 2 | changes or actions pending; only with `--detailed-exitcode` |
| 3 | warnings; only with `--strict` |
| 4 | trouble: the answer of `ksctl status` is not `all quiet`; only with `--detailed-exitcode` |
| 64 | wrong usage |
| 69 | `ksctl run` could not start: it failed before its first tick was complete |
| 130 | interrupted |"""


def cli_page() -> str:
    """The page: every verb in the order of `ksctl --help`, with its arguments and options."""
    top = click.Context(ksctl, info_name="ksctl")
    parts: list[str] = []
    for verb in VERBS:
        command = ksctl.get_command(top, verb)
        assert command is not None  # VERBS is where get_command looks
        parts += _command(command, click.Context(command, info_name=verb, parent=top), depth=2)
    return page("Command line", INTRODUCTION, parts)


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    path = context.command_path
    yield f"{'#' * depth} `{path}` {{ #{path.removeprefix('ksctl ').replace(' ', '-')} }}"
    yield code(" ".join([path, *command.collect_usage_pieces(context)]))
    yield from _help(command)
    if command.epilog:
        lines = re.sub(r" \\\n +", " ", command.epilog.removeprefix("\b\n")).splitlines()
        yield "\n".join(["```sh", *(line.strip() for line in lines[1:]), "```"])
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    rows = [_option(option, context) for option in options if not option.hidden and "--help" not in option.opts]
    if rows:
        yield table(["option", "meaning"], rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command(inner, click.Context(inner, info_name=name, parent=context), depth + 1)


def _help(command: click.Command) -> Iterator[str]:
    """The paragraphs of the help, as click parses them: up to a form feed, separated by blank lines."""
    text = inspect.cleandoc(command.help or "").split("\f")[0]
    for paragraph in text.split("\n\n"):
        words = paragraph.strip().removeprefix("\b").strip("\n")
        if words:
            yield words if paragraph.strip().startswith("\b") else _escaped(" ".join(words.split()))


def _escaped(text: str) -> str:
    """Escape text that Markdown would parse as markup."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    names = ", ".join(code(name) for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag or option.count else f" {code(_value(option, context))}"
    parts = [_escaped(sentence(option.help or ""))]
    if option.required:
        parts.append("**Required.**")
    if option.multiple and "more than once" not in (option.help or ""):
        parts.append("Repeatable.")
    if option.show_default and not option.is_flag:
        parts.append(f"Default: {code(str(option.default))}.")
    if option.envvar:
        parts.append(f"Environment: {code(str(option.envvar))}.")
    return f"{names}{value}", " ".join(each for each in parts if each)


def _value(option: click.Option, context: click.Context) -> str:
    """The value of an option: its choices, or its type with the bounds of a number."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return " or ".join(str(word) for word in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        if kind.max is None:
            return f"NUMBER, {'more than ' if kind.min_open else ''}{kind.min}{'' if kind.min_open else ' or more'}"
        return f"NUMBER, {kind.min} to {kind.max}"
    return option.make_metavar(context)
