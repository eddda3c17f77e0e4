"""One event loop on a thread, so that plain functions can wait for coroutines.

`asyncio.run` would not do. It is refused where a loop runs already, as in a notebook. It also makes
a loop for each call, so a client that an async function keeps would belong to a closed loop.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_NAME = "textenv-background"
_UNFINISHED: set[asyncio.Task[Any]] = set()


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, or its exception; an interrupted wait cancels the coroutine.

    >>> async def two():
    ...     return 2
    >>> wait_for(two())
    2
    """
    future = schedule(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def schedule(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the loop; the future will have its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid()))


def finish(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine to its end, for clean-up that any thread may have to do.

    Python collects garbage on whatever thread is running, the loop's own included, and that one
    must not wait for itself: there the coroutine runs a little later.
    """
    loop = _loop(os.getpid())
    if threading.current_thread().name == _NAME:
        running = loop.create_task(coroutine)
        _UNFINISHED.add(running)  # the loop itself keeps no strong reference
        running.add_done_callback(_UNFINISHED.discard)
    else:
        wait_for(coroutine)


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of this process; a forked process inherits no thread and gets a loop of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=_NAME, daemon=True).start()
    return loop
