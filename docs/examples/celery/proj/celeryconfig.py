"""The project's settings, with the queues of the routing chapter."""

from qbroker.messaging import Exchange, Queue

result_expires = 3600

task_default_queue = "default"
task_default_exchange = "tasks"
task_default_exchange_type = "topic"
task_default_routing_key = "task.default"

media_exchange = Exchange("media", type="direct")
task_queues = (
    Queue("default", routing_key="task.#"),
    Queue("feed_tasks", routing_key="feed.#"),
    Queue("videos", media_exchange, routing_key="media.video"),
    Queue("images", media_exchange, routing_key="media.image"),
)


def route_for_images(
    name: str, args: object, kwargs: object, options: object, task: object = None, **kw: object
) -> dict[str, object] | None:
    """A router: images go through the exchange of media."""
    if name == "proj.tasks.compress_image":
        return {"exchange": "media", "routing_key": "media.image", "priority": 9}
    return None


task_routes = (
    route_for_images,
    [("proj.tasks.import_*", {"queue": "feed_tasks", "routing_key": "feed.import"})],
)

# Tasks over HTTP speak to this machine alone.
http_allowed_hosts = ["127.0.0.1"]
