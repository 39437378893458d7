"""What Celery's programs open before they speak to the broker."""

import pytest

from qbroker import App
from qbroker.exceptions import NotFound, OperationalError
from qbroker.testing import LocalBroker
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker


def test_a_connection_is_opened_looked_at_and_closed(
    real_app: App, real_broker: RealBroker
) -> None:
    with real_app.connection() as connection:
        found = connection.ensure_connection(max_retries=3)
        other = connection.clone()
        other.close()

    assert found is connection
    assert connection.connected
    assert connection.as_uri() == real_broker.url
    assert (connection.hostname, connection.port) == ("127.0.0.1", real_broker.port)
    assert repr(other) == f"<Connection: {real_broker.url}>"


def test_each_kind_of_connection_is_the_same(real_app: App) -> None:
    given = real_app.connection_for_read()

    assert real_app.connection_or_acquire(given) is given
    assert real_app.connection_or_acquire().as_uri() == given.as_uri()
    assert real_app.connection_for_write().as_uri() == given.as_uri()


def test_a_broker_that_is_away_is_an_error(make_app: MakeApp) -> None:
    app = make_app(broker="qbroker://127.0.0.1:1")
    app.conf.broker_connection_timeout = 0.1

    with pytest.raises(OperationalError, match=r"127\.0\.0\.1:1"):
        app.connection_for_write().ensure_connection()


def test_a_queue_is_looked_at_by_the_names_of_amqp(real_app: App) -> None:
    for _ in range(2):
        _ = real_app.send_task("t", queue="mail")
    with real_app.connection_or_acquire() as connection:
        channel = connection.default_channel

        assert channel.queue_declare(queue="mail", passive=True) == ("mail", 2, 0)
        assert channel.queue_declare("new", durable=True).message_count == 0
        assert channel.queue_declare("new", passive=True).queue == "new"
        assert channel.queue_purge("mail") == 2
        with pytest.raises(NotFound, match="no queue 'absent'"):
            channel.queue_declare("absent", passive=True)


def test_calls_are_sent_with_what_pools_have(real_app: App) -> None:
    @real_app.task(name="t")
    def task(x: int) -> None: ...

    with real_app.producer_pool.acquire(block=True) as producer:
        _ = task.apply_async((1,), producer=producer)
    with (
        real_app.pool.acquire(block=True, timeout=3) as connection,
        task.get_publisher(connection) as publisher,
    ):
        _ = task.apply_async((2,), publisher=publisher)

    assert publisher.channel.queue_declare("celery", passive=True).message_count == 2


def test_a_broker_in_this_process_has_no_port(make_app: MakeApp) -> None:
    with LocalBroker() as broker:
        connection = make_app(broker=broker.url).connection()

        assert (connection.hostname, connection.port) == ("localhost", None)
        assert connection.connect() is connection


def test_what_pools_give_is_handed_to_calls(real_app: App) -> None:
    with real_app.producer_pool.acquire(block=True) as producer:
        _ = real_app.send_task("x", producer=producer)
    with real_app.pool.acquire(block=True, timeout=1) as connection:
        _ = real_app.send_task("x", connection=connection)
    with real_app.producer_or_acquire() as ours, real_app.producer_or_acquire(producer) as given:
        assert given is producer
        assert ours.connection.as_uri() == connection.as_uri()
    real_app.producer_pool.release(producer)
    real_app.pool.force_close_all()

    (celery,) = real_app.client().list_queues()
    assert celery.ready_count == 2
