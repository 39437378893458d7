"""What a client can be told.

CoreError
├── Invalid          the request breaks a rule of its form
│   ├── InvalidName      a name in it is none
│   └── HeadersTooLarge  a message's headers are
├── Damaged          its bytes are not those that were sent; to be sent again
├── NotFound         there is no such thing
│   └── Unroutable   no binding takes the message
├── Conflict         what is there already stands against it
│   ├── KeyTaken     a message with its unique key is there
│   └── NameTaken    a worker of its name is connected
├── ResourceFull     no room now; worth trying later
├── SessionLost      the session is unknown or was taken over
├── StoreFull        the disk takes nothing: nothing of the transaction is stored
├── StoreLost        the store has failed: what was asked may or may not be stored
├── StoreDamaged     a page of the store cannot be read
├── NewerVersion     a newer broker wrote what was read from the store
└── CorruptRecord    what was read from the store is not what was written
"""


class CoreError(Exception):
    """Anything the core refuses; the text is a sentence for the client."""


class Invalid(CoreError):
    """The request breaks a rule of its form and will never be taken as it is."""


class InvalidName(Invalid):
    """An id, a name or a key is empty, too long, or contains a control character."""


class HeadersTooLarge(Invalid):
    """A message's headers are larger than they may be."""


class Damaged(CoreError):
    """The checksum of a message or a result is not that of its bytes; worth sending again at once."""


class NotFound(CoreError):
    """There is nothing of that name."""


class Unroutable(NotFound):
    """No binding takes a message that was sent to this exchange."""


class Conflict(CoreError):
    """What is there already stands against the request."""


class KeyTaken(Conflict):
    """A message with its unique key is there: `holder` is its id."""

    def __init__(self, key: str, holder: str) -> None:
        super().__init__(
            f"the unique key {key!r} is taken by message {holder!r}; wait for that one, revoke it, "
            "or publish with the policy return_existing or replace"
        )
        self.holder = holder


class NameTaken(Conflict):
    """A worker of the name is connected already."""

    def __init__(self, name: str, host: str, pid: int) -> None:
        super().__init__(
            f"a worker of the name {name!r} is connected already: process {pid} on host {host!r}. Give "
            "this one another name, as in -n other@%h, or end that one"
        )


class ResourceFull(CoreError):
    """There is no room now; the same request may succeed after `retry_after_ms`."""

    def __init__(self, reason: str, *, retry_after_ms: int) -> None:
        super().__init__(reason)
        self.retry_after_ms = retry_after_ms


class SessionLost(CoreError):
    """The session is unknown to the broker, or another stream has taken it over."""


class StoreFull(CoreError):
    """The disk takes nothing more, or nothing at all for now: nothing of the transaction is stored."""


class StoreLost(CoreError):
    """The store has failed and the broker ends; what was asked may or may not be stored."""


class StoreDamaged(CoreError):
    """A page of the store cannot be read; what lies elsewhere can."""


class NewerVersion(CoreError):
    """A newer broker wrote the record. It is sound, and it stays where it is."""

    def __init__(self, what: str, version: int, newest: int) -> None:
        super().__init__(
            f"{what} has version {version}, and this broker reads versions up to {newest}"
        )
        self.version = version
        self.newest = newest


class CorruptRecord(CoreError):
    """A stored record fails its checksum."""

    def __init__(self, key: bytes, why: str) -> None:
        super().__init__(f"record {key!r} is damaged: {why}")
        self.key = key
