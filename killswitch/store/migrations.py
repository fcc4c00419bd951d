"""The store's schema as a numbered list of steps. A step that has shipped is never edited; add the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from killswitch.store.errors import StoreVersionError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SERIAL: Final = "INTEGER PRIMARY KEY AUTOINCREMENT"
_TIME: Final = "strftime('%Y-%m-%dT%H:%M:%fZ', {} / 1000000.0, 'unixepoch')"

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    # 1: journal, decisions, state, history, operator commands and lease
    (
        f"""CREATE TABLE decisions (
                sequence {_SERIAL}, id TEXT NOT NULL UNIQUE, as_of INTEGER NOT NULL, policy TEXT NOT NULL,
                scope TEXT NOT NULL, body BLOB NOT NULL, snapshot BLOB)""",
        f"""CREATE TABLE journal (
                sequence {_SERIAL}, decision TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL,
                account TEXT, symbol TEXT, position_side TEXT, client_order_id TEXT, attempt INTEGER,
                data TEXT NOT NULL)""",
        "CREATE INDEX journal_by_decision ON journal (decision, sequence)",
        "CREATE INDEX journal_by_kind ON journal (kind, decision)",
        """CREATE TABLE states (
                policy TEXT NOT NULL, scope TEXT NOT NULL, body BLOB NOT NULL,
                PRIMARY KEY (policy, scope))""",
        # Time leads the key: pruning is a range at its start, and a restart reads a range to its end.
        """CREATE TABLE history (
                at INTEGER NOT NULL, policy TEXT NOT NULL, scope TEXT NOT NULL, body BLOB NOT NULL,
                PRIMARY KEY (at, policy, scope))""",
        f"CREATE TABLE notices (sequence {_SERIAL}, as_of INTEGER NOT NULL, body BLOB NOT NULL)",
        f"""CREATE TABLE events (
                sequence {_SERIAL}, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL, consumed_at INTEGER)""",
        "CREATE INDEX events_pending ON events (consumed_at, sequence)",
        "CREATE TABLE live (name TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL)",
        # One row for ever: a released lease keeps its generation, so that generations only grow.
        """CREATE TABLE lease (
                one INTEGER NOT NULL PRIMARY KEY, owner TEXT, generation INTEGER NOT NULL,
                expires_at INTEGER NOT NULL)""",
    ),
    # 2: the outbox of notifications
    (
        f"""CREATE TABLE outbox (
                sequence {_SERIAL}, id TEXT NOT NULL UNIQUE, at INTEGER NOT NULL, route TEXT NOT NULL,
                target TEXT NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
                error TEXT, ended_at INTEGER)""",
        # Finds the oldest pending notification of a target, however many were delivered before it.
        "CREATE INDEX outbox_by_state ON outbox (state, target, sequence)",
    ),
    # 3: the context in which an incident began, and its equity curve
    (
        "CREATE TABLE incidents (id TEXT NOT NULL PRIMARY KEY, note BLOB NOT NULL)",
        """CREATE TABLE course (
                incident TEXT NOT NULL, at INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (incident, at))""",
    ),
    # 4: when each notification is due next, and whether its target refuses it while it accepts others
    (
        "ALTER TABLE outbox ADD COLUMN due_at INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE outbox ADD COLUMN is_refused INTEGER NOT NULL DEFAULT 0",
    ),
    # 5: the policy sets that were ever in force, for ever, and when each came into force
    (
        """CREATE TABLE policy_sets (
                digest TEXT NOT NULL, content TEXT NOT NULL, program TEXT NOT NULL, files BLOB NOT NULL,
                PRIMARY KEY (digest, content))""",
        f"""CREATE TABLE set_changes (
                sequence {_SERIAL}, at INTEGER NOT NULL, digest TEXT NOT NULL, content TEXT NOT NULL,
                body BLOB NOT NULL)""",
    ),
    # 6: the record (`store.record_chain`): its lines, the end of its chain, and what is kept outside of the lines
    (
        "CREATE TABLE record (number INTEGER PRIMARY KEY, line BLOB NOT NULL, subject TEXT)",
        "CREATE INDEX record_by_subject ON record (subject) WHERE subject IS NOT NULL",
        """CREATE TABLE record_tip (
                one INTEGER NOT NULL PRIMARY KEY, chain TEXT NOT NULL, number INTEGER NOT NULL, leaf BLOB NOT NULL,
                edge BLOB NOT NULL)""",
        "CREATE TABLE record_kept (digest TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL, salt BLOB)",
    ),
    # 7: what each notification is about, its next targets, and those that are one message; suppressed ones
    (
        "ALTER TABLE outbox ADD COLUMN alert TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outbox ADD COLUMN is_end INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE outbox ADD COLUMN hops TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outbox ADD COLUMN hop_at INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE outbox ADD COLUMN batch TEXT",
        f"CREATE TABLE suppressions (sequence {_SERIAL}, at INTEGER NOT NULL, body BLOB NOT NULL)",
    ),
    # 8: views for people who ask with sqlite3 (docs/backup.md); no code reads them
    (
        f"""CREATE VIEW ask_decisions AS SELECT id AS decision, {_TIME.format("as_of")} AS at, policy, scope,
                json_extract(CAST(body AS TEXT), '$.stage') AS stage,
                json_extract(CAST(body AS TEXT), '$.level') AS level,
                coalesce(json_extract(CAST(body AS TEXT), '$.kind'), 'stage') AS decided,
                json_array_length(CAST(body AS TEXT), '$.intents') AS intents FROM decisions""",
        f"""CREATE VIEW ask_orders AS SELECT s.decision, {_TIME.format("s.at")} AS sent_at, s.account, s.symbol,
                s.position_side, s.client_order_id, s.attempt, json_extract(s.data, '$.side') AS side,
                json_extract(s.data, '$.amount') AS amount, json_extract(s.data, '$.price') AS price,
                coalesce(a.kind, 'sending') AS state, json_extract(a.data, '$.filled') AS filled,
                json_extract(a.data, '$.price') AS fill_price, json_extract(a.data, '$.fee') AS fee
                FROM journal s LEFT JOIN journal a ON a.sequence = (
                  SELECT max(sequence) FROM journal WHERE decision = s.decision AND account IS s.account
                  AND client_order_id = s.client_order_id AND sequence > s.sequence AND kind <> 'charged')
                WHERE s.kind = 'sending'""",
        f"""CREATE VIEW ask_positions AS SELECT v.decision, {_TIME.format("v.at")} AS at, v.account, v.symbol,
                v.position_side, json_extract(v.data, '$.position') AS position,
                json_extract(v.data, '$.target') AS target FROM journal v WHERE v.sequence IN (
                  SELECT max(sequence) FROM journal WHERE kind = 'verified'
                  GROUP BY decision, account, symbol, position_side)""",
    ),
    # 9: where the record begins after retention
    ("CREATE TABLE record_start (one INTEGER NOT NULL PRIMARY KEY, body BLOB NOT NULL)",),
)

NEWEST: Final = len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring an open write transaction's store to the newest schema; does nothing if it is there already.

    Raises StoreVersionError for a newer schema than this program knows, and for another program's database.
    """
    version = schema_version(connection)
    require_known(version)
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"INSERT INTO schema_version (version) VALUES ({number})")


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
    """Raise StoreVersionError for a store that a newer program has migrated."""
    if version > NEWEST:
        raise StoreVersionError(
            f"the store has schema {version}, this program knows up to {NEWEST}: "
            "it was written by a newer ksctl. Use that one, or name another store."
        )
