"""One event loop on a thread, for coroutines that plain functions wait for.

`asyncio.run` would not do: it is refused where a loop runs already, as in a notebook, and it makes
a loop for each call, so that a client kept by an async function would belong to a closed one.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, or raises; whoever interrupts the wait cancels it.

    >>> async def two():
    ...     return 2
    >>> wait_for(two())
    2
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid()))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of this process: a forked one inherits no thread."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="textenv-background", daemon=True).start()
    return loop
