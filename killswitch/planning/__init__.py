"""Planning: `tick(snapshot)`, from signals over `step` to decisions with exact intents."""
