"""`qctl task`, `qctl revoke` and `qctl explain`, at the real broker."""

import pytest

from qbroker import App, Task
from qbroker.serialization import Value
from tests.sdk.cli.asking import Shell
from tests.sdk.real_broker import RealBroker, ToyWorker


def ids(page: Value) -> list[str]:
    return sorted(task["id"] for task in page["tasks"])


@pytest.fixture
def five(real_app: App) -> App:
    """In mail a and b wait, in slow c, and d is due in an hour; a and c are of customer 42."""
    _ = real_app.send_task("send", ("x",), queue="mail", task_id="a", labels={"customer": 42})
    _ = real_app.send_task("sort", queue="mail", task_id="b")
    _ = real_app.send_task("send", queue="slow", task_id="c", labels={"customer": 42})
    _ = real_app.send_task("send", queue="mail", task_id="d", countdown=3600)
    return real_app


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ["a", "b", "c", "d"]),
        (("--queue", "mail"), ["a", "b", "d"]),
        (("--task", "send"), ["a", "c", "d"]),
        (("--state", "queued"), ["a", "b", "c"]),
        (("--state", "scheduled"), ["d"]),
        (("--state", "PENDING"), ["a", "b", "c", "d"]),
        (("--state", "SUCCESS"), []),
        (("--label", "customer=42"), ["a", "c"]),
        (("--label", "customer=42", "--queue", "slow"), ["c"]),
        (("--older", "1h"), []),
        (("--younger", "1h"), ["a", "b", "c", "d"]),
    ],
)
def test_ls_finds_tasks_by_what_they_are(
    qctl: Shell, options: tuple[str, ...], found: list[str]
) -> None:
    assert ids(qctl.json("task", "ls", *options)) == found


@pytest.mark.usefixtures("five")
def test_ls_goes_on_behind_a_page(qctl: Shell) -> None:
    first = qctl.json("task", "ls", "--limit", "3")
    second = qctl.json("task", "ls", "--limit", "3", "--after", first["next"])
    told = qctl.said("task", "ls", "--limit", "3")

    assert ids(first) + ids(second) == ["a", "b", "c", "d"]
    assert f"--after {first['next']}" in told


def test_ls_finds_tasks_by_how_they_ended(
    qctl: Shell, real_app: App, real_broker: RealBroker
) -> None:
    real_app.task(name="good")(lambda: 1)
    real_app.task(name="bad")(lambda: 1 / 0)
    _ = real_app.send_task("good", task_id="g")
    _ = real_app.send_task("bad", task_id="b")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work(2)
    worker.leave()

    assert ids(qctl.json("task", "ls", "--state", "SUCCESS")) == ["g"]
    assert ids(qctl.json("task", "ls", "--state", "FAILURE")) == ["b"]


@pytest.mark.usefixtures("five")
def test_show_keeps_arguments_to_itself_unless_asked(qctl: Shell) -> None:
    shown = qctl.json("task", "show", "a")
    with_args = qctl.json("task", "show", "a", "--args")

    assert (shown["task"], shown["stage"], shown["labels"]) == ("send", "queued", ["customer=42"])
    assert "args" not in shown
    assert (with_args["args"], with_args["kwargs"]) == ("['x']", "{}")
    assert qctl("task", "show", "nobody").exit_code == 3


def test_show_tells_the_tries_and_how_it_ended(
    qctl: Shell, real_app: App, real_broker: RealBroker
) -> None:
    @real_app.task(name="flaky", bind=True, max_retries=1)
    def flaky(self: Task[..., Value]) -> None:
        self.retry(exc=ValueError("no luck"), countdown=0.01)

    _ = real_app.send_task("flaky", task_id="f")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work(2)
    worker.leave()

    shown, told = qctl.json("task", "show", "f"), qctl.said("task", "show", "f")

    assert [one["how"] for one in shown["history"]] == ["RETRY"]
    assert shown["result"] == "ValueError('no luck')"
    assert "Retry in 0.01s: ValueError('no luck')" in told
    assert "Traceback (most recent call last)" in told


@pytest.mark.usefixtures("five")
def test_explain_says_why_and_ends_with_3_for_an_unknown_id(qctl: Shell) -> None:
    known, unknown = qctl.json("explain", "d"), qctl("explain", "nobody")

    assert (known["stage"], known["sentence"][:17]) == ("scheduled", "It will be due in")
    assert unknown.exit_code == 3
    assert "does not know it" in unknown.output


@pytest.mark.usefixtures("five")
def test_reschedule_moves_a_task_in_time(qctl: Shell) -> None:
    at = qctl.json("task", "reschedule", "a", "--at", "2099-01-01T00:00:00")
    now = qctl.said("task", "reschedule", "d", "--in", "0")
    neither, both = (
        qctl("task", "reschedule", "a"),
        qctl("task", "reschedule", "a", "--in", "1s", "--at", "2099-01-01"),
    )

    assert (at["stage"], at["eta_ms"]) == ("scheduled", 4_070_908_800_000)
    assert now == "It is due now.\n"
    assert (neither.exit_code, both.exit_code) == (2, 2)
    assert qctl("task", "reschedule", "a", "--at", "soon").exit_code == 2
    assert qctl("task", "reschedule", "nobody", "--in", "1s").exit_code == 3


def test_revoke_says_what_became_of_each(qctl: Shell, five: App) -> None:
    first = qctl.said("revoke", "a", "d", "--why", "INC-42")
    partial = qctl("revoke", "a", "b")
    late = qctl("revoke", "a")

    assert first == "2 will not run; 0 with workers, which were told; 0 had ended before.\n"
    assert (partial.exit_code, late.exit_code) == (8, 6)
    assert str(five.AsyncResult("a").get(timeout=5, propagate=False)) == "INC-42"
    assert qctl("revoke").exit_code == 2


def test_revoke_takes_ids_from_standard_input(qctl: Shell, five: App) -> None:
    qctl.said("revoke", "-", stdin="a\nb\n")

    assert {five.AsyncResult(one).state for one in "ab"} == {"REVOKED"}


@pytest.mark.usefixtures("five")
def test_revoking_by_label_says_how_many_and_asks(qctl: Shell) -> None:
    unwanted = qctl("revoke", "--label", "customer=42", stdin="n\n")
    wanted = qctl.said("revoke", "--label", "customer=42", stdin="y\n")

    assert unwanted.exit_code == 1
    assert "Revoke tasks: 2 with the label 'customer=42'?" in unwanted.output
    assert "2 will not run" in wanted


def test_revoking_by_root_ends_a_workflow(qctl: Shell, real_app: App) -> None:
    _ = real_app.send_task("t", task_id="root")
    _ = real_app.send_task("t", task_id="child", root_id="root", parent_id="root")
    _ = real_app.send_task("t", task_id="stranger")

    reply = qctl.json("revoke", "--root", "root", "--yes")

    assert sorted(reply["ended"]) == ["child", "root"]
    assert real_app.AsyncResult("stranger").stage == "queued"


def test_a_task_is_removed_unless_it_runs(
    qctl: Shell, real_app: App, real_broker: RealBroker
) -> None:
    real_app.task(name="t")(lambda: 1)
    for task_id in ("ended", "runs", "waits"):
        _ = real_app.send_task("t", task_id=task_id)
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.take()

    refused = qctl("task", "rm", "ended", "runs", "--yes")
    removed = qctl.said("task", "rm", "ended", "waits", stdin="y\n")
    worker.leave()

    assert refused.exit_code == 6
    assert "qctl revoke --terminate runs" in refused.output
    assert "Removed 2 tasks." in removed
    assert real_app.AsyncResult("ended").state == "PENDING"
    assert real_app.AsyncResult("waits").stage == "done"


def test_show_says_what_it_may_not_read(
    qctl: Shell, real_app: App, real_broker: RealBroker
) -> None:
    real_app.conf.update(accept_content=["json", "pickle"], result_serializer="pickle")
    real_app.task(name="odd")(lambda x: x)
    _ = real_app.send_task("odd", (1,), serializer="pickle", task_id="odd-1")
    before = qctl.json("task", "show", "odd-1", "--args")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    after = qctl.json("task", "show", "odd-1")

    assert "Refusing to deserialize" in before["args"]
    assert "Refusing to deserialize" in after["result"]


def test_show_says_by_which_key_it_is_encrypted(qctl: Shell, real_app: App) -> None:
    real_app.conf.security_encryption_keys = {"spring": b"k" * 32}
    real_app.task(name="hush")(lambda card: card)
    _ = real_app.send_task("hush", ("4111",), task_id="hush-1")
    worker = ToyWorker(real_app, real_app.conf.broker_url)

    before = qctl.json("task", "show", "hush-1", "--args")
    worker.work()
    worker.leave()
    after = qctl.json("task", "show", "hush-1", "--args")

    assert "encrypted by the key 'spring'" in before["args"]
    assert "encrypted by the key 'spring'" in after["result"]
    assert "4111" not in str(before) + str(after)
