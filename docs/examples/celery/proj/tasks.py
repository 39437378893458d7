"""The tasks that the chapters speak of."""

from collections.abc import Iterable
from typing import Any

from proj.celery import app
from qbroker import Task
from qbroker.app.task import Context
from qbroker.exceptions import Reject
from qbroker.utils.log import get_task_logger

logger = get_task_logger(__name__)


class StockError(Exception):
    """There is none left."""


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task
def mul(x: int, y: int) -> int:
    """Multiply two numbers."""
    return x * y


@app.task
def xsum(numbers: Iterable[int]) -> int:
    """Add up numbers."""
    return sum(numbers)


@app.task
def div(x: int, y: int) -> float:
    """Divide two numbers; by zero it fails."""
    return x / y


@app.task
def log_error(request: Context, exc: BaseException, traceback: str) -> None:
    """Be told of another task's failure."""
    logger.error("%s of %s raised %r", request.id, request.task, exc)


@app.task(bind=True)
def hello(self: Task[..., Any], a: int, b: int) -> str:
    """Tell how far it is while it works."""
    self.update_state(state="PROGRESS", meta={"progress": 50})
    return f"hello world: {a + b}"


@app.task(bind=True)
def where(self: Task[..., Any]) -> list[str]:
    """The exchange and the routing key it came by."""
    return [self.request.delivery_info["exchange"], self.request.delivery_info["routing_key"]]


@app.task(bind=True)
def import_feed(self: Task[..., Any], url: str) -> list[str]:
    """A feed; which queue it goes to is told by the settings."""
    return [self.request.delivery_info["exchange"], self.request.delivery_info["routing_key"]]


@app.task(bind=True)
def compress_image(self: Task[..., Any]) -> list[Any]:
    """An image; a router sends it to its exchange."""
    info = self.request.delivery_info
    return [info["exchange"], info["routing_key"], info["priority"]]


def order(product: str, quantity: int) -> int:
    """Order something."""
    if quantity > 10:
        raise StockError(product)
    return quantity


@app.task(bind=True, max_retries=2)
def send_order(self: Task[..., Any], product: str, quantity: int) -> int:
    """Order something, later again if there is none now."""
    if not product:
        raise Reject("no product", requeue=False)
    try:
        return order(product, quantity)
    except StockError as exc:
        raise self.retry(exc=exc, countdown=0.01) from exc
