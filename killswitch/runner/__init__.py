"""The tick loop, and what goes on beside it: closing workers, locks, timers, notifications."""
