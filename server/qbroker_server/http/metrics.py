"""The broker's metrics, in the form Prometheus scrapes: looked up when they are asked for.

Messages that came and went are counted from the broker's start; everything else is what the store and the dispatcher say.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from qbroker_proto import names
from qbroker_server.broker import Broker, Step
from qbroker_server.core import dead, limits, queue
from qbroker_server.http.pages import Page


class Metrics(Collector):
    """Collects from a broker; it must be among the broker's listeners to count."""

    def __init__(self, broker: Broker, *, version: str) -> None:
        self._broker = broker
        self._version = version
        self._came: Counter[str] = Counter()
        self._went: Counter[str] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def stepped(self, step: Step) -> None:
        """Count a step."""
        if step.came:
            self._came.update(step.came)
        if step.went:
            self._went.update(step.went)
        for name in step.removed_queues:
            self._came.pop(name, None)
            self._went.pop(name, None)

    def page(self) -> Page:
        """All of it."""
        return Page(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("qbroker_info", "Always 1.", labels=("version", "engine"))
        info.add_metric((self._version, self._broker.engine.name), 1)
        yield info
        yield GaugeMetricFamily(
            "qbroker_stored_bytes",
            "What the records occupy.",
            value=self._broker.engine.stored_bytes(),
        )
        yield from self._workers()
        yield from self._queues()
        came = CounterMetricFamily(
            "qbroker_messages_published", "Messages that came since the start.", labels=("queue",)
        )
        went = CounterMetricFamily(
            "qbroker_messages_ended", "Messages that ended since the start.", labels=("queue",)
        )
        for family, counts in ((came, self._came), (went, self._went)):
            for name, count in counts.items():
                family.add_metric((names.escaped(name),), count)
            yield family

    def _workers(self) -> Iterator[Metric]:
        sessions = self._broker.dispatcher.sessions.values()
        yield GaugeMetricFamily(
            "qbroker_workers_connected",
            "Workers whose link is up.",
            value=sum(session.is_connected for session in sessions),
        )
        yield GaugeMetricFamily(
            "qbroker_workers_lost",
            "Workers whose link broke and who may come back.",
            value=sum(not session.is_connected for session in sessions),
        )

    def _queues(self) -> Iterator[Metric]:
        families = {
            "ready_count": _gauge("ready", "Messages that wait for a worker."),
            "leased_count": _gauge("leased", "Messages that are with workers."),
            "scheduled_count": _gauge("scheduled", "Messages that wait for their time."),
            "ready_bytes": _gauge("ready_bytes", "What waits for a worker, in bytes."),
        }
        consumers = _gauge("consumers", "Connected workers that take from the queue.")
        paused = _gauge("paused", "1 while the queue is paused.")
        with self._broker.engine.read() as txn:
            dead_count = len(dead.find(txn, None, limits.STEP_ITEMS_MAX))
            for name in queue.names(txn):
                counts = queue.counts(txn, name)
                label = names.escaped(name)
                for attribute, family in families.items():
                    # Below 0 only when a damaged record had to begin anew.
                    family.add_metric((label,), max(0, getattr(counts, attribute)))
                consumers.add_metric((label,), len(self._broker.dispatcher.consumers(name)))
                paused.add_metric((label,), bool(counts.options.paused_ms))
        yield from families.values()
        yield consumers
        yield paused
        yield GaugeMetricFamily(
            "qbroker_dead_letters",
            f"Dead letters, counted up to {limits.STEP_ITEMS_MAX:,}.",
            value=dead_count,
        )


def _gauge(name: str, told: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"qbroker_queue_{name}", told, labels=("queue",))
