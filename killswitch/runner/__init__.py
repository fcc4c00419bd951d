"""The tick loop, and what runs concurrently with it: closing workers, locks, timers, notifications."""
