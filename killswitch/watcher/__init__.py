"""The watcher of dead man's switches: a process of its own that listens for heartbeats, and closes when they end."""
