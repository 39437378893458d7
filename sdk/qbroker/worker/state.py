"""What Celery's `worker.state` says of the program; what a worker is at, `app.control.inspect()` tells."""

import platform
from typing import Final

from qbroker._version import __version__

__all__ = ["SOFTWARE_INFO"]

SOFTWARE_INFO: Final = {
    "sw_ident": "qbroker",
    "sw_ver": __version__,
    "sw_sys": platform.system(),
}
"""What a worker says of itself in its events."""
