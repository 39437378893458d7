"""Celery's place for where results are kept. Here they are where the messages are: `qbroker.result`."""
