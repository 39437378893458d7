"""What Celery's programs open before they speak to the broker."""

import pytest

from qbroker import App
from qbroker.exceptions import OperationalError
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
