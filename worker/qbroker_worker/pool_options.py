"""Options and settings that some pools cannot follow.

Only the prefork pool has children to replace; the solo pool has one slot and keeps it. Time limits hold in every pool.
"""

from collections.abc import Collection

_CHILDREN = "only the prefork pool has child processes"
_ONE_SLOT = "the solo pool runs one task at a time"

_OPTIONS = {
    "--max-tasks-per-child": (frozenset({"prefork"}), _CHILDREN),
    "--max-memory-per-child": (frozenset({"prefork"}), _CHILDREN),
    "--pool-start-method": (frozenset({"prefork"}), _CHILDREN),
    "--autoscale": (frozenset({"prefork", "threads", "asyncio"}), _ONE_SLOT),
}

_SETTINGS = {
    "worker_max_tasks_per_child": "--max-tasks-per-child",
    "worker_max_memory_per_child": "--max-memory-per-child",
    "worker_pool_start_method": "--pool-start-method",
}


def unfit(pool: str, options: Collection[str]) -> str:
    """A sentence about the first of these options that the pool cannot follow; empty if there is none."""
    for option in options:
        pools, reason = _OPTIONS[option]
        if pool not in pools:
            return (
                f"{option} cannot be used with the {pool} pool: {reason}. "
                f"Leave it out, or choose {' or '.join(sorted(pools))} with -P."
            )
    return ""


def without_effect(pool: str, settings: Collection[str]) -> tuple[str, ...]:
    """A sentence if the pool cannot follow some of the settings that the app sets."""
    names = [
        name
        for name, option in _SETTINGS.items()
        if name in settings and pool not in _OPTIONS[option][0]
    ]
    if not names:
        return ()
    return (f"No effect with the {pool} pool: {', '.join(names)}; {_CHILDREN}.",)
