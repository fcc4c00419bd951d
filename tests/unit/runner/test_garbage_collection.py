"""How a run configures its interpreter, so that no thread of its own delays a tick for long."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from killswitch.runner.process import switch_threads_often
switch_threads_often()
print(sys.getswitchinterval() <= 0.001, gc.isenabled(), gc.get_freeze_count() > 1_000)
"""


def test_threads_switch_often_and_collections_skip_loaded_objects() -> None:
    """Garbage is still collected: only objects that existed at the start are not scanned each time."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"], done.stdout


ANSWERING = """
import gc
from types import SimpleNamespace
from killswitch.runner.process import FirstAnswers

def tick(*accounts):
    before = gc.get_freeze_count()
    loaded.append([[] for _ in range(1_000)])
    witness.ticked(SimpleNamespace(snapshot=SimpleNamespace(
        accounts=[SimpleNamespace(account=name, quality=quality) for name, quality in accounts])))
    return gc.get_freeze_count() - before >= 1_000

loaded, witness = [], FirstAnswers()
print(tick(("a", "down"), ("b", "down")), tick(("a", "ok"), ("b", "down")), tick(("a", "ok"), ("b", "down")),
      tick(("a", "down"), ("b", "ok")), tick(("a", "ok"), ("b", "ok")))
"""


def test_objects_of_an_adapter_are_skipped_from_the_first_answer_of_each_account() -> None:
    """Once for each account, and not at every tick: garbage of one tick must not be kept for ever."""
    done = subprocess.run([sys.executable, "-c", ANSWERING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True", "False"], done.stdout
