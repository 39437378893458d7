"""Objects that are made of names, by Celery's path."""

from qbroker.serialization import Value

__all__ = ["Bunch", "mro_lookup"]


class Bunch:
    """An object with these attributes."""

    def __init__(self, **kwargs: Value) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type, attr: str, stop: Value = None, monkey_patched: Value = None
) -> type | None:
    """Which class of its ancestry has the attribute of its own.

    None where one of `stop` comes first, unless what that has is of no module of `monkey_patched`.
    """
    for node in cls.mro():
        if node in (stop or ()):
            module = getattr(node.__dict__.get(attr), "__module__", None)
            return None if module is None or module in (monkey_patched or ()) else node
        if attr in node.__dict__:
            return node
    return None
