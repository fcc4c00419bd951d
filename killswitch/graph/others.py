"""What the documents beside the sound ones may be called: a reference to one of them is no mistake of its own."""

from __future__ import annotations

from collections.abc import Mapping

from killswitch.model.record import Record, record


@record
class Others(Record):
    """Names of documents with mistakes in them, by kind; None where one of them may have any name."""

    names: Mapping[str, frozenset[str] | None]
    any_at_all: bool = False
    """Whether there may be documents of which not even the kind is known."""

    def may_have(self, kind: str, name: str | None = None) -> bool:
        """Whether one of them may be of this kind, and have this name where one is given."""
        if self.any_at_all:
            return True
        known = self.names.get(kind, frozenset())
        return known is None or (bool(known) if name is None else name in known)


NO_OTHERS = Others({})
