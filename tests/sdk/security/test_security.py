"""app.setup_security(): what it wants, and what it does to messages of the real broker."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qbroker import App, security, serialization
from qbroker.envelope import STAGES
from qbroker.exceptions import (
    ContentDisallowed,
    ImproperlyConfigured,
    SecurityError,
    SerializerNotInstalled,
)
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker
from tests.support import signing

SIGNED = {"task_serializer": "auth", "accept_content": ["auth"]}

MakeSettings = Callable[..., dict[str, Value]]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The registry of serializers is the process's."""
    yield
    serialization.disable_insecure_serializers(["json", "raw"])
    if "auth" in serialization._by_name:
        serialization.unregister("auth")


@pytest.fixture
def files(tmp_path: Path) -> MakeSettings:
    """Settings of a signer, who is trusted."""

    def make(name: str, password: str = "") -> dict[str, Value]:
        own = {"security_key_password": password} if password else {}
        pair = signing.pair(name, password=password)
        store = tmp_path / "trusted"
        store.mkdir(exist_ok=True)
        (tmp_path / f"{name}.key").write_text(pair.key)
        (store / f"{name}.crt").write_text(pair.certificate)
        return {
            "security_key": str(tmp_path / f"{name}.key"),
            "security_certificate": str(store / f"{name}.crt"),
            "security_cert_store": str(store),
            **own,
        }

    return make


def worked(app: App, real_broker: RealBroker) -> None:
    worker = ToyWorker(app, real_broker.url)
    worker.work()
    worker.leave()


def test_signing_is_to_be_chosen_and_its_files_to_be_named(make_app: MakeApp) -> None:
    app = make_app()

    with pytest.raises(ImproperlyConfigured, match="task_serializer = 'auth'"):
        app.setup_security()
    app.conf.task_serializer = "auth"
    with pytest.raises(ImproperlyConfigured, match=r"accept_content = \['auth'\]"):
        app.setup_security()
    app.conf.accept_content = ["auth"]
    with pytest.raises(ImproperlyConfigured, match="security_cert_store"):
        app.setup_security()
    with pytest.raises(ImproperlyConfigured, match=r"private key, '/absent/key', cannot be read"):
        app.setup_security(key="/absent/key", cert="x", store="y")
    with pytest.raises(ImproperlyConfigured, match="another serializer than 'auth'"):
        app.setup_security(serializer="auth")


def test_the_current_app_is_set_up_where_none_is_named(make_app: MakeApp) -> None:
    make_app().set_current()

    with pytest.raises(ImproperlyConfigured, match="task_serializer = 'auth'"):
        security.setup_security()


def test_serializers_that_are_not_allowed_are_read_no_more_unless_they_are_asked_for(
    make_app: MakeApp,
) -> None:
    with pytest.raises(ImproperlyConfigured):
        make_app().setup_security()

    with pytest.raises(ContentDisallowed):
        serialization.loads(b"1", "application/json")
    security.disable_untrusted_serializers(["json"])
    assert serialization.loads(b"1", "application/json") == 1
    assert serialization.loads(b"1", "application/json", accept=["json"]) == 1


def test_signed_calls_run_and_results_and_failures_are_signed_where_that_is_wished(
    real_broker: RealBroker, make_app: MakeApp, files: MakeSettings
) -> None:
    app = make_app(
        broker=real_broker.url, backend="qbroker://", result_serializer="auth", **SIGNED, **files("ann", "pw")
    )  # fmt: skip
    app.setup_security(["json"])
    app.task(name="double")(lambda x: x * 2)
    app.task(name="fail")(lambda: 1 / 0)

    result, failure = app.send_task("double", (4,)), app.send_task("fail")
    worked(app, real_broker)
    worked(app, real_broker)

    assert result.get(timeout=5) == 8
    with pytest.raises(ZeroDivisionError):
        failure.get(timeout=5)
    for one in (result, failure):
        info = app.client().show_task(one.id)
        assert b"application/x-qbroker-signed" in info.result


def test_unsigned_calls_and_calls_of_strangers_become_dead_letters_and_nothing_of_them_is_decoded(
    real_broker: RealBroker, make_app: MakeApp, files: MakeSettings
) -> None:
    app = make_app(broker=real_broker.url, backend="qbroker://", **SIGNED, **files("ann"))
    app.setup_security()
    app.task(name="double")(lambda x: x * 2)
    stranger = make_app(broker=real_broker.url)

    by_nobody = [stranger.send_task("double", (4,), serializer=name) for name in ("json", "pickle")]
    written = app.send_task("double", (4,), task_id="signed").id
    stored = app.client().show_task(written).message
    assert b"signed" in stored
    for _ in range(3):
        worked(app, real_broker)

    for one in by_nobody:
        info = app.client().show_task(one.id)
        assert STAGES[info.stage] == "dead"
        assert info.detail.startswith("ContentDisallowed: Refusing to deserialize")
    assert app.AsyncResult("signed").get(timeout=5) == 8


def test_a_result_that_nobody_signed_is_refused_where_results_are_signed(
    real_broker: RealBroker, make_app: MakeApp, files: MakeSettings
) -> None:
    app = make_app(broker=real_broker.url, backend="qbroker://", **SIGNED, **files("ann"))
    app.setup_security()
    app.task(name="double")(lambda x: x * 2)
    reader = make_app(
        broker=real_broker.url, backend="qbroker://", result_serializer="auth", **SIGNED
    )

    result = app.send_task("double", (4,))
    worked(app, real_broker)

    assert result.get(timeout=5) == 8
    with pytest.raises(ContentDisallowed):
        reader.AsyncResult(result.id).get(timeout=5)


def test_whoever_is_no_longer_trusted_calls_nothing(
    real_broker: RealBroker, make_app: MakeApp, files: MakeSettings, tmp_path: Path
) -> None:
    app = make_app(broker=real_broker.url, backend="qbroker://", **SIGNED, **files("ann"))
    app.setup_security()
    app.task(name="double")(lambda x: x * 2)
    result = app.send_task("double", (4,))
    app.conf.update(files("bob"))
    (tmp_path / "trusted" / "ann.crt").unlink()
    app.setup_security()

    worked(app, real_broker)

    assert app.client().show_task(result.id).detail.startswith("SecurityError: Unknown certificate")
    with pytest.raises(SecurityError, match="Unknown certificate: 'ann"):
        result.get(timeout=5)


def test_who_accepts_signed_content_alone_and_did_not_set_it_up_is_told(make_app: MakeApp) -> None:
    app = make_app(**SIGNED)

    with pytest.raises(SerializerNotInstalled, match="setup_security"):
        _ = app.accepted_content


def test_without_cryptography_the_package_to_install_is_named() -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from qbroker import App
from qbroker.exceptions import ImproperlyConfigured
for use in (App().setup_security, lambda: App(security_encryption_keys={"a": bytes(16)}).conf.seal):
    try:
        use()
    except ImproperlyConfigured as exc:
        print(exc)
"""

    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert said.stdout.count("pip install cryptography") == 2


@pytest.mark.parametrize("result_serializer", ["json", "auth"])
def test_signed_chains_hand_results_on_whether_these_are_signed_or_not(
    real_broker: RealBroker, make_app: MakeApp, files: MakeSettings, result_serializer: str
) -> None:
    app = make_app(
        broker=real_broker.url, backend="qbroker://", result_serializer=result_serializer, **SIGNED, **files("ann")
    )  # fmt: skip
    app.setup_security()
    add = app.task(name="add")(lambda x, y: x + y)

    result = (add.s(1, 2) | add.s(4)).apply_async()
    worked(app, real_broker)
    worked(app, real_broker)

    assert result.get(timeout=5) == 7
