"""The `Invariant` document: a property of policies in CEL, which `ksctl prove` proves or refutes.

Invariants are tests next to the policies. They are no part of a deployed policy set: neither its digest nor a run
depends on them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import Name, Text


class InvariantSpec(Part):
    """What is always true, and of which policies."""

    policies: Annotated[tuple[Name, ...], AtLeastOne()]
    """The policies that it is about, by name; each is proved on its own."""
    holds: Text
    """The property in CEL, over the signals and `stage.level`, the level in force (0 for none). It is judged after the
    firing of each evaluation, and violated where it is surely false."""
    because: Text | None = None
    """Why it matters, in a sentence for people. Left out: nothing is printed."""


class InvariantDocument(VersionedPart):
    """A property of policies that `ksctl prove` proves. It is no part of a deployed policy set."""

    kind: Literal["Invariant"]
    spec: InvariantSpec
