"""Routing: by the settings, by a router, by hand, and at the broker."""

from proj.celery import app
from proj.tasks import compress_image, import_feed, where

print("default:", where.delay().get(timeout=10))
print("route:", import_feed.delay("http://cnn.com/rss").get(timeout=10))
by_hand = import_feed.apply_async(
    ("http://cnn.com/rss",), queue="feed_tasks", routing_key="feed.import.news"
)
print("by hand:", by_hand.get(timeout=10))
print("router:", compress_image.delay().get(timeout=10))
print("exchange:", where.apply_async(exchange="media", routing_key="media.video").get(timeout=10))

app.control.add_consumer("reports", reply=True)
print("new queue:", where.apply_async(queue="reports").get(timeout=10))
app.control.cancel_consumer("reports", reply=True)
