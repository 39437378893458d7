"""Which broker a verb speaks to, and how what it answers ends the command.

0 done   1 error   2 usage   3 not found   5 the broker cannot be reached   6 what is there stands against it
8 done for some   69 no worker answered, as in Celery   74 the output or a file could not be written
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import click

from qbroker.client import Client
from qbroker.exceptions import (
    Conflict,
    ImproperlyConfigured,
    MalformedAnswer,
    NotFound,
    OperationalError,
    RequestRefused,
)

TIMEOUT_S = 5.0
"""How long a broker may be silent."""

EX_PARTIAL = 8
EX_IOERR = 74


class Misused(click.ClickException):
    """The broker cannot mean anything by what it was asked."""

    exit_code = 2


class Absent(click.ClickException):
    """There is no such queue or task."""

    exit_code = 3


class Unavailable(click.ClickException):
    """The broker cannot be reached; the message is a sentence that names it."""

    exit_code = 5


class Missing(click.ClickException):
    """No worker answered."""

    exit_code = 69


class Conflicting(click.ClickException):
    """What is there stands against it."""

    exit_code = 6


@dataclass(frozen=True, slots=True)
class Target:
    """The broker that is meant; what each verb gets from the group."""

    url: str

    @contextmanager
    def reached(self) -> Iterator[Client]:
        """A connection to it; whatever is in the way ends the command."""
        with answered(), closing(Client(self.url, timeout_s=TIMEOUT_S)) as client:
            yield client


@contextmanager
def answered() -> Iterator[None]:
    """Have whatever is in the way of the broker's answer end the command."""
    try:
        yield
    except NotFound as error:
        raise Absent(str(error)) from error
    except Conflict as error:
        raise Conflicting(str(error)) from error
    except RequestRefused as error:
        raise Misused(str(error)) from error
    except MalformedAnswer as error:
        raise click.ClickException(str(error)) from error
    except OperationalError as error:
        advice = "start one with qbroker serve, or name another with -b"
        raise Unavailable(f"{error}; {advice}") from error
    except ImproperlyConfigured as error:
        raise click.UsageError(str(error)) from error


def named(ids: Sequence[str]) -> list[str]:
    """The ids that were given, each once; "-" stands for the words of standard input."""
    found: dict[str, None] = {}
    for one in ids:
        found.update(dict.fromkeys(sys.stdin.read().split() if one == "-" else [one]))
    return list(found)
