"""Calling tasks: links, states on the way, eta, expiration, serializers, and what a call may say of its result."""

import datetime as dt

from proj.celery import app
from proj.tasks import add, div, hello, log_error, mul

from qbroker.exceptions import TaskRevokedError

print("link:", add.apply_async((2, 2), link=add.s(16)).get(timeout=10))

failing = div.apply_async((1, 0), link_error=log_error.s())
try:
    failing.get(timeout=10)
except ZeroDivisionError as error:
    print("link_error:", error)

states = []
result = hello.apply_async((1, 2))
print(
    "on_message:",
    result.get(on_message=lambda body: states.append(body["status"]), timeout=10),
    states[-1],
)

tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
later = add.apply_async((2, 2), eta=tomorrow)
print("eta:", later.state)
later.revoke()

expired = add.apply_async((10, 10), countdown=0.1, expires=0.05)
try:
    expired.get(timeout=10)
except TaskRevokedError as error:
    print("expires:", error, expired.state)

print(
    "serializer:", mul.apply_async((10, 10), serializer="json", compression="zlib").get(timeout=10)
)
print("queue:", add.apply_async((3, 3), queue="feed_tasks", priority=5).get(timeout=10))
policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
print("retry:", add.apply_async((3, 4), retry=True, retry_policy=policy).get(timeout=10))
print("ignored:", add.apply_async((4, 4), ignore_result=True).get(timeout=10))
print("by name:", app.send_task("proj.tasks.add", (5, 5)).get(timeout=10))
