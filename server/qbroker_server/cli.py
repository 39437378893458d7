"""File, environment, flags → Config; then the daemon, and its end as an exit code."""

import asyncio
import logging
import os
import resource
import sys
from pathlib import Path
from typing import NoReturn

import click

from qbroker_proto import names
from qbroker_server import config as configuration, daemon
from qbroker_server.lock import DataDirError

try:
    import uvloop
except ImportError:  # Not on every platform; asyncio's own loop does the same, more slowly.
    _loop_factory = asyncio.new_event_loop
else:
    _loop_factory = uvloop.new_event_loop

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_IOERR = 74

_FILES_MAX = 65_536


@click.command(
    epilog="""\b
    Example:
      qbroker serve --data-dir /var/lib/qbroker --listen 127.0.0.1:7450
    """
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where everything durable is kept. [default: ./qbroker-data]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one. [default: 127.0.0.1:7450]",
)
@click.option(
    "--http-listen",
    metavar="HOST:PORT",
    help="Where to serve /metrics, /livez and /readyz. [default: nowhere]",
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Settings from a file.",
)
@click.option(
    "--log-level",
    "-l",
    metavar="LEVEL",
    help="debug, info, warning or error. [default: info]",
)
@click.option(
    "--engine",
    metavar="ENGINE",
    help="lmdb, or memory: nothing survives the process. [default: lmdb]",
)
def serve(
    data_dir: Path | None,
    listen: str | None,
    http_listen: str | None,
    file: Path | None,
    log_level: str | None,
    engine: str | None,
) -> None:
    """Run the broker.

    Every setting can also be given as QBROKER_<NAME> in the environment or in a TOML file; a flag wins
    over the environment, the environment over the file.
    """
    flags = {
        "data_dir": data_dir,
        "listen": listen,
        "http_listen": http_listen,
        "log_level": log_level,
        "engine": engine,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        config = configuration.load(given, os.environ, file)
    except configuration.ConfigError as error:
        _fail(str(error), EX_USAGE)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("[%(asctime)s: %(levelname)s/%(name)s] %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    files_max = _have_files()
    # The store's thread and the streams take turns by agreement (pump.py); where they do not, short turns.
    sys.setswitchinterval(0.0005)
    try:
        with asyncio.Runner(loop_factory=_loop_factory) as runner:
            runner.run(daemon.run(config, _announce, files_max=files_max))
    except DataDirError as error:
        _fail(str(error), EX_UNAVAILABLE)
    except daemon.ListenError as error:
        _fail(str(error), EX_UNAVAILABLE)
    except daemon.StoreFailed as error:
        _fail(str(error), EX_IOERR)


class Formatter(logging.Formatter):
    """A formatter that escapes what a client could put into a line: it neither ends the line nor drives a terminal.

    Only a traceback has several lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return names.escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return names.escaped_lines(super().format(record))


def _have_files() -> int:
    """Raise the limit of open files up to `_FILES_MAX` where the system allows it; returns the limit.

    Each connection is a file, and many a shell gives 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _announce(line: str) -> None:
    print(line, flush=True)


def _fail(sentence: str, code: int) -> NoReturn:
    print(f"qbroker serve: {sentence}", file=sys.stderr)
    raise SystemExit(code)
