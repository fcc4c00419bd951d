"""The event loop of a verb that acts: calls that hang block neither other calls nor the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from killswitch.deadline import DaemonThreadExecutor, NoThreadError
from killswitch.runner import process
from tests.threads import NoThreads


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> NoThreads:
    return NoThreads(monkeypatch)


def test_hanging_calls_block_neither_other_calls_nor_the_end_of_the_loop() -> None:
    """Fifty names that nobody resolves: the next call is answered, and the run ends when its work is done."""
    never = threading.Event()

    async def work() -> str:
        hanging = [asyncio.create_task(asyncio.to_thread(never.wait)) for _ in range(50)]
        await asyncio.sleep(0)
        answer = await asyncio.to_thread(lambda: "answered")
        assert not any(each.done() for each in hanging)
        return answer

    assert process.run(work()) == "answered"
    never.set()


def test_a_call_beyond_the_limit_of_hanging_calls_is_an_error_and_does_not_wait() -> None:
    """An OSError, which callers of a name look-up take for an unreachable venue; a call that ends makes room."""
    never = threading.Event()
    threads = DaemonThreadExecutor("look-up", most=2)
    hanging = [threads.submit(never.wait) for _ in range(2)]
    with pytest.raises(OSError, match=r"2 calls hang already \(look-up\)"):
        threads.submit(int).result(60)
    never.set()
    assert [each.result(60) for each in hanging] == [True, True]
    with pytest.raises(ZeroDivisionError):
        _when_there_is_room(threads).result(60)


def _when_there_is_room(threads: DaemonThreadExecutor) -> Future[float]:
    while isinstance((call := threads.submit(lambda: 1 / 0)).exception(60), OSError):
        threading.Event().wait(0.01)
    return call


PROGRAM = """
import asyncio, threading
from killswitch.runner import process as event_loop
async def main():
    asyncio.create_task(asyncio.to_thread(threading.Event().wait))
    await asyncio.sleep(0)
event_loop.run(main())
print("over")
"""


def test_the_process_ends_while_a_call_hangs() -> None:
    """The interpreter does not wait for the thread."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=90)
    assert done.stdout == "over\n"


def test_a_loop_ends_where_no_thread_can_be_started(no_threads: NoThreads) -> None:
    """A look-up is an OSError, an idle thread is reused, and the end of the loop needs none."""

    async def work() -> str:
        assert await asyncio.to_thread(lambda: "answered") == "answered"
        no_threads.begin()
        return await asyncio.to_thread(lambda: "answered by the thread of the call before")

    assert process.run(work()) == "answered by the thread of the call before"
    with pytest.raises(NoThreadError, match="cannot start a thread: can't start new thread"):
        process.run(asyncio.to_thread(int))


def test_a_thread_that_cannot_be_started_uses_up_no_slot(no_threads: NoThreads) -> None:
    """However often it fails: when threads can be started again, as many calls are made as before."""
    threads = DaemonThreadExecutor("look-up", most=1)
    no_threads.begin()
    for _ in range(3):
        assert isinstance(threads.submit(int).exception(60), NoThreadError)
    no_threads.end()
    assert threads.submit(int).result(60) == 0
