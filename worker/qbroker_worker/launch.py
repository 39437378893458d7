"""From settings to a running worker. In the prefork pool, imported only after the fork."""

import asyncio
import logging
import os
import platform
import random
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from qbroker.client import Client
from qbroker.exceptions import ImproperlyConfigured, NotFound, OperationalError
from qbroker.url import parse_url
from qbroker_worker import worker
from qbroker_worker.aide import Aide, Ends
from qbroker_worker.autoscale import Autoscale
from qbroker_worker.banner import Banner, Show
from qbroker_worker.clock import monotonic
from qbroker_worker.control import Commands, State
from qbroker_worker.journal import Journal
from qbroker_worker.loading import Facts, Project
from qbroker_worker.pool_options import unfit, without_effect
from qbroker_worker.pools.aio import AsyncioPool
from qbroker_worker.pools.forkserver import ForkServer, Refusal
from qbroker_worker.pools.pool import Pool
from qbroker_worker.pools.prefork import PreforkPool
from qbroker_worker.pools.solo import SoloPool
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.rates import Rates
from qbroker_worker.results import lost_result
from qbroker_worker.session import Session
from qbroker_worker.stream import Identity, Stream

NewLoop = Callable[[], asyncio.AbstractEventLoop]

try:
    import uvloop
except ImportError:  # it is there on the platforms it is made for
    new_loop: NewLoop = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop


PURGE_S = 5.0
"""How long connecting to the broker may take when queues are purged."""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one worker process."""

    name: str
    """The worker's node name. Default: celery@<host>."""

    queues: tuple[str, ...]
    """The queues it takes from; none: the app's default queue. Default: none."""

    excluded_queues: tuple[str, ...]
    """Queues of those it does not take from. Default: none."""

    prefetch_multiplier: int | None
    """How many messages it holds at most, times its concurrency; 0: as many as are useful; None: as the app says. Default: None."""

    purges: bool
    """Throw away what waits in its queues before it begins. Default: False."""

    concurrency: int | None
    """How many tasks run at once; None: as the app says, else one per core. Default: None."""

    pool: str | None
    """Where tasks run: prefork, threads, asyncio or solo; None: as the app says. Default: None."""

    cores: int
    """How many cores this process may use."""

    autoscale: tuple[int, int] | None
    """The greatest and the least concurrency, between which it follows the work; None: it is fixed. Default: None."""

    pool_options: tuple[str, ...]
    """Options given that not every pool can follow."""

    is_term_quit: bool
    """TERM ends what runs, as QUIT does. Default: False."""

    restarts: bool
    """HUP restarts it, for it is no program that somebody has on a terminal."""

    version: str
    """The version of qbroker."""

    loglevel: int
    """The least level that is logged. Default: WARNING."""

    sends_task_events: bool = False
    """Tell those who listen what becomes of each task, whatever the app says. Default: False."""

    http_listen: str | None = None
    """Where to serve /metrics, /livez and /readyz; None: as the app says. Default: None."""


def launch(
    config: Config, project: Project, server: ForkServer | None, ends: Ends, *, show: Show
) -> int:
    """Run a worker until it is told to stop; the exit code. Raises Refusal when it cannot begin."""
    pool, facts = _pool(config, project, server)
    # The app may have chosen the pool.
    if sentence := unfit(pool.name, config.pool_options):
        raise Refusal(sentence)
    excluded = {facts.aliases.get(name, name) for name in config.excluded_queues}
    queues = tuple(
        name for name in facts.queues_of(config.name, config.queues) if name not in excluded
    )
    if not queues:
        raise Refusal(
            f"No queue is left to take from: -X excludes {', '.join(config.excluded_queues)}."
        )
    try:
        host, port = parse_url(facts.broker)
    except ImproperlyConfigured as exc:
        raise Refusal(str(exc)) from exc
    http_listen = _http_listen(config.http_listen or facts.conf.get("worker_http_listen"))
    shown = Banner(
        name=config.name,
        version=config.version,
        app=facts.app,
        broker=facts.broker,
        results=facts.backend,
        concurrency=pool.slots,
        pool=pool.name,
        queues=queues,
        tasks=facts.tasks if config.loglevel <= logging.INFO else (),
    )
    show(f"The worker {config.name} starts.", shown.text, **shown.fields)
    for note in (*facts.notes, *without_effect(pool.name, facts.conf_set)):
        logging.getLogger(__name__).warning("%s", note)
    if config.purges:
        _purge(facts.broker, queues, show)
    if pool.name != "prefork":
        # After what is shown here, which is no task's.
        project.redirect(facts.log)
    identity = Identity(
        session_id=str(uuid.UUID(bytes=os.urandom(16), version=4)),
        name=config.name,
        queues=queues,
        tasks=facts.tasks,
        version=config.version,
        hostname=platform.node(),
        pid=os.getpid(),
        pool=pool.name,
        concurrency=pool.slots,
        topology=facts.topology_of(queues),
    )
    sends = facts.send_task_events or config.sends_task_events
    journal = Journal(
        name=config.name,
        pid=identity.pid,
        version=config.version,
        sends_task_events=sends,
        silent_tasks=frozenset(facts.silent_tasks),
        load=os.getloadavg,
    )
    aide = ends.here() if pool.name != "prefork" else ends.elsewhere()
    rates = Rates(facts.rates)
    manners = worker.Manners(
        soft_timeout_s=facts.soft_shutdown_s,
        is_soft_when_idle=facts.is_soft_when_idle,
        is_term_quit=config.is_term_quit,
        restarts=config.restarts,
        heard=frozenset(facts.heard),
        cancels_on_loss=facts.cancels_on_loss,
        prefetch_multiplier=_multiplier(config, facts),
    )
    scale = Autoscale(*config.autoscale) if config.autoscale else None
    return worker.run(
        lambda: _build(
            pool,
            identity,
            f"{host}:{port}",
            rates,
            scale,
            manners,
            facts,
            journal,
            aide,
            _beside(http_listen, journal),
        ),
        pool.serve,
        new_loop,
    )


def _http_listen(listen: str | None) -> str | None:
    """Where to serve pages. Raises Refusal when nobody can."""
    if not listen:
        return None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise Refusal(f"--http-listen is {listen!r}; it must be HOST:PORT, such as 127.0.0.1:7460.")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Before anything is taken from the broker, rather than after.
        socket.create_server((host, int(port)), family=family).close()
    except (OSError, OverflowError) as exc:
        raise Refusal(
            f"Cannot serve probes on {listen}: {exc}. Choose another --http-listen."
        ) from exc
    return listen


def _beside(listen: str | None, journal: Journal) -> worker.Beside:
    """What serves the pages beside the worker."""
    if listen is None:
        return worker.alone
    # Prometheus is slow to import, and most workers have no pages.
    from qbroker_worker import probes  # noqa: PLC0415 - see above

    return lambda joined: probes.serving(listen, joined, journal)


def _pool(config: Config, project: Project, server: ForkServer | None) -> tuple[Pool, Facts]:
    lost = lost_result(config.name)
    if server is not None:
        facts = Facts.decode(server.facts())
        if (config.pool or facts.pool) == "prefork":
            project.log(facts.log)
            slots = _slots(config, facts)
            return PreforkPool(server, slots=slots, lost_result=lost), facts
        # The app asks for another pool, and that one wants the app in this process.
        server.close()
    loaded = project.load(redirects=False)
    facts = Facts.decode(loaded.facts)
    guard = ThreadGuard()
    runs = loaded.begin(0, guard)
    slots = _slots(config, facts)
    match config.pool or facts.pool:
        case "solo":
            return SoloPool(runs, lost_result=lost, guard=guard), facts
        case "threads":
            return ThreadsPool(runs, slots=slots, lost_result=lost, guard=guard), facts
        case "asyncio":
            return AsyncioPool(runs, slots=slots, lost_result=lost, guard=guard), facts
        case other:
            raise Refusal(f"worker_pool is {other!r}; it may be prefork, threads, asyncio or solo.")


def _multiplier(config: Config, facts: Facts) -> int:
    if config.prefetch_multiplier is not None:
        return config.prefetch_multiplier
    return facts.prefetch_multiplier


def _purge(broker: str, queues: tuple[str, ...], show: Show) -> None:
    client = Client(broker, timeout_s=PURGE_S)
    try:
        for name in queues:
            try:
                count = client.purge_queue(name)
            except NotFound:
                continue
            show(f"Purged {count} messages from queue {name!r}.", queue=name, count=count)
    except OperationalError as exc:
        raise Refusal(f"The queues cannot be purged: {exc}") from exc
    finally:
        client.close()


def _slots(config: Config, facts: Facts) -> int:
    """How many slots to begin with."""
    if config.autoscale is not None:
        return config.autoscale[1]
    return config.concurrency or facts.concurrency or config.cores


def _build(
    pool: Pool,
    identity: Identity,
    address: str,
    rates: Rates,
    scale: Autoscale | None,
    manners: worker.Manners,
    facts: Facts,
    journal: Journal,
    aide: Aide,
    beside: worker.Beside,
) -> worker.Worker:
    session = Session(scale.slots_max if scale else pool.slots)

    def connect(joined: worker.Worker) -> Stream:
        stream = Stream(
            session,
            identity,
            address=address,
            on_news=joined.heard,
            on_link=joined.linked,
            chance=random.Random(),  # noqa: S311 - spreads reconnects; no secret
            on_asked=lambda asks: commands.asked(asks),
            on_wanted=journal.want,
            on_limit=pool.limit_results,
        )
        state = State(
            name=identity.name,
            facts=facts,
            address=address,
            pid=identity.pid,
            session=session,
            pool=pool,
            link=stream,
            journal=journal,
            worker=joined,
            monotonic=monotonic,
            started_s=monotonic(),
        )
        commands = Commands(state, aide)
        return stream

    return worker.Worker(
        session,
        pool,
        connect,
        name=identity.name,
        address=address,
        rates=rates,
        scale=scale,
        manners=manners,
        journal=journal,
        beside=beside,
        tell=aide.tell,
    )
