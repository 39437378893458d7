"""Who runs this program, for records that people read: who paused a queue."""

import getpass
import os
import platform
from collections.abc import Callable

__all__ = ["user_at_host", "user_name"]


def user_name(
    getuser: Callable[[], str] = getpass.getuser, getuid: Callable[[], int] = os.getuid
) -> str:
    """Return the user's name, or "uid 61234" where the system has no name for it, as in many containers."""
    try:
        return getuser()
    except (KeyError, OSError, ImportError):
        # Which of them depends on the version of Python and on the system.
        return f"uid {getuid()}"


def user_at_host(
    name: Callable[[], str] = user_name, host: Callable[[], str] = platform.node
) -> str:
    """Return "ann@web-1", or the user's name alone on a machine without a name."""
    machine = host()
    return f"{name()}@{machine}" if machine else name()
