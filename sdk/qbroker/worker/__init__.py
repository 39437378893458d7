"""What Celery users import to extend their workers; the worker itself is a package of its own."""
