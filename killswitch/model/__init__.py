"""The public data model: snapshots, decisions, locks, and the protocols of venues and stores."""
