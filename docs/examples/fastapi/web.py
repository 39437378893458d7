"""A FastAPI site that has work done elsewhere; calling a task does not hold up its event loop.

qbroker serve
qbroker worker -A web
uvicorn web:site
"""

from urllib.parse import parse_qs

from fastapi import FastAPI, Request

from qbroker import Celery

site = FastAPI()
app = Celery("web", backend="qbroker://", task_default_queue="fastapi")


@app.task
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def form_of(request: Request) -> dict[str, str]:
    """What a form says."""
    return {name: last for name, (*_, last) in parse_qs((await request.body()).decode()).items()}


@site.post("/notes")
async def add(request: Request) -> dict[str, str]:
    """Have the words of a text counted."""
    result = await count_words.adelay((await form_of(request))["text"])
    return {"task_id": result.id}


@site.get("/results/{task_id}")
def show(task_id: str) -> dict[str, str | int | None]:
    """Tell what became of it."""
    result = app.AsyncResult(task_id)
    return {"state": result.state, "words": result.result if result.successful() else None}


@site.api_route("/multiply", methods=["GET", "POST"])
async def multiply(request: Request) -> dict[str, str | int]:
    """A task over HTTP: URL("http://…/multiply").get_async(x=10, y=10)."""
    given = {**request.query_params, **await form_of(request)}
    try:
        product = int(given["x"]) * int(given["y"])
    except (KeyError, ValueError) as error:
        return {"status": "failure", "reason": f"x and y are to be numbers: {error}"}
    return {"status": "success", "retval": product}
