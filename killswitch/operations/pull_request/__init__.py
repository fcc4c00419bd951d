"""The comment of a pull request about a change of policies: its class, its replays, and what fires on arrival."""
