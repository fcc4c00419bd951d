"""Reading accounts: polls within the venues' limits, push, and outages."""
