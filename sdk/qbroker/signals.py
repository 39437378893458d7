"""Hooks that others may connect to, by Celery's names. A signal nobody listens to costs one truth test.

    @task_prerun.connect(sender=add)
    def before(task_id, **_): ...

A receiver is called with `signal`, `sender` and what the signal's line below names; it must accept
`**kwargs`. It is held weakly: keep a reference, or connect with `weak=False`. An exception in a
receiver is logged and does not reach the sender; with `retry=True` the receiver is called again until it
raises none, while the sender waits.
"""

from qbroker.utils.dispatch.signal import Signal

__all__ = [
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_success",
    "task_unknown",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
]

before_task_publish = Signal(name="before_task_publish")
"""body, exchange, routing_key, headers, properties; in the caller, sender is the task's name."""
after_task_publish = Signal(name="after_task_publish")
"""headers, body, exchange, routing_key; after the broker confirmed."""
task_received = Signal(name="task_received")
"""request; in the worker's parent."""
task_prerun = Signal(name="task_prerun")
"""task_id, task, args, kwargs"""
task_postrun = Signal(name="task_postrun")
"""task_id, task, args, kwargs, retval, state"""
task_success = Signal(name="task_success")
"""result, runtime"""
task_failure = Signal(name="task_failure")
"""task_id, exception, args, kwargs, traceback, einfo"""
task_retry = Signal(name="task_retry")
"""request, reason, einfo; `reason` is the Retry that was raised."""
task_internal_error = Signal(name="task_internal_error")
"""task_id, args, kwargs, request, exception, traceback, einfo"""
task_revoked = Signal(name="task_revoked")
"""request, terminated, signum, expired"""
task_rejected = Signal(name="task_rejected")
"""message, exc; a message that cannot be run. Sender is the worker's name."""
task_unknown = Signal(name="task_unknown")
"""message, exc, name, id; a message of a task that nobody here knows. Sender is the worker's name."""

celeryd_init = Signal(name="celeryd_init")
"""instance, conf, options; sender is the worker's name, before anything of it exists."""
celeryd_after_setup = Signal(name="celeryd_after_setup")
"""instance, conf"""
import_modules = Signal(name="import_modules")
"""Sent when an app imports its modules; sender is the app."""
worker_init = Signal(name="worker_init")
"""Before the worker starts."""
worker_before_create_process = Signal(name="worker_before_create_process")
"""Before a child is made."""
worker_process_init = Signal(name="worker_process_init")
"""In a new child, before its first task."""
worker_process_shutdown = Signal(name="worker_process_shutdown")
"""pid, exitcode; in a child that is about to go."""
worker_ready = Signal(name="worker_ready")
"""The worker takes tasks."""
heartbeat_sent = Signal(name="heartbeat_sent")
"""The worker lives and is connected: every two seconds, whatever its tasks are at."""
worker_shutting_down = Signal(name="worker_shutting_down")
"""sig, how, exitcode; as soon as the worker is told to end. Sender is its name."""
worker_shutdown = Signal(name="worker_shutdown")
"""The worker is about to go."""

beat_init = Signal(name="beat_init")
"""`qbroker beat` is up; sender is its Service."""
beat_embedded_init = Signal(name="beat_embedded_init")
"""The same inside a worker (`-B`), after `beat_init`."""

setup_logging = Signal(name="setup_logging")
"""loglevel, logfile, format, colorize; who listens configures logging, and we keep out of it."""
after_setup_logger = Signal(name="after_setup_logger")
"""logger, loglevel, logfile, format, colorize"""
after_setup_task_logger = Signal(name="after_setup_task_logger")
"""logger, loglevel, logfile, format, colorize"""
