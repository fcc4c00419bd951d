"""How long the threads of a run hold up its ticks: the interpreter lets one of them work at a time.

A tick waits for the disk some ten times, and each time asks for the interpreter anew; while a page is drawn it is
given it after the switch interval, five thousandths of a second by default. And a collection of garbage that looks
through all that libraries have loaded stops every thread for half a tenth of a second.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.runner.witnesses import TickReport

SWITCH_AFTER = 0.0005
"""Seconds after which a thread that is at work lets another one in that asks for it."""


def keep_short() -> None:
    """For this process: threads change often, and what is loaded by now is not looked through again."""
    sys.setswitchinterval(SWITCH_AFTER)
    leave_alone()


def leave_alone() -> None:
    """What is there now stays for the rest of the process: collections leave it out. It is freed when unused."""
    gc.freeze()


class FirstAnswers:
    """A witness that leaves alone what adapters have loaded when an account first answers.

    The rules of a venue are some ten thousand objects, and looking through those of fifty accounts takes an eighth of
    a second. It is done once for each account at the most.
    """

    def __init__(self) -> None:
        self._answered: set[str] = set()

    def ticked(self, report: TickReport) -> None:
        """Look for accounts that have not answered before."""
        answered = {account.account for account in report.snapshot.accounts if account.quality == "ok"}
        if not answered <= self._answered:
            self._answered |= answered
            leave_alone()
