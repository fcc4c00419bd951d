"""The tick loop, and what runs beside it: closing workers, locks, timers, notifications."""
