"""The greatest of everything, in one place. Sizes are bytes, names are measured in UTF-8."""

KIB = 1024
MIB = 1024 * KIB

STATE_BYTES_MAX = MIB
"""What goes with a state on the way; more is refused."""

NAME_BYTES_MAX = 255
"""Of a queue's, a task's or a message id. The store's keys (511 bytes) must hold two of them and a place."""

HEADERS_BYTES_MAX = 64 * KIB
"""Of a message's headers, and of its properties. They are for who routes and looks on; data goes into the body."""

TEXT_BYTES_MAX = 2_000
"""Of a line that a person wrote, as the reason of a pause."""

LABEL_BYTES_MAX = 200
"""Of a label, "name=value"."""

LABELS_MAX = 32
"""Labels of one message."""

LIMITS_MAX = 8
"""Limits that one message may be subject to."""

ERRBACKS_MAX = 100
"""Of one message."""

MEMBERS_MAX = 1_000_000
"""Of one join."""

SESSION_BYTES_MAX = 64
"""Of a worker session's id."""

PRIORITY_MAX = 9
"""Priorities are 0 to 9, higher first."""

PREFETCH_COUNT_MAX = 100_000
"""Of deliveries out at once to one worker."""

PUBLISH_ITEMS_MAX = 10_000
"""Of messages in one request of a producer."""

REPORT_ITEMS_MAX = 2 * PREFETCH_COUNT_MAX
"""Of starts, settles and releases in one request of a worker, and of leases it names when it comes back."""

WATCHED_MAX = 1_000_000
"""Of messages that one stream watches."""

INLINE_BYTES_MAX = KIB
"""A payload up to here lives inside its record; the store keeps such a record in a leaf page."""

SHRUNK_BYTES_MIN = 512
"""From how many freed bytes on a row is deleted before it is stored anew: an eighth of a page."""

SHARED_BYTES_MIN = 4 * KIB
"""From how many bytes on, all copies of a message counted, their payload is stored once for all of them: a page."""

CHUNK_BYTES = 4080
"""Most of a payload in one row: what fits one page (4,096 bytes less its header).

A longer row needs *neighbouring* free pages. A fragmented file has none, so such a row makes the file grow although it has room.
"""

STEP_ITEMS_MAX = 4_000
"""Messages, settles and the like that one commit takes, so that nobody waits long for a turn."""

STEP_BYTES_MAX = 16 * MIB
"""Payload that one commit takes. The store keeps room for several times this ahead of each commit."""

ROUTED_ITEMS_MAX = 4
"""Messages through exchanges that one command publishes: each may become `COPIES_MAX`, and a step ends between commands."""

DELIVERIES_PER_STEP_MAX = 2_000
"""Deliveries that one commit leases, for the same reason."""

UNSENT_BYTES_MAX = 8 * MIB
"""Deliveries waiting in memory for one worker's stream; past this it is given no more until it reads."""

BINDINGS_MAX = 100_000
"""Ways from exchanges. All of them are in memory."""

COPIES_MAX = 10_000
"""Queues that one message may go to."""

AUTO_DELETE_MS = 60_000
"""How long a queue that goes with its last worker is kept without one, so that a worker may come back."""
