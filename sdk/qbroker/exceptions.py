"""What can go wrong, by Celery's names.

    Exception
    ├── CeleryError                     a task, or the way it is used, is at fault
    │   ├── TaskPredicate               raised by a task to say something about itself
    │   │   ├── Reject  Retry
    │   │   └── Ignore ── Replaced
    │   ├── ImproperlyConfigured ── ConfigNotFound       (a ModuleNotFoundError too)
    │   ├── SecurityError
    │   └── TaskError
    │       ├── NotRegistered  AlreadyRegistered  QueueNotFound      (KeyErrors but the second)
    │       ├── TimeoutError  TaskRevokedError  InvalidTaskError
    │       └── IncompleteStream  MaxRetriesExceededError  ChordError
    ├── KombuError                      the message, or its way to the broker, is at fault
    │   ├── OperationalError
    │   │   ├── MessageRefused          the broker answered, and said no
    │   │   │   └── DuplicateTaskError  UnroutableError  InvalidName  HeadersTooLarge      (the last a LimitExceeded too)
    │   │   └── RequestRefused          the same, to a question or an order
    │   │       └── NotFound  Conflict
    │   ├── LimitExceeded
    │   ├── SerializationError ── EncodeError  DecodeError ── NestingTooDeep      (of both)
    │   └── SerializerNotInstalled ── ContentDisallowed
    ├── WorkerLostError  SoftTimeLimitExceeded  TimeLimitExceeded  Terminated
    └── BackendError ── BackendGetMetaError  BackendStoreError

`RemoteTraceback` is the cause of an exception that was raised in a worker: it shows where.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

from qbroker.printable import clean, repr_of, text_of

__all__ = [
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "ConfigNotFound",
    "Conflict",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "DuplicateTaskError",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "FixupWarning",
    "HeadersTooLarge",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidName",
    "InvalidTaskError",
    "KombuError",
    "LimitExceeded",
    "MalformedAnswer",
    "MaxRetriesExceededError",
    "MessageRefused",
    "NestingTooDeep",
    "NotConfigured",
    "NotFound",
    "NotRegistered",
    "OperationalError",
    "QueueNotFound",
    "Reject",
    "RemoteTraceback",
    "Replaced",
    "RequestRefused",
    "Retry",
    "RetryTaskError",
    "SecurityError",
    "SecurityWarning",
    "SerializationError",
    "SerializerNotInstalled",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnroutableError",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
]


class CeleryWarning(UserWarning):
    """Something is odd, and works."""


class AlwaysEagerIgnored(CeleryWarning):
    """A call by name goes to the broker, although task_always_eager is set."""


class DuplicateNodenameWarning(CeleryWarning):
    """Workers of the same name answered; only one answer of each name is kept."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two different functions want to be the task of one name; the first has it."""


class NotConfigured(CeleryWarning):
    """No configuration was found; defaults are used."""


class FixupWarning(CeleryWarning):
    """What an app should be fitted to is not there."""


class SecurityWarning(CeleryWarning):
    """What is configured is less safe than it could be."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Will be removed."""


class CeleryError(Exception):
    """A task, or the way it is used, is at fault."""


class TaskPredicate(CeleryError):
    """Raised by a task to say something about itself that is neither success nor failure."""


class Ignore(TaskPredicate):
    """Acknowledge the task and store no state for it."""


class Reject(TaskPredicate):
    """Drop the message, or put it back in its queue."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {text_of(self.reason)}"


class Replaced(Ignore):
    """Raised by `Task.replace`: another call takes the task's place, under its id.

    `message` is that call's, `follow_ups` are messages of workflows to be published with it.
    """

    def __init__(
        self, reason: object = None, message: bytes = b"", follow_ups: Sequence[bytes] = ()
    ) -> None:
        self.message = message
        self.follow_ups = tuple(follow_ups)
        super().__init__(reason)


class ImproperlyConfigured(CeleryError):
    """The configuration contradicts itself or names what does not exist."""


class ConfigNotFound(ImproperlyConfigured, ModuleNotFoundError):
    """The module of the configuration, or what is named in it, is not there."""


class SecurityError(CeleryError):
    """Stored data wants something it must not have."""


class TaskError(CeleryError):
    """A task cannot be found, run or waited for."""


class QueueNotFound(KeyError, TaskError):
    """The task is routed to a queue that is not configured."""


class IncompleteStream(TaskError):
    """A stream of data ended before all of it was there."""


class NotRegistered(KeyError, TaskError):
    """The app knows no task of that name."""

    def __repr__(self) -> str:
        name = self.args[0] if self.args else None
        return (
            f"Task of kind {name!r} never registered, "
            "please make sure it's imported by the worker (-A, -I, or the `imports` setting)."
        )


class AlreadyRegistered(TaskError):
    """The app has a task of that name."""


class TimeoutError(TaskError):  # noqa: A001 - Celery's public name
    """The result did not arrive in time."""


class MaxRetriesExceededError(TaskError):
    """The task asked for one try too many."""

    def __init__(
        self,
        *args: object,
        task_args: Sequence[object] | None = None,
        task_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        self.task_args = task_args or []
        self.task_kwargs = task_kwargs or {}
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """The task was revoked or expired, so there is no result."""


class InvalidTaskError(TaskError):
    """The message is no call of a task."""


class ChordError(TaskError):
    """A member of a chord failed, so its body was not run."""


class KombuError(Exception):
    """The message, or its way to the broker, is at fault."""


class OperationalError(KombuError):
    """The broker did not answer in time, or not at all."""


class MalformedAnswer(OperationalError):
    """The broker, or a worker, answered with something that cannot be understood; the text names which of them."""


class MessageRefused(OperationalError):
    """The broker refused to store a message; nothing of it was kept.

    `reason` is the broker's sentence, `retry_after_ms` when to try again (0: never as it is).
    """

    def __init__(self, task_id: str, reason: str, retry_after_ms: int = 0) -> None:
        self.task_id = task_id
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        super().__init__(task_id, reason, retry_after_ms)

    def __str__(self) -> str:
        return f"the broker refused message {self.task_id!r}: {self.reason}"


class DuplicateTaskError(MessageRefused):
    """A task with the same unique key is there already: `holder` is its id."""

    def __init__(self, task_id: str, reason: str, holder: str = "") -> None:
        super().__init__(task_id, reason)
        self.holder = holder
        self.args = (task_id, reason, holder)


class UnroutableError(MessageRefused):
    """No queue is bound to the exchange so that it would get the message."""


class InvalidName(MessageRefused, ValueError):
    """An id, a name or a key is empty, too long, or contains a control character.

    `task_id` is "" when the SDK refused the name before it reached the broker.
    """

    def __str__(self) -> str:
        return super().__str__() if self.task_id else self.reason


class RequestRefused(OperationalError):
    """The broker will not do what it was asked, and said why; nothing was changed."""


class NotFound(RequestRefused):
    """The broker has no such queue or task."""


class Conflict(RequestRefused):
    """What the broker has stands against what it was asked."""


class LimitExceeded(KombuError):
    """More than a limit allows."""


class HeadersTooLarge(MessageRefused, LimitExceeded):
    """The headers of a call are larger than they may be: they are for who routes and looks on."""

    def __str__(self) -> str:
        return str(self.reason)


class SerializationError(KombuError):
    """A value cannot become bytes, or bytes cannot become a value."""


class EncodeError(SerializationError):
    """The value is none that the serializer can write."""


class DecodeError(SerializationError):
    """The bytes are nothing that the serializer wrote."""


class NestingTooDeep(EncodeError, DecodeError):
    """The value is nested so deep that whoever walks through it may run out of stack."""


class SerializerNotInstalled(KombuError):
    """No serializer of that name or content type is registered."""


class ContentDisallowed(SerializerNotInstalled):
    """The content type is not among those `accept_content` allows."""


class WorkerLostError(Exception):
    """The process that ran the task died."""


class SoftTimeLimitExceeded(Exception):
    """The soft time limit has passed; the task may clean up now."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!s}"


class TimeLimitExceeded(Exception):
    """The time limit has passed, and the task was killed."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args!s}"


class Terminated(Exception):
    """The task was terminated by request."""


class Retry(TaskPredicate):
    """The task is to be tried again later: `exc` is why, `when` is seconds or a datetime.

    `sig` is the call that is to be made, `again` the message of it and when it is due, in Unix milliseconds.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: object = None,
        is_eager: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        sig: Any = None,  # noqa: ANN401 - a Signature, which stands above this module
    ) -> None:
        self.message = message
        self.exc = None if isinstance(exc, str) else exc
        self.excs = (
            clean(exc) if isinstance(exc, str) else repr_of(exc) if exc is not None else None
        )
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        self.again: tuple[bytes, int] | None = None
        super().__init__(message, exc, when)

    def humanize(self) -> str:
        """When it will be tried again, in words."""
        return f"in {self.when}s" if isinstance(self.when, int | float) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}" + (f": {self.excs}" if self.excs else "")

    def __reduce__(self) -> tuple[type["Retry"], tuple[object, ...]]:
        return self.__class__, (self.message, self.exc, self.when)


RetryTaskError = Retry
"""Its name in Celery's version 3."""


class WorkerTerminate(SystemExit):
    """Tells the worker to stop at once."""


class WorkerShutdown(SystemExit):
    """Tells the worker to finish what runs and stop."""


class BackendError(Exception):
    """A result could not be written or read."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""


class BackendStoreError(BackendError):
    """A result could not be written."""


class RemoteTraceback(Exception):
    """The traceback of an exception raised in a worker, as text; the cause of what `get` raises."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def reraise(
    tp: type[BaseException], value: BaseException, tb: TracebackType | None = None
) -> NoReturn:
    """Raise an exception again, as from where `tb` says."""
    del tp
    raise value if value.__traceback__ is tb else value.with_traceback(tb)
