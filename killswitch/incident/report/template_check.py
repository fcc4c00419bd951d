"""Checks a user's template and those that it extends, without rendering them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError, nodes

from killswitch.incident.report.template_rules import BrokenRule
from killswitch.incident.report.templates import TemplateEnvironment, environment
from killswitch.policy.diagnostics.diagnostic import Diagnostic


def template_diagnostics(folder: Path, name: str, by: str) -> list[Diagnostic]:
    """Return the problems of the template `name` in `folder`, each at its line; `by` says who uses the template."""
    found = (_diagnostic(file, each, by) for file, each in _problems(environment((folder,)), folder, name))
    return list(dict.fromkeys(found))


def _problems(known: TemplateEnvironment, folder: Path, name: str) -> Iterator[tuple[str, BrokenRule]]:
    """Yield the problems of a template, then of those that it extends, each with its file."""
    file, line, seen = str(folder / name), 1, set[str]()
    while True:
        loaded = _load(known, name, line)
        if isinstance(loaded, BrokenRule):
            yield file, loaded
            return
        source, file = loaded
        parsed = _parse(known, source, name, file)
        if isinstance(parsed, BrokenRule):
            yield file, parsed
            return
        tree, problems = parsed
        yield from ((file, each) for each in problems)
        seen.add(name)
        parent = next((each.template for each in tree.body if isinstance(each, nodes.Extends)), None)
        if not isinstance(parent, nodes.Const):
            return
        name, line = str(parent.value), parent.lineno
        if name in seen:
            yield (
                file,
                BrokenRule("KS6106", line, name, "templates extend each other in a circle here", "extend another"),
            )
            return


def _load(known: TemplateEnvironment, name: str, line: int) -> tuple[str, str] | BrokenRule:
    """Return the source of a template and its file. `line` is where it is named."""
    try:
        source, file, _ = known.templates.get_source(known, name)
    except TemplateNotFound:
        return BrokenRule("KS6101", line, name, f"there is no template `{name}`", "correct the name")
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        return BrokenRule("KS6101", line, name, f"the template `{name}` cannot be read: {error}", "save it as UTF-8")
    return source, file or name


def _parse(
    known: TemplateEnvironment, source: str, name: str, file: str
) -> tuple[nodes.Template, list[BrokenRule]] | BrokenRule:
    """Return the syntax tree of a template and the rules that it breaks. One that breaks none is compiled as well."""
    try:
        tree = known.parse(source, name, file)
        problems = known.problems(tree, file)
        if not problems:
            known.compile(source, name, file)
    except TemplateSyntaxError as error:
        what = error.message or "not a Jinja2 template"
        return BrokenRule(
            "KS6102", error.lineno, None, what, "correct it; `{{ }}` shows a value, `{% %}` is a statement"
        )
    except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError | SyntaxError) else str(error)
        return BrokenRule("KS6102", 1, None, f"this cannot be parsed as a template: {why}", "shorten it")
    return tree, problems


def _diagnostic(file: str, found: BrokenRule, by: str) -> Diagnostic:
    """Return the problem at its line of the template, with the word underlined."""
    text = _line(file, found.line)
    word = None if found.word is None else re.search(rf"(?<!\w){re.escape(found.word)}(?!\w)", text)
    start, end = word.span() if word else (len(text) - len(text.lstrip()), len(text.rstrip()))
    message = f"{found.message} ({by})"
    return Diagnostic(
        found.code, "error", message, found.fix, file, found.line, start + 1, max(1, end - start), text
    )  # fmt: skip


def _line(file: str, line: int) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""  # deleted meanwhile, or not text: then the place has no line to show
    return lines[line - 1] if 0 < line <= len(lines) else ""
