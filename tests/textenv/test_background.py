"""The thread that waits for coroutines."""

import asyncio

from textenv.background import finish, wait_for


def test_clean_up_runs_from_any_thread_and_from_the_loops_own():
    done = []

    async def clean(name):
        await asyncio.sleep(0)
        done.append(name)

    finish(clean("from outside"))
    assert done == ["from outside"]  # it was waited for

    async def inside():
        finish(clean("from the loop"))  # as when garbage is collected there: must not wait
        assert done == ["from outside"]
        while len(done) < 2:
            await asyncio.sleep(0)

    wait_for(asyncio.wait_for(inside(), 5))
    assert done == ["from outside", "from the loop"]
