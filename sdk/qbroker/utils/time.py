"""How long to wait. Public, by Celery's name: `get_exponential_backoff_interval`."""

import random

__all__ = ["get_exponential_backoff_interval"]


def get_exponential_backoff_interval(
    factor: int,
    retries: int,
    maximum: int,
    full_jitter: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
) -> int:
    """Seconds until try number `retries` + 1: `factor` times 2^`retries`, at most `maximum`.

    With `full_jitter` any number from 0 to that, so that those who failed together do not come back together.
    """
    # A shift of more bits than the greatest wait has would only make a large number to cut off.
    wait_s = min(maximum, factor << min(retries, 64))
    if full_jitter and wait_s > 0:
        # The module's own source, because Python seeds it anew in a forked child.
        wait_s = random.randrange(wait_s + 1)  # noqa: S311 - spreads load; no secret
    return max(0, wait_s)
