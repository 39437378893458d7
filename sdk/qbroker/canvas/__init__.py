"""Work-flows of calls: signatures, and what is made of several. The names are those of `celery.canvas`."""

from qbroker.canvas.primitives import (
    _chain,
    _chord,
    chain,
    chord,
    chunks,
    group,
    is_nothing,
    maybe_unroll_group,
    xmap,
    xstarmap,
)
from qbroker.canvas.signature import Signature, maybe_signature, signature, subtask
from qbroker.canvas.stamping import StampingVisitor

__all__ = [
    "Signature",
    "StampingVisitor",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "is_nothing",
    "maybe_signature",
    "maybe_unroll_group",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
