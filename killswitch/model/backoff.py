"""The pauses between attempts that fail: each is twice the one before, up to a limit."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

_MOST_DOUBLINGS: Final = 60
"""Beyond every limit, and far from the largest float."""


class Backoff(Struct, frozen=True):
    """The pause after the first failure, and the longest one, in seconds or in another unit of the caller's."""

    first: float
    longest: float

    def after(self, failures: int) -> float:
        """The pause after so many failures in a row; 0.0 after none."""
        if failures <= 0:
            return 0.0
        return min(self.longest, self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))

    def longer(self, pause: float) -> float:
        """The pause after `pause`, where a stored pause takes the place of a count of failures."""
        return min(self.longest, 2.0 * pause)
