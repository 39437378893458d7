"""Tasks that are called when Django's transaction commits: the base of an app's tasks where Django is."""

import functools
from collections.abc import Mapping, Sequence
from typing import ParamSpec, TypeVar

from django.db import transaction

from qbroker.serialization import Value
from qbroker.task import Task

__all__ = ["DjangoTask"]

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task that can wait for the commit of what it is about."""

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call the task after the commit of the transaction, and not if it is rolled back; at once without one."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> None:
        """Do the same with the options of `apply_async`."""
        transaction.on_commit(functools.partial(self.apply_async, args, kwargs, **options))
