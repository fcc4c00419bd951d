"""Fetches a venue's public bars page by page, within its limits, and resumes after a kill."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from killswitch.lab.bar_files import BarFile, BarOrigin, Coverage, FetchError, PartialDownload, invalid_bar_reason
from killswitch.model.backoff import Backoff
from killswitch.model.clock import Clock
from killswitch.model.inspection import Bar, BarHistory
from killswitch.model.instant import rfc3339
from killswitch.model.legible import one_line
from killswitch.model.venue import CredentialsRefusedError, RateLimitedError, VenueDownError, VenueError
from killswitch.render.formats import count_of

TRIES = 8
"""Failed requests in a row after which the fetch ends; the next call resumes it."""
WAITS = Backoff(first=1.0, longest=60.0)
"""Seconds after failed requests in a row."""
LONGEST_RETRY_AFTER = 300.0
"""The longest wait in seconds that a venue may ask for. A longer one is a ban of the address, which is reported."""
REQUEST_PAUSE = 0.3
"""Seconds between two requests: well within what venues allow an address for public data."""
PROBE = 64
"""Bars that every venue returns at least in one page."""
SETTLING = 5_000
"""Milliseconds after the end of a bar during which it may still change, and by which clocks may differ."""

SHIFT = 3_600_000
"""Milliseconds by which longer bars may be closer together: days of a market with summer time."""
ENOUGH = 10
"""The number of bars in a page from which an equal distance between all of them means another timeframe, not a gap."""

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class FetchResult(Struct, frozen=True):
    """The result of fetching one symbol. Times are in UTC ms.

    `missing`: bars between the first and the last that the venue does not have, in `gaps` gaps; `before` and `after`:
    requested bars that it does not have at either end. `left_out`: descriptions of the first of the invalid bars that
    were dropped.
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
    """Return the length of a bar: `5m`, `1h`, `1d`. ValueError for any other text; months have no fixed length."""
    found = re.fullmatch(r"([1-9][0-9]*)([smhdw])", timeframe)
    if found is None:
        raise ValueError(f"{timeframe!r} is not a timeframe: write 1m, 5m, 1h, 1d or 1w")
    return int(found[1]) * _UNITS[found[2]]


class Fetch:
    """Fetches one symbol into one folder.

    `on_progress` receives the time, UTC ms, up to which bars are complete; `on_retry` receives what is retried.
    ValueError for an invalid timeframe.
    """

    def __init__(
        self,
        history: BarHistory,
        origin: BarOrigin,
        folder: Path,
        clock: Clock,
        on_progress: Callable[[int], None] = lambda _: None,
        on_retry: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.history = history
        self.origin = origin
        self.folder = folder
        self.clock = clock
        self.on_progress = on_progress
        self.on_retry = on_retry
        self._requests: int = 0
        self._new: int = 0
        self._left_out: dict[int, str] = {}
        self._file = BarFile(self.folder, self.origin)
        self._step = milliseconds(self.origin.timeframe)

    async def run(self, begins: int, ends: int) -> FetchResult:
        """Fetch the bars that open from `begins` to before `ends` (UTC ms) and are missing.

        FetchError where the venue has none, cannot be reached or returns nonsense (fetched bars are kept), and where
        another fetch uses the same file.
        """
        self._file.folder.mkdir(parents=True, exist_ok=True)
        with self._file.exclusive():
            covered = self._file.coverage()
            if covered is not None and covered.is_doubtful:
                covered = await self._refetch(covered, begins, ends)
            for start, stop in _missing(covered, begins, self._finished(ends)):
                covered = await self._span(start, stop, covered) or covered
            if covered is None:
                span = f"from {_instant(begins)} to {_instant(ends)}"
                raise self._error(f"has no finished {self.origin.timeframe} bar {span}")
            self.on_progress(ends)
            return self._summary(begins, self._finished(ends))

    def _error(self, text: str) -> FetchError:
        return FetchError(f"{self.origin.symbol}: {self.origin.venue} {text}")

    async def _refetch(self, doubtful: Coverage, begins: int, ends: int) -> Coverage | None:
        """Fetch again what an older version fetched, together with the requested span."""
        self.on_retry(
            f"{self.origin.symbol}: {self._file.path.name} was fetched by an older version, which could record as "
            "empty what it had not requested; all of it is fetched again"
        )
        start, stop = min(begins, doubtful.begins), self._finished(max(ends, doubtful.ends))
        return await self._span(start, stop, doubtful)

    def _finished(self, ends: int) -> int:
        """Return before when a requested bar must open to be finished."""
        return min(ends, self._finished_before())

    def _finished_before(self) -> int:
        """Return before when a bar must open to be finished."""
        return int(self.clock.now().timestamp() * 1000) - SETTLING - self._step + 1

    async def _span(self, start: int, stop: int, covered: Coverage | None) -> Coverage | None:
        """Fetch from `start` to before `stop` into a part, and merge it. None if there was nothing."""
        part = self._file.part(start)
        with closing(part):
            until = part.open(start)  # FetchError for a part of another origin, which the clean-up must not remove
            try:
                reached = min(await self._pages(part, until, stop), stop)
                adjoins = covered is not None and not covered.is_doubtful
                if adjoins and covered is not None and stop == covered.begins and reached < stop:
                    raise self._error(
                        f"returned no bars after {_instant(reached)}, and returned some from {_instant(stop)} on "
                        f"before; try again, or leave --from at {_instant(stop)}"
                    )
                if reached <= start or (not adjoins and not any(part.rows())):
                    part.path.unlink()
                    return None
                return self._file.merge(part, start, reached, covered)
            finally:
                if part.is_empty():
                    part.path.unlink()

    async def _pages(self, part: PartialDownload, until: int, stop: int) -> int:
        """Fetch page after page, until the venue has none or is past `stop`; return before when everything is complete.

        Only a page that begins past `stop` shows that nothing is left before: some venues append the newest bar to
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
            faults = {bar.ts: f"{_instant(bar.ts)}: {why}" for bar in rows if (why := invalid_bar_reason(bar))}
            self._left_out |= faults
            sound = [bar for bar in rows if bar.ts not in faults]
            part.add(sound, until)
            self._new += len(sound)
            self.on_progress(until)
        return until

    async def _next_after(self, empty: int, stop: int) -> int | None:
        """Return from when on there are bars again before `stop`, UTC ms; None if there seem to be none.

        Some venues look only one page ahead of the requested time and return nothing for a longer gap, or before the
        listing. The search doubles its distance and then narrows down to less than a page. Of two such gaps that are
        closer together than they are long, the bars in between may be missed.
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
        """Fetch one page of finished bars, with retries while the venue is down or limits the rate."""
        for tries in range(1, TRIES + 1):
            if self._requests:
                await self.clock.sleep(REQUEST_PAUSE)
            self._requests += 1
            try:
                page = await self.history.bars(self.origin.symbol, self.origin.timeframe, since)
                over = self._finished_before()
                return [bar for bar in page if bar.ts < over]
            except (VenueDownError, RateLimitedError) as error:
                text = one_line(str(error))
                if _is_final(error):
                    raise self._error(f"answered: {text}; a retry would give the same answer") from error
                requested = (error.retry_after if isinstance(error, RateLimitedError) else None) or 0.0
                if tries == TRIES or requested > LONGEST_RETRY_AFTER:
                    raise self._error(
                        f"gave no bars {count_of(tries, 'time')} in a row ({text}); those before {_instant(since)} are "
                        "kept: run the same command again to resume"
                    ) from error
                pause = max(WAITS.after(tries), requested)
                self.on_retry(f"{self.origin.symbol}: {text}; retry in {pause:g} s")
                await self.clock.sleep(pause)
            except (VenueError, ValueError) as error:
                raise self._error(f"answered: {one_line(str(error))}; check the symbol and the timeframe") from error
        raise AssertionError("the last try returns or raises")

    def _sorted(self, page: Sequence[Bar]) -> list[Bar]:
        """Return the bars rising, each once. FetchError for two different bars at one time, and for another
        timeframe."""
        found: dict[int, Bar] = {}
        for bar in page:
            if found.setdefault(bar.ts, bar) != bar:
                raise self._error(f"returned two different bars for {_instant(bar.ts)}")
        self._check_spacing(sorted(found))
        return [found[ts] for ts in sorted(found)]

    def _check_spacing(self, opened: Sequence[int]) -> None:
        """FetchError where the distances of bars are not those of the timeframe; gaps are allowed."""
        spacings = [b - a for a, b in pairwise(opened)]
        if not spacings:
            return
        least = self._step - SHIFT if self._step > SHIFT else self._step
        alike = min(spacings) == max(spacings) and len(opened) >= ENOUGH and spacings[0] > self._step
        if min(spacings) < least or alike:
            raise self._error(
                f"returned bars that are {min(spacings) / 1000:g} s apart for {self.origin.timeframe}, which is "
                f"{self._step / 1000:g} s: they have another timeframe; choose one that the venue has, or check "
                "--endpoint"
            )

    def _summary(self, begins: int, ends: int) -> FetchResult:
        opened = self._file.opened()
        inside = [ts for ts in opened if begins <= ts < ends] or [ends]
        holes = [b - a for a, b in pairwise(opened) if b - a > self._step]
        return FetchResult(
            symbol=self.origin.symbol,
            new=self._new,
            bars=len(opened),
            first=opened[0] if opened else None,
            last=opened[-1] if opened else None,
            gaps=len(holes),
            missing=sum(hole // self._step - 1 for hole in holes),
            before=(inside[0] - begins) // self._step,
            after=max(0, ends - inside[-1] - 1) // self._step,
            requests=self._requests,
            left_out=tuple(list(self._left_out.values())[:3]),
            left_out_count=len(self._left_out),
        )


def _is_final(error: VenueError) -> bool:
    """Whether a retry would give the same: missing or refused credentials, and client errors in HTTP."""
    if isinstance(error, CredentialsRefusedError):
        return True
    status = None if isinstance(error, RateLimitedError) else _STATUS.search(str(error))
    return status is not None and status[1] not in ("408", "429")


_STATUS = re.compile(r": (4\d\d)\b")
"""Where adapters put the status of a refusal: `venue request: 404 its words`."""


def _missing(covered: Coverage | None, begins: int, ends: int) -> list[tuple[int, int]]:
    """Return what has to be fetched, in spans that adjoin the file: a file has no holes."""
    spans = [(begins, ends)] if covered is None else [(begins, covered.begins), (covered.ends, ends)]
    return [(start, stop) for start, stop in spans if start < stop]


def _instant(ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
