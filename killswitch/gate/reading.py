"""Old name of `killswitch.gate.lock_reader`, kept for one version for bots that import it."""

from __future__ import annotations

from killswitch.gate.lock_reader import LockFile as LockFile
from killswitch.gate.lock_reader import LockVerdict as Verdict  # noqa: F401 - re-exported under its old name
from killswitch.gate.lock_reader import read_lock as read_lock
