"""All families and all named worlds: importing this module completes both."""

from __future__ import annotations

from tests.worlds import attacks, emptied, named_bookings, settlements, splits, wrong_answers
from tests.worlds.families import FAMILIES
from tests.worlds.named import NAMED

COMPLETED = (attacks, settlements, emptied, splits, wrong_answers, named_bookings)
"""The modules whose families are in `FAMILIES`, and whose worlds are in `NAMED`."""

__all__ = ["FAMILIES", "NAMED"]
