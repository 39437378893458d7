"""An app whose broker is away: no tests."""

from qbroker import App

app = App("beaten", broker_connection_timeout=0.2, set_as_current=False)
