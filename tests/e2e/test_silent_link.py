"""Links that fall silent without being closed: found out soon while somebody waits, and nothing is sent twice.

The bounds are loose, for the machine may be busy; a link whose silence nobody minds takes 40 s and more.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from qbroker import App
from qbroker.exceptions import OperationalError, TaskRevokedError, TimeoutError as ResultTimeout
from tests.e2e.proxy import Proxy

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

SILENT = [
    "swallow",
    "deafen broker",
    "deafen client",
    "damage for broker",
    "damage for client",
]
SOON_S = 15.0


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture
def proxy(farm: "Farm") -> Iterator[Proxy]:
    farm.broker()
    with Proxy(port_of(farm.broker_url)) as made:
        yield made


@pytest.fixture
def app(proxy: Proxy) -> Iterator[App]:
    """An app whose links go through the proxy."""
    made = App("proj", broker=f"qbroker://127.0.0.1:{proxy.port}", backend="qbroker://")
    made.conf.broker_connection_timeout = 10
    yield made
    made.close()


@pytest.fixture
def direct(farm: "Farm", proxy: Proxy) -> Iterator[App]:
    """An app whose links do not."""
    made = App("other", broker=farm.broker_url, backend="qbroker://")
    yield made
    made.close()


def failures(do: Callable[[], object]) -> int:
    """How often it fails before it does not."""
    for count in range(5):
        try:
            do()
        except OperationalError:
            continue
        return count
    raise AssertionError("it goes on to fail")


@pytest.mark.parametrize("fault", SILENT)
def test_a_silent_link_costs_a_publisher_one_deadline_at_most(
    app: App, proxy: Proxy, fault: str
) -> None:
    app.conf.broker_connection_timeout = 2
    _ = app.send_task("t")
    proxy.do(fault)
    began_s = monotonic()

    failed = [failures(lambda: app.send_task("t")) for _ in range(3)]

    assert sum(failed) <= 1
    assert monotonic() - began_s < SOON_S


@pytest.mark.parametrize(
    "fault", ["swallow", "deafen broker", "damage for client", "forget", "reset"]
)
def test_everything_goes_on_over_new_links(app: App, direct: App, proxy: Proxy, fault: str) -> None:
    waiting = app.send_task("t", task_id="waited for", queue="kept")
    awaited = app.send_task("t", task_id="awaited", queue="kept")
    told: list[object] = []
    getting = threading.Thread(target=lambda: told.append(waiting.get(timeout=60, propagate=False)))
    getting.start()
    assert app.control.purge() == 0
    assert "consumes from its queue 'kept'" in str(app.control.explain("waited for"))
    proxy.do(fault)
    began_s = monotonic()

    published = app.send_task("t", queue="kept")
    direct.backend.store_result("stored", 3, "SUCCESS")
    direct.control.revoke(["waited for", "awaited"])
    assert app.AsyncResult("stored").get(timeout=60) == 3
    # A call whose bytes were damaged may be refused.
    assert failures(lambda: app.control.explain(published.id)) <= 1
    app.schedules.put("w", task="t", schedule=3600.0)
    # Not idempotent, so the link must be known to work before.
    assert app.control.purge() == 0
    with pytest.raises(TaskRevokedError):
        asyncio.run(awaited.aget(timeout=60))
    getting.join(60)

    assert [type(one) for one in told] == [TaskRevokedError]
    assert monotonic() - began_s < 2 * SOON_S


@pytest.mark.parametrize("fault", ["swallow", "deafen broker"])
def test_a_listener_to_events_hears_that_its_link_is_silent(
    app: App, proxy: Proxy, fault: str
) -> None:
    stream = app.client().events("#")
    began_s = monotonic()
    proxy.do(fault)

    with pytest.raises(OperationalError, match="no word"):
        list(stream)

    assert monotonic() - began_s < SOON_S


@pytest.mark.parametrize("fault", ["swallow", "deafen broker"])
def test_events_are_sent_over_a_new_link(app: App, direct: App, proxy: Proxy, fault: str) -> None:
    heard = threading.Event()
    stream = direct.client().events("#")

    def listen() -> None:
        for _ in stream:
            heard.set()

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    app.client().tell_event("task-custom", b"{}")
    assert heard.wait(SOON_S)
    proxy.do(fault)
    heard.clear()
    began_s = monotonic()

    while not heard.wait(0.1):
        assert monotonic() - began_s < SOON_S
        app.client().tell_event("task-custom", b"{}")
    stream.close()
    listening.join()


@pytest.mark.parametrize("fault", ["deafen broker", "damage for client"])
def test_a_worker_finds_out_that_its_link_is_silent(
    farm: "Farm", direct: App, proxy: Proxy, fault: str
) -> None:
    farm.worker("-c", "1", "-b", f"qbroker://127.0.0.1:{proxy.port}")
    assert direct.send_task("proj.mark", ("before",)).get(timeout=60) == "before"
    proxy.do(fault)
    began_s = monotonic()

    assert direct.send_task("proj.mark", ("after",)).get(timeout=60) == "after"

    assert monotonic() - began_s < SOON_S
    assert farm.notes().count("after") == 1


def test_a_stopped_broker_keeps_no_caller_beyond_its_time(farm: "Farm") -> None:
    broker = farm.broker()
    app = App("proj", broker=farm.broker_url, backend="qbroker://")
    app.conf.broker_connection_timeout = 1
    result = app.send_task("t")
    broker.popen.send_signal(signal.SIGSTOP)
    try:
        began_s = monotonic()
        with pytest.raises(ResultTimeout):
            result.get(timeout=0.5)
        with pytest.raises(OperationalError):
            _ = app.send_task("t")
        with pytest.raises(OperationalError):
            app.control.explain(result.id)
        with pytest.raises(OperationalError):
            app.control.inspect(timeout=0.5).ping()
        took_s = monotonic() - began_s
    finally:
        broker.popen.send_signal(signal.SIGCONT)

    assert took_s < SOON_S
    assert failures(lambda: app.send_task("t")) <= 1
    app.close()
