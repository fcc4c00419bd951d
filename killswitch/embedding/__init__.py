"""The monitor as a library: `killswitch.start` runs it next to a strategy, in the strategy's own process."""

from killswitch.embedding.callbacks import StageChange
from killswitch.embedding.monitor import Monitor, MonitorError, MonitorOptions, start, start_async

__all__ = ["Monitor", "MonitorError", "MonitorOptions", "StageChange", "start", "start_async"]
