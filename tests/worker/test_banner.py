"""What the worker shows when it starts."""

from qbroker_worker.banner import Banner


def shown(tasks: tuple[str, ...] = ()) -> Banner:
    return Banner(
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
    text = shown().text

    for part in ("celery@here", "v0.1.0", "proj", "there:7450", "4 (prefork)", "mail", "images"):
        assert part in text
    assert "disabled://" in text


def test_tasks_are_listed_where_they_are_given() -> None:
    assert "[tasks]" not in shown().text
    assert shown(("celery.chain", "proj.add")).text.endswith("[tasks]\n  . proj.add\n")
    assert "[tasks]" not in shown(("celery.chain",)).text


def test_passwords_of_urls_are_not_shown() -> None:
    assert "qbroker://me:**@there:7450" in shown().text


def test_the_fields_of_a_json_line_hold_everything_and_no_password() -> None:
    fields = shown(("celery.chain", "proj.add")).fields

    assert fields["queues"] == ("mail", "images")
    assert fields["tasks"] == ["proj.add"]
    assert fields["broker"] == "qbroker://me:**@there:7450"
