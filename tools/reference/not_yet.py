"""Generates docs/reference/not-yet.md from what is known to be missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import get_args

from killswitch.policy.diagnostics.unsupported import UNSUPPORTED, Subject, Unsupported
from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.actions import ACTIONS
from killswitch.policy.schema.part import keys_of
from killswitch.policy.schema.policy import Scope
from killswitch.signals.catalogue import BY_NAME
from tools.reference.documents import sections
from tools.reference.markdown import code, page, sentence, table

INTRODUCTION = """\
What people ask for and what no policy can declare yet, with what comes nearest. The diagnostics of an unknown
[signal](diagnostics.md#ks3001), [key](diagnostics.md#ks2001), [scope](diagnostics.md#ks2004) and
[document](diagnostics.md#ks1206) say the same of the names below. What comes nearest is not the same: read what it
measures before you rely on it. An entry disappears with the release that makes it possible."""

TITLES: Mapping[Subject, str] = {
    "signal": "Signals",
    "scope": "Scopes",
    "action": "Actions",
    "key": "Keys",
    "document": "Documents",
}


def not_yet_page() -> str:
    """The page: a table for each subject."""
    missing = still_missing(UNSUPPORTED, declarable())
    parts = [
        f"## {title}\n\n" + table(("wanted", "nearest", "names"), map(_row, entries))
        for subject, title in TITLES.items()
        if (entries := [entry for entry in missing if entry.subject == subject])
    ]
    return page("What cannot be expressed yet, and what comes nearest", INTRODUCTION, parts)


def declarable() -> Mapping[Subject, Collection[str]]:
    """Everything that a policy set can declare, by its names."""
    keys = {key for kind in KINDS.values() for section in sections(kind) for key in keys_of(section.part)}
    scopes = get_args(Scope.model_fields["each"].annotation)
    return {"signal": BY_NAME.keys(), "scope": scopes, "action": ACTIONS, "key": keys, "document": KINDS.keys()}


def still_missing(entries: Iterable[Unsupported], known: Mapping[Subject, Collection[str]]) -> list[Unsupported]:
    """The entries without a name that can be declared; of keys and actions only the first is their own name."""
    own = {entry: entry.names if entry.subject in {"signal", "document"} else entry.names[:1] for entry in entries}
    return [entry for entry, names in own.items() if not set(names) & set(known[entry.subject])]


def signals_of(entry: Unsupported) -> list[str]:
    """The names of signals in what comes nearest, known or not."""
    families = {name.split(".")[0] for name in BY_NAME}
    names = re.findall(r"[a-z_]+\.[a-z_]+", " ".join(re.findall(r"`([^`]+)`", entry.nearest)))
    return [name for name in names if name.split(".")[0] in families]


def _row(entry: Unsupported) -> tuple[str, str, str]:
    return sentence(entry.wanted), sentence(_linked(entry.nearest)), ", ".join(code(name) for name in entry.names)


def _linked(nearest: str) -> str:
    def link(found: re.Match[str]) -> str:
        name = found[1]
        anchor = name.replace(".", "-").replace("_", "-")
        return f"[`{name}`](signals.md#{anchor})" if name in BY_NAME else found[0]

    return re.sub(r"`([^`]+)`", link, nearest)
