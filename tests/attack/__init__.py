"""Attacks and faults in spite of which the kill switch must close a book."""
