"""A sender that is killed: `claimed` before the message is sent, `sent` before it is marked, `never` not at all.

Arguments: folder, moment. It creates the store with three messages, commits, and sends to a file.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from killswitch.incident.notify.delivery import TargetDelivery
from killswitch.incident.notify.message import Message
from killswitch.incident.notify.targets import FileSender
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.instant import HOUR
from killswitch.store.sqlite import open_store
from tests.outboxes import START, waiting

NAMES = ("m1", "m2", "m3")


class KilledSink:
    """The file, and a SIGKILL before or after its second message."""

    def __init__(self, path: Path, moment: str) -> None:
        self._file = FileSender(str(path))
        self._moment = moment

    def send(self, message: Message) -> None:
        if (self._moment, message.id) == ("claimed", "m2"):
            os.kill(os.getpid(), signal.SIGKILL)
        self._file.send(message)
        if (self._moment, message.id) == ("sent", "m2"):
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, moment: str) -> None:
    store = open_store(str(folder / "store.sqlite"))
    waiting(store, NAMES)
    if moment == "enqueued":
        os.kill(os.getpid(), signal.SIGKILL)
    lane = TargetDelivery("t", KilledSink(folder / "n.jsonl", moment), store, VirtualClock(START), HOUR)
    while lane.step() == 0:
        pass
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
