"""Secrets are hidden wherever a URL or a setting is shown."""

import logging
import socket

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from qbroker import App
from qbroker.app.sources import parse_argument
from qbroker.cli.qctl import qctl
from qbroker.client import Client
from qbroker.exceptions import ImproperlyConfigured, OperationalError, TimeoutError as ResultTimeout
from qbroker.masking import masked, masked_setting
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://guest:hunter2@rabbit//", "amqp://guest:**@rabbit//"),
        ("qbroker://me:hunter2@there:7450/x", "qbroker://me:**@there:7450/x"),
        ("qbroker://me:%68unter2@there", "qbroker://me:**@there"),
        ("qbroker://me:hunter2@[::1]:7450", "qbroker://me:**@[::1]:7450"),
        ("redis://:hunter2@h:1/0", "redis://:**@h:1/0"),
        ("redis://:hunter2@a;redis://:hunter2@b", "redis://:**@a;redis://:**@b"),
        ("redis://:hunter2@a,redis://:hunter2@b", "redis://:**@a,redis://:**@b"),
        ("['redis://:hunter2@a', 'redis://:hunter2@b']", "['redis://:**@a', 'redis://:**@b']"),
        ("db+postgresql://me:hunter2@h/db", "db+postgresql://me:**@h/db"),
        (
            "no answer from qbroker://me:hunter2@h:1: gone",
            "no answer from qbroker://me:**@h:1: gone",
        ),
        # Malformed, or with characters that should have been quoted.
        ("redis://:hun/ter@2#a?b@h/0", "redis://:**@h/0"),
        ("redis://:hun ter2@h/0", "redis://:**@h/0"),
        ("guest:hunter2@rabbit", "guest:**@rabbit"),
        ("amqp:/guest:hunter2@rabbit", "amqp:**@rabbit"),
        ("amqp//guest:hunter2@rabbit", "amqp//guest:**@rabbit"),
        ("amqp:///guest:hunter2@rabbit", "amqp:///guest:**@rabbit"),
        ("amqp://guest:hunter2", "amqp://guest:**"),
        # Secrets in a query.
        ("http://h/p?token=hunter2&page=1", "http://h/p?token=**&page=1"),
        ("http://h/p?page=1&access_token=hunter2", "http://h/p?page=1&access_token=**"),
        ("https://h/?X-Amz-Signature=hunter2&sig=hunter2", "https://h/?X-Amz-Signature=**&sig=**"),
        ("redis://h?password=hunter2", "redis://h?password=**"),
    ],
)
def test_secrets_of_a_url_are_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "memory://",
        "qbroker://",
        "localhost:7450",
        "qbroker://127.0.0.1:7450",
        "qbroker://[::1]:7450/a@b",
        "amqp://user@host//",
        "http://h:80/p?mail=a@b",
        "http://h/x@y",
        "http://h/?author=bob&monkey=1&routing_key=a",
        "no answer from qbroker://h:7450: ask bob@h",
        "a sentence: with words",
    ],
)
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


PASSWORDS = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20).map(
    lambda text: f"{HIDDEN}{text}"
)


@given(PASSWORDS, st.sampled_from(["qbroker", "amqp", "redis", "sentinel"]), st.from_regex(r"[a-z]{0,5}", fullmatch=True))  # fmt: skip
def test_no_password_of_a_url_is_shown(password: str, scheme: str, user: str) -> None:
    assert HIDDEN not in masked(f"{scheme}://{user}:{password}@host:5672//")


def test_settings_are_masked_at_any_depth_and_by_their_names() -> None:
    shown = masked_setting(
        "own",
        {
            "urls": ["amqp://a:hunter2@h", ("amqp://b:hunter2@h",), {"url": "amqp://c:hunter2@h"}],
            "bytes": b"amqp://a:hunter2@h",
            "api_token": "hunter2",
            "headers": {"Authorization": "hunter2"},
            "count": 1,
        },
    )

    assert shown == {
        "urls": ["amqp://a:**@h", ("amqp://b:**@h",), {"url": "amqp://c:**@h"}],
        "bytes": b"amqp://a:**@h",
        "api_token": "********",
        "headers": {"Authorization": "********"},
        "count": 1,
    }


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:hunter2@rabbit//",
        "qbroker://me:hunter2@there:many",
        "qbroker://me:hun/ter@hunter2@there",
        "qbroker://[me:hunter2@there",
        "qbroker://me:hunter2",
    ],
)
def test_an_error_about_the_brokers_url_hides_its_password(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        Client(url, timeout_s=1)

    assert HIDDEN not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_broker_that_is_away_is_named_without_its_password(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    app = make_app(
        broker=f"qbroker://me:hunter2@127.0.0.1:{port}",
        backend="qbroker://",
        broker_connection_timeout=0.2,
    )

    with pytest.raises(OperationalError, match=r"qbroker://me:\*\*@127") as published:
        app.send_task("echo").get(timeout=0.2)
    with pytest.raises(OperationalError) as asked:
        app.client().status()
    with pytest.raises(ResultTimeout) as waited:
        app.AsyncResult("some-id").get(timeout=0.2)

    shown = f"{published.value}{asked.value}{waited.value}{caplog.text}"
    assert HIDDEN not in shown


def test_what_shows_an_app_hides_its_passwords(make_app: MakeApp) -> None:
    app = make_app(
        broker="qbroker://me:hunter2@h",
        own_urls=["amqp://a:hunter2@h", "amqp://b:hunter2@h"],
        security_key_password="hunter2",  # noqa: S106 - the secret that must not show
    )

    shown = [
        repr(app),
        repr(app.conf),
        str(app.conf),
        app.conf.humanize(with_defaults=True),
        str(app.conf.table(with_defaults=True)),
        app.bugreport(),
        repr(app.connection()),
        app.connection().as_uri(),
    ]

    assert [text for text in shown if HIDDEN in text] == []
    assert app.connection().as_uri(include_password=True) == "qbroker://me:hunter2@h"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_url", ["amqp://a:hunter2@h", "amqp://b:hunter2@h"]),
        ("security_encryption_keys", "hunter2"),
    ],
)
def test_an_error_about_a_setting_hides_its_secrets(name: str, value: Value) -> None:
    with pytest.raises(ImproperlyConfigured, match=name) as refused:
        App("proj", set_as_current=False, **{name: value})

    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize("text", ["redis_password=(secret)hunter2", "amqp://me:hunter2@h"])
def test_an_error_about_an_argument_hides_its_secrets(text: str) -> None:
    with pytest.raises(ValueError, match=r"\*\*") as refused:
        parse_argument(text, "worker")

    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ctx", "add", "prod", "qbroker://me:hunter2@127.0.0.1:1"],
        ["ctx", "ls"],
        ["ctx", "ls", "--json"],
        ["ctx", "use", "prod"],
        ["ctx", "add", "other", "amqp://me:hunter2@h"],
        ["-b", "amqp://me:hunter2@h", "status"],
        ["-b", "me:hunter2@127.0.0.1:1", "status"],
    ],
)
def test_the_command_line_hides_passwords(
    arguments: list[str], tmp_path: Value, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    run = CliRunner()
    run.invoke(qctl, ["ctx", "add", "prod", "qbroker://me:hunter2@127.0.0.1:1"])

    done = run.invoke(qctl, arguments)

    assert done.output
    assert HIDDEN not in done.output
