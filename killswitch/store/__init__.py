"""Journal, state and history in SQLite."""
