"""The site's pages: notes, and the view that a task over HTTP calls."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from notes.models import Note
from notes.tasks import count_words
from qbroker import uuid


@csrf_exempt
@transaction.atomic
def add(request: HttpRequest) -> JsonResponse:
    """Keep a note. The task is called when the note can be read by others, and not if it is not kept."""
    note = Note.objects.create(text=request.POST["text"])
    task_id = uuid()
    count_words.apply_async_on_commit((note.pk,), task_id=task_id)
    if request.POST.get("doubt"):
        transaction.set_rollback(True)
    return JsonResponse({"id": note.pk, "task_id": task_id})


def show(request: HttpRequest, pk: int) -> JsonResponse:
    """Tell of a note."""
    note = Note.objects.get(pk=pk)
    return JsonResponse({"text": note.text, "words": note.words})


@csrf_exempt
def multiply(request: HttpRequest) -> JsonResponse:
    """A task over HTTP: URL("http://…/multiply").get_async(x=10, y=10)."""
    given = request.POST if request.method == "POST" else request.GET
    try:
        product = int(given["x"]) * int(given["y"])
    except (KeyError, ValueError) as error:
        return JsonResponse({"status": "failure", "reason": f"x and y are to be numbers: {error}"})
    return JsonResponse({"status": "success", "retval": product})
