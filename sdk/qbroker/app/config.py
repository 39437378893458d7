"""`app.conf`: settings by either spelling, as attributes and as items.

Reading is a plain attribute, because each call of a task reads some. What was not set has no attribute until the
app is configured: the first look at such a setting is what loads the configuration, as in Celery, and setting one
is not. Names that are no setting are kept too, as Celery keeps them: they may be another library's.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import NamedTuple

from qbroker import _state
from qbroker.app.defaults import IGNORED, SETTINGS, Setting, find, suggestion
from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked_setting
from qbroker.sealing import Seal
from qbroker.serialization import Value

__all__ = ["Found", "Settings", "settings_of"]

_log = logging.getLogger(__name__)

_WORDS = ("accept", "beat", "broker", "celery", "celerybeat", "celeryd", "result", "task", "worker")
"""With one of these a name begins that is probably meant as a setting of ours."""

_ARGUMENTS = {
    "backend": "result_backend",
    "broker": "broker_url",
    "tasks": "imports",
}
"""Arguments of App() that are spelled otherwise as settings."""

_SHOWN_CHARS_MAX = 50


class Found(NamedTuple):
    """Where a setting is: `("worker", "pool", …)` for `worker_pool`."""

    namespace: str | None
    key: str
    type: Setting


class Settings(MutableMapping[str, Value]):
    """The settings of one app.

    `on_change` is called with the name of each that is set, and `load` when one is read that was not set; it is to
    call `configure`. `place` knows the app's queues.
    """

    def __init__(
        self,
        initial: Mapping[str, Value] | Iterable[tuple[str, Value]] = (),
        on_change: Callable[[str], object] | None = None,
        load: Callable[[], object] | None = None,
        place: Callable[..., Value] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "_set", set())
        put(self, "_written", set())
        put(self, "_own_defaults", {})
        put(self, "_on_change", on_change)
        put(self, "_load", load)
        put(self, "_place", place)
        put(self, "_seal", None)
        put(self, "_notes", [])
        put(self, "_is_configured", False)  # noqa: FBT003 - setattr takes no keywords
        if load is None:
            self.configure()
        self.update(initial)

    def configure(
        self, source: Mapping[str, Value] | None = None, namespace: str | None = None
    ) -> None:
        """Take what a source says, where nothing else was set, and then the defaults.

        ImproperlyConfigured when names of both ages are in the source, or, without a source, in what was set.
        """
        values = self.__dict__
        taken = {} if source is None else _without_namespace(source, namespace)
        if namespace is None:
            _check_age(self._written if source is None else taken)
        found = mistakes({*self._written, *taken}, namespace)
        self._notes.extend(ineffective({*self._written, *taken}))
        self._notes.extend(found)
        if _state.logs_settings:
            for sentence in found:
                _log.warning("%s", sentence)
        is_first = not self._is_configured
        for name, value in taken.items():
            if not (is_first and _new_name(name) in self._set):
                self._put(name, value)
        for setting in (*IGNORED.values(), *SETTINGS.values()):
            if setting.name not in values:
                values[setting.name] = self._default_of(setting)
        object.__setattr__(self, "_is_configured", True)
        self._written.clear()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about settings without effect and about names that are probably mistyped; a worker logs them once."""
        return tuple(self._notes)

    @property
    def seal(self) -> Seal | None:
        """What encrypts bodies, by `security_encryption_keys`; None without keys."""
        keys = self.security_encryption_keys
        seal: Seal | None = self._seal
        if keys and seal is None:
            seal = Seal(keys, accepts_plain=self.security_accept_unencrypted)
            object.__setattr__(self, "_seal", seal)
        return seal

    def place(self, queue: Value, exchange: Value, routing_key: str | None) -> Value:
        """Where a call with these options goes: a `qbroker.app.amqp.Place`."""
        if self._place is None:
            raise ImproperlyConfigured(
                "these settings belong to no app, so nothing is known of queues"
            )
        return self._place(queue, exchange, routing_key)

    def finalize(self) -> "Settings":
        """Load the configuration, unless that was done."""
        if not self._is_configured and self._load is not None:
            self._load()
        return self

    def set_apart(self, values: Mapping[str, Value]) -> None:
        """Set these whatever the age of the other names is."""
        for name, value in values.items():
            self._put(name, value)

    def add_defaults(self, defaults: Mapping[str, Value]) -> None:
        """Put other values in the place of defaults; what is or will be set wins over them."""
        for name, value in defaults.items():
            setting = find(name)
            new = name if setting is None else setting.name
            self._own_defaults[new] = value if setting is None else setting.value_of(value)
            if new not in self._set and (self._is_configured or setting is None):
                self.__dict__[new] = self._own_defaults[new]

    def _default_of(self, setting: Setting) -> Value:
        found = self._own_defaults.get(setting.name, setting.default)
        # Users add to a schedule in place; the table's own must stay as it is.
        return dict(found) if isinstance(found, dict) else found

    def _put(self, name: str, value: Value) -> None:
        setting = find(name)
        if setting is None:
            self.__dict__[name] = value
            self._set.add(name)
            return
        self.__dict__[setting.name] = (
            self._default_of(setting) if value is None else setting.value_of(value)
        )
        self._set.add(setting.name)
        object.__setattr__(self, "_seal", None)
        if self._on_change is not None:
            self._on_change(setting.name)

    # -- as attributes and as items

    def __setattr__(self, name: str, value: Value) -> None:
        self[name] = value

    def __getattr__(self, name: str) -> Value:
        # Reached for old spellings and unknown names, and before the app is configured.
        if not name.startswith("_"):
            self.finalize()
            setting = find(name)
            new = name if setting is None else setting.name
            if new in self.__dict__:
                return self.__dict__[new]
            meant = suggestion(name)
            raise AttributeError(
                f"there is no setting {name!r}" + (f"; did you mean {meant!r}?" if meant else "")
            )
        raise AttributeError(f"there is no setting {name!r}")

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __setitem__(self, name: str, value: Value) -> None:
        if not self._is_configured:
            self._written.add(name)
        self._put(name, value)

    def __getitem__(self, name: str) -> Value:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def __delitem__(self, name: str) -> None:
        """Go back to the default."""
        self.finalize()
        setting = find(name)
        if setting is not None:
            self._put(name, None)
            self._set.discard(setting.name)
        elif name in self._set:
            del self.__dict__[name]
            self._set.discard(name)
        else:
            raise KeyError(name)

    def setdefault(self, name: str, default: Value = None) -> Value:
        """Set it unless it was set; answers what it is then."""
        if _new_name(name) not in self._set and not self._is_configured:
            self[name] = default
        return self[name] if _new_name(name) not in self._set else self.__dict__[_new_name(name)]

    def __iter__(self) -> Iterator[str]:
        self.finalize()
        return (name for name in self.__dict__ if not name.startswith("_"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        self.finalize()
        return isinstance(name, str) and (find(name) is not None or name in self.__dict__)

    def copy(self) -> dict[str, Value]:
        """All settings, by their new names."""
        return dict(self)

    def first(self, *names: str) -> Value:
        """The first of these that is not None."""
        found = (self.get(name) for name in names)
        return next((value for value in found if value is not None), None)

    # -- questions about them

    def without_defaults(self) -> dict[str, Value]:
        """What was set."""
        self.finalize()
        return {name: self.__dict__[name] for name in sorted(self._set)}

    def value_set_for(self, name: str) -> bool:
        """Whether the setting was set, by whichever spelling."""
        self.finalize()
        return _new_name(name) in self._set

    def find_option(self, name: str, namespace: str = "") -> Found:
        """Where the setting is that ends in `name`, first looked for in `namespace`; KeyError: nowhere."""
        wanted = name.lower()
        for known in (*SETTINGS.values(), *IGNORED.values()):
            group, _, key = known.name.partition("_")
            if (group, key) == (namespace.lower(), wanted):
                return Found(group, key, known)
        for known in (*SETTINGS.values(), *IGNORED.values()):
            group, _, key = known.name.partition("_")
            if key == wanted:
                return Found(group, key, known)
        setting = find(name)
        if setting is None:
            raise KeyError(name)
        return Found(None, setting.name, setting)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Value:
        """The value of the setting that ends in `name`."""
        return self.get_by_parts(*self.find_option(name, namespace)[:-1])

    def get_by_parts(self, *parts: str | None) -> Value:
        """The value of the setting whose name has these parts: `("worker", "disable_rate_limits")`."""
        return self["_".join(part for part in parts if part)]

    def table(
        self,
        with_defaults: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        censored: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> dict[str, Value]:
        """The settings that were set, or all of them; secrets are masked unless `censored` is False."""
        shown = dict(self) if with_defaults else self.without_defaults()
        return _censored(shown) if censored else shown

    def humanize(
        self,
        with_defaults: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        censored: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> str:
        """Like `table`, as text with one setting per line."""
        shown = self.table(with_defaults, censored)
        return "\n".join(f"{name}: {_pretty(value)}" for name, value in shown.items())

    def __repr__(self) -> str:
        return f"<Settings: {_censored(self.without_defaults())!r}>"


def settings_of(source: Value, namespace: str | None = None) -> Mapping[str, Value]:
    """What a mapping, a module, a class or any object says as attributes; with a namespace only those of it are looked at."""
    if isinstance(source, Mapping):
        return source
    keys = getattr(source, "keys", None)
    if callable(keys) and not isinstance(source, type) and hasattr(source, "__getitem__"):
        return {name: source[name] for name in keys()}
    # Reading may cost something, or fail: Django's settings object to some that are empty.
    prefix = _prefix_of(namespace)
    names = [name for name in dir(source) if name.lower().startswith(prefix)]
    found = {name: getattr(source, name) for name in names if not name.startswith("_")}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def _new_name(name: str) -> str:
    setting = find(name)
    return name if setting is None else setting.name


def _prefix_of(namespace: str | None) -> str:
    return f"{namespace.rstrip('_')}_".lower() if namespace else ""


def _without_namespace(source: Mapping[str, Value], namespace: str | None) -> dict[str, Value]:
    if not namespace:
        return {name: value for name, value in source.items() if not name.startswith("_")}
    prefix = _prefix_of(namespace)
    return {
        name[len(prefix) :].lower(): value
        for name, value in source.items()
        if name.lower().startswith(prefix)
    }


def _check_age(names: Iterable[str]) -> None:
    """Refuse names of both ages, unless the same setting is given by both."""
    known = {name: setting for name in names if (setting := find(name)) is not None}
    new = {name for name in known if name.islower()}
    old = known.keys() - new
    if not new or not old:
        return
    odd, becomes = (old, "name") if len(old) <= len(new) else (new, "old_name")
    renames = {
        name: getattr(known[name], becomes)
        for name in sorted(odd)
        if not any(known[other] is known[name] for other in known.keys() - odd)
    }
    if renames:
        lines = "\n".join(f"    {name:<36} -> {better}" for name, better in renames.items())
        raise ImproperlyConfigured(
            f"old and new names of settings are mixed. Rename so that all are of one age:\n\n{lines}\n"
        )


def mistakes(names: Iterable[str], namespace: str | None) -> list[str]:
    """Say in a sentence each which names are probably meant as settings, and which settings."""
    found = []
    for name in sorted(names):
        if find(name) is not None:
            continue
        meant = _meant(name, namespace)
        if meant:
            found.append(f"There is no setting {name!r}; did you mean {meant}?")
    return found


def _meant(name: str, namespace: str | None) -> str:
    lower = name.lower()
    argument = lower.removeprefix("celery_")
    if argument in _ARGUMENTS:
        setting = SETTINGS[_ARGUMENTS[argument]]
        return repr(setting.name if name.islower() or namespace else setting.old_name)
    if namespace is None and lower.startswith("celery_") and find(argument) is not None:
        meant = find(argument)
        assert meant is not None
        spelled = meant.name if name.islower() else meant.old_name
        return f"{spelled!r}, or the argument namespace='CELERY' of config_from_object"
    if namespace is None and lower.partition("_")[0] not in _WORDS:
        return ""
    meant_name = suggestion(name)
    return repr(meant_name) if meant_name else ""


def ineffective(names: Iterable[str]) -> list[str]:
    """Say in one sentence which settings of Celery have no effect, and why; no sentence without such a setting."""
    ignored: dict[str, list[str]] = {}
    for name in sorted(names):
        setting = find(name)
        if setting is not None and setting.is_ignored:
            ignored.setdefault(setting.meaning, []).append(name)
    if not ignored:
        return []
    reasons = "; ".join(f"{', '.join(found)} ({why})" for why, found in ignored.items())
    return [f"These settings have no effect in qbroker: {reasons}."]


def _censored(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: masked_setting(name, value) for name, value in values.items()}


def _pretty(value: Value) -> str:
    """A value on lines that are not too long."""
    # Asked for by people alone.
    import pprint  # noqa: PLC0415

    text = pprint.pformat(value, width=_SHOWN_CHARS_MAX)
    return (
        text if "\n" not in text else "\n" + "\n".join(f"    {line}" for line in text.splitlines())
    )
