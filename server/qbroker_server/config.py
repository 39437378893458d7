"""Every setting of the broker, with its default.

A setting comes from its flag, else from `QBROKER_<NAME>` in the environment, else from the file, else
from here. Only `cli` and `daemon` see this; every other part is given the values it uses.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

MIB = 1024 * 1024


class ConfigError(Exception):
    """A setting cannot be used; the text says which, where it came from and what it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What `qbroker serve` runs by."""

    data_dir: Path = Path("qbroker-data")
    """Where everything durable is kept; made when missing. Default: ./qbroker-data."""
    listen: str = "127.0.0.1:7450"
    """Address and port for gRPC; port 0 takes a free one. Default: 127.0.0.1:7450."""
    http_listen: str = ""
    """Address and port for /metrics, /livez and /readyz over HTTP; empty: nowhere. Default: empty."""
    engine: str = "lmdb"
    """`lmdb`, or `memory`: nothing survives the process. Default: lmdb."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`. Default: info."""
    grace_ms: int = 5_000
    """How long the leases of a broken worker stream wait for its session to come back. Default: 5,000."""
    result_ttl_ms: int = 24 * 3600 * 1000
    """How long results are kept where the publisher did not say. Default: one day."""
    memory_ms: int = 15 * 60 * 1000
    """How long the id of a message without a result is remembered, so that sending it again does nothing. Default: 15 minutes."""
    max_deliveries: int = 5
    """At how many worker deaths a late-acknowledged message is given up, where it does not say. Default: 5."""
    max_message_bytes: int = 4 * MIB
    """The largest message a producer may publish; larger ones are refused, not cut. Default: 4 MiB."""
    reserve_bytes: int = 64 * MIB
    """Disk space that is allocated for results, deletes and control; with less room than this, publishes are refused. Default: 64 MiB."""
    drain_ms: int = 10_000
    """How long a stopping broker waits for its streams to end. Default: 10,000."""


_CHOICES = {
    "engine": ("lmdb", "memory"),
    "log_level": ("debug", "info", "warning", "error"),
}
_LEAST = {
    "grace_ms": 0,
    "result_ttl_ms": 1,
    "memory_ms": 0,
    "max_deliveries": 1,
    "reserve_bytes": 0,
    "drain_ms": 0,
}
_MOST = {"max_message_bytes": 8 * MIB, "max_deliveries": 2**16 - 1}


def load(flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None) -> Config:
    """The settings in force; ConfigError says what is wrong with one."""
    config = Config()
    if file is not None:
        config = _with(config, _read(file), f"in {file}")
    known = {field.name for field in fields(Config)}
    prefix = "QBROKER_"
    from_environment = {
        name[len(prefix) :].lower(): value
        for name, value in environment.items()
        if name.startswith(prefix) and name[len(prefix) :].lower() in known
    }
    config = _with(config, from_environment, "in the environment")
    return _with(config, flags, "on the command line")


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error


def _with(config: Config, values: Mapping[str, object], where: str) -> Config:
    changes: dict[str, Any] = {}
    kinds = {field.name: type(getattr(config, field.name)) for field in fields(Config)}
    for name, value in values.items():
        if name not in kinds:
            raise ConfigError(
                f"unknown setting {name!r} {where}; there are: {', '.join(sorted(kinds))}"
            )
        changes[name] = _convert(name, value, kinds[name], where)
    return replace(config, **changes)


def _convert(name: str, value: object, kind: type, where: str) -> object:
    if kind is int:
        return _int(name, value, where)
    if not isinstance(value, str | Path):
        raise ConfigError(f"{name} = {value!r} {where} must be text")
    if issubclass(kind, Path):
        return Path(value)
    text = str(value)
    if name in _CHOICES and text.lower() not in _CHOICES[name]:
        raise ConfigError(f"{name} = {value!r} {where} must be one of {', '.join(_CHOICES[name])}")
    if name == "http_listen" and not text:
        return text
    if name in ("listen", "http_listen"):
        host, _, port = text.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigError(
                f"{name} = {value!r} {where} must be HOST:PORT, such as 127.0.0.1:7450"
            )
        return text
    return text.lower()


def _int(name: str, value: object, where: str) -> int:
    try:
        # Through text, so that `true` in a file is not a number.
        number = int(str(value))
    except ValueError:
        raise ConfigError(f"{name} = {value!r} {where} must be a whole number") from None
    least = _LEAST.get(name, 1)
    if number < least:
        raise ConfigError(f"{name} = {value!r} {where} must be at least {least}")
    most = _MOST.get(name, 2**53)
    if number > most:
        raise ConfigError(f"{name} = {value!r} {where} must be at most {most}")
    return number
