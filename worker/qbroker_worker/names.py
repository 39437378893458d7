"""Names with the host, the worker and the child in them, by Celery's letters."""

import platform


def node_name(template: str) -> str:
    """The worker's name: %h is the host's full name, %n its first part, %d the rest."""
    host = platform.node()
    first, _, rest = host.partition(".")
    name = template if "@" in template else f"{template}@%h"
    return _filled(name, {"h": host, "n": first, "d": rest})


def file_name(template: str, node: str, child: int = 0) -> str:
    """A worker's file: %n is its name before the @, %h what follows, %d that without its first part, %p all of it.

    %i is the child's number, 0 in the worker's own process; %I is the same, "-1", or nothing there.
    """
    name, _, host = node.partition("@")
    return _filled(
        template,
        {
            "n": name,
            "h": host,
            "d": host.partition(".")[2],
            "p": node,
            "i": str(child),
            "I": f"-{child}" if child else "",
        },
    )


def names_children(template: str) -> bool:
    """Whether each child has a file of its own by it."""
    return any(f"%{letter}" in template.replace("%%", "") for letter in "iI")


def _filled(template: str, letters: dict[str, str]) -> str:
    parts = template.split("%%")
    for letter, value in letters.items():
        parts = [part.replace(f"%{letter}", value) for part in parts]
    return "%".join(parts)
