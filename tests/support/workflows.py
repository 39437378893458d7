"""Workflows for tests of the core, written as nested words: a name is a task, `Chain` and `Group` hold others."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from qbroker_server.core.publish import NewJoin, NewMessage, NewWorkflow
from qbroker_server.core.records import Extras, Wait
from tests.support.scene import new


@dataclass(frozen=True)
class Chain:
    """One after the other."""

    steps: tuple["Word", ...]


@dataclass(frozen=True)
class Group:
    """Side by side."""

    members: tuple["Word", ...]


Word = str | Chain | Group


def chain(*steps: Word) -> Chain:
    """One after the other."""
    return Chain(steps)


def group(*members: Word) -> Group:
    """Side by side."""
    return Group(members)


def names(word: Word) -> Iterator[str]:
    """The tasks in it, in order."""
    if isinstance(word, str):
        yield word
    else:
        for part in word.steps if isinstance(word, Chain) else word.members:
            yield from names(part)


@dataclass
class _Build:
    workflow_id: str
    messages: list[NewMessage] = field(default_factory=list)
    joins: list[NewJoin] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def add(self, word: Word, source: str, place: tuple[str, int] | None, *, is_body: bool) -> None:
        if isinstance(word, str):
            wait = Wait(source, True, is_body, 0, 0) if source else None
            extras = Extras(workflow_id=self.workflow_id, place=place, wait=wait)
            self.messages.append(replace(new(word), extras=extras, errbacks=(new(f"err-{word}"),)))
        elif isinstance(word, Group):
            if place is not None:
                place = (self.join(len(word.members), place, source, is_list=True), 0)
            for index, member in enumerate(word.members):
                own = (place[0], index) if place is not None else None
                self.add(member, source, own, is_body=False)
        else:
            for step in word.steps[:-1]:
                is_list = isinstance(step, Group)
                size = len(step.members) if isinstance(step, Group) else 1
                join_id = self.join(size, None, source, is_list=is_list)
                parts = step.members if isinstance(step, Group) else (step,)
                for index, part in enumerate(parts):
                    self.add(part, source, (join_id, index), is_body=is_body and not is_list)
                source, is_body = join_id, is_list
            self.add(word.steps[-1], source, place, is_body=is_body)

    def join(
        self, size: int, place: tuple[str, int] | None, entry_id: str, *, is_list: bool
    ) -> str:
        join_id = f"j{next(self.numbers)}"
        self.joins.append(NewJoin(join_id, size, is_list, place, entry_id))
        return join_id


def workflow(word: Word, workflow_id: str = "w") -> NewWorkflow:
    """The workflow of a word. Each task `t` has the errback `err-t`."""
    build = _Build(workflow_id)
    build.add(word, "", None, is_body=False)
    return NewWorkflow(workflow_id, tuple(build.messages), tuple(build.joins))
