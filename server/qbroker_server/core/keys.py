"""Where things stand in the ordered map: every key begins with the virtual host and a family.

    a <digest>                      → a binding (routes.py)
    b <id> 0 <chunk>                → a payload, when too large for the record (payloads.py)
    c <name>                        → an entry that fires again and again (periodic.py)
    d <time> <id>                   → b""; dead letters, oldest first (dead.py)
    e <id>                          → what is published when the message fails (joins.py)
    f <id>                          → the failure that an errback is told of (joins.py)
    g <join> 0 <index>              → the value of a join's member (joins.py)
    h <digest>                      → how many records have the payload (payloads.py)
    h <digest> 0 <chunk>            → that payload
    i <kind> <value> 0 <id>         → b""; messages by label, by root and by workflow (index.py)
    j <join>                        → record of a join (joins.py)
    k <key>                         → what is left of a rate limit (throttle.py)
    l <session> 0 <id>              → attempt; who has what (lease.py)
    n <queue>                       → record of a queue
    o <exchange>                    → what was declared of an exchange (routes.py)
    q <queue> 0 <lane> <place>      → id; what may be delivered, in order (queue.py)
    r <id>                          → record of a message, wherever it is (records.py)
    s <id>                          → a result of a state on the way (payloads.py)
    t <time> <kind> <id>            → b""; what to look at when (timetable.py)
    u <key>                         → id; who has a unique key (unique.py)
    v                               → the newest version of each kind of record (versions.py)
    w <join> 0 <id>                 → b""; what stands still until the join is complete (joins.py)
    x <id>                          → a record that was found damaged (message.py)
    y <workflow>                    → record of a workflow (workflows.py)

Numbers in keys are big-endian, so that bytes sort as they do. Names hold no NUL, so 0 ends them.
The letters put `l`, `n` and `q` side by side: while little waits they share a page, and a commit that
touches all three writes one.
"""

import struct

VHOST = b"\x00\x00"
"""The default virtual host, "/"."""

MESSAGE = VHOST + b"r"
PAYLOAD = VHOST + b"b"
SHARED = VHOST + b"h"
READY = VHOST + b"q"
LEASE = VHOST + b"l"
TIME = VHOST + b"t"
QUEUE = VHOST + b"n"
DAMAGED = VHOST + b"x"
DEAD = VHOST + b"d"
ENTRY = VHOST + b"c"
INDEX = VHOST + b"i"
RATE = VHOST + b"k"
STATUS = VHOST + b"s"
ERRBACKS = VHOST + b"e"
FAILURE = VHOST + b"f"
VALUE = VHOST + b"g"
JOIN = VHOST + b"j"
WAITER = VHOST + b"w"
WORKFLOW = VHOST + b"y"
VERSIONS = VHOST + b"v"
UNIQUE = VHOST + b"u"
EXCHANGE = VHOST + b"o"
BINDING = VHOST + b"a"

U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")


def after(prefix: bytes) -> bytes:
    """The least key greater than every key that begins with `prefix` (whose last byte is not 255)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
