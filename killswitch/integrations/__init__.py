"""Classes that a bot imports, for ccxt, freqtrade, nautilus_trader and hummingbot.

Standard library only, so that `pip install --no-deps killswitch` suffices in a bot's environment; none imports its bot.
"""

from killswitch.integrations.permission import OrderNotSentError as OrderNotSentError
from killswitch.integrations.permission import OrderPermits as OrderPermits
from killswitch.integrations.permission import Permission as Permission
