"""Moments as text, by Celery's path."""

import datetime as dt

__all__ = ["parse_iso8601"]


def parse_iso8601(datestring: str) -> dt.datetime:
    """The moment of a text like 2024-07-01T12:00:00+02:00; ValueError when it is none."""
    try:
        return dt.datetime.fromisoformat(datestring)
    except ValueError as error:
        raise ValueError(f"unable to parse date string {datestring!r}") from error
