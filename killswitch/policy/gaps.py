"""What of a faulty document could not be read, so that the rest of it can be checked all the same.

Where a value had a mistake in it a filler stands in the model: it has the right type and no meaning, and nothing may
be said about it. Only documents with mistakes come here; no policy set is ever made of them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args, get_origin

from killswitch.policy.shape import Part, fields, unwrap

Path = tuple[str | int, ...]


class Gaps(NamedTuple):
    """`holes` are the paths at which a filler stands, `flaws` those at which something else is wrong."""

    holes: frozenset[Path] = frozenset()
    flaws: frozenset[Path] = frozenset()
    sound: bool = True
    """False when the text itself has had a note, such as a key given twice: names may then be missing anywhere."""

    def unread(self, path: Path) -> bool:
        """Whether the value at `path` is a filler, or inside one."""
        return any(path[:depth] in self.holes for depth in range(len(path) + 1))

    def flawed(self, path: Path) -> bool:
        """Whether anything is wrong with the value at `path`, inside it, or with what holds it."""
        if not self.sound or self.unread(path):
            return True
        return any(hole[: len(path)] == path for hole in self.holes) or any(
            flaw[: len(path)] == path or path[: len(flaw)] == flaw for flaw in self.flaws
        )


NO_GAPS = Gaps()


def filler(annotation: Any) -> object:
    """A value of the annotated type that says nothing; None where several shapes may stand."""
    bare, _ = unwrap(annotation)
    if isinstance(bare, type) and issubclass(bare, Part):
        return filled(bare, {})
    if get_origin(bare) is Literal:
        return get_args(bare)[0]
    made: dict[Any, object] = {tuple: (), dict: {}, str: "", int: 0, bool: False, Decimal: Decimal(0)}
    return made.get(get_origin(bare) or bare)


def filled(part: type[Part], values: dict[str, object]) -> Part:
    """The part with `values`, by attribute, and fillers for every other one that may not be left out."""
    required = {field.attribute: field for field in fields(part).values() if field.required}
    fillers = {name: filler(field.annotation) for name, field in required.items() if name not in values}
    return part(**values, **fillers)
