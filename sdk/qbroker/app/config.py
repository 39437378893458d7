"""`app.conf`: settings by either spelling, as attributes and as items.

Reading is a plain attribute, because each call of a task reads some. Names that are no setting are kept
too, as Celery keeps them: they may be another library's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

from qbroker.app.defaults import SETTINGS, find
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value

__all__ = ["Settings"]


class Settings(MutableMapping[str, Value]):
    """The settings of one app. `on_change` is called with the name of each that is set."""

    def __init__(
        self,
        initial: Mapping[str, Value] | Iterable[tuple[str, Value]] = (),
        on_change: Callable[[str], object] | None = None,
    ) -> None:
        values = self.__dict__
        for setting in SETTINGS.values():
            values[setting.name] = setting.default
        object.__setattr__(self, "_set", set())
        object.__setattr__(self, "_on_change", on_change)
        self.update(initial)

    def __setattr__(self, name: str, value: Value) -> None:
        self[name] = value

    def __getattr__(self, name: str) -> Value:
        # Reached for old spellings and unknown names only.
        if not name.startswith("_"):
            setting = find(name)
            if setting is not None:
                return self.__dict__[setting.name]
        raise AttributeError(f"there is no setting {name!r}")

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __setitem__(self, name: str, value: Value) -> None:
        setting = find(name)
        if setting is None:
            self.__dict__[name] = value
            self._set.add(name)
            return
        self.__dict__[setting.name] = setting.value_of(value)
        self._set.add(setting.name)
        if self._on_change is not None:
            self._on_change(setting.name)

    def __getitem__(self, name: str) -> Value:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def __delitem__(self, name: str) -> None:
        """Go back to the default."""
        setting = find(name)
        if setting is not None:
            self[name] = setting.default
            self._set.discard(setting.name)
        elif name in self._set:
            del self.__dict__[name]
            self._set.discard(name)
        else:
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.__dict__ if not name.startswith("_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (find(name) is not None or name in self._set)

    def without_defaults(self) -> dict[str, Value]:
        """What was set."""
        return {name: self.__dict__[name] for name in sorted(self._set)}

    def load(self, source: Mapping[str, Value], namespace: str | None = None) -> None:
        """Take settings from a source whose names all are of one age, and may carry a namespace."""
        if namespace:
            prefix = f"{namespace.rstrip('_')}_".lower()
            source = {
                name[len(prefix) :].lower(): value
                for name, value in source.items()
                if name.lower().startswith(prefix)
            }
        known = [name for name in source if find(name) is not None]
        new = sorted(name for name in known if name.islower())
        old = sorted(name for name in known if not name.islower())
        if new and old:
            raise ImproperlyConfigured(
                f"old and new names of settings are mixed: {old} and {new}. Use one or the other."
            )
        self.update({name: value for name, value in source.items() if not name.startswith("_")})

    def __repr__(self) -> str:
        return f"<Settings: {self.without_defaults()!r}>"
