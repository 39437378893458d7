"""What users can type or set is described in the docs."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from qbroker.bin.beat import beat
from qbroker.bin.migrate_check import migrate_check
from qbroker.cli.dev import dev
from qbroker.cli.qctl import qctl
from qbroker.worker.control import BUILT_IN
from qbroker_server.cli import serve
from qbroker_server.config import Config
from qbroker_worker.cli import worker

DOCS = Path(__file__).resolve().parents[2] / "docs"


def verbs(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """What can be typed after `name`, at any depth."""
    for word, verb in command.commands.items() if isinstance(command, click.Group) else ():
        yield f"{name} {word}", verb
        yield from verbs(verb, f"{name} {word}")


QCTL_PAGES = ("broker.md", "control.md", "periodic.md")
"""Where verbs of qctl are described: those about queues and tasks, about workers, and about schedules."""


def qctl_pages() -> str:
    """The text of both."""
    return "".join((DOCS / page).read_text() for page in QCTL_PAGES)


VERBS = dict(verbs(qctl, "qctl"))


OPTIONS = [
    (page, option)
    for page, command in (
        ("broker.md", serve),
        ("workers.md", worker),
        ("workers.md", dev),
        ("periodic.md", beat),
        ("from-celery.md", migrate_check),
    )
    for parameter in command.params
    if isinstance(parameter, click.Option)
    for option in parameter.opts
    if option != "--version"
]


@pytest.mark.parametrize(("page", "option"), sorted(set(OPTIONS)))
def test_each_option_is_on_its_page(page: str, option: str) -> None:
    assert re.search(rf"[`\s]{option}\b", (DOCS / page).read_text())


@pytest.mark.parametrize(
    "option",
    sorted(
        {
            option
            for verb in (qctl, *VERBS.values())
            for parameter in verb.params
            if isinstance(parameter, click.Option)
            for option in parameter.opts
            if option != "--version"
        }
    ),
)
def test_each_option_of_qctl_is_on_one_of_its_pages(option: str) -> None:
    assert re.search(rf"[`\s]{option}\b", qctl_pages())


@pytest.mark.parametrize("setting", [field.name for field in fields(Config)])
def test_each_setting_of_the_broker_is_on_its_page(setting: str) -> None:
    assert f"`{setting}`" in (DOCS / "broker.md").read_text()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_of_qctl_is_on_one_of_its_pages(verb: str) -> None:
    assert verb in qctl_pages()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_remote_command_is_on_its_page(name: str) -> None:
    assert f"`{name}" in (DOCS / "control.md").read_text()


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_each_page_is_reached_from_the_index_or_is_it(page: str) -> None:
    assert page == "index.md" or f"({page})" in (DOCS / "index.md").read_text()
