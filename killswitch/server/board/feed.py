"""Reads the state of a store for everybody who watches it: once for each change, however many they are.

Readers whose tokens see the same scopes are one audience: its board is made and rendered once for all of them, and has
numbers of its own, so that nothing tells it of a change that it does not see.

A look at the times of the store's files every few hundredths of a second costs nothing and needs no message from the
runner, which knows of no board. The store is read in a thread and only read; while it does not answer, heartbeats go on
and carry the growing age of what was read last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Final, Protocol

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.operations.board import Board, BoardFacts, is_lost, read_facts
from killswitch.operations.scoped_board import board_for
from killswitch.runner.clock import SystemClock
from killswitch.runner.status_blob import tick_time
from killswitch.server.board.event_stream import Audience, EventStream, OpenStreams, event_bytes
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store, sign_of_life

LOOK_EVERY: Final = 0.03
"""Seconds between two looks at the times of the store's files."""
READ_APART: Final = 0.1
"""Seconds between two reads, however often the store changes: a close writes to it all the time."""
READ_AT_LEAST: Final = 2.0
"""Seconds after which the store is read also without a change: a lock file may have become stale."""
BEAT_EVERY: Final = 1.0
CHECK_EVERY: Final = 15.0
"""Seconds between two looks whether readers may still read: a revoked token ends its streams within a minute."""
IDLE_AFTER: Final = 20.0
"""Seconds without a reader after which nothing is read any more."""
ANSWERS_WITHIN: Final = 5.0
"""Seconds that a read may take before readers are shown that the store does not answer."""


class ReadBoard(Struct, frozen=True):
    """A board that was read: its number, which grows with each change, and when it was read (monotonic seconds)."""

    number: int
    board: Board
    at: float


class BoardBeat(Struct, frozen=True):
    """The heartbeat of a stream. `age`: seconds of the data, not of the connection; null if no run has ticked.

    `boot` is another one after a restart of the server, whose numbers begin again. `problem`: why nothing newer
    is read.
    """

    boot: str
    number: int
    now: datetime
    as_of: datetime | None
    age: float | None
    interval: float | None
    lost: bool
    problem: str | None = None


class Channel(Protocol):
    """What the readers of one kind of stream get for a change; `before` is None for the first board."""

    def changed(self, before: Board | None, after: Board) -> Mapping[str, object]: ...


class BoardFeed:
    """The newest board of a store, and the streams of those who follow it. All calls come from one loop."""

    def __init__(self, store: Path, monotonic: Callable[[], float], channels: Mapping[str, Channel]) -> None:
        self.boot = token_hex(4)
        self.streams = OpenStreams()
        self._store = store
        self._monotonic = monotonic
        self._channels = channels
        self._thread = anyio.CapacityLimiter(1)
        self._facts: BoardFacts | None = None
        self._facts_at = 0.0
        self._boards: dict[Audience, ReadBoard] = {}
        self._numbers: dict[Audience, int] = {}
        """The last number of each audience that there ever was: a board that nobody watches is forgotten."""
        self._wanted: dict[Audience, float] = {}
        """Until when a board is kept of whoever has read it."""
        self._problem: str | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._reads = 0

    @property
    def reads(self) -> int:
        """How often the store was read: for a test that many boards cost no more than one."""
        return self._reads

    async def newest(self, audience: Audience) -> ReadBoard:
        """The newest board of an audience; the store is read now if nobody has read it lately. StoreError where it
        cannot be."""
        await self._want(audience)
        found = self._boards.get(audience)
        if found is None:
            raise StoreError(self._problem or "the store was not read yet")
        return found

    async def follow(
        self, channel: str, principal: str, ended_because: Callable[[], str | None], audience: Audience
    ) -> EventStream:
        """A stream of changes. TooManyStreamsError where the principal has enough."""
        await self._want(audience)
        return self.streams.open(channel, principal, ended_because, audience)

    async def _want(self, audience: Audience) -> None:
        """Have a board of this audience, and keep it up to date for a while."""
        self._wanted[audience] = self._monotonic() + IDLE_AFTER
        if not self._is_running or self._facts is None:
            await self.read_now()
            self._start()
        elif audience not in self._boards:
            self._take({audience: board_for(self._facts, audience)}, self._facts_at)

    def beat(self, audience: Audience) -> BoardBeat:
        """The heartbeat of an audience as of now."""
        found, now = self._boards.get(audience), self._monotonic()
        if found is None:
            return BoardBeat(self.boot, 0, datetime.now(UTC), None, None, None, lost=True, problem=self._problem)
        board = found.board
        since = max(0.0, now - found.at)
        age = None if board.age is None else round(board.age + since, 3)
        return BoardBeat(
            boot=self.boot,
            number=found.number,
            now=board.now + timedelta(seconds=since),
            as_of=board.as_of,
            age=age,
            interval=board.interval,
            lost=is_lost(age, board.interval),
            problem=self._problem,
        )

    @property
    def _is_running(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def _start(self) -> None:
        if not self._is_running:
            for task in self._tasks:  # the other one has not seen yet that nobody watched
                task.cancel()
            self._tasks = (asyncio.create_task(self._watch()), asyncio.create_task(self._beat()))

    @property
    def _is_wanted(self) -> bool:
        return len(self.streams) > 0 or bool(self._audiences())

    def _audiences(self) -> frozenset[Audience]:
        """Those who read a stream, and those who have read a board lately."""
        now = self._monotonic()
        self._wanted = {audience: until for audience, until in self._wanted.items() if now < until}
        return self.streams.audiences() | frozenset(self._wanted)

    async def _watch(self) -> None:
        """Read the store whenever it has changed, until nobody wants it."""
        seen: object = None
        read_at = self._monotonic()
        while self._is_wanted:
            await asyncio.sleep(LOOK_EVERY)
            stamp = await self._stamp()
            since = self._monotonic() - read_at
            if (stamp != seen and since >= READ_APART) or since >= READ_AT_LEAST:
                seen, read_at = stamp, self._monotonic()
                await self.read_now()

    async def _beat(self) -> None:
        checked_at = self._monotonic()
        while self._is_wanted:
            await asyncio.sleep(BEAT_EVERY)
            if self._monotonic() - checked_at >= CHECK_EVERY:
                checked_at = self._monotonic()
                self.streams.end_revoked()
            for audience in self.streams.audiences():
                self.streams.send(event_bytes("beat", self.beat(audience)), audience)

    async def _stamp(self) -> object:
        """What changes when the store does; None while its disk does not answer."""
        paths = (self._store, Path(f"{self._store}-wal"))

        def look() -> object:
            found = []
            for path in paths:
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            return found

        with anyio.move_on_after(ANSWERS_WITHIN):
            return await anyio.to_thread.run_sync(look, limiter=self._thread, abandon_on_cancel=True)
        return None

    async def read_now(self) -> None:
        """Read the store, and send everybody what has changed of what they see."""
        audiences = self._audiences()
        try:
            with anyio.fail_after(ANSWERS_WITHIN):
                facts, boards = await anyio.to_thread.run_sync(
                    self._made, audiences, limiter=self._thread, abandon_on_cancel=True
                )
        except TimeoutError:
            self._problem = f"the store does not answer for {ANSWERS_WITHIN:.0f} s"
            return
        except (StoreError, msgspec.MsgspecError) as error:
            self._problem = f"the store cannot be read: {error}"
            return
        self._problem = None
        self._reads += 1
        self._facts, self._facts_at = facts, self._monotonic()
        kept = self._audiences()
        self._boards = {audience: each for audience, each in self._boards.items() if audience in kept}
        self._take(boards, self._facts_at)

    def _made(self, audiences: frozenset[Audience]) -> tuple[BoardFacts, dict[Audience, Board]]:
        """What the store has, and the board that each audience sees of it."""
        store = open_store(str(self._store), read_only=True)
        try:
            sign = sign_of_life(str(self._store))
            facts = read_facts(store, datetime.now(UTC), tick_time(store, CLOCK), sign)
        finally:
            store.close()
        return facts, {audience: board_for(facts, audience) for audience in audiences}

    def _take(self, boards: Mapping[Audience, Board], at: float) -> None:
        """Number each board, and send its readers what has changed."""
        for audience, board in boards.items():
            before = self._boards.get(audience)
            if before is not None and replace(board, now=before.board.now) == before.board:
                self._boards[audience] = ReadBoard(before.number, board, at)  # read again, and nothing has changed
                continue
            number = self._numbers[audience] = self._numbers.get(audience, 0) + 1
            self._boards[audience] = ReadBoard(number, board, at)
            for name in self.streams.channels(audience):
                found = self._channels[name].changed(None if before is None else before.board, board)
                event = event_bytes("change", {"beat": self.beat(audience), **found}, number)
                self.streams.send(event, audience, name)


CLOCK = SystemClock()
