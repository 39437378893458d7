"""What few calls carry: a unique key, limits, a fairness key, labels. Checked here, kept by the broker.

Each comes from the call or else from the task's attribute of the same name. What a call gives stands as it
is; an attribute speaks of the calls to come, so its keys may be made of their arguments: "sync:{user}", or a
function of (args, kwargs).

The broker needs the keys with the message. So where the first argument is what another task returns, keys are
made of the others, and one that asks for it is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, Protocol

from qbroker.exceptions import InvalidName
from qbroker.limits import Key, Limit
from qbroker.serialization import Value, json_encode
from qbroker_proto import names

__all__ = ["Ruled", "rules_of"]

KEY_BYTES_MAX = 255
LABEL_BYTES_MAX = 200
LABELS_MAX = 32
LIMITS_MAX = 8
WEIGHT_MAX = 1_000_000
TTL_MS_MAX = 1 << 53

_POLICIES = {"reject": 0, "return_existing": 1, "replace": 2}
_SCOPES = {"finish": 0, "start": 1}
_SCOPE_TIME = 2

_EXAMPLES = {
    "unique_key": "unique_key='…'",
    "limit key": "limits=[Limit('…', …)]",
    "fairness_key": "fairness_key='…'",
}


class Ruled(Protocol):
    """What a call takes from its task."""

    name: str
    unique_key: Key | None
    unique_scope: str | float
    unique_policy: str
    limits: Sequence[Limit]
    fairness_key: Key | None
    fairness_weight: int
    labels: Mapping[str, Value] | Sequence[str] | None

    def arguments(self, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Mapping[str, Value]:
        """The call's arguments by the names of the parameters, defaults included."""


def rules_of(
    name: str,
    given: Ruled,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    options: dict[str, Value],
    *,
    takes_input: bool = False,
) -> dict[str, Value]:
    """Fields of the message. The options that are used here are taken out of `options`.

    With `takes_input` the arguments come behind one that is not known yet.
    """
    fields: dict[str, Value] = {}
    call = _Call(name, given, (_INPUT, *args) if takes_input else args, kwargs)
    _add_labels(fields, call, options)
    _add_unique(fields, call, options)
    _add_limits(fields, call, options)
    _add_fairness(fields, call, options)
    return fields


class _InputNeeded(Exception):
    """A key asked for the argument that is not known yet."""


class _Input:
    """Stands for what the task before will return. Whatever is asked of it, it does not know."""

    def _refuse(self, *_: Value) -> NoReturn:
        raise _InputNeeded

    __str__ = __repr__ = __format__ = __hash__ = __eq__ = __bool__ = __len__ = __iter__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = __contains__ = __int__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __mul__ = __mod__ = __truediv__ = __floordiv__ = __call__ = (
        _refuse
    )

    def __getattr__(self, name: str) -> NoReturn:
        raise _InputNeeded


_INPUT = _Input()


class _Call:
    """One call, whose arguments are looked up once, if at all."""

    __slots__ = ("_bound", "args", "given", "kwargs", "name")

    def __init__(
        self, name: str, given: Ruled, args: Sequence[Value], kwargs: Mapping[str, Value]
    ) -> None:
        self.name = name
        self.given = given
        self.args = args
        self.kwargs = kwargs
        self._bound: Mapping[str, Value] | None = None

    def key(self, what: str, key: Key | None) -> str | None:
        """What a task's attribute makes of the arguments."""
        try:
            made = key(self.args, self.kwargs) if callable(key) else self._filled(what, key)
        except _InputNeeded:
            raise ValueError(
                f"{what} {key!r} of task {self.name!r} is made of the argument that the task before it returns, "
                f"which nobody knows yet: give the signature one of its own, as in sig.set({_EXAMPLES[what]})"
            ) from None
        return self.literal(what, made)

    def _filled(self, what: str, key: str | None) -> str | None:
        """The text with its fields filled in, if it has any."""
        if key is None or ("{" not in key and "}" not in key):
            return key
        if self._bound is None:
            try:
                self._bound = self.given.arguments(self.args, self.kwargs)
            except TypeError as exc:
                raise TypeError(
                    f"{what} {key!r} of task {self.name!r} cannot be made of its arguments: {exc}"
                ) from exc
        try:
            return key.format(*self.args, **self._bound)
        except (LookupError, AttributeError, ValueError) as exc:
            raise ValueError(
                f"{what} {key!r} of task {self.name!r} cannot be made of its arguments "
                f"({', '.join(self._bound) or 'none'}): {exc!r}"
            ) from exc

    def literal(self, what: str, key: Value) -> str | None:
        """A key as it stands."""
        if key is None:
            return None
        if not isinstance(key, str):
            raise TypeError(f"{what} {key!r} of task {self.name!r} is not text")
        check_name(what, key, KEY_BYTES_MAX)
        return key


def check_name(what: str, name: str, bytes_max: int) -> None:
    """Raise InvalidName when `name` has no or too many bytes, or a character that no name may have."""
    fault = names.fault(what, name, bytes_max)
    if fault:
        raise InvalidName("", fault)


def _add_labels(fields: dict[str, Value], call: _Call, options: dict[str, Value]) -> None:
    wanted = options.pop("labels", call.given.labels)
    stamped = options.pop("stamped_headers", None)
    if not wanted and not stamped:
        return
    labels: list[Value] = []
    if isinstance(wanted, Mapping):
        for name, value in wanted.items():
            labels += _labels_of(name, value)
    elif isinstance(wanted, str):
        raise TypeError(
            f"labels {wanted!r} of task {call.name!r} is neither a mapping nor a list of 'name=value'"
        )
    else:
        labels += wanted or ()
    if stamped:
        stamp_names = [stamped] if isinstance(stamped, str) else list(stamped)
        stamps: dict[str, Value] = {}
        for name in stamp_names:
            if name not in options:
                raise TypeError(
                    f"stamped_headers of task {call.name!r} names {name!r}, but the call has no {name}=…"
                )
            stamp = stamps[name] = options.pop(name)
            labels += _labels_of(name, stamp)
        fields["stamped_headers"] = stamp_names
        if not all(map(_is_as_labels, stamps.values())):
            fields["stamps"] = json_encode(
                {
                    name: [*stamp] if isinstance(stamp, set | frozenset) else stamp
                    for name, stamp in stamps.items()
                }
            )
    for label in labels:
        if not isinstance(label, str) or not label.partition("=")[1] or label.startswith("="):
            raise ValueError(f"label {label!r} of task {call.name!r} is not 'name=value'")
        check_name("label", label, LABEL_BYTES_MAX)
    labels = list(dict.fromkeys(labels))
    if len(labels) > LABELS_MAX:
        raise ValueError(
            f"a call of {call.name!r} has {len(labels)} labels; it may have {LABELS_MAX}"
        )
    fields["labels"] = labels


def _is_as_labels(stamp: Value) -> bool:
    """Whether a stamp can be read from its labels: a list of text."""
    return isinstance(stamp, list | tuple) and all(isinstance(one, str) for one in stamp)


def _labels_of(name: Value, value: Value) -> list[str]:
    values = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return [f"{name}={one}" for one in values]


def _add_unique(fields: dict[str, Value], call: _Call, options: dict[str, Value]) -> None:
    given = call.given
    if "unique_key" in options:
        key = call.literal("unique_key", options.pop("unique_key"))
    else:
        key = call.key("unique_key", given.unique_key)
    scope = options.pop("unique_scope", None)
    policy = options.pop("unique_policy", None)
    if key is None:
        if scope is not None or policy is not None:
            raise TypeError(
                f"the call of {call.name!r} has unique_scope or unique_policy without unique_key"
            )
        return
    scope = given.unique_scope if scope is None else scope
    policy = given.unique_policy if policy is None else policy
    unique: dict[str, Value] = {"key": key}
    if isinstance(scope, str) and scope in _SCOPES:
        unique["scope"] = _SCOPES[scope]
    elif (
        isinstance(scope, int | float)
        and not isinstance(scope, bool)
        and 0 < scope * 1000 < TTL_MS_MAX
    ):
        unique["scope"] = _SCOPE_TIME
        unique["ttl_ms"] = max(1, round(scope * 1000))
    else:
        raise ValueError(
            f"unique_scope {scope!r} of task {call.name!r} must be 'start', 'finish' or a number of seconds"
        )
    if not isinstance(policy, str) or policy not in _POLICIES:
        raise ValueError(
            f"unique_policy {policy!r} of task {call.name!r} must be one of {', '.join(map(repr, _POLICIES))}"
        )
    unique["policy"] = _POLICIES[policy]
    fields["unique"] = unique


def _add_limits(fields: dict[str, Value], call: _Call, options: dict[str, Value]) -> None:
    is_own = "limits" in options
    limits: Iterable[Value] = (options.pop("limits") if is_own else call.given.limits) or ()
    found: list[dict[str, Value]] = []
    for limit in limits if isinstance(limits, list | tuple) else [limits]:
        if not isinstance(limit, Limit):
            raise TypeError(
                f"{limit!r} among the limits of task {call.name!r} is not a qbroker.limits.Limit, such as "
                "limits=[Limit('cust:42', rate='100/m', concurrency=3)]"
            )
        key = call.literal("limit key", limit.key) if is_own else call.key("limit key", limit.key)
        if key is None:
            # The function found that this call is under no such limit.
            continue
        rate, per_ms = limit.starts()
        found.append(
            {"key": key, "rate": rate, "per_ms": per_ms, "concurrency": limit.concurrency or 0}
        )
    if len(found) > LIMITS_MAX:
        raise ValueError(
            f"a call of {call.name!r} is under {len(found)} limits; it may be under {LIMITS_MAX}"
        )
    if found:
        fields["limits"] = found


def _add_fairness(fields: dict[str, Value], call: _Call, options: dict[str, Value]) -> None:
    if "fairness_key" in options:
        key = call.literal("fairness_key", options.pop("fairness_key"))
    else:
        key = call.key("fairness_key", call.given.fairness_key)
    weight = options.pop("fairness_weight", None)
    if key is None:
        if weight is not None:
            raise TypeError(f"the call of {call.name!r} has fairness_weight without fairness_key")
        return
    weight = call.given.fairness_weight if weight is None else weight
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= WEIGHT_MAX:
        raise ValueError(
            f"fairness_weight {weight!r} of task {call.name!r} is not a whole number from 1 to {WEIGHT_MAX}"
        )
    fields["fairness_key"] = key
    if weight != 1:
        fields["fairness_weight"] = weight
