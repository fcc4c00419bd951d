"""Metadata and version, which every document begins with."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.scalars import Name, Text

API_VERSION = "killswitch.dev/v1"

ApiVersion = Literal["killswitch.dev/v1"]


class Metadata(Part):
    """The name of a document, and labels and annotations for people and tools."""

    name: Name
    """The document's name, unique among documents of the same kind."""
    labels: dict[str, Text] = {}  # noqa: RUF012 # pydantic copies it
    """Labels, for people and for selection. Left out: none."""
    annotations: dict[str, Text] = {}  # noqa: RUF012 # pydantic copies it
    """Annotations, for tools and notes. Left out: none."""


class VersionedPart(Part):
    """A document: version, kind and metadata. The kind is the only value of `kind`."""

    BUILT_IN: ClassVar[frozenset[str]] = frozenset()
    """Built-in names, which no document of the kind may use."""

    ALIASES: ClassVar[Mapping[tuple[str | int, ...], tuple[str | int, ...]]] = {}
    """Path of a derived value → path at which it is written, for diagnostics about what a document is lowered to."""

    api_version: Annotated[ApiVersion, Field(alias="apiVersion")]
    kind: str
    metadata: Metadata

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """The violated cross-key checks of a document as written, whatever other mistakes it has."""
        return iter(())
