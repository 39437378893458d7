"""Stamps: headers that are put on every task of a canvas, by its words or by a visitor who walks through it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

from qbroker.serialization import Value

__all__ = ["StampingVisitor", "Stamps", "merge", "stamps_of"]

Stamps = dict[str, Value]
"""Headers by their names; under "stamped_headers" the names of those that are stamps."""


class StampingVisitor(ABC):
    """Is asked at each part of a canvas which stamps to put on it.

    What a method returns is put on the part it was asked about and on all that lies in it. `headers` are the stamps that
    reach the part from around it. A returned "stamped_headers" names those keys that are stamps; without
    it all are.
    """

    @abstractmethod
    def on_signature(self, sig: Value, **headers: Value) -> Stamps | None:
        """The stamps of a task."""

    def on_group_start(self, group: Value, **headers: Value) -> Stamps | None:
        """The stamps of a group's tasks."""
        return {}

    def on_group_end(self, group: Value, **headers: Value) -> None:  # noqa: B027 - few visitors ask for it
        """Called when all of the group has its stamps."""

    def on_chain_start(self, chain: Value, **headers: Value) -> Stamps | None:
        """The stamps of a chain's tasks."""
        return {}

    def on_chain_end(self, chain: Value, **headers: Value) -> None:  # noqa: B027 - the same
        """Called when all of the chain has its stamps."""

    def on_chord_header_start(self, sig: Value, **header: Value) -> Stamps | None:
        """The stamps of the tasks in a chord's header: those of a group, unless overridden."""
        if not isinstance(sig.tasks, dict):
            sig.tasks = sig.TYPES["group"](sig.tasks)
        return self.on_group_start(sig.tasks, **header)

    def on_chord_header_end(self, sig: Value, **header: Value) -> None:
        """Called when all of the header has its stamps."""
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: Value, **header: Value) -> Stamps | None:
        """The stamps of a chord's body."""
        return {}

    def on_callback(self, callback: Value, **header: Value) -> Stamps | None:
        """The stamps of a callback."""
        return {}

    def on_errback(self, errback: Value, **header: Value) -> Stamps | None:
        """The stamps of an errback."""
        return {}


def merge(into: Stamps, more: Mapping[str, Value], *, appends: bool = True) -> None:
    """Add `more`; what both have becomes a list of both, or with `appends` False stays as it is.

    Lists are joined either way.
    """
    for key, value in more.items():
        if key not in into:
            into[key] = value
            continue
        had = into[key]
        if isinstance(had, dict):
            merge(had, value, appends=appends)
            continue
        if isinstance(had, int | float | str) and appends:
            had = into[key] = [had]
        if isinstance(had, list) and isinstance(value, list):
            had.extend(value)
        elif appends:
            into[key] = [*(had or ()), value]


def stamps_of(
    given: Mapping[str, Value],
    visitors: Stamps | None,
    own: Mapping[str, Value] | None,
    *,
    appends: bool,
) -> Stamps:
    """What is put on a part: the stamps given to it, its visitor's, and those it has, which are options."""
    found = dict(given)
    if "stamped_headers" not in found:
        found["stamped_headers"] = list(found)
    if visitors is not None:
        visitors.setdefault("stamped_headers", list(visitors))
        merge(found, visitors, appends=appends)
    if own is not None:
        names = {*found["stamped_headers"], *own.get("stamped_headers", ())}
        found["stamped_headers"] = list(names)
        merge(found, {key: own[key] for key in names if key in own}, appends=appends)
    found["stamped_headers"] = sorted(set(cast("list[str]", found["stamped_headers"])))
    return found
