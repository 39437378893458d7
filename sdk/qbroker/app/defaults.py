"""Every setting: its names, type, default and meaning. A new one is a line here, and has an effect.

Names are Celery's where Celery has the setting. An old name, of its upper-case days, follows from the new one
(`task_acks_late` was `CELERY_ACKS_LATE`, `worker_pool` was `CELERYD_POOL`); a line names only those that do not.
What Celery has and we have no use for is in `IGNORED`, with the reason that users are told.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qbroker.app.log import LOG_FORMAT, TASK_LOG_FORMAT
from qbroker.compression import UNPACKED_BYTES_MAX
from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked, masked_setting
from qbroker.sealing import keys_of
from qbroker.serialization import Value
from qbroker.url import DEFAULT_URL, parse_url

__all__ = ["IGNORED", "SETTINGS", "Setting", "find", "suggestion"]


def _text(value: Value) -> Value:
    if isinstance(value, str):
        return value
    raise TypeError("text")


def _flag(value: Value) -> Value:
    if isinstance(value, str):
        meant = {"1": True, "true": True, "yes": True, "on": True}
        meant |= {"0": False, "false": False, "no": False, "off": False, "": False}
        if value.lower() in meant:
            return meant[value.lower()]
    elif isinstance(value, bool | int):
        return value
    raise TypeError("a boolean")


def _count(value: Value) -> Value:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError("a whole number") from None


def _seconds(value: Value) -> Value:
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError("seconds or a timedelta") from None


def _names(value: Value) -> Value:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        return tuple(value)
    except TypeError:
        raise TypeError("a list of names") from None


def _any(value: Value) -> Value:
    return value


RESULTS_HERE = frozenset(
    ["qbroker", "qbroker://", "rpc", "rpc://", "cache+memory", "cache+memory://", "memory"]
)
"""Values of `result_backend` that mean the app's own broker."""

_NO_RESULTS = ("", "disabled", "disabled://")

_HOST_AND_PORT = re.compile(r"[\w.\[\]:-]+:\d+(/.*)?", re.ASCII)


def _results(value: Value) -> Value:
    if not isinstance(value, str):
        raise TypeError("a URL")
    is_of_broker = value.startswith(("qbroker://", "memory://", "cache+memory://"))
    if value in _NO_RESULTS or value in RESULTS_HERE:
        return value
    if not (is_of_broker or ("://" not in value and _HOST_AND_PORT.fullmatch(value))):
        raise ImproperlyConfigured(
            f"the setting result_backend is {masked(value)!r}; results are in the broker: set it to 'qbroker://'"
        )
    if not value.startswith(("memory://", "cache+")):
        try:
            parse_url(value)
        except ImproperlyConfigured:
            raise ImproperlyConfigured(
                f"the setting result_backend is {masked(value)!r}, which is malformed; write it as in {DEFAULT_URL!r}"
            ) from None
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `convert` takes what users write, and raises a TypeError that says what it wants."""

    name: str
    convert: Callable[[Value], Value]
    default: Value
    meaning: str
    old_names: tuple[str, ...] = ()
    is_ignored: bool = False
    """It has no effect here, and `meaning` is the reason."""

    @property
    def old_name(self) -> str:
        """What Celery called it in its upper-case days."""
        return self.old_names[0] if self.old_names else _old_name(self.name)

    def value_of(self, given: Value) -> Value:
        """What the user means."""
        if given is None:
            return None if self.default is None else self.default
        try:
            return self.convert(given)
        except TypeError as exc:
            raise ImproperlyConfigured(
                f"the setting {self.name} must be {exc}, not {masked_setting(self.name, given)!r}. {self.meaning}"
            ) from None


_TABLE = (
    Setting("accept_content", _names, ("json",), "Serializers, by name or content type, whose content may be read.", ("CELERY_ACCEPT_CONTENT",)),
    Setting("beat_cron_starting_deadline", _seconds, None, "How many seconds late a crontab's missed run may be to be made up for; None: any."),
    Setting("beat_max_loop_interval", _seconds, 0.0, "How many seconds a scheduler of your own sleeps at most; 0: its own choice."),
    Setting("beat_schedule", _any, {}, "Periodic tasks by name, which `qbroker beat` hands to the broker."),
    Setting("beat_scheduler", _text, "qbroker.beat:PersistentScheduler", "A Scheduler class of your own, which `qbroker beat` runs in the broker's place."),
    Setting("broker_connection_timeout", _seconds, 5.0, "How many seconds a call waits for the broker's answer, connecting included.", ("BROKER_CONNECTION_TIMEOUT",)),
    Setting("broker_url", _text, DEFAULT_URL, "Where the broker is: qbroker://host:port.", ("BROKER_URL",)),
    Setting("compression_level", _count, None, "How hard compression tries, in the method's own numbers; None: as the method likes."),
    Setting("enable_utc", _flag, default=True, meaning="Without a `timezone`, times are in UTC; else in the machine's own.", old_names=("CELERY_ENABLE_UTC",)),
    Setting("http_allowed_hosts", _names, (), "Hosts that tasks over HTTP may speak to: names, *.names, addresses, networks, `public`; none: whatever has a public address."),
    Setting("http_ca_file", _any, None, "A file of certificates to trust in tasks over HTTP; None: the system's."),
    Setting("http_redirects_max", _count, 5, "How many redirects a task over HTTP follows."),
    Setting("http_timeout", _seconds, 60.0, "How many seconds a task over HTTP waits for the other side."),
    Setting("imports", _names, (), "Modules a worker imports when it starts.", ("CELERY_IMPORTS",)),
    Setting("include", _names, (), "More such modules; App(include=…) adds to them.", ("CELERY_INCLUDE",)),
    Setting("result_accept_content", _names, None, "Serializers whose results may be read; None: as accept_content. Failures are JSON and may always be read."),
    Setting("result_backend", _results, None, "'qbroker://' keeps results in the broker; None keeps none.", ("CELERY_RESULT_BACKEND",)),
    Setting("result_compression", _text, None, "How results are made smaller: zstd, gzip, bzip2, lzma, brotli; None: not at all."),
    Setting("result_expires", _seconds, 86_400.0, "How many seconds a result is kept after the end.", ("CELERY_TASK_RESULT_EXPIRES",)),
    Setting("result_extended", _flag, default=False, meaning="Keep with a result what its task was called with: result.args, result.kwargs, and its stamps. Not with security_encryption_keys."),
    Setting("result_serializer", _text, "json", "How what tasks return is written: json, pickle, yaml, msgpack, raw, or one that was registered."),
    Setting("security_accept_unencrypted", _flag, default=False, meaning="With security_encryption_keys, read what is not encrypted too: while not everybody has the keys yet."),
    Setting("security_cert_store", _text, None, "The certificates of those whose messages are run: a folder, or a pattern of files.", ("CELERY_SECURITY_CERT_STORE",)),
    Setting("security_certificate", _text, None, "The file of the certificate that goes with security_key.", ("CELERY_SECURITY_CERTIFICATE",)),
    Setting("security_digest", _text, "sha256", "What is signed of a message: its digest by this method.", ("CELERY_SECURITY_DIGEST",)),
    Setting("security_encryption_keys", keys_of, None, "Keys by id that encrypt arguments and results, in base64; the first encrypts, all are read. None: nothing is encrypted."),
    Setting("security_key", _text, None, "The file of the private key that signs messages, for app.setup_security().", ("CELERY_SECURITY_KEY",)),
    Setting("security_key_password", _any, None, "The password of that file.", ("CELERY_SECURITY_KEY_PASSWORD",)),
    Setting("task_acks_late", _flag, default=False, meaning="Acknowledge tasks after they ran, not before.", old_names=("CELERY_ACKS_LATE",)),
    Setting("task_acks_on_failure", _flag, None, "Acknowledge late-acknowledged tasks that fail; else they become dead letters. None: as task_acks_on_failure_or_timeout.", ("CELERY_ACKS_ON_FAILURE",)),
    Setting("task_acks_on_failure_or_timeout", _flag, default=True, meaning="Acknowledge late-acknowledged tasks that fail or run out of time.", old_names=("CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",)),
    Setting("task_acks_on_timeout", _flag, None, "Acknowledge late-acknowledged tasks that run out of time; else they are run again. None: as task_acks_on_failure_or_timeout.", ("CELERY_ACKS_ON_TIMEOUT",)),
    Setting("task_allow_error_cb_on_chord_header", _flag, default=False, meaning="Errbacks of a chord are called for each task of its header that fails, too.", old_names=("CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",)),
    Setting("task_always_eager", _flag, default=False, meaning="Run tasks where they are called, without a broker.", old_names=("CELERY_ALWAYS_EAGER",)),
    Setting("task_annotations", _any, None, "Attributes of tasks: {'proj.add': {'priority': 3}, '*': {'@on_failure': wrap}}, or objects with annotate(task)."),
    Setting("task_compression", _text, None, "How arguments are made smaller: zstd, gzip, bzip2, lzma, brotli; None: not at all.", ("CELERY_MESSAGE_COMPRESSION", "CELERY_COMPRESSION")),
    Setting("task_create_missing_queues", _flag, default=True, meaning="A queue that is not in task_queues comes into being with its first message; else QueueNotFound is raised.", old_names=("CELERY_CREATE_MISSING_QUEUES",)),
    Setting("task_default_exchange", _text, None, "The exchange of queues that name none; None: the name of the default queue.", ("CELERY_DEFAULT_EXCHANGE",)),
    Setting("task_default_exchange_type", _text, "direct", "Its type: direct, topic, fanout or headers.", ("CELERY_DEFAULT_EXCHANGE_TYPE",)),
    Setting("task_default_priority", _count, None, "The priority of tasks that have none: 0 to 9, higher first."),
    Setting("task_default_queue", _text, "celery", "The queue of tasks that name none.", ("CELERY_DEFAULT_QUEUE",)),
    Setting("task_default_rate_limit", _any, None, "How often a worker starts a task that has no rate_limit: '100/s', '100/m', '100/h', or so many a second; None: no limit.", ("CELERY_DEFAULT_RATE_LIMIT",)),
    Setting("task_default_routing_key", _text, None, "The routing key of queues that name none; None: the name of the default queue.", ("CELERY_DEFAULT_ROUTING_KEY",)),
    Setting("task_eager_propagates", _flag, default=False, meaning="Raise what a task raises that runs where it is called.", old_names=("CELERY_EAGER_PROPAGATES_EXCEPTIONS", "CELERY_EAGER_PROPAGATES")),
    Setting("task_ignore_result", _flag, default=False, meaning="Keep no results.", old_names=("CELERY_IGNORE_RESULT",)),
    Setting("task_inherit_parent_priority", _flag, default=False, meaning="Tasks that a task calls have its priority, unless they have one of their own.", old_names=("CELERY_INHERIT_PARENT_PRIORITY",)),
    Setting("task_max_deliveries", _count, 0, "How many deaths of workers a late-acknowledged task survives; 0: as the broker says."),
    Setting("task_message_bytes_max", _count, 4 * 1024 * 1024, "The largest message that is sent, in bytes."),
    Setting("task_queues", _any, None, "The queues there are: a list of Queue, or {'mail': {'exchange': 'media', 'exchange_type': 'topic', 'routing_key': 'mail.#'}}; None: the default one.", ("CELERY_QUEUES",)),
    Setting("task_reject_on_worker_lost", _flag, None, "Run late-acknowledged tasks again whose worker died. None and True: up to task_max_deliveries; False: the first death is the last.", ("CELERY_REJECT_ON_WORKER_LOST",)),
    Setting("task_routes", _any, None, "Where tasks go: {'feed.*': 'feeds', 'mail.send': {'queue': 'mail', 'priority': 3}}, a list of pairs, a function, or a list of these.", ("CELERY_ROUTES",)),
    Setting("task_send_sent_event", _flag, default=False, meaning="Tell those who listen of each call that is sent.", old_names=("CELERY_SEND_TASK_SENT_EVENT",)),
    Setting("task_serializer", _text, "json", "How arguments are written: json, pickle, yaml, msgpack, or one that was registered.", ("CELERY_TASK_SERIALIZER",)),
    Setting("task_soft_time_limit", _seconds, None, "After how many seconds SoftTimeLimitExceeded is raised in a task; None: never.", ("CELERYD_TASK_SOFT_TIME_LIMIT",)),
    Setting("task_store_eager_result", _flag, default=False, meaning="Keep results of tasks that run where they are called, too.", old_names=("CELERY_STORE_EAGER_RESULT",)),
    Setting("task_store_errors_even_if_ignored", _flag, default=False, meaning="Keep failures of tasks whose results are ignored.", old_names=("CELERY_STORE_ERRORS_EVEN_IF_IGNORED",)),
    Setting("task_time_limit", _seconds, None, "After how many seconds a task is ended; None: never.", ("CELERYD_TASK_TIME_LIMIT",)),
    Setting("task_track_started", _flag, default=False, meaning="Show the state STARTED while a task runs.", old_names=("CELERY_TRACK_STARTED",)),
    Setting("timezone", _any, None, "The zone of times without one and of app.now(); None: see enable_utc.", ("CELERY_TIMEZONE",)),
    Setting("unpacked_bytes_max", _count, UNPACKED_BYTES_MAX, "What compressed content may become at most, in bytes; more is refused."),
    Setting("worker_cancel_long_running_tasks_on_connection_loss", _flag, default=False, meaning="End late-acknowledged tasks that run when the link to the broker breaks, and give them back."),
    Setting("worker_concurrency", _count, None, "How many tasks a worker runs at once; None: as many as there are cores.", ("CELERYD_CONCURRENCY",)),
    Setting("worker_direct", _flag, default=False, meaning="Each worker takes from a queue of its own name too: <name>.dq2.", old_names=("CELERY_WORKER_DIRECT",)),
    Setting("worker_disable_rate_limits", _flag, default=False, meaning="Have no task's rate_limit count.", old_names=("CELERY_DISABLE_RATE_LIMITS",)),
    Setting("worker_enable_soft_shutdown_on_idle", _flag, default=False, meaning="Wait worker_soft_shutdown_timeout seconds even if nothing runs."),
    Setting("worker_hijack_root_logger", _flag, default=True, meaning="Remove the root logger's handlers when a worker starts.", old_names=("CELERYD_HIJACK_ROOT_LOGGER",)),
    Setting("worker_http_listen", _text, None, "Where a worker serves /metrics, /livez and /readyz: HOST:PORT; None: nowhere."),
    Setting("worker_log_color", _any, None, "Colours in the log: True, False, or None for where it is a terminal.", ("CELERYD_LOG_COLOR",)),
    Setting("worker_log_format", _text, LOG_FORMAT, "The form of a line of log.", ("CELERYD_LOG_FORMAT",)),
    Setting("worker_max_memory_per_child", _count, None, "How many KiB a child may have grown to before a fresh one takes its place; None: any.", ("CELERYD_MAX_MEMORY_PER_CHILD",)),
    Setting("worker_max_tasks_per_child", _count, None, "How many tasks a child runs before a fresh one takes its place; None: any.", ("CELERYD_MAX_TASKS_PER_CHILD",)),
    Setting("worker_pool", _text, "prefork", "Where tasks run: prefork, threads, asyncio or solo.", ("CELERYD_POOL",)),
    Setting("worker_pool_restarts", _flag, default=False, meaning="Let control.pool_restart replace the processes that run tasks.", old_names=("CELERYD_POOL_RESTARTS",)),
    Setting("worker_pool_start_method", _text, "fork", "How the prefork pool's processes begin: fork, copied from one that has the app, or spawn, as fresh interpreters. Where the system cannot fork: spawn.", ("CELERYD_POOL_START_METHOD",)),
    Setting("worker_prefetch_multiplier", _count, 4, "How many messages a worker holds, times its concurrency.", ("CELERYD_PREFETCH_MULTIPLIER",)),
    Setting("worker_redirect_stdouts", _flag, default=True, meaning="Make what tasks print a record of the log.", old_names=("CELERY_REDIRECT_STDOUTS",)),
    Setting("worker_redirect_stdouts_level", _text, "WARNING", "The level of those records.", ("CELERY_REDIRECT_STDOUTS_LEVEL",)),
    Setting("worker_send_task_events", _flag, default=False, meaning="Tell those who listen what becomes of each task: the worker's -E.", old_names=("CELERY_SEND_EVENTS", "CELERY_SEND_TASK_EVENTS")),
    Setting("worker_soft_shutdown_timeout", _seconds, 0.0, "How many seconds tasks may go on that run when a worker is told to end at once."),
    Setting("worker_task_log_format", _text, TASK_LOG_FORMAT, "The form of a line a task logs.", ("CELERYD_TASK_LOG_FORMAT",)),
)  # fmt: skip


def _old_name(name: str) -> str:
    for new, old in _PREFIXES:
        if name.startswith(new):
            return old + name[len(new) :].upper()
    return f"CELERY_{name.upper()}"


_PREFIXES = (
    ("task_", "CELERY_"),
    ("worker_", "CELERYD_"),
    ("beat_", "CELERYBEAT_"),
    ("broker_", "BROKER_"),
    ("redis_", "REDIS_"),
)
"""How the old names of settings began."""

_LATER = "qbroker does not have it yet"
_BROKER = "there is one broker and one kind of connection to it, which looks after itself"
_BACKEND = "results are in the broker; there is no other backend"
_QUEUES = "queues are kept by the broker, durably, and each is of the same kind"
_EVENTS = (
    "the broker keeps what happened, so there are no queues of events or of commands to be set up"
)
_WORKER = "the worker is built differently and has no such part"
_PUBLISH = "publishing is always confirmed, and always tried again until broker_connection_timeout"

_BEAT = "the broker knows when its entries ran, so there is no schedule file"

_NEVER: Mapping[str, Mapping[str, Value]] = {
    _BROKER: {
        "broker_channel_error_retry": False,
        "broker_connection_max_retries": 100,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": None,
        "broker_failover_strategy": None,
        "broker_heartbeat": 120,
        "broker_heartbeat_checkrate": 3.0,
        "broker_host": None,
        "broker_login_method": None,
        "broker_native_delayed_delivery_queue_type": "quorum",
        "broker_password": None,
        "broker_pool_acquire_timeout": None,
        "broker_pool_limit": 10,
        "broker_port": None,
        "broker_read_url": None,
        "broker_transport": None,
        "broker_transport_options": {},
        "broker_use_ssl": False,
        "broker_user": None,
        "broker_vhost": None,
        "broker_write_url": None,
    },
    _BEAT: {
        "beat_schedule_filename": "celerybeat-schedule",
        "beat_sync_every": 0,
    },
    _BACKEND: {
        "arangodb_backend_settings": None,
        "cache_backend": None,
        "cache_backend_options": {},
        "couchbase_backend_settings": None,
        "database_create_tables_at_setup": True,
        "database_engine_options": {},
        "database_short_lived_sessions": False,
        "database_table_names": None,
        "database_table_schemas": None,
        "database_url": None,
        "elasticsearch_max_retries": None,
        "elasticsearch_retry_on_timeout": None,
        "elasticsearch_timeout": None,
        "mongodb_backend_settings": None,
        "redis_backend_use_ssl": None,
        "redis_db": None,
        "redis_host": None,
        "redis_max_connections": None,
        "redis_password": None,
        "redis_port": None,
        "redis_retry_on_timeout": False,
        "redis_socket_connect_timeout": None,
        "redis_socket_keepalive": False,
        "redis_socket_timeout": 120.0,
        "redis_username": None,
        "result_backend_always_retry": False,
        "result_backend_base_sleep_between_retries_ms": 10,
        "result_backend_max_retries": float("inf"),
        "result_backend_max_sleep_between_retries_ms": 10_000,
        "result_backend_thread_safe": False,
        "result_backend_transport_options": {},
        "result_cache_max": -1,
        "result_chord_join_timeout": 3.0,
        "result_chord_retry_interval": 1.0,
        "result_exchange": "celeryresults",
        "result_exchange_type": "direct",
        "result_persistent": None,
    },
    _QUEUES: {
        "task_create_missing_queue_exchange_type": None,
        "task_create_missing_queue_type": "classic",
        "task_default_delivery_mode": 2,
        "task_default_queue_type": "classic",
        "task_queue_max_priority": None,
        "worker_detect_quorum_queues": True,
    },
    _EVENTS: {
        "control_exchange": "celery",
        "control_queue_durable": False,
        "control_queue_exclusive": True,
        "control_queue_expires": 10.0,
        "control_queue_ttl": 300.0,
        "event_exchange": "celeryev",
        "event_queue_durable": False,
        "event_queue_exclusive": True,
        "event_queue_expires": 60.0,
        "event_queue_prefix": "celeryev",
        "event_queue_ttl": 5.0,
        "event_serializer": "json",
    },
    _WORKER: {
        "worker_agent": None,
        "worker_autoscaler": "celery.worker.autoscale:Autoscaler",
        "worker_consumer": "celery.worker.consumer:Consumer",
        "worker_deduplicate_successful_tasks": False,
        "worker_disable_prefetch": False,
        "worker_enable_prefetch_count_reduction": True,
        "worker_eta_task_limit": None,
        "worker_pool_putlocks": True,
        "worker_state_db": None,
        "worker_timer": None,
        "worker_timer_precision": 1.0,
    },
    _PUBLISH: {
        "task_protocol": 2,
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "interval_max": 1,
            "interval_start": 0,
            "interval_step": 0.2,
            "max_retries": 3,
        },
    },
    _LATER: {
        "beat_enable_remote_control": False,
        "beat_remote_control_max_tick_age": None,
        "result_chord_expires": None,
        "result_failure_expires": None,
        "task_allow_error_cb_on_chord_header": False,
        "task_remote_tracebacks": False,
        "task_repr_maxlevels": 3,
        "task_retry_on_worker_lost": False,
        "task_send_sent_event": False,
        "worker_enable_remote_control": True,
        "worker_log_datefmt": None,
        "worker_lost_wait": 10.0,
        "worker_proc_alive_timeout": 4.0,
        "worker_send_task_events": False,
        "worker_task_log_datefmt": None,
    },
}

_OLD_NEVER = {
    "result_cache_max": ("CELERY_MAX_CACHED_RESULTS",),
    "task_protocol": ("CELERY_TASK_PROTOCOL",),
    "task_publish_retry": ("CELERY_TASK_PUBLISH_RETRY",),
    "task_publish_retry_policy": ("CELERY_TASK_PUBLISH_RETRY_POLICY",),
    "task_send_sent_event": ("CELERY_SEND_TASK_SENT_EVENT",),
    "worker_enable_remote_control": ("CELERY_ENABLE_REMOTE_CONTROL",),
    "worker_lost_wait": ("CELERYD_WORKER_LOST_WAIT",),
    "worker_send_task_events": ("CELERY_SEND_EVENTS",),
}
"""Old names of theirs that do not follow from the new ones."""

SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _TABLE}

IGNORED: Mapping[str, Setting] = {
    name: Setting(name, _any, default, reason, _OLD_NEVER.get(name, ()), is_ignored=True)
    for reason, group in _NEVER.items()
    for name, default in group.items()
    if name not in SETTINGS
}
"""Celery's settings that have no effect here; they keep what they are set to."""

_ALL = {**IGNORED, **SETTINGS}
_OLD = {old: setting for setting in _ALL.values() for old in (*setting.old_names, setting.old_name)}


def find(name: str) -> Setting | None:
    """The setting of that name: `task_acks_late`, `TASK_ACKS_LATE`, `CELERY_TASK_ACKS_LATE` or its old name."""
    return (
        _ALL.get(name)
        or _OLD.get(name)
        or _ALL.get(name.lower())
        or (_ALL.get(name[7:].lower()) if name.startswith("CELERY_") else None)
    )


def suggestion(name: str) -> str:
    """The name of the setting that was probably meant, in the spelling that was used; "" when none looks like it."""
    # Needed by a typing error alone.
    import difflib  # noqa: PLC0415

    is_new = name.islower()
    names = SETTINGS if is_new else [setting.old_name for setting in SETTINGS.values()]
    found = difflib.get_close_matches(name if is_new else name.upper(), names, 1, 0.8)
    return found[0] if found else ""
