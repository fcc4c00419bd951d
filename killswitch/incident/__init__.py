"""Incidents for people: the record, the runbooks, the report and the notifications."""
