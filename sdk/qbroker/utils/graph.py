"""A graph of what depends on what, as `AsyncResult.graph` shows it, and its text for Graphviz."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

from qbroker.serialization import Value

__all__ = ["CycleError", "DependencyGraph"]


class CycleError(Exception):
    """Things depend on each other in a circle."""


class DependencyGraph:
    """Things, and for each the things that come from it."""

    def __init__(
        self,
        it: Iterable[tuple[Value, Iterable[Value]]] | None = None,
        formatter: Callable[[Value], str] = str,
    ) -> None:
        self.adjacent: dict[Value, list[Value]] = {}
        self._label = formatter
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Value) -> None:
        """Add a thing."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Value, B: Value) -> None:  # noqa: N803 - Celery's names
        """Say that B comes from A."""
        self.add_arc(A)
        self.adjacent[A].append(B)

    def connect(self, graph: "DependencyGraph") -> None:
        """Add the things of another graph."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Value, Iterable[Value]]]) -> None:
        """Add things, each with what comes from it."""
        pairs = [(obj, list(others)) for obj, others in it]
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, others in pairs:
            for other in others:
                self.add_edge(obj, other)

    def edges(self) -> Iterator[Value]:
        """The things that others come from."""
        return (obj for obj, others in self.adjacent.items() if others)

    def topsort(self) -> list[Value]:
        """The things, each before those that come from it."""
        left = dict.fromkeys(self.adjacent, 0)
        for others in self.adjacent.values():
            for other in others:
                left[other] = left.get(other, 0) + 1
        free = [obj for obj, count in left.items() if not count]
        found = []
        while free:
            obj = free.pop()
            found.append(obj)
            for other in self.adjacent.get(obj, ()):
                left[other] -= 1
                if not left[other]:
                    free.append(other)
        if len(found) < len(left):
            raise CycleError(f"things depend on each other in a circle: {sorted(map(str, left))!r}")
        return found

    def valency_of(self, obj: Value) -> int:
        """How many things come from it, directly or through others."""
        count = 0
        left = [obj]
        while left:
            others = self.adjacent.get(left.pop(), [])
            count += len(others)
            left += others
        return count

    def to_dot(self, fh: IO[str], formatter: Callable[[Value], str] | None = None) -> None:
        """Write it in the language of Graphviz."""
        label = formatter or self._label
        fh.write("digraph dependencies {\n")
        for obj, others in self.adjacent.items():
            fh.write(f'    "{label(obj)}";\n')
            fh.writelines(f'    "{label(obj)}" -> "{label(other)}";\n' for other in others)
        fh.write("}\n")

    def items(self) -> Iterable[tuple[Value, Sequence[Value]]]:
        """Each thing with what comes from it."""
        return self.adjacent.items()

    def __iter__(self) -> Iterator[Value]:
        return iter(self.adjacent)

    def __contains__(self, obj: Value) -> bool:
        return obj in self.adjacent

    def __getitem__(self, obj: Value) -> list[Value]:
        return self.adjacent[obj]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __repr__(self) -> str:
        lines = []
        for obj, others in self.adjacent.items():
            lines.append(f"{obj}({self.valency_of(obj)})")
            lines += [f"     {other}({self.valency_of(other)})" for other in others]
        return "\n".join(lines)
