"""What every document begins with."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.scalars import Name, Text

API_VERSION = "killswitch.dev/v1"

ApiVersion = Literal["killswitch.dev/v1"]


class Metadata(Part):
    """Who a document is, and whose."""

    name: Name
    """Unique among documents of the same kind."""
    labels: dict[str, Text] = {}  # noqa: RUF012 # pydantic copies it
    """For people and for selecting. Left out: none."""
    annotations: dict[str, Text] = {}  # noqa: RUF012 # pydantic copies it
    """For tools and for notes. Left out: none."""


class VersionedPart(Part):
    """What every document begins with. Its kind is the one word that `kind` may be."""

    BUILT_IN: ClassVar[frozenset[str]] = frozenset()
    """Names that are always there, so that no document of the kind may take them."""

    api_version: Annotated[ApiVersion, Field(alias="apiVersion")]
    kind: str
    metadata: Metadata

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """What does not hold between the keys of what was written, whatever else is wrong with it."""
        return iter(())
