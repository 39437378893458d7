"""Limits over all workers: how many may start in a time, and how many may be with workers at once.

k <key>  → tokens (f64), at (ms)

A rate is a bucket of tokens that fills evenly; it is stored, so a restart gives nobody a second burst.
What is with workers is counted from the leases, so it cannot drift from them: a lease that ends, for
whatever reason, frees its place.
"""

import struct
from dataclasses import dataclass

from qbroker_server.core import keys
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import Limit

_ROW = struct.Struct("<dq")

_BURST_MS = 100
"""How much of a rate may be used at once: fast rates need not wake the broker for every token."""


@dataclass(slots=True)
class _Bucket:
    limit: Limit
    tokens: float
    at_ms: int
    in_use: int = 0
    is_changed: bool = False


class Throttle:
    """Who may start now, and when who may not."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def wait_ms(self, txn: ReadTxn, limit: Limit, now_ms: int) -> int | None:
        """0: a message under the limit may start now. Else in how many ms; None: when a lease ends."""
        bucket = self._bucket(txn, limit, now_ms)
        if limit.concurrency and bucket.in_use >= limit.concurrency:
            return None
        if not limit.rate:
            return 0
        _fill(bucket, now_ms)
        if bucket.tokens >= 1:
            return 0
        return max(1, -int((bucket.tokens - 1) * limit.per_ms / limit.rate // 1))

    def take(self, txn: ReadTxn, limit: Limit, now_ms: int) -> None:
        """A message under the limit starts."""
        bucket = self._bucket(txn, limit, now_ms)
        bucket.in_use += 1
        if limit.rate:
            _fill(bucket, now_ms)
            bucket.tokens -= 1
            bucket.is_changed = True

    def hold(self, txn: ReadTxn, limit: Limit, now_ms: int) -> None:
        """A message under the limit is with a worker already."""
        self._bucket(txn, limit, now_ms).in_use += 1

    def free(self, key: str) -> None:
        """A lease of a message under the limit ended."""
        bucket = self._buckets.get(key)
        if bucket is not None and bucket.in_use:
            bucket.in_use -= 1
            if not bucket.in_use and not bucket.limit.rate:
                del self._buckets[key]

    def flush(self, txn: Txn) -> None:
        """Store what was taken."""
        for key, bucket in self._buckets.items():
            if bucket.is_changed:
                bucket.is_changed = False
                txn.put(keys.RATE + key.encode(), _ROW.pack(bucket.tokens, bucket.at_ms))

    def _bucket(self, txn: ReadTxn, limit: Limit, now_ms: int) -> _Bucket:
        bucket = self._buckets.get(limit.key)
        if bucket is None:
            raw = txn.get(keys.RATE + limit.key.encode()) if limit.rate else None
            tokens, at_ms = _ROW.unpack(raw) if raw else (_capacity(limit), now_ms)
            bucket = self._buckets[limit.key] = _Bucket(limit, tokens, at_ms)
        elif bucket.limit != limit:
            # What a newer message says of the limit goes for all.
            bucket.limit = limit
        return bucket


def _capacity(limit: Limit) -> float:
    return max(1.0, limit.rate * _BURST_MS / limit.per_ms) if limit.rate else 0.0


def _fill(bucket: _Bucket, now_ms: int) -> None:
    limit = bucket.limit
    # A clock that was set back fills nothing; it goes on from there.
    passed_ms = max(0, now_ms - bucket.at_ms)
    bucket.tokens = min(_capacity(limit), bucket.tokens + passed_ms * limit.rate / limit.per_ms)
    bucket.at_ms = now_ms
