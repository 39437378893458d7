"""What the core is told of calendars and of the wire, for entries that fire again and again."""

from functools import lru_cache

from qbroker_proto import timing as timings
from qbroker_proto.v1 import message_pb2
from qbroker_server.core.errors import Invalid
from qbroker_server.core.publish import NewMessage
from qbroker_server.core.records import Extras
from qbroker_server.rpc import convert


class WireAlmanac:
    """Reads timings as the protocol has them, and makes messages of templates."""

    def __init__(self, *, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max

    def next_ms(self, timing: str, after_ms: int, anchor_ms: int) -> int | None:
        return _read(timing).next_ms(after_ms, anchor_ms)

    def last_ms(self, timing: str, until_ms: int, anchor_ms: int) -> int | None:
        return _read(timing).last_ms(until_ms, anchor_ms)

    def occurrence(
        self,
        template: bytes,
        *,
        id: str,  # noqa: A002 - the domain's word
        label: str,
        eta_ms: int,
        expires_ms: int,
        limit_key: str,
    ) -> NewMessage:
        own = message_pb2.Message(id=id, labels=[label])
        if eta_ms:
            own.eta_ms = eta_ms
        if expires_ms:
            own.expires_ms = expires_ms
        if limit_key:
            own.limits.add(key=limit_key, concurrency=1)
        # Serialized messages that stand one behind the other are one message: what comes later counts, and
        # lists are joined.
        payload = template + own.SerializeToString()
        form = _form_of(template, self._message_bytes_max)
        has_more = form.extras or form.route or form.errbacks or limit_key
        if has_more or len(payload) > self._message_bytes_max:
            return convert.new_message(payload, self._message_bytes_max)
        # Most have nothing that this could change, and are read once, not at each tick.
        return NewMessage(
            id,
            form.task,
            form.queue,
            form.priority,
            eta_ms or form.eta_ms,
            expires_ms or form.expires_ms,
            form.result_ttl_ms,
            form.deaths_max,
            form.flags,
            payload,
            form.retries,
            Extras(labels=(label,)),
        )


@lru_cache(maxsize=4_096)
def _form_of(template: bytes, message_bytes_max: int) -> NewMessage:
    return convert.new_message(template, message_bytes_max)


def _read(timing: str) -> timings.Timing:
    try:
        return timings.parse(timing)
    except timings.TimingError as error:
        raise Invalid(str(error)) from error
