"""`task_annotations`: attributes of tasks, set from the configuration and not where the task is written."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from qbroker.serialization import Value
from qbroker.utils.imports import symbol_by_name

__all__ = ["Annotation", "MapAnnotation", "prepare", "resolve_all"]


class Annotation(Protocol):
    """What an entry of the setting is: it has attributes for a task, and for any task."""

    def annotate(self, task: Value) -> Mapping[str, Value] | None:
        """The attributes of this task; a name that begins with `@` is a method, and its value a wrapper of it."""

    def annotate_any(self) -> Mapping[str, Value] | None:
        """The attributes of every task."""


class MapAnnotation:
    """Attributes by the task's name; `*` is any."""

    def __init__(self, by_name: Mapping[str, Mapping[str, Value]]) -> None:
        self._by_name = by_name

    def annotate(self, task: Value) -> Mapping[str, Value] | None:
        return self._by_name.get(task.name)

    def annotate_any(self) -> Mapping[str, Value] | None:
        return self._by_name.get("*")


def prepare(setting: Value) -> tuple[Annotation, ...]:
    """The setting's entries as annotations: mappings, objects, classes, or dotted paths of them; one or a list."""
    if setting is None:
        return ()
    entries = setting if isinstance(setting, list | tuple) else (setting,)
    return tuple(_annotation(entry) for entry in entries)


def _annotation(entry: Value) -> Annotation:
    found = symbol_by_name(entry)
    if isinstance(found, Mapping):
        return MapAnnotation(found)
    made: Annotation = found() if isinstance(found, type) else found
    return made


def resolve_all(anno: Iterable[Annotation], task: Value) -> Iterator[Mapping[str, Value]]:
    """What the annotations have for a task: those of its name, then those of any."""
    for annotation in anno:
        for found in (annotation.annotate(task), annotation.annotate_any()):
            if found:
                yield found
