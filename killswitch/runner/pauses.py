"""How long the threads of a run hold up its ticks: the interpreter lets one of them work at a time.

A tick waits for the disk some ten times, and each time asks for the interpreter anew; while a page is drawn it is
given it after the switch interval, five thousandths of a second by default. And a collection of garbage that looks
through all that libraries have loaded stops every thread for half a tenth of a second.
"""

from __future__ import annotations

import gc
import sys

SWITCH_AFTER = 0.0005
"""Seconds after which a thread that is at work lets another one in that asks for it."""


def keep_short() -> None:
    """For this process: threads change often, and what is loaded by now is not looked through again."""
    sys.setswitchinterval(SWITCH_AFTER)
    leave_alone()


def leave_alone() -> None:
    """What is there now stays for the rest of the process: collections leave it out. It is freed when unused."""
    gc.freeze()
