"""`task_routes`: which options a call gets from its task's name.

The setting is a mapping from names, globs (`feed.tasks.*`) and regular expressions to queues or options, a list of
such pairs, a function, an object with `route_for_task`, a dotted path to one, or a list of these. The first
that answers counts. What the call says itself wins, then the task's attributes.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from qbroker.utils.imports import symbol_by_name

__all__ = ["MapRoute", "Router", "prepare"]

_REMEMBERED_MAX = 10_000

_TASK_OPTIONS = (
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "expires",
    "serializer",
    "compression",
    "time_limit",
    "soft_time_limit",
)
"""What a task's attributes say of its calls, over what routes say."""


_PLACE = frozenset(["queue", "exchange", "exchange_type", "routing_key"])


class MapRoute:
    """Routes by the task's name: exact names first, then patterns in their order."""

    def __init__(self, entries: Mapping[Value, Value] | Iterable[tuple[Value, Value]]) -> None:
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        self.map: dict[str, Value] = {}
        self.patterns: list[tuple[re.Pattern[str], str, Value]] = []
        for name, route in pairs:
            if isinstance(name, re.Pattern):
                self.patterns.append((name, name.pattern, route))
            elif any(sign in name for sign in "*?["):
                self.patterns.append((re.compile(fnmatch.translate(name)), name, route))
            else:
                self.map[name] = route

    def routes(self) -> list[Value]:
        """Return the queue or options of each entry."""
        return [*self.map.values(), *(route for _, _, route in self.patterns)]

    def find(self, name: str) -> tuple[str, dict[str, Value]] | None:
        """The entry that fits, and its options; None: none does."""
        if name in self.map:
            return name, _options(self.map[name])
        for pattern, text, route in self.patterns:
            if pattern.match(name):
                return text, _options(route)
        return None

    def __call__(self, name: str, *_args: Value, **_kwargs: Value) -> dict[str, Value] | None:
        found = self.find(name)
        return None if found is None else found[1]


def _options(route: Value) -> dict[str, Value]:
    if isinstance(route, Mapping):
        return dict(route)
    return {"queue": route}


def prepare(setting: Value) -> list[Value]:
    """The setting's routers, in their order."""
    if setting is None:
        return []
    if isinstance(setting, list | tuple) and not _is_pairs(setting):
        return [_router(entry) for entry in setting]
    return [_router(setting)]


def _is_pairs(entries: Sequence[Value]) -> bool:
    """Whether it is one list of pairs of names and routes, and not a list of routers."""
    return bool(entries) and all(
        isinstance(entry, list | tuple)
        and len(entry) == 2
        and isinstance(entry[0], str | re.Pattern)
        and isinstance(entry[1], str | Mapping)
        for entry in entries
    )


def _router(entry: Value) -> Value:
    if isinstance(entry, Mapping | list | tuple):
        return MapRoute(entry)
    found = symbol_by_name(entry)
    if isinstance(found, type):
        found = found()
    if not callable(found) and not hasattr(found, "route_for_task"):
        raise ImproperlyConfigured(
            f"{entry!r} in task_routes is not a mapping, list of pairs, function or object with route_for_task"
        )
    return found


class Router:
    """What the setting says, and remembered answers where only names count."""

    def __init__(self, setting: Value) -> None:
        self.routes = prepare(setting)
        self._is_by_name = all(isinstance(router, MapRoute) for router in self.routes)
        self._known: dict[str, dict[str, Value]] = {}

    def lookup_route(
        self,
        name: str,
        args: Value = None,
        kwargs: Value = None,
        options: Mapping[str, Value] | None = None,
        task_type: Value = None,
    ) -> dict[str, Value]:
        """The options that the first router which answers has for the call."""
        if self._is_by_name and name in self._known:
            return self._known[name]
        found: dict[str, Value] = {}
        for router in self.routes:
            answer = _ask(router, name, args, kwargs, options or {}, task_type)
            if answer:
                found = _options(answer)
                break
        if self._is_by_name:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[name] = found
        return found

    def rule(self, name: str) -> str:
        """Which of them answers for a task, in words."""
        for number, router in enumerate(self.routes):
            if isinstance(router, MapRoute):
                found = router.find(name)
                if found is not None:
                    return f"by the entry {found[0]!r} of task_routes"
            elif _ask(router, name, (), {}, {}, None):
                return f"by router {number + 1} of task_routes, {router!r}"
        return "by the default queue, because no entry of task_routes fits"

    def route(
        self,
        options: Mapping[str, Value],
        name: str,
        args: Value = (),
        kwargs: Value = None,
        task_type: Value = None,
    ) -> dict[str, Value]:
        """The call's options, and beneath them those of its route."""
        route = self.lookup_route(name, args, kwargs, options, task_type)
        merged = dict(options)
        # A queue and an exchange are one choice: who makes it leaves nothing of the route's.
        is_placed = any(
            options.get(one) is not None or getattr(task_type, one, None) is not None
            for one in ("queue", "exchange")
        )
        for option, value in route.items():
            if is_placed and option in _PLACE:
                continue
            if merged.get(option) is None and not (
                option in _TASK_OPTIONS and getattr(task_type, option, None) is not None
            ):
                merged[option] = value
        return merged


def _ask(
    router: Callable[..., Value],
    name: str,
    args: Value,
    kwargs: Value,
    options: Mapping[str, Value],
    task_type: Value,
) -> Value:
    by_task = getattr(router, "route_for_task", None)
    if by_task is not None:
        return by_task(name, args, kwargs)
    return router(name, args, kwargs, dict(options), task=task_type)


def expand_router_string(router: Value) -> Value:
    """The router that a dotted path names, made if it is a class with `route_for_task`; anything else as it is."""
    found = symbol_by_name(router)
    return found() if hasattr(found, "route_for_task") and isinstance(found, type) else found
