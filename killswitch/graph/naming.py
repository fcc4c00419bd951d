"""Names in policies: which signal is meant, whether it may be read here, and what was probably meant instead."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.signals.catalogue import BY_NAME, CATALOGUE, Level


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean …?`, or an empty text when nothing known is near."""
    from difflib import get_close_matches  # only a mistake needs it

    names = sorted(known)
    last: dict[str, str] = {}
    for candidate in names:
        last.setdefault(candidate.rsplit(".", 1)[-1], candidate)
    near = get_close_matches(name, names, n=1) or [
        last[match] for match in get_close_matches(name.rsplit(".", 1)[-1], last, n=1)
    ]
    return f"did you mean `{near[0]}`?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> tuple[str, str]:
    """Message and fix for a reference that leads nowhere."""
    names = sorted(known)
    listed = ", ".join(f"`{each}`" for each in names) if names else "there is none"
    return f"there is no {kind} `{name}`", suggestion(name, names) or f"known: {listed}"


def signal_names(level: Level) -> list[str]:
    """The signals that may be read at `level`."""
    return [spec.name for spec in CATALOGUE if spec.level == level]


def signal_problem(name: str, level: Level) -> tuple[str, str, str] | None:
    """(code, message, fix) if `name` is no signal, or none that may be read here; else None."""
    spec = BY_NAME.get(name)
    if spec is None:
        near = suggestion(name, signal_names(level))
        return "KS3001", f"there is no signal `{name}`", near or "`ksctl schema signals` lists them all"
    if spec.level == level:
        return None
    if level == "scope":
        return (
            "KS3005",
            f"`{name}` is a quantity of one position, and a stage machine watches a whole scope",
            "use it in `close.all_if`, or a signal of the scope here",
        )
    return (
        "KS3006",
        f"`{name}` is a quantity of the whole scope, and `all_if` is asked of each position",
        "use a `position.` signal here, or a trigger for the scope",
    )
