"""The one check of every id, name, key and label that the broker is given."""

from qbroker_proto import names
from qbroker_server.core.errors import InvalidName
from qbroker_server.core.limits import NAME_BYTES_MAX


def check_name(
    what: str, name: str, *, bytes_max: int = NAME_BYTES_MAX, is_optional: bool = False
) -> None:
    """Raise InvalidName, with a sentence that names `what` and the character, when `name` cannot be a name."""
    fault = names.fault(what, name, bytes_max, is_optional=is_optional)
    if fault:
        raise InvalidName(fault)
