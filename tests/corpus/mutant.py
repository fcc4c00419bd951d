"""A mutant: a shipped policy set with a mistake, as edits of its files, and which tool is expected to find it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

Verdict = Literal["TIGHTENING", "LOOSENING", "EQUIVALENT", "NEITHER", "UNDECIDED"]
Scenarios = Literal["", "fails", "covers less"]
Category = Literal[
    "threshold", "unit", "sign", "window", "confirmation", "unknown", "levels", "triggers", "cooldown", "reset",
    "action", "lock", "close", "attribution", "scope", "mode", "messages", "names", "variant", "set",
]  # fmt: skip


class Edit(Struct, frozen=True):
    """In `file`, after the first match of the pattern `at`, `old` becomes `new`.

    Without `at`, `old` occurs once. With `until`, everything from `old` up to the next `until` is replaced, or up to
    the end if `until` is empty. A file that does not exist yet has `new` as its text; one without any text is removed.
    """

    old: str
    new: str
    at: str = ""
    until: str | None = None
    file: str = "policy.yaml"

    def of(self, files: Mapping[str, str]) -> dict[str, str]:
        """The files after the edit. ValueError if it does not fit, or changes nothing."""
        if self.file not in files:
            return {**files, self.file: self.new}
        text = files[self.file]
        if not self.at and text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {self.old!r} {text.count(self.old)} times")
        anchor = re.search(self.at, text)
        begins = -1 if anchor is None else text.find(self.old, anchor.start())
        if begins < 0:
            raise ValueError(f"{self.file} has no {self.old!r} after {self.at!r}")
        ends = begins + len(self.old)
        if self.until is not None:
            found = text.find(self.until, ends) if self.until else len(text)
            if found < 0:
                raise ValueError(f"{self.file} has no {self.until!r} after {self.old!r}")
            ends = found
        edited = text[:begins] + self.new + text[ends:]
        if edited == text:
            raise ValueError(f"{self.file}: {self.old!r} becomes itself")
        left = {name: text for name, text in files.items() if name != self.file}
        return {**left, self.file: edited} if edited else left


class Mutant(Struct, frozen=True):
    """A set with a mistake. What is expected of each tool is what it finds that it does not find in the original.

    `given`: edits of the original first, such as routes of a desk. `loosens`: whether, in some situation, it does less
    than the original, or later. `codes`: of `validate` and `lint`. `proofs`: words of the properties that are no longer
    proved. `against`: None if the set is not valid.
    """

    name: str
    category: Category
    shipped: str
    what: str
    edits: tuple[Edit, ...]
    given: tuple[Edit, ...]
    loosens: bool
    codes: tuple[str, ...]
    scenarios: Scenarios
    proofs: tuple[str, ...]
    against: Verdict | None

    @property
    def all_edits(self) -> tuple[Edit, ...]:
        """What makes the mutant from the shipped set."""
        return *self.given, *self.edits

    @property
    def is_linted(self) -> bool:
        """Whether a rule of `lint` finds it."""
        return any(code.startswith("KS72") for code in self.codes)

    @property
    def is_refused(self) -> bool:
        """Whether `validate` finds it."""
        return any(not code.startswith("KS72") for code in self.codes)


def mutant(
    category: Category, shipped: str, name: str, what: str, *edits: Edit, loosens: bool, against: Verdict | None,
    codes: str = "", scenarios: Scenarios = "", proofs: Sequence[str] = (), given: Sequence[Edit] = (),
) -> Mutant:  # fmt: skip
    """A mutant; `codes` with spaces between them."""
    return Mutant(
        name, category, shipped, what, edits, tuple(given), loosens, tuple(sorted(codes.split())), scenarios,
        tuple(proofs), against,
    )  # fmt: skip


def trigger(name: str, old: str, new: str) -> Edit:
    """An edit of the trigger that is declared on one line."""
    return Edit(old, new, at=rf"\b{name}: +\{{signal")


def stage(name: str, old: str, new: str) -> Edit:
    """An edit of a stage."""
    return Edit(old, new, at=rf"- name: {name}\n")


def breaker(name: str, old: str, new: str) -> Edit:
    """An edit of a circuit breaker, by the name of its policy."""
    return Edit(old, new, at=rf"metadata: {{name: {name},")


def without_stage(name: str, following: str = "") -> Edit:
    """A stage is removed, up to that which follows; without one, to the end of the policy."""
    return Edit(f"    - name: {name}\n", "", until=f"    - name: {following}\n" if following else "---\n")


NO_LONGER = "past the outermost"
IDLE = "idle"
RESET = "reset"
DEEPER = "deeper"
FIRES = "can fire"
DELIVERED = "delivered"
