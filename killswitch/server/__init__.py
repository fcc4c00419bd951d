"""The HTTP API: a process of its own that never opens the store for writing, and that no tick waits for."""
