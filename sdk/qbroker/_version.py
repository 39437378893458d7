"""The version, a constant: asking the installed distribution for it costs a tenth of the import time."""

__version__ = "0.1.0"
