"""The life of one escalation, for people: record, runbook, report and notifications."""
