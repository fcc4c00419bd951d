"""Planning: `tick(snapshot)`, from signals through `step` to decisions with exact intents."""
