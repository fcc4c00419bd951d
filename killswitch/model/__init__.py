"""The words of the house: snapshots, decisions, locks, and the protocols of what acts."""
