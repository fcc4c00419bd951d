"""What libraries log and warn about, for people on stderr: without credentials, and addresses without their paths.

A client logs the whole address of a request that fails, whose query may have a signature, and the path of a web hook is
its credential. In a log as JSON (`process_log.py`) the same is redacted as the last step of each event.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from killswitch.model.legible import legible

HIDDEN: Final = "[hidden credential]"
_CREDENTIALS: Final = re.compile(
    r"\bkst_[A-Za-z0-9_-]{16,}"  # a token of ours
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"  # a JWT
    r"|(?i:(?<=bearer\s))\s*\S+|(?i:(?<=basic\s))\s*[A-Za-z0-9+/=_-]{8,}"  # a header
    r"|(?<=://)[^\s/]+(?=@)"  # user and password of an address
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
"""What looks like a credential, whosever it is."""
_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/?#]+)[/?#][^\s)'\">]+")
_QUERY: Final = re.compile(r"(?<=\?)[A-Za-z0-9_.%-]+=[^\s)'\">]+")
"""The query of a request that is named without its host."""
Hide = Callable[[str], str]


def without_credentials(text: str) -> str:
    """The text without what looks like a credential."""
    return _CREDENTIALS.sub(HIDDEN, text)


def without_paths(text: str) -> str:
    """The text with the hosts of addresses alone, and without the query of a request."""
    return _QUERY.sub(HIDDEN, _ADDRESS.sub(rf"\1/{HIDDEN}", text))


class LibraryOutput(logging.Handler):
    """Prints records that no other handler prints, and warnings, on the stderr of that time, redacted.

    `hide` replaces the credentials of the accounts, once they are known.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.hide: Hide = str
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def take_over(self) -> None:
        """Print, from now on, what Python itself would print as it is; handlers of others stay."""
        logging.lastResort = self
        warnings.showwarning = self.show_warning

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a record that cannot be formatted is named, and raises nothing."""
        try:
            self._print(self.format(record))
        except Exception as error:  # noqa: BLE001 - the arguments are a library's own
            self._print(f"{record.name}: a log record that cannot be printed: {type(error).__name__}")

    def show_warning(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        """Print one warning in a line, as `warnings.showwarning`; the source line is left out."""
        del line
        self._print(f"{category.__name__}: {message} ({filename}:{lineno})", file)

    def _print(self, text: str, file: TextIO | None = None) -> None:
        shown = without_credentials(self.hide(without_paths(text)))
        stream = file or sys.stderr
        if stream is None:  # a process without a terminal may have none
            return
        with suppress(OSError, ValueError):  # closed, a full disk: what a library has to say ends no tick
            print("\n".join(legible(each) for each in shown.splitlines()), file=stream)
