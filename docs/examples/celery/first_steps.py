"""First steps: call a task, see whether it is done, and take its result."""

from tasks import add, app

result = add.delay(4, 4)
print("4 + 4 =", result.get(timeout=10))
print("ready:", result.ready())

failed = add.delay(4, "four")
print("raised:", repr(failed.get(timeout=10, propagate=False)))
print("state:", failed.state, failed.failed(), failed.successful())
print("where:", failed.traceback.splitlines()[0])

# Settings, one at a time and many at once.
app.conf.task_serializer = "json"
app.conf.update(accept_content=["json"], timezone="Europe/Oslo", enable_utc=True)
print("zone:", app.timezone)
