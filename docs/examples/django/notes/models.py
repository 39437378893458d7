"""What is kept of a note."""

from django.db import models


class Note(models.Model):
    """A text, and how many words it has, once a worker has counted them."""

    text = models.TextField()
    words = models.IntegerField(null=True)

    def __str__(self) -> str:
        return self.text
