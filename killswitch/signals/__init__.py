"""Signals: named, typed quantities with units, computed as intervals from the history of snapshots."""
