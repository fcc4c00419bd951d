"""All families and all named worlds: importing this module completes both."""

from __future__ import annotations

from tests.worlds import attacks, settlements
from tests.worlds.families import FAMILIES
from tests.worlds.named import NAMED

COMPLETED = (attacks, settlements)
"""The modules whose families are in `FAMILIES`."""

__all__ = ["FAMILIES", "NAMED"]
