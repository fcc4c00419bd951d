"""Fetching a venue's public bars, page by page, politely, and so that a killed fetch goes on where it stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from killswitch.lab.fetched import BarFile, Coverage, FetchError, Part, Whose, unsound
from killswitch.model.clock import Clock
from killswitch.model.inspection import Bar, BarHistory
from killswitch.model.instant import rfc3339
from killswitch.model.legible import one_line
from killswitch.model.venue import CredentialsRefusedError, RateLimitedError, VenueDownError, VenueError

TRIES = 8
"""Requests in a row that fail, after which the fetch ends; it goes on where it stopped when it is called again."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds after a failed request; doubled by each further one in a row."""
LONGEST_ASKED = 300.0
"""Seconds. A venue that asks for a longer silence has banned the address: that is told, not waited for."""
BREATH = 0.3
"""Seconds between two requests: well within what venues allow an address for public data."""
PROBE = 64
"""Bars. Every venue gives at least so many at once."""
SETTLING = 5_000
"""Milliseconds after its end in which a bar may still change, and for which the clocks may differ."""

SHIFT = 3_600_000
"""Milliseconds by which bars longer than that may be nearer to each other: days of a market that keeps summer time."""
ENOUGH = 10
"""Bars of a page from which on the same distance between all of them is that of another timeframe, and no gap."""

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch of one symbol came to. Times in UTC ms.

    `missing`: bars between the first and the last that the venue does not have, in `gaps` gaps; `before` and `after`:
    those of what was asked for that it does not have at either end. `left_out`: of those that it gave and that cannot
    be, the first ones in words.
    """

    symbol: str
    new: int
    bars: int
    first: int | None
    last: int | None
    gaps: int
    missing: int
    before: int
    after: int
    requests: int
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0


def milliseconds(timeframe: str) -> int:
    """The length of a bar: `5m`, `1h`, `1d`. ValueError for what is no timeframe; months have no fixed length."""
    found = re.fullmatch(r"([1-9][0-9]*)([smhdw])", timeframe)
    if found is None:
        raise ValueError(f"{timeframe!r} is no timeframe: write 1m, 5m, 1h, 1d or 1w")
    return int(found[1]) * _UNITS[found[2]]


class Fetch:
    """Fetches one symbol into one folder."""

    def __init__(
        self,
        history: BarHistory,
        whose: Whose,
        folder: Path,
        clock: Clock,
        told: Callable[[int], None] = lambda _: None,
        warned: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`told`: called with the time, UTC ms, up to which bars are there; `warned`: with what is tried again.

        ValueError if the timeframe is none.
        """
        self._history = history
        self._whose = whose
        self._file = BarFile(folder, whose)
        self._clock = clock
        self._told = told
        self._warned = warned
        self._step = milliseconds(whose.timeframe)
        self._requests = 0
        self._new = 0
        self._left_out: dict[int, str] = {}

    async def run(self, begins: int, ends: int) -> Fetched:
        """Fetch the bars that open from `begins` to before `ends` (UTC ms) and are not there yet.

        FetchError where the venue has none, cannot be reached, or makes no sense (what was fetched is kept), and where
        another fetch is at the same file.
        """
        self._file.folder.mkdir(parents=True, exist_ok=True)
        with self._file.held():
            return await self._run(begins, ends)

    async def _run(self, begins: int, ends: int) -> Fetched:
        covered = self._file.covered()
        if covered is not None and covered.doubtful:
            covered = await self._anew(covered, begins, ends)
        for start, stop in _missing(covered, begins, self._finished(ends)):
            covered = await self._span(start, stop, covered) or covered
        if covered is None:
            raise FetchError(
                f"{self._whose.symbol}: {self._whose.venue} has no finished {self._whose.timeframe} bar from "
                f"{_instant(begins)} to {_instant(ends)}"
            )
        self._told(ends)
        return self._summary(begins, self._finished(ends))

    async def _anew(self, doubtful: Coverage, begins: int, ends: int) -> Coverage | None:
        """Fetch what an older version has fetched once more, with what is asked for now."""
        self._warned(
            f"{self._whose.symbol}: {self._file.path.name} was fetched by an older version, which could take for empty "
            "what it had not asked for; all of it is asked for again"
        )
        start, stop = min(begins, doubtful.begins), self._finished(max(ends, doubtful.ends))
        return await self._span(start, stop, doubtful)

    def _finished(self, ends: int) -> int:
        """Before when a bar must open so that it is asked for and over."""
        return min(ends, self._over())

    def _over(self) -> int:
        """Before when a bar must open so that it is over."""
        return int(self._clock.now().timestamp() * 1000) - SETTLING - self._step + 1

    async def _span(self, start: int, stop: int, covered: Coverage | None) -> Coverage | None:
        """Fetch from `start` to before `stop` into a part, and put it with the rest. None if there was nothing."""
        part = self._file.part(start)
        try:
            reached = min(await self._pages(part, part.open(start), stop), stop)
            beside = covered is not None and not covered.doubtful
            if beside and covered is not None and stop == covered.begins and reached < stop:
                raise FetchError(
                    f"{self._whose.symbol}: {self._whose.venue} says that none follows {_instant(reached)}, and has "
                    f"given some from {_instant(stop)} on; try again, or leave --from at {_instant(stop)}"
                )
            if reached <= start or (not beside and not any(part.rows())):
                part.path.unlink()
                return None
            return self._file.take(part, start, reached, covered)
        finally:
            if part.is_bare():
                part.path.unlink()
            part.close()

    async def _pages(self, part: Part, until: int, stop: int) -> int:
        """Page after page, until the venue has none or is past `stop`; before when everything is there.

        Only a page that begins past `stop` shows that nothing is left before: some venues put the newest bar behind
        every page, however far it is from the others.
        """
        while until < stop:
            page = self._sorted(await self._page(until))
            rows = [bar for bar in page if until <= bar.ts < stop]
            if not any(bar.ts >= until for bar in page):
                found = await self._next_after(until, stop)
                if found is None:
                    break
                until = found
                part.add((), until)
                continue
            until = rows[-1].ts + self._step if rows else stop
            sound = [bar for bar in rows if not self._is_unsound(bar)]
            part.add(sound, until)
            self._new += len(sound)
            self._told(until)
        return until

    async def _next_after(self, empty: int, stop: int) -> int | None:
        """From when on there are bars again before `stop`, UTC ms; None if it seems that there are none.

        Some venues look no further than one page from the time asked for, and say nothing where a gap is longer than
        that, or before the listing: looked for at doubled distances, and then narrowed down to less than a page. Of two
        such gaps that are closer together than they are long, what lies between may be taken for a part of one.
        """
        near = far = empty
        last = stop - PROBE * self._step
        while True:
            far = min(max(2 * far - empty, empty + PROBE * self._step), last)
            if far <= near:
                return None
            if any(bar.ts >= far for bar in await self._page(far)):
                break
            near = far
        while far - near > PROBE * self._step:
            middle = near + (far - near) // (2 * self._step) * self._step
            if any(bar.ts >= middle for bar in await self._page(middle)):
                far = middle
            else:
                near = middle
        return far

    async def _page(self, since: int) -> Sequence[Bar]:
        """One page of what is over, asked for again as long as the venue is down or wants less."""
        wait = FIRST_WAIT
        for tries in range(1, TRIES + 1):
            if self._requests:
                await self._clock.sleep(BREATH)
            self._requests += 1
            try:
                page = await self._history.bars(self._whose.symbol, self._whose.timeframe, since)
                over = self._over()
                return [bar for bar in page if bar.ts < over]
            except (VenueDownError, RateLimitedError) as error:
                if _is_final(error):
                    raise FetchError(
                        f"{self._whose.symbol}: {self._whose.venue} says: {one_line(str(error))}; "
                        "asking again would bring the same"
                    ) from error
                asked = (error.retry_after if isinstance(error, RateLimitedError) else None) or 0.0
                if tries == TRIES or asked > LONGEST_ASKED:
                    raise FetchError(self._given_up(since, error, tries)) from error
                pause = max(wait, asked)
                self._warned(f"{self._whose.symbol}: {one_line(str(error))}; again in {pause:g} s")
                await self._clock.sleep(pause)
                wait = min(wait * 2, LONGEST_WAIT)
            except (VenueError, ValueError) as error:
                raise FetchError(
                    f"{self._whose.symbol}: {self._whose.venue} says: {one_line(str(error))}; "
                    "look at the symbol and the timeframe"
                ) from error
        raise AssertionError("the last try returns or raises")

    def _given_up(self, since: int, error: VenueError, tries: int) -> str:
        return (
            f"{self._whose.symbol}: {self._whose.venue} gave no bars {tries} times in a row ({one_line(str(error))}); "
            f"those before {_instant(since)} are kept: call the same command again, and it goes on from there"
        )

    def _sorted(self, page: Sequence[Bar]) -> list[Bar]:
        """Rising, each once. FetchError for two different bars at one time, and for bars of another timeframe."""
        found: dict[int, Bar] = {}
        for bar in page:
            if found.setdefault(bar.ts, bar) != bar:
                raise FetchError(
                    f"{self._whose.symbol}: {self._whose.venue} gives two different bars for {_instant(bar.ts)}"
                )
        self._spaced(sorted(found))
        return [found[ts] for ts in sorted(found)]

    def _spaced(self, opened: Sequence[int]) -> None:
        """FetchError where bars open at distances that are not those of the timeframe; gaps are."""
        apart = [b - a for a, b in pairwise(opened)]
        if not apart:
            return
        least = self._step - SHIFT if self._step > SHIFT else self._step
        alike = min(apart) == max(apart) and len(opened) >= ENOUGH and apart[0] > self._step
        if min(apart) < least or alike:
            timeframe = self._whose.timeframe
            raise FetchError(
                f"{self._whose.symbol}: {self._whose.venue} gives bars that are {min(apart) / 1000:g} s apart for "
                f"{timeframe}, which is {self._step / 1000:g} s: they are of another timeframe; choose one that the "
                "venue has, or look at --endpoint"
            )

    def _is_unsound(self, bar: Bar) -> bool:
        why = unsound(bar)
        if why is not None:
            self._left_out[bar.ts] = f"{_instant(bar.ts)}: {why}"
        return why is not None

    def _summary(self, begins: int, ends: int) -> Fetched:
        opened = self._file.opened()
        asked = [ts for ts in opened if begins <= ts < ends] or [ends]
        holes = [b - a for a, b in pairwise(opened) if b - a > self._step]
        return Fetched(
            symbol=self._whose.symbol,
            new=self._new,
            bars=len(opened),
            first=opened[0] if opened else None,
            last=opened[-1] if opened else None,
            gaps=len(holes),
            missing=sum(hole // self._step - 1 for hole in holes),
            before=(asked[0] - begins) // self._step,
            after=max(0, ends - asked[-1] - 1) // self._step,
            requests=self._requests,
            left_out=tuple(list(self._left_out.values())[:3]),
            left_out_count=len(self._left_out),
        )


def _is_final(error: VenueError) -> bool:
    """Whether asking again brings the same: keys that are missing or refused, and what HTTP calls the asker's fault."""
    if isinstance(error, CredentialsRefusedError):
        return True
    status = None if isinstance(error, RateLimitedError) else _STATUS.search(str(error))
    return status is not None and status[1] not in ("408", "429")


_STATUS = re.compile(r": (4\d\d)\b")
"""Where adapters put the status of a refusal: `venue request: 404 its words`."""


def _missing(covered: Coverage | None, begins: int, ends: int) -> list[tuple[int, int]]:
    """What has to be fetched, in spans that join what is there: a file is never in pieces."""
    if covered is None:
        return [(begins, ends)] if begins < ends else []
    spans = [(begins, covered.begins), (covered.ends, ends)]
    return [(start, stop) for start, stop in spans if start < stop]


def _instant(ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
