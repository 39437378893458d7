"""Messages as Celery's workers get them, for tests of code that looks into their headers; and a mock of a context.

qbroker's own workers are given other bytes. To have a call run, make it: `LocalBroker` and `start_worker` run the real thing.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from unittest.mock import MagicMock, Mock

from qbroker.ids import uuid
from qbroker.serialization import Value, encode

__all__ = ["ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig"]


def TaskMessage(  # noqa: N802 - Celery's name
    name: str,
    id: str | None = None,  # noqa: A002 - Celery's name
    args: Sequence[Value] = (),
    kwargs: Mapping[str, Value] | None = None,
    callbacks: Sequence[Value] | None = None,
    errbacks: Sequence[Value] | None = None,
    chain: Sequence[Value] | None = None,
    shadow: str | None = None,
    utc: bool | None = None,  # noqa: FBT001 - Celery's signature
    **options: Value,
) -> Mock:
    """A message in protocol 2: what is called is in its headers, with what in its body."""
    del utc
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    message = _message((args, kwargs or {}, embed), id)
    message.headers = {
        "id": message.properties["correlation_id"],
        "task": name,
        "shadow": shadow,
        **options,
    }
    return message


def TaskMessage1(  # noqa: N802 - Celery's name
    name: str,
    id: str | None = None,  # noqa: A002 - Celery's name
    args: Sequence[Value] = (),
    kwargs: Mapping[str, Value] | None = None,
    callbacks: Sequence[Value] | None = None,
    errbacks: Sequence[Value] | None = None,
    chain: Sequence[Value] | None = None,
    **options: Value,
) -> Mock:
    """A message in protocol 1: all of it is in its body, but for the chain."""
    del chain
    task_id = id or uuid()
    message = _message(
        {
            "task": name,
            "id": task_id,
            "args": args,
            "kwargs": kwargs or {},
            "callbacks": callbacks,
            "errbacks": errbacks,
            **options,
        },
        task_id,
    )
    message.headers = {}
    return message


def _message(payload: Value, task_id: str | None) -> Mock:
    task_id = task_id or uuid()
    content_type, encoding, body = encode(payload, "json")
    message = Mock(name=f"TaskMessage-{task_id}")
    message.properties = {"correlation_id": task_id}
    message.content_type, message.content_encoding = content_type, encoding
    message.body = body.decode(encoding)
    message.payload = payload
    message.decode.return_value = payload
    return message


def task_message_from_sig(
    app: Value,
    sig: Value,
    utc: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    TaskMessage: Callable[..., Mock] = TaskMessage,  # noqa: N803 - Celery's name
) -> Mock:
    """The message of a signature's call, its options as headers; the signature gets an id."""
    sig.freeze()
    options = dict(sig.options)
    callbacks, errbacks = options.pop("link", None), options.pop("link_error", None)
    countdown, eta = options.pop("countdown", None), options.pop("eta", None)
    moments = {"eta": countdown or eta, "expires": options.pop("expires", None)}
    for option, value in moments.items():
        when = value
        if isinstance(when, int | float):
            when = app.now() + dt.timedelta(seconds=when)
        options[option] = when.isoformat() if isinstance(when, dt.datetime) else when
    return TaskMessage(
        sig.task,
        id=options.pop("task_id", None),
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=[dict(one) for one in callbacks] if callbacks else None,
        errbacks=[dict(one) for one in errbacks] if errbacks else None,
        utc=utc,
        **options,
    )


def ContextMock(*args: Value, **kwargs: Value) -> MagicMock:  # noqa: N802 - Celery's name
    """A mock for `with`: within it is itself, and what is raised there is not held back."""
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock
