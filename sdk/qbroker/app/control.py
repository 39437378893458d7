"""Celery's path to `app.control`; what is here lives in `qbroker.control`, so that `qctl` has it without an app."""

from qbroker.control import Control, Gathered, Inspect, Revoked, flatten_reply

__all__ = ["Control", "Gathered", "Inspect", "Revoked", "flatten_reply"]
