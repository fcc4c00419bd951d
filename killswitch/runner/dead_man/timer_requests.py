"""The requests of dead-man timers, counted against the venue's limits in turn with polls."""

from __future__ import annotations

import asyncio

from killswitch.accounts.poll.request_counters import NoPollRoomError
from killswitch.model.clock import Clock
from killswitch.model.inspection import InspectedVenue
from killswitch.model.legible import legible
from killswitch.model.venue import RateLimitedError, VenueDownError
from killswitch.runner.dead_man.timer import LOOK_EVERY, DeadManTimer, TimerRequest


async def run_requests(timer: DeadManTimer, work: TimerRequest, clock: Clock) -> str | None:
    """Run one round of requests; the maintenance that the venue announces, where it was queried.

    A refusal of one symbol is recorded in the round, and the others continue; an error that concerns all is raised. A
    round that takes longer than the time between refreshes ends; the next healthy tick begins another.
    """
    told = timer.maintenance
    if work.doing != "disarm" and timer.venue.quiet_for_maintenance:
        told = await _announced_maintenance(timer)
        if told is not None:
            return told
    if work.doing == "look":
        return told
    for chunk in work.chunks:
        if work.done and not work.last and clock.monotonic() - work.sent >= timer.refresh:
            break
        await _request(timer, work, chunk, clock)
    return told


async def _request(timer: DeadManTimer, work: TimerRequest, chunk: tuple[str, ...], clock: Clock) -> None:
    ticket = await timer.meter.admit_timer(chunk, timer.patience, last=work.last)
    left = clock.monotonic()
    try:
        async with asyncio.timeout(timer.patience):
            if work.doing == "arm":
                await timer.adapter.arm_dead_man(timer.timeout, chunk)
            else:
                await timer.adapter.disarm_dead_man(chunk)
    except RateLimitedError as error:
        timer.meter.record_refusal(error.retry_after)
        raise
    except (VenueDownError, NoPollRoomError):
        raise
    except Exception as error:
        if not chunk:
            raise
        if len(chunk) == 1:
            work.failed.append((chunk[0], left, error))
        apart = chunk if len(chunk) > 1 else ()
    else:
        work.done += [(symbol, left) for symbol in chunk or work.symbols]
        apart = ()
    finally:
        timer.meter.line.answered(timer.meter.monotonic(), ticket)
    for symbol in apart:
        await _request(timer, work, (symbol,), clock)


async def _announced_maintenance(timer: DeadManTimer) -> str | None:
    """The status of the venue unless it is ok; queried every `LOOK_EVERY`, if the limits leave room."""
    now = timer.meter.monotonic()
    due = timer.looked_at is None or now - timer.looked_at >= LOOK_EVERY
    if not due or not isinstance(timer.adapter, InspectedVenue) or not timer.meter.has_room:
        return timer.maintenance
    timer.looked_at = now
    ticket = timer.meter.budget.reserve(now, "snapshot", purpose="reading")
    try:
        async with asyncio.timeout(timer.patience):
            status = (await timer.adapter.inspect()).status
    except Exception:  # noqa: BLE001 - without an answer nothing is announced: the book and its states decide
        return timer.maintenance
    finally:
        timer.meter.budget.answered(timer.meter.monotonic(), ticket)
    return None if status in (None, "ok") else legible(str(status))
