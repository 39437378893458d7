"""What the worker shows when it starts."""

from collections.abc import Sequence

from qbroker.masking import masked

BUILT_IN_PREFIX = "celery."

TEMPLATE = """
 {name} v{version} (qbroker)

 [config]
 .> app:         {app}
 .> broker:      {broker}
 .> results:     {results}
 .> concurrency: {concurrency} ({pool})

 [queues]
{queues}
"""


def render(
    *,
    name: str,
    version: str,
    app: str,
    broker: str,
    results: str,
    concurrency: int,
    pool: str,
    queues: Sequence[str],
    tasks: Sequence[str],
) -> str:
    """The banner; with a list of `tasks` where any are given, of the app's own."""
    text = TEMPLATE.format(
        name=name,
        version=version,
        app=app,
        broker=masked(broker),
        results=masked(results) or "disabled://",
        concurrency=concurrency,
        pool=pool,
        queues="\n".join(f" .> {queue}" for queue in queues),
    )
    own = [task for task in tasks if not task.startswith(BUILT_IN_PREFIX)]
    if own:
        text += "\n [tasks]\n" + "\n".join(f"  . {task}" for task in own) + "\n"
    return text
