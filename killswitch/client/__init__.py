"""What bots import: heartbeats. Standard library only, so that it works in any bot's environment."""

from killswitch.client.heartbeat import heartbeat as heartbeat
