"""The states a task goes through, by Celery's names.

    PENDING ──▶ RECEIVED ──▶ STARTED ──▶ SUCCESS | FAILURE | REVOKED
                                 └─────▶ RETRY ──▶ …

A task may store states of its own between these. PENDING also means that nobody knows the id.
"""

PENDING = "PENDING"
RECEIVED = "RECEIVED"
STARTED = "STARTED"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"
RETRY = "RETRY"
IGNORED = "IGNORED"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

# A state of the task's own ranks where None stands: above PENDING, below what Celery knows.
PRECEDENCE: tuple[str | None, ...] = (
    SUCCESS,
    FAILURE,
    None,
    REVOKED,
    STARTED,
    RECEIVED,
    REJECTED,
    RETRY,
    PENDING,
)
_RANKS = {name: rank for rank, name in enumerate(PRECEDENCE)}


def precedence(name: str) -> int:
    """The rank of a state: 0 is the strongest."""
    return _RANKS.get(name, _RANKS[None])


class state(str):  # noqa: N801 - Celery's public name
    """A state that compares by precedence: `state(STARTED) < state(SUCCESS)`."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
