"""What bots import: heartbeats, the gate and the lock. Standard library only, for any bot's environment."""

from killswitch.client.gate import PretradeAnswer as PretradeAnswer
from killswitch.client.gate import PretradeGate as PretradeGate
from killswitch.client.gate import lock_mode as lock_mode
from killswitch.client.heartbeat import heartbeat as heartbeat
