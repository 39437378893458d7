"""Time limits of coroutines: an exception inside, or a cancellation that nobody outside sees."""

import asyncio
import contextlib

import pytest

from qbroker.app.within import within
from qbroker.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

LIMIT = 0.02


async def test_what_is_quicker_than_its_limits_returns() -> None:
    async def quick() -> int:
        await asyncio.sleep(0)
        return 7

    assert await within(quick(), 5.0, 10.0) == 7
    assert await within(quick(), None, None) == 7


async def test_the_soft_limit_can_be_caught_where_the_coroutine_waits() -> None:
    async def patient() -> str:
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
            return "tidied"
        return "never"

    assert await within(patient(), LIMIT, None) == "tidied"


async def test_the_soft_limit_that_is_not_caught_is_what_is_raised() -> None:
    with pytest.raises(SoftTimeLimitExceeded) as caught:
        await within(asyncio.Event().wait(), LIMIT, 10.0)

    assert str(caught.value) == "SoftTimeLimitExceeded()"


async def test_the_hard_limit_cancels_and_passes_by_handlers_of_exceptions() -> None:
    seen: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except Exception:  # noqa: BLE001 - what a stubborn task would write
            seen.append("caught")
        finally:
            seen.append("tidied")

    with pytest.raises(TimeLimitExceeded) as caught:
        await within(stubborn(), None, LIMIT)

    assert seen == ["tidied"]
    assert caught.value.args == (LIMIT,)


async def test_a_coroutine_that_swallows_the_cancellation_has_still_run_out_of_time() -> None:
    async def swallowing() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    with pytest.raises(TimeLimitExceeded):
        await within(swallowing(), None, LIMIT)


async def test_who_cancels_from_outside_is_obeyed() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(within(wait(), 10.0, 10.0))
        await asyncio.sleep(0)

        task.cancel()
        done, _ = await asyncio.wait([task])

    assert done.pop().cancelled()


async def test_exceptions_of_what_is_awaited_arrive_in_the_coroutine() -> None:
    async def failing() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, LookupError("inside"))
        await future

    with pytest.raises(LookupError, match="inside"):
        await within(failing(), 10.0, None)
