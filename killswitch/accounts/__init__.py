"""Accounts and the adapters that reach them: documents, credentials, arming, polling."""
