"""The module paths of Celery's documentation, and the names people import from them."""

import datetime as dt
import importlib
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import qbroker
from qbroker import App, decorators, exceptions
from qbroker.app import annotations, routes
from qbroker.execute import apply_async, delay_task, send_task
from qbroker.loaders import autodiscover_tasks
from qbroker.registry import tasks
from qbroker.serialization import Value
from qbroker.task import PeriodicTask
from qbroker.task.sets import TaskSet
from qbroker.utils import (
    functional,
    imports,
    iso8601,
    nodenames,
    objects,
    serialization,
    text,
    time,
)
from qbroker.utils.dispatch import Signal
from qbroker.utils.saferepr import saferepr
from tests.sdk.celerys_names import CELERYS

PATHS = {
    "app": "App Celery app_or_default shared_task",
    "app.amqp": "AMQP",
    "app.annotations": "",
    "app.base": "Celery",
    "app.builtins": "",
    "app.control": "Control Inspect flatten_reply",
    "app.defaults": "find",
    "app.events": "",
    "app.log": "ColorFormatter TaskFormatter",
    "app.registry": "TaskRegistry",
    "app.routes": "Router",
    "app.task": "Context Task",
    "app.trace": "LOG_FAILURE LOG_RECEIVED LOG_SUCCESS",
    "app.utils": "Settings appstr bugreport find_app",
    "backends.base": "Backend BaseBackend BaseKeyValueStoreBackend DisabledBackend KeyValueStoreBackend states",
    "beat": "PersistentScheduler ScheduleEntry Scheduler Service",
    "bin.base": "CeleryCommand CeleryOption",
    "bin.beat": "beat",
    "bin.call": "call",
    "bin.celery": "celery main",
    "bin.control": "control inspect status",
    "bin.events": "events",
    "bin.list": "list_",
    "bin.multi": "multi",
    "bin.purge": "purge",
    "bin.result": "result",
    "bin.shell": "shell",
    "bin.worker": "worker",
    "canvas": "Signature StampingVisitor chain chord group maybe_signature signature subtask",
    "contrib.abortable": "AbortableAsyncResult AbortableTask",
    "contrib.pytest": "celery_app",
    "contrib.testing.app": "TestApp",
    "contrib.rdb": "Rdb debugger set_trace",
    "contrib.testing.manager": "Manager",
    "contrib.testing.mocks": "ContextMock TaskMessage TaskMessage1 task_message_from_sig",
    "contrib.testing.tasks": "ping",
    "contrib.testing.worker": "start_worker",
    "decorators": "periodic_task task",
    "events": "Event",
    "events.dispatcher": "",
    "events.event": "Event",
    "events.receiver": "",
    "events.snapshot": "Polaroid",
    "events.state": "State Task Worker",
    "exceptions": "Ignore MaxRetriesExceededError Reject Retry SoftTimeLimitExceeded TimeLimitExceeded TimeoutError",
    "execute": "apply_async delay_task send_task",
    "loaders": "autodiscover_tasks",
    "loaders.base": "autodiscover_tasks find_related_module",
    "local": "PromiseProxy Proxy",
    "registry": "tasks",
    "result": "BaseAsyncResult TaskSetResult AsyncResult EagerResult GroupResult ResultSet allow_join_result result_from_tuple",
    "schedules": "crontab schedule solar",
    "security": "disable_untrusted_serializers setup_security",
    "security.certificate": "CertStore Certificate FSCertStore",
    "security.key": "PrivateKey",
    "security.serialization": "DEFAULT_SEPARATOR SecureSerializer register_auth",
    "security.utils": "get_digest_algorithm reraise_errors",
    "signals": "celeryd_init task_failure task_postrun task_prerun worker_process_init worker_ready",
    "states": "FAILURE PENDING READY_STATES SUCCESS",
    "task": "BaseTask Context PeriodicTask Task TaskSet chord group periodic_task subtask task",
    "task.base": "BaseTask PeriodicTask Task",
    "task.chords": "chord",
    "task.control": "broadcast inspect ping rate_limit revoke",
    "task.http": "HttpDispatchTask URL",
    "task.schedules": "crontab schedule",
    "task.sets": "TaskSet subtask",
    "utils": "cached_property gen_unique_id noop uuid worker_direct",
    "utils.functional": "chunks first maybe_list memoize noop uniq",
    "utils.graph": "DependencyGraph",
    "utils.imports": "gen_task_name instantiate qualname symbol_by_name",
    "utils.log": "get_logger get_task_logger",
    "utils.nodenames": "gethostname nodename nodesplit worker_direct",
    "utils.dispatch": "Signal",
    "utils.dispatch.signal": "Signal",
    "utils.iso8601": "parse_iso8601",
    "utils.objects": "Bunch mro_lookup",
    "utils.saferepr": "saferepr",
    "utils.serialization": "strtobool subclass_exception",
    "utils.text": "abbr pluralize truncate",
    "utils.time": "get_exponential_backoff_interval humanize_seconds rate",
    "utils.timeutils": "maybe_iso8601 rate",
    "worker": "",
    "worker.control": "Panel control_command inspect_command",
    "worker.request": "Request",
    "worker.state": "SOFTWARE_INFO",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_celerys_is_there_with_what_people_import_from_it(path: str) -> None:
    module = importlib.import_module(f"qbroker.{path}")

    missing = [name for name in PATHS[path].split() if not hasattr(module, name)]

    assert missing == []


LACKING = {
    # What is about Celery's own parts, which are built differently here (docs/from-celery.md).
    "app": "AppPickler default_app disable_trace enable_trace pop_current_task push_current_task",
    "app.amqp": "task_message",
    "app.defaults": "DEFAULTS NAMESPACES Option flatten",
    "app.log": "Logging",
    "app.trace": "TraceInfo build_tracer reset_worker_optimizations setup_worker_optimizations trace_task",
    "app.utils": "filter_hidden_settings sanitize_url",
    "beat": "BeatPidbox EmbeddedService",
    "events": "event_exchange get_exchange",
    "events.event": "event_exchange get_exchange",
    "exceptions": "CeleryCommandException",
    "local": "try_import",
    "worker": "WorkController",
    "worker.state": "Persistent active_requests maybe_shutdown merge_revoked reserved_requests revoked scheduled_requests task_accepted task_ready task_reserved task_scheduled total_count",
    # There is one way to load settings, and no messages of another broker's to move.
    "contrib.migrate": CELERYS["contrib.migrate"],
    "loaders": "get_loader_cls",
    "loaders.app": CELERYS["loaders.app"],
    "loaders.base": "BaseLoader",
    "loaders.default": CELERYS["loaders.default"],
    # No such pools.
    "signals": "eventlet_pool_apply eventlet_pool_postshutdown eventlet_pool_preshutdown eventlet_pool_started",
    # Celery's own tools, which programs have no use for.
    "utils.functional": "head_from_fun regen",
    "utils.graph": "DOT GraphFormatter",
    "utils.imports": "NotAPackage find_module module_file reload_from_cwd",
    "utils.log": "ColorFormatter LoggingProxy in_sighandler reset_multiprocessing_logger set_in_sighandler",
    "utils.objects": "FallbackContext getitem_property",
    "utils.saferepr": "reprstream",
    "utils.serialization": "UnpickleableExceptionWrapper find_pickleable_exception get_pickleable_etype get_pickleable_exception get_pickled_exception",
    "utils.text": "dedent_initial ensure_newlines ensure_sep fill_paragraphs pretty simple_format",
    "utils.time": "LocalTimezone ffwd timezone",
}
"""Names of Celery's modules that are not here."""


@pytest.mark.parametrize("path", CELERYS)
def test_a_module_of_celerys_has_its_public_names_but_for_those_that_mean_nothing_here(
    path: str,
) -> None:
    lacking = LACKING.get(path, "").split()
    try:
        module: Value = importlib.import_module(f"qbroker.{path}")
    except ModuleNotFoundError:
        module = None

    missing = [name for name in CELERYS[path].split() if not hasattr(module, name)]

    assert missing == lacking


def test_shortcuts_of_the_app_are_of_the_current_one() -> None:
    app = App("reported")

    assert qbroker.app.bugreport() == app.bugreport()
    assert qbroker.app.bugreport(app) == app.bugreport()


def test_annotations_and_routers_are_found_by_celerys_names() -> None:
    app = App("annotated", set_as_current=False)
    add = app.task(name="add")(lambda: 1)
    both = annotations.MapAnnotation({"add": {"priority": 3}, "*": {"queue": "q"}})
    router = {"add": "q"}

    assert list(annotations.resolve_all([both], add)) == [{"priority": 3}, {"queue": "q"}]
    assert routes.expand_router_string(router) is router
    assert routes.expand_router_string("tests.sdk.test_paths:Routed").route_for_task("add") == "add"


class Routed:
    """A router by its class."""

    def route_for_task(self, task: str) -> str:
        return task


def test_the_paths_of_celery_3_speak_to_the_current_app() -> None:
    app = App("old", task_always_eager=True)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    assert tasks[add.name].name == add.name
    assert qbroker.app.app_or_default() is app
    assert qbroker.app.app_or_default(qbroker.current_app) is qbroker.current_app
    assert apply_async(add, (2, 2)).get() == 4
    assert callable(send_task)
    assert callable(delay_task)


def test_tasks_are_declared_as_in_celery_2_and_3() -> None:
    app = App("older", task_always_eager=True)

    declare: Value = qbroker.task

    @declare(shared=False)  # type: ignore[untyped-decorator] # it is anything, to the type checker
    def add(x: int, y: int) -> int:
        return x + y

    @decorators.task(name="double", shared=False)  # type: ignore[untyped-decorator] # the same
    def double(x: int) -> int:
        return x * 2

    calls = TaskSet(tasks=[add.subtask((1, 2)), double.subtask((5,))])

    assert (calls.total, [one.task for one in calls.tasks]) == (2, [add.name, "double"])
    assert calls.apply_async().join() == [3, 10]
    assert calls.apply().get() == [3, 10]
    assert app.tasks["double"].app is app


def test_a_periodic_task_enters_itself_in_the_schedule() -> None:
    app = App("oldest", task_always_eager=True)

    @decorators.periodic_task(  # type: ignore[untyped-decorator] # the options of a task are any
        run_every=dt.timedelta(minutes=5), name="tidy", shared=False, options={"queue": "low"}
    )
    def tidy() -> str:
        return "tidy"

    class Sweep(PeriodicTask[..., str]):
        name = "sweep"
        run_every = 60

        def run(self) -> str:
            return "swept"

    app.register_task(Sweep())

    assert tidy.apply().get() == "tidy"
    assert app.conf.beat_schedule["tidy"]["options"] == {"queue": "low"}
    assert app.conf.beat_schedule["tidy"]["schedule"].run_every == dt.timedelta(minutes=5)
    assert app.conf.beat_schedule["sweep"]["schedule"].run_every == dt.timedelta(minutes=1)
    assert sorted(app.tasks.periodic()) == ["sweep", "tidy"]


def test_a_periodic_task_without_a_period_is_an_error() -> None:
    app = App("oldest", task_always_eager=True)

    class Never(PeriodicTask[..., None]):
        name = "never"

    with pytest.raises(NotImplementedError, match="'never' must have run_every"):
        app.register_task(Never)


def test_functions_on_sequences() -> None:
    assert functional.maybe_list("a") == ["a"]
    assert functional.maybe_list(["a"]) == ["a"]
    assert functional.maybe_list(None) is None
    assert functional.first(None, [None, 2]) == 2
    assert functional.first(lambda n: n > 2, [1, 2, 3]) == 3
    assert functional.firstmethod("get")([{}, {"a": 1}], "a") == 1
    assert list(functional.chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
    assert functional.padlist(["a"], 3) == ["a", None, None]
    assert list(functional.uniq([2, 1, 2])) == [2, 1]
    assert functional.dictfilter({"a": 1, "b": None}, c=3) == {"a": 1, "c": 3}
    assert functional.fun_accepts_kwargs(functional.noop)
    assert not functional.fun_accepts_kwargs(functional.chunks)
    assert functional.maybe(int, "3") == 3


@pytest.mark.parametrize("keyfun", [None, lambda args, kwargs: args])
def test_what_is_memoized_is_computed_once_until_it_is_cleared(keyfun: Value) -> None:
    seen: list[int] = []

    @functional.memoize(maxsize=2, keyfun=keyfun)
    def square(n: int) -> int:
        seen.append(n)
        return n * n

    memoized: Value = square
    assert [square(2), square(2), square(3), square(4), square(2)] == [4, 4, 9, 16, 4]
    memoized.clear()
    square(2)

    assert seen == [2, 3, 4, 2, 2]


def test_calls_that_are_made_when_they_are_asked_for() -> None:
    count = iter(range(10))
    each, once = functional.lazy(next, count), functional.mlazy(next, count)

    assert (each(), each.evaluate(), str(each)) == (0, 1, "2")
    assert (once(), once(), repr(once)) == (3, 3, "3")
    assert each == 4
    assert each != 4
    assert functional.maybe_evaluate(once) == 3
    assert functional.maybe_evaluate("text") == "text"
    assert functional.mattrgetter("real", "nothing")(3) == {"real": 3, "nothing": None}


def test_a_cache_forgets_what_was_used_longest_ago() -> None:
    cache = functional.LRUCache(limit=2)
    cache["a"], cache["b"] = 1, 2

    assert cache["a"] == 1
    cache["c"] = 3

    assert list(cache) == ["a", "c"]


def test_objects_and_their_classes() -> None:
    class Base:
        def own(self) -> None: ...

    class Derived(Base):
        pass

    assert vars(objects.Bunch(a=1)) == {"a": 1}
    assert objects.mro_lookup(Derived, "own") is Base
    assert objects.mro_lookup(Derived, "own", stop={Base}) is Base
    assert objects.mro_lookup(Derived, "own", stop={Base}, monkey_patched=[__name__]) is None
    assert objects.mro_lookup(Derived, "nothing") is None


def test_representations_stay_short() -> None:
    assert saferepr({"a": [1, (2, {3})]}) == "{'a': [1, (2, {...})]}"
    assert saferepr(list(range(1_000))) == repr(list(range(1_000)))
    assert len(saferepr(list(range(1_000)), maxlen=50)) == 50
    assert len(saferepr("x" * 100, maxlen=10)) <= 10


def test_a_signal_of_a_programs_own() -> None:
    heard: list[Value] = []
    signal = Signal(providing_args=["number"], name="mine")

    signal.connect(lambda number, **_: heard.append(number), weak=False)
    signal.send(sender=None, number=4)

    assert (heard, signal.name, signal.providing_args) == ([4], "mine", {"number"})


def test_moments_that_remain() -> None:
    start = dt.datetime(2024, 3, 30, 12, 30, 15, tzinfo=ZoneInfo("Europe/Vienna"))
    day = dt.timedelta(days=1)

    # The clock springs in the night.
    assert time.remaining(start, day, start) == day
    assert time.remaining(start, day, start, relative=True) == dt.timedelta(hours=11, minutes=29, seconds=45)  # fmt: skip
    assert time.remaining(start, dt.timedelta(hours=2), start, relative=True) == dt.timedelta(hours=1, minutes=29, seconds=45)  # fmt: skip
    assert time.add_seconds_to_datetime(start, 86_400) == start.replace(day=31, hour=13)
    assert time.subtract_datetimes(start.replace(day=31), start) == day - dt.timedelta(hours=1)
    assert time.delta_resolution(start, dt.timedelta(minutes=3)).second == 0
    assert time.delta_resolution(start, dt.timedelta(seconds=3)) == start
    assert time.adjust_timestamp(10_000.0, 2, lambda: 1) == 6_400.0
    assert iso8601.parse_iso8601("2024-03-30T12:30:15+01:00") == start
    with pytest.raises(ValueError, match="unable to parse date string 'soon'"):
        iso8601.parse_iso8601("soon")


def test_an_exception_is_raised_again_from_where_it_was() -> None:
    with pytest.raises(ValueError, match="no") as first:
        raise ValueError("no")
    with pytest.raises(ValueError, match="no") as second:
        exceptions.reraise(ValueError, first.value, None)

    assert second.value is first.value


def test_names_of_workers() -> None:
    assert nodenames.nodesplit("mail@host") == ("mail", "host")
    assert nodenames.nodesplit("host") == (None, "host")
    assert nodenames.default_nodename("mail@host") == "mail@host"
    assert nodenames.default_nodename(None) == f"celery@{nodenames.gethostname()}"
    assert nodenames.node_format("%n-%h-%d-%%-%p", "mail@a.b.c") == "mail-a.b.c-b.c-%-mail@a.b.c"
    assert nodenames.anon_nodename("host").endswith("@host")
    queue = nodenames.worker_direct("mail@host")
    assert (queue.name, queue.routing_key) == ("mail@host.dq2", "mail@host")
    assert nodenames.worker_direct(queue) is queue


def test_symbols_are_found_by_their_names() -> None:
    assert imports.symbol_by_name("qbroker.app:App") is App
    assert imports.symbol_by_name("qbroker.app.App") is App
    assert imports.symbol_by_name("short", aliases={"short": "qbroker.app:App"}) is App
    assert imports.symbol_by_name(App) is App
    assert imports.symbol_by_name("pathlib:Path.name") is Path.name
    assert imports.symbol_by_name("qbroker.app:Nothing", default=3) == 3
    assert imports.instantiate("qbroker.limits:Limit", "k", 3.0).key == "k"
    assert imports.qualname(App) == "qbroker.app.base.App"
    assert imports.qualname(dt.date(2024, 1, 1)) == "datetime.date"
    with pytest.raises(AttributeError):
        imports.symbol_by_name("qbroker.app:Nothing")
    with pytest.raises(ModuleNotFoundError, match="'word' names no module"):
        imports.symbol_by_name("word")


def test_modules_of_the_working_directory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here_only").mkdir()
    (tmp_path / "here_only" / "tasks.py").write_text("WHERE = 1\n")
    (tmp_path / "here_only" / "apps.py").write_text("class Config: pass\n")
    monkeypatch.chdir(tmp_path)

    with imports.cwd_in_path():
        imports.import_from_cwd("here_only.tasks")
        found = autodiscover_tasks(["here_only", "here_only.apps.Config", "json"])

    names = [None if module is None else module.__name__ for module in found]
    assert names == ["here_only.tasks", None, None]
    assert str(tmp_path) not in sys.path


def test_flags_and_exceptions_by_name() -> None:
    assert serialization.strtobool("Yes") is True
    assert serialization.strtobool("off") is False
    assert serialization.strtobool(3) == 3
    with pytest.raises(TypeError, match="cannot coerce 'perhaps'"):
        serialization.strtobool("perhaps")
    made = serialization.create_exception_cls("Odd", "proj.errors", ValueError)
    assert (made.__name__, made.__module__, issubclass(made, ValueError)) == ("Odd", "proj.errors", True)  # fmt: skip


def test_text_for_people() -> None:
    assert text.truncate("one two three", 9) == "one..."
    assert text.truncate("short") == "short"
    assert text.abbr("hello world", 8) == "hello..."
    assert text.abbr(None, 3) == "???"
    assert text.abbrtask("feeds.tasks.refresh", 15) == "feeds.ta[.]refresh"
    assert text.pluralize(2, "task") == "tasks"
    assert text.pluralize(1, "task") == "task"
    assert text.str_to_list("a, b") == ["a", "b"]
    assert text.indent("a\nb", 2) == "  a\n  b"
    assert text.dedent("  a\n  b") == "a\nb"
    assert text.join(["a", None, "b"], ", ") == "a, b"


def test_instants_and_spans() -> None:
    noon = dt.datetime(2024, 7, 1, 12)  # noqa: DTZ001 - a time without a zone is the point
    vienna = ZoneInfo("Europe/Vienna")

    assert time.rate("120/m") == 2
    assert time.rate(None) == 0
    assert time.humanize_seconds(90, prefix="in", sep=" ") == "in 1.50 minutes"
    assert time.humanize_seconds(0) == "now"
    assert time.maybe_timedelta(3) == dt.timedelta(seconds=3)
    assert time.maybe_timedelta(None) is None
    assert time.maybe_iso8601("2024-07-01T12:00:00") == noon
    assert time.maybe_iso8601(None) is None
    assert [time.weekday(day) for day in ("sunday", "Mon", "sat")] == [0, 1, 6]
    with pytest.raises(KeyError):
        time.weekday("never")
    assert time.is_naive(noon)
    assert time.localize(noon, vienna).utcoffset() == dt.timedelta(hours=2)
    assert time.to_utc(time.make_aware(noon, vienna)).hour == 10
    assert time.maybe_make_aware(noon, vienna).hour == 14
    assert time.maybe_make_aware(noon, vienna, naive_as_utc=False).hour == 12
