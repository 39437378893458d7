"""What all tests share."""

from hypothesis import settings

# How long an example takes is the machine's affair: it may be busy with other things.
settings.register_profile("patient", parent=settings.default, deadline=None)
settings.load_profile("patient")
