"""A bot with ccxt, driven by a test: reads calls as lines of JSON, and prints what became of each.

Run with the page's own code as the first argument, which makes `exchange`, and `sync` or `async` as the second one.
"""

import asyncio
import inspect
import json
import sys


def outcome_of(call):
    """What a call has returned or raised, as a record."""
    try:
        return {"ok": call()}
    except Exception as error:  # noqa: BLE001 - the test reads what was raised
        return {"error": [each.__name__ for each in type(error).__mro__], "text": str(error)}


def perform(exchange, asked, loop):
    """One call of the exchange: its method, arguments and keywords."""
    found = getattr(exchange, asked["method"])(*asked.get("args", ()), **asked.get("named", {}))
    return loop.run_until_complete(found) if inspect.isawaitable(found) else found


def main(code, kind):
    """Follow the page, then the test's lines until they end."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    names = {}
    exec(compile(code, "page", "exec"), names)
    exchange = names["exchange"]
    print(json.dumps({"ready": type(exchange).__name__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(outcome_of(lambda asked=asked: perform(exchange, asked, loop)), default=str), flush=True)
    if kind == "async":
        loop.run_until_complete(exchange.close())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
