"""What the venues do while no runner lives: their dead-man timers, and the catastrophe stops that rest there."""
