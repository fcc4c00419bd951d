"""The engine: `step`, pure, and the state it moves."""
