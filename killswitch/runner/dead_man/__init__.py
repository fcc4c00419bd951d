"""The venues' dead-man timers, kept running while the runner is healthy."""
