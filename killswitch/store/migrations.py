"""The store's schema as a numbered list of steps. A step that has shipped is never edited; add the next one.

Steps are written once for every database: `{blob}`, `{serial}`, `{big}` and `{real}` stand for the dialect's words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from killswitch.store.errors import StoreVersionError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_WORDS = {
    "sqlite": {"blob": "BLOB", "serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "big": "INTEGER", "real": "REAL"},
    "postgresql": {
        "blob": "BYTEA",
        "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "big": "BIGINT",
        "real": "DOUBLE PRECISION",
    },
}


@dataclass(frozen=True)
class Migration:
    """Step `number` and the statements that take a store of the step before to it."""

    number: int
    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        number=1,
        name="journal, decisions, state, history, hands and lease",
        statements=(
            """CREATE TABLE decisions (
                sequence {serial}, id TEXT NOT NULL UNIQUE, as_of {big} NOT NULL, policy TEXT NOT NULL,
                scope TEXT NOT NULL, body {blob} NOT NULL, snapshot {blob})""",
            """CREATE TABLE journal (
                sequence {serial}, decision TEXT NOT NULL, kind TEXT NOT NULL, at {big} NOT NULL,
                account TEXT, symbol TEXT, position_side TEXT, client_order_id TEXT, attempt INTEGER,
                data TEXT NOT NULL)""",
            "CREATE INDEX journal_by_decision ON journal (decision, sequence)",
            "CREATE INDEX journal_by_kind ON journal (kind, decision)",
            """CREATE TABLE states (
                policy TEXT NOT NULL, scope TEXT NOT NULL, body {blob} NOT NULL,
                PRIMARY KEY (policy, scope))""",
            # Time leads the key: pruning is a range at its start, and a restart reads a range to its end.
            """CREATE TABLE history (
                at {big} NOT NULL, policy TEXT NOT NULL, scope TEXT NOT NULL, body {blob} NOT NULL,
                PRIMARY KEY (at, policy, scope))""",
            "CREATE TABLE notices (sequence {serial}, as_of {big} NOT NULL, body {blob} NOT NULL)",
            """CREATE TABLE events (
                sequence {serial}, id TEXT NOT NULL UNIQUE, body {blob} NOT NULL, consumed_at {big})""",
            "CREATE INDEX events_pending ON events (consumed_at, sequence)",
            "CREATE TABLE live (name TEXT NOT NULL PRIMARY KEY, body {blob} NOT NULL)",
            # One row for ever: a released lease keeps its generation, so that generations only grow.
            """CREATE TABLE lease (
                one INTEGER NOT NULL PRIMARY KEY, owner TEXT, generation {big} NOT NULL,
                expires_at {big} NOT NULL)""",
        ),
    ),
    Migration(
        number=2,
        name="the outbox of notifications",
        statements=(
            """CREATE TABLE outbox (
                sequence {serial}, id TEXT NOT NULL UNIQUE, at {big} NOT NULL, route TEXT NOT NULL,
                target TEXT NOT NULL, body {blob} NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
                error TEXT, ended_at {big})""",
            # A target takes its oldest pending one, however many have been delivered before it.
            "CREATE INDEX outbox_by_state ON outbox (state, target, sequence)",
        ),
    ),
    Migration(
        number=3,
        name="what was so when an incident began, and the course of its equity",
        statements=(
            "CREATE TABLE incidents (id TEXT NOT NULL PRIMARY KEY, note {blob} NOT NULL)",
            """CREATE TABLE course (
                incident TEXT NOT NULL, at {big} NOT NULL, value {real} NOT NULL, PRIMARY KEY (incident, at))""",
        ),
    ),
)

NEWEST = MIGRATIONS[-1].number


def migrate(connection: Connection) -> None:
    """Bring an open write transaction's store to the newest schema; nothing happens if it is there already.

    Raises StoreVersionError for a newer schema than this program knows, and for another program's database.
    """
    version = schema_version(connection)
    require_known(version)
    for step in MIGRATIONS:
        if step.number <= version:
            continue
        words = _WORDS[connection.dialect.name]
        for statement in step.statements:
            connection.exec_driver_sql(statement.format(**words))
        connection.exec_driver_sql(f"INSERT INTO schema_version (version) VALUES ({step.number})")


def schema_version(connection: Connection, *, create: bool = True) -> int:
    """The newest step applied; 0 for an empty database, where `create` makes the table that counts steps."""
    from sqlalchemy import inspect

    tables = set(inspect(connection).get_table_names())
    if "schema_version" not in tables:
        if tables:
            raise StoreVersionError(
                "this is a database, but not a Killswitch store: it holds "
                f"{', '.join(sorted(tables)[:3])}. Name another file."
            )
        if create:
            connection.exec_driver_sql("CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY)")
        return 0
    newest = connection.exec_driver_sql("SELECT max(version) FROM schema_version").scalar()
    return int(newest or 0)


def require_known(version: int) -> None:
    """Refuse a store that a newer program has migrated."""
    if version > NEWEST:
        raise StoreVersionError(
            f"the store has schema {version}, this program knows up to {NEWEST}: "
            "it was written by a newer ksctl. Use that one, or name another store."
        )
