"""The public data model: snapshots, decisions, locks, the base class of venue adapters, and the protocol of stores."""
