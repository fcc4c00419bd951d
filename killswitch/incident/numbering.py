"""The numbers of orders for a person: as ranges, and of many scattered ones the first few and how many more."""

from __future__ import annotations

from collections.abc import Sequence

_RANGES = 6
"""So many numbers and ranges are told."""


def numbered(numbers: Sequence[int]) -> str:
    """`order 3`, `orders 1 to 25`, `orders 1, 4 and 7 to 9`, `orders 1, 3, 5, 7, 9, 11 and 12 more`."""
    found = sorted(set(numbers))
    ranges: list[list[int]] = []
    for number in found:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    # Two neighbours are no range.
    parts = [part for run in ranges for part in ([run] if len(run) > 2 else [[number] for number in run])]
    words = [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts[:_RANGES]]
    more = sum(map(len, parts[_RANGES:]))
    if more:
        words.append(f"{more} more")
    told = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"order{'' if len(found) == 1 else 's'} {told}"
