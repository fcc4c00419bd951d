"""Every SQL statement of the store."""

from __future__ import annotations

from sqlalchemy import TextClause, bindparam, text


def _insert(table: str, *columns: str, key: str = "", replace: str = "") -> TextClause:
    """Return an INSERT. On a conflict of `key` it updates the column `replace`, or does nothing without one."""
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{each}' for each in columns)})"
    if key:
        action = f"UPDATE SET {replace} = excluded.{replace}" if replace else "NOTHING"
        statement += f" ON CONFLICT ({key}) DO {action}"
    return text(statement)


PUT_STATE = _insert("states", "policy", "scope", "body", key="policy, scope", replace="body")
STATES = text("SELECT policy, scope, body FROM states ORDER BY policy, scope")

PUT_ROW = _insert("history", "at", "policy", "scope", "body", key="at, policy, scope", replace="body")
ROWS = text("SELECT at, body FROM history WHERE at >= :since AND policy = :policy AND scope = :scope ORDER BY at")
PRUNE_ROWS = text("DELETE FROM history WHERE at < :before")
# A range of the key's first column, which each tick continues: it is short but for the first tick of a run.
TRIM_ROWS = text("DELETE FROM history WHERE at >= :since AND at < :before AND substr(scope, -:length) <> :samples")

PUT_DECISION = _insert("decisions", "id", "as_of", "policy", "scope", "body", "snapshot")
DECISIONS = text("SELECT body FROM decisions ORDER BY sequence DESC LIMIT :limit")
DECISIONS_AFTER = text("SELECT sequence, body FROM decisions WHERE sequence > :after ORDER BY sequence LIMIT :limit")
DECISIONS_BY_PREFIX = text(
    "SELECT body, snapshot FROM decisions WHERE substr(id, 1, :length) = :prefix ORDER BY sequence LIMIT 2"
)
DECISION_EXISTS = text("SELECT 1 FROM decisions WHERE id = :id")
UNFINISHED = text(
    "SELECT d.body, d.snapshot FROM decisions d WHERE EXISTS ("
    "  SELECT 1 FROM journal p WHERE p.kind = 'planned' AND p.decision = d.id AND NOT EXISTS ("
    "    SELECT 1 FROM journal f WHERE f.kind = 'finished' AND f.decision = p.decision"
    "      AND coalesce(f.account, '') = coalesce(p.account, '')))"
    " ORDER BY d.sequence"
)

PUT_NOTICE = _insert("notices", "as_of", "body")
NOTICES = text("SELECT body FROM notices ORDER BY sequence DESC LIMIT :limit")

JOURNAL_COLUMNS = (
    "decision", "kind", "at", "account", "symbol", "position_side", "client_order_id", "attempt", "data",
)  # fmt: skip
_JOURNAL_COLUMNS = ", ".join(JOURNAL_COLUMNS)
# The journal is written in the driver's own form: binding names takes longer than writing the rows, and orders wait.
PUT_JOURNAL = f"INSERT INTO journal ({_JOURNAL_COLUMNS}) VALUES ({', '.join('?' * len(JOURNAL_COLUMNS))})"
PUT_JOURNAL_RETURNING = f"{PUT_JOURNAL} RETURNING sequence"
JOURNAL_FROM = text(f"SELECT sequence, {_JOURNAL_COLUMNS} FROM journal WHERE sequence >= :sequence ORDER BY sequence")
JOURNAL_OF = text(f"SELECT sequence, {_JOURNAL_COLUMNS} FROM journal WHERE decision = :decision ORDER BY sequence")

PUT_POLICY_SET = _insert("policy_sets", "digest", "content", "program", "files", key="digest, content")
PUT_SET_CHANGE = _insert("set_changes", "at", "digest", "content", "body")
SET_CHANGES = text("SELECT sequence, body FROM set_changes ORDER BY sequence DESC LIMIT :limit")
POLICY_FILES = text(
    "SELECT files FROM policy_sets p WHERE digest = :digest AND content = coalesce(:content, content) AND EXISTS ("
    " SELECT 1 FROM set_changes c WHERE c.digest = p.digest AND c.content = p.content) ORDER BY rowid DESC LIMIT 1"
)
# A former name is first moved out of the way, so that policies may exchange their names.
MOVED = "moved/"
"""How the name of a policy begins whose rows are being moved; no policy has a slash in its name."""
MOVE_ROWS = tuple(
    (text(f"DELETE FROM {table} WHERE policy = :to"), text(f"UPDATE {table} SET policy = :to WHERE policy = :of"))
    for table in ("states", "history")
)

PUT_EVENT = _insert("events", "id", "body", key="id")
PENDING_EVENT = text("SELECT id, body FROM events WHERE id = :id AND consumed_at IS NULL")
CONSUME_EVENT = text("UPDATE events SET consumed_at = :at WHERE id = :id AND consumed_at IS NULL")
PENDING_EVENTS = text("SELECT sequence, id, body FROM events WHERE consumed_at IS NULL ORDER BY sequence")

PUT_LIVE = _insert("live", "name", "body", key="name", replace="body")
LIVE = text("SELECT body FROM live WHERE name = :name")
LIVE_UNDER = text("SELECT name, body FROM live WHERE name >= :first AND name < :end")

LEASE = text("SELECT owner, generation, expires_at FROM lease WHERE one = 1")
PUT_LEASE = text(
    "INSERT INTO lease (one, owner, generation, expires_at) VALUES (1, :owner, :generation, :expires_at) "
    "ON CONFLICT (one) DO UPDATE SET owner = excluded.owner, generation = excluded.generation, "
    "expires_at = excluded.expires_at"
)
RELEASE_LEASE = text("UPDATE lease SET owner = NULL, expires_at = 0 WHERE owner = :owner")
RELEASE_UNRENEWED = text(
    "UPDATE lease SET owner = NULL, expires_at = 0 "
    "WHERE owner = :owner AND generation = :generation AND expires_at = :expires_at"
)

PUT_INCIDENT = _insert("incidents", "id", "note", key="id")
INCIDENT_NOTE = text("SELECT note FROM incidents WHERE id = :id")
PUT_COURSE = _insert("course", "incident", "at", "value", key="incident, at")
COURSE = text("SELECT at, value FROM course WHERE incident = :incident ORDER BY at")

_OUTBOX_COLUMNS = (
    "id, at, route, target, body, state, attempts, error, ended_at, due_at, is_refused, alert, is_end, hops,"
    " hop_at, batch"
)
PUT_MESSAGE = text(
    f"INSERT INTO outbox ({_OUTBOX_COLUMNS}) "
    "VALUES (:id, :at, :route, :target, :body, 'pending', 0, NULL, NULL, 0, 0, :alert, :is_end, :hops, :hop_at, NULL)"
    " ON CONFLICT (id) DO NOTHING"
)
# Notifications of trips, ends and resets, and pages of policies, go before the program's own notices. The words
# are those of `Message` as it is encoded; in any other text the quotation marks would be escaped.
_HEAD = "CAST(substr(body, 1, 512) AS TEXT)"
_IS_OVERTAKEN = (
    f"""({_HEAD} LIKE '%","event":"notice","severity":"page","policy":"runner"%'"""
    f""" OR ({_HEAD} LIKE '%","event":"notice"%' AND {_HEAD} NOT LIKE '%","severity":"page"%'))"""
)
# A refused one lets the others pass until it is due; any other one that is not due keeps its place before them.
NEXT_MESSAGE = text(
    f"SELECT {_OUTBOX_COLUMNS} FROM outbox WHERE state = 'pending' AND target = :target AND id NOT IN :besides"
    " ORDER BY CASE WHEN is_refused = 1 AND due_at > :now THEN due_at ELSE 0 END,"
    f"  {_IS_OVERTAKEN}, sequence LIMIT 1"
).bindparams(bindparam("besides", expanding=True))
CLAIM_MESSAGE = text(
    "UPDATE outbox SET attempts = attempts + 1, due_at = 0 WHERE id = :id AND state = 'pending'"
    f" RETURNING {_OUTBOX_COLUMNS}"
)
# What waits with the claimed one, of the same importance, and in no batch yet.
JOIN_MESSAGES = text(
    "UPDATE outbox SET batch = :batch WHERE id IN ("
    " SELECT id FROM outbox WHERE state = 'pending' AND target = :target AND is_refused = 0 AND batch IS NULL"
    "  AND (attempts = 0 OR id = :id)"
    f"  AND {_IS_OVERTAKEN} = (SELECT {_IS_OVERTAKEN} FROM outbox WHERE id = :id) AND id NOT IN :besides"
    "  ORDER BY id = :id DESC, sequence LIMIT :most)"
).bindparams(bindparam("besides", expanding=True))
TRIED_BATCH = text("UPDATE outbox SET attempts = attempts + 1 WHERE state = 'pending' AND batch = :batch AND id <> :id")
OF_BATCH = text(
    f"SELECT {_OUTBOX_COLUMNS} FROM outbox WHERE state = 'pending' AND target = :target AND batch = :batch"
    " ORDER BY sequence"
)
ALERT_END = text(
    "SELECT min(at) AS at FROM outbox WHERE state = 'pending' AND target = :target AND alert = :alert AND is_end = 1"
)
_OF_MESSAGE = "WHERE state = 'pending' AND (id = :id OR batch = :id)"
MESSAGE_DELIVERED = text(
    f"UPDATE outbox SET state = 'delivered', error = NULL, ended_at = :at {_OF_MESSAGE} RETURNING id"
)
MESSAGE_FAILED = text(f"UPDATE outbox SET error = :error, due_at = :due_at, is_refused = :is_refused {_OF_MESSAGE}")
MESSAGE_REJECTED = text(f"UPDATE outbox SET hop_at = min(hop_at, :at), batch = NULL {_OF_MESSAGE}")
OVERDUE = text(
    f"SELECT {_OUTBOX_COLUMNS} FROM outbox WHERE state = 'pending' AND hops <> '' AND hop_at <= :now ORDER BY sequence"
)
HOPPED = text("UPDATE outbox SET hops = '', hop_at = 0 WHERE id = :id")
UNREACHED = text(
    "SELECT count(*) AS unreached FROM outbox WHERE state = 'pending' AND hops = '' AND hop_at > 0 AND hop_at < :now"
)
PUT_SUPPRESSION = text("INSERT INTO suppressions (at, body) VALUES (:at, :body)")
SUPPRESSIONS = text("SELECT body FROM suppressions ORDER BY sequence DESC LIMIT :limit")
FORGET_SUPPRESSIONS = text("DELETE FROM suppressions WHERE at < :before")
GIVE_UP_MESSAGES = text(
    "UPDATE outbox SET state = 'given_up', ended_at = :at, error = coalesce(error, :reason) "
    "WHERE state = 'pending' AND target = :target AND at < :before RETURNING id"
)
UNREADABLE_MESSAGE = text(
    "UPDATE outbox SET state = 'given_up', ended_at = :at, error = 'it cannot be read in the store' WHERE id = :id"
)
MESSAGE_WAITS = text("SELECT 1 FROM outbox WHERE state = 'pending' AND target = :target AND at < :before LIMIT 1")
WAITING = text(
    "SELECT count(*) AS pending, coalesce(sum(is_refused), 0) AS refused,"
    " max(CASE WHEN is_refused = 1 THEN error END) AS why"
    " FROM outbox WHERE state = 'pending' AND target = :target"
)
OUTBOX = text(
    "SELECT c.route, c.target, c.pending, c.delivered, c.given_up, f.at AS oldest, f.error FROM ("
    " SELECT route, target, sum(CASE WHEN state = 'pending' THEN 1 ELSE 0 END) AS pending,"
    "  sum(CASE WHEN state = 'delivered' THEN 1 ELSE 0 END) AS delivered,"
    "  sum(CASE WHEN state = 'given_up' THEN 1 ELSE 0 END) AS given_up,"
    "  min(CASE WHEN state = 'pending' THEN sequence END) AS first"
    " FROM outbox GROUP BY route, target) c"
    " LEFT JOIN outbox f ON f.sequence = c.first ORDER BY c.route, c.target"
)
RECORD_TIP = text("SELECT chain, number, leaf, edge FROM record_tip WHERE one = 1")
RECORD_LINES = text("SELECT number, line FROM record WHERE number >= :first ORDER BY number LIMIT :limit")
RECORD_START = text("SELECT body FROM record_start WHERE one = 1")
PUT_RECORD_START = text(
    "INSERT INTO record_start (one, body) VALUES (1, :body) ON CONFLICT (one) DO UPDATE SET body = excluded.body"
)
REMOVE_LINES = text(
    "DELETE FROM record WHERE number IN ("
    "SELECT number FROM record WHERE number <= :last ORDER BY number LIMIT :limit) RETURNING number"
)
WAITING_LINE = text(
    "SELECT min(r.number) AS number FROM outbox o JOIN record r ON r.subject = 'message/' || o.id"
    " WHERE o.state = 'pending'"
)
NAMING_LINES = text("SELECT line FROM record WHERE number > :removed AND instr(line, CAST(:kind AS BLOB)) > 0")
LIVE_BODIES = text("SELECT name, body FROM live WHERE name <> :besides")
OLD_DECISIONS = text(
    "SELECT d.id FROM decisions d WHERE d.as_of < :before AND NOT EXISTS ("
    "SELECT 1 FROM journal j WHERE j.decision = d.id AND j.at >= :before) ORDER BY d.sequence"
)
OLD_EVENTS = text("SELECT id FROM events WHERE consumed_at < :before ORDER BY sequence")
REMOVE_DECISION = (
    *(
        text(f"DELETE FROM {table} WHERE {key} = :id")
        for table, key in (("course", "incident"), ("incidents", "id"), ("journal", "decision"), ("decisions", "id"))
    ),
    text("DELETE FROM live WHERE substr(name, -length(:id) - 1) = '/' || :id"),  # what is kept with its incident
)
REMOVE_EVENT = text("DELETE FROM events WHERE id = :id AND consumed_at IS NOT NULL")
REMOVE_NOTICES = text(
    "DELETE FROM notices WHERE sequence IN ("
    "SELECT sequence FROM notices WHERE as_of < :before ORDER BY sequence LIMIT :limit) RETURNING sequence"
)
RECORD_KEPT = text("SELECT content, salt FROM record_kept WHERE digest = :digest")
RECORD_SALTED = text("SELECT digest, content, salt FROM record_kept WHERE salt IS NOT NULL ORDER BY digest")
ERASE_KEPT = text("DELETE FROM record_kept WHERE digest = :digest")
DECISION_BODY = text("SELECT body FROM decisions WHERE id = :id")
EVENT_BODY = text("SELECT body FROM events WHERE id = :id")

DELIVERIES = text(f"SELECT {_OUTBOX_COLUMNS} FROM outbox ORDER BY sequence DESC LIMIT :limit")
FORGET_MESSAGES = text("DELETE FROM outbox WHERE state <> 'pending' AND ended_at < :before")
