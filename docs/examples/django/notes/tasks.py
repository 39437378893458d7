"""What workers do with notes."""

from notes.models import Note
from qbroker import shared_task


@shared_task
def count_words(pk: int) -> int:
    """Count a note's words, and write down how many."""
    note = Note.objects.get(pk=pk)
    note.words = len(note.text.split())
    note.save()
    return note.words
