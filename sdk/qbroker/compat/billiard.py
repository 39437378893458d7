"""What packages import from billiard, Celery's multiprocessing, with `qbroker.compat.celery.install()`.

It tells them what a failure looks like. Processes are the worker's own business here.
"""

from qbroker.app.trace import ExceptionInfo
from qbroker.exceptions import RemoteTraceback

__all__ = ["VERSION", "ExceptionInfo", "ExceptionWithTraceback", "__version__"]

VERSION = (4, 3, 2)
"""The one whose names these are."""

__version__ = ".".join(map(str, VERSION))

ExceptionWithTraceback = RemoteTraceback
"""What an exception of another process has as its cause."""
