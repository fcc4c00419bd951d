"""Dumps a store and its lock files to lines of text, and restores a store from such a dump.

The dump is exact: schema, every row of every table in order, blobs to the byte. Values that depend on the machine are
replaced: the folder of the run by FOLDER, the process that held the lease by OWNER, and of a notification the time at
which it was sent, by that of its event, and the batch that it was sent in, because threads send it in real time during
a run in virtual time.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from killswitch.runner.lease import this_process

FOLDER = "/site"
OWNER = "recorder/00000000/1/1/1"
"""The form of a process of another machine, whose liveness cannot be checked here."""


def normalized(text: str, folder: Path) -> str:
    """The text with this folder and this process replaced by constants."""
    here = re.escape(str(folder)).replace("_", r"\\*_")  # Markdown escapes some of them, and JSON the escapes
    text = re.sub(here, FOLDER, text)
    return text.replace(this_process(), OWNER)


def dump(folder: Path) -> str:
    """The store in `folder` and its lock files as JSON Lines."""
    with closing(sqlite3.connect(folder / "store.sqlite")) as connection:
        lines: list[dict[str, Any]] = [{"sql": sql} for (sql,) in connection.execute(_SCHEMA)]
        for (table,) in connection.execute(_TABLES).fetchall():
            found = connection.execute(f"SELECT * FROM {table} ORDER BY rowid")  # names from the schema itself
            names = [column[0] for column in found.description]
            for row in found:
                values = {name: _encode(value) for name, value in zip(names, row, strict=True)}
                if table == "outbox" and values["state"] == "delivered":
                    values["ended_at"], values["batch"] = values["at"], None
                lines.append({"table": table, "row": values})
    for path in [*sorted(folder.glob("locks/**/*")), folder / "trading_lock.json"]:
        if path.is_file():
            lines.append({"file": str(path.relative_to(folder)), "text": path.read_text(encoding="utf-8")})
    return normalized("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), folder)


_SCHEMA = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
_TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'sqlite_sequence' AND name NOT LIKE 'record%' "
    "ORDER BY rowid"
)
"""Without the record: the id of its chain and the salts of its lines are random."""


def restore(text: str, folder: Path) -> Path:
    """Restore a dump in `folder` as if the run had been there; the path of the store."""
    path = folder / "store.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for line in text.replace(FOLDER, str(folder)).splitlines():
            entry = json.loads(line)
            if "sql" in entry:
                connection.execute(entry["sql"])
            elif "table" in entry:
                row = {name: _decode(value) for name, value in entry["row"].items()}
                marks = ", ".join(f":{name}" for name in row)
                connection.execute(f"INSERT INTO {entry['table']} ({', '.join(row)}) VALUES ({marks})", row)
            else:
                file = folder / entry["file"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(entry["text"], encoding="utf-8")
        connection.execute("COMMIT")
    return path


def _encode(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return {"utf-8": value.decode()}
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return value["utf-8"].encode() if "utf-8" in value else bytes.fromhex(value["hex"])
