"""`-A` finds the app as Celery does, and says what it looked for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qbroker.app.loading import LoadError, find_app

APP = "from qbroker import App\n{name} = App({main!r}, set_as_current=False)\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; what is imported from it is forgotten."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("proj", "mod")):
            del sys.modules[name]


def write(path: Path, name: str = "app", main: str = "found") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(APP.format(name=name, main=main))


@pytest.mark.parametrize("name", ["app", "celery", "anything"])
def test_a_module_is_searched_for_an_app(project: Path, name: str) -> None:
    write(project / "mod.py", name)

    assert find_app("mod").main == "found"
    assert find_app(f"mod:{name}").main == "found"
    assert find_app(f"mod.{name}").main == "found"


def test_the_attribute_app_comes_before_celery(project: Path) -> None:
    (project / "mod.py").write_text(
        APP.format(name="celery", main="second") + APP.format(name="app", main="first")
    )

    assert find_app("mod").main == "first"


def test_a_package_is_asked_for_its_celery_module(project: Path) -> None:
    (project / "proj").mkdir()
    (project / "proj" / "__init__.py").touch()
    write(project / "proj" / "celery.py")

    assert find_app("proj").main == "found"
    assert find_app("proj.celery").main == "found"
    assert find_app("proj.celery:app").main == "found"


def test_a_module_that_is_missing_is_named(project: Path) -> None:
    with pytest.raises(LoadError, match=r"-A 'proj': there is no module 'proj'"):
        find_app("proj")


def test_a_module_that_needs_another_is_not_taken_for_missing(project: Path) -> None:
    (project / "mod.py").write_text("import not_installed_anywhere\n")

    with pytest.raises(LoadError, match="mod needs a module that is missing: 'not_installed_"):
        find_app("mod")


def test_a_module_without_an_app_says_what_it_needs(project: Path) -> None:
    (project / "mod.py").write_text("app = 1\n")

    with pytest.raises(LoadError, match="mod has no App; it needs"):
        find_app("mod")
    with pytest.raises(LoadError, match="must be an App, not int: 1"):
        find_app("mod:app")
    with pytest.raises(LoadError, match=r"mod has no attribute 'other'$"):
        find_app("mod:other")


@pytest.mark.parametrize(
    ("spec", "meant"),
    [("mod:ap", "app"), ("mod.ap", "app"), ("mod:wrker", "worker")],
)
def test_an_attribute_that_is_mistyped_gets_a_suggestion(
    project: Path, spec: str, meant: str
) -> None:
    (project / "mod.py").write_text(
        APP.format(name="app", main="one") + APP.format(name="worker", main="two")
    )

    with pytest.raises(LoadError, match=f"did you mean {meant!r}"):
        find_app(spec)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\nx.y\n", r"AttributeError: .* \(mod\.py, line 2\)"),
        ("x = (\n", r"SyntaxError: .* \(mod\.py, line 1\)"),
        ("import json\njson.loads('')\n", r"JSONDecodeError: .* \(.*, line \d+\)"),
        (
            "from qbroker import App\napp = App('x', backend='redis://h')\n",
            "the setting result_backend is 'redis://h'; results are in the broker",
        ),
    ],
)
def test_a_module_that_fails_is_one_sentence_that_names_the_line(
    project: Path, text: str, sentence: str
) -> None:
    (project / "mod.py").write_text(text)

    with pytest.raises(LoadError, match=sentence):
        find_app("mod")
