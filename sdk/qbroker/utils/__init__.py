"""Small things that programs import from `celery.utils`."""

from functools import cached_property

from qbroker.ids import uuid
from qbroker.utils.functional import chunks, memoize, noop
from qbroker.utils.imports import (
    gen_task_name,
    import_from_cwd,
    instantiate,
    qualname as get_full_cls_name,
    symbol_by_name as get_cls_by_name,
)
from qbroker.utils.log import LOG_LEVELS
from qbroker.utils.nodenames import nodename, nodesplit, worker_direct

__all__ = [
    "LOG_LEVELS",
    "cached_property",
    "chunks",
    "gen_task_name",
    "gen_unique_id",
    "get_cls_by_name",
    "get_full_cls_name",
    "import_from_cwd",
    "instantiate",
    "memoize",
    "nodename",
    "nodesplit",
    "noop",
    "uuid",
    "worker_direct",
]

gen_unique_id = uuid
