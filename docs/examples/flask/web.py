"""A Flask site that has work done elsewhere.

qbroker serve
qbroker worker -A web
flask --app web:site run
"""

from flask import Flask, Response, jsonify, request

from qbroker import Celery

site = Flask(__name__)
app = Celery("web", backend="qbroker://", task_default_queue="flask")


@app.task
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@site.post("/notes")
def add() -> Response:
    """Have the words of a text counted."""
    return jsonify(task_id=count_words.delay(request.form["text"]).id)


@site.get("/results/<task_id>")
def show(task_id: str) -> Response:
    """Tell what became of it."""
    result = app.AsyncResult(task_id)
    return jsonify(state=result.state, words=result.result if result.successful() else None)


@site.route("/multiply", methods=["GET", "POST"])
def multiply() -> Response:
    """A task over HTTP: URL("http://…/multiply").get_async(x=10, y=10)."""
    try:
        product = int(request.values["x"]) * int(request.values["y"])
    except (KeyError, ValueError) as error:
        return jsonify(status="failure", reason=f"x and y are to be numbers: {error}")
    return jsonify(status="success", retval=product)
