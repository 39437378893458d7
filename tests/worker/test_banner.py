"""What the worker shows when it starts."""

from qbroker_worker import banner


def _render(tasks: tuple[str, ...] = ()) -> str:
    return banner.render(
        name="celery@here",
        version="0.1.0",
        app="proj",
        broker="qbroker://me:secret@there:7450",
        results="",
        concurrency=4,
        pool="prefork",
        queues=("mail", "images"),
        tasks=tasks,
    )


def test_the_banner_names_app_broker_concurrency_and_queues() -> None:
    text = _render()

    for part in ("celery@here", "v0.1.0", "proj", "there:7450", "4 (prefork)", "mail", "images"):
        assert part in text
    assert "disabled://" in text


def test_tasks_are_listed_where_they_are_given() -> None:
    assert "[tasks]" not in _render()
    assert _render(("celery.chain", "proj.add")).endswith("[tasks]\n  . proj.add\n")
    assert "[tasks]" not in _render(("celery.chain",))


def test_passwords_of_urls_are_not_shown() -> None:
    assert "qbroker://me:**@there:7450" in _render()
