"""How the halves of the prefork pool write to each other: three sockets' worth of structs.

    parent → child   BATCH, then per task TASK and the message
    child → parent   BELL: PROGRESS and DONE point into the shared memory; SPILL carries a record
    shared memory    per child two regions, for the even and the odd batches. A word per region
                     says how far records go: batch number << 32 | bytes. It is written after the
                     record it covers, so what it covers is whole even when the child is killed.
    claim pipe       one byte per task handed over and not begun. The child takes one before it
                     begins a task, the parent takes some to withdraw tasks from the tail; the
                     kernel gives each byte to one of them.

Byte order and sizes are the machine's: both ends are the same program.
"""

from struct import Struct

BATCH = Struct("=III")
"""Bytes that follow, number of the batch, number of tasks."""

TASK = Struct("=IBI")
"""Attempt, flags, bytes of the message."""

REDELIVERED = 1
EXPIRED = 2
NOTICE = 4
"""Flags. EXPIRED: the hard time limit has ended its run; only what follows a failure is to be run. NOTICE: it is
no task's message, but something to tell the app's code of."""

NOTICE_HEAD = Struct("=IBI")
"""Before a notice's message: its number, and how many bytes of the signal's name and of the sentence come first."""

BELL = Struct("=BIHI")
"""Kind, number of the batch, how many of its tasks were begun, bytes in the region (SPILL: bytes that follow)."""

PROGRESS = 1
DONE = 2
SPILL = 3
LIMITED = 4  # a time limit has begun late in a task's run: the words below have changed
READY = 5  # first of all: the child has the app, and takes batches

RECORD = Struct("=HBBdBIII")
"""Index in the batch, outcome, requeue, run time in seconds, log level, bytes of the result, of the line, of the rest."""

REGION_BYTES = 256 * 1024
WORDS = (0, 8)
"""Where the regions' words are, as indexes of 64-bit numbers: a cache line apart."""
DEADLINES = (16, 17)
"""Where the words are that say when the soft and the hard time limit of what runs is reached: nanoseconds of
the machine's monotonic clock, 0 for no limit. The parent signals and kills by them."""
LIMITS = (18, 19)
"""How long those limits are, in microseconds."""
RESULT_BYTES = 20
"""The word that says how large a result the broker takes. The parent writes it."""
REGIONS = (4096, 4096 + REGION_BYTES)
SHARED_BYTES = 4096 + 2 * REGION_BYTES

CONTROL = Struct("=BII")
"""Between the parent and the fork server: kind, number of the child, value."""

# Parent → fork server.
FORK = 1  # with the child's socket, claim pipe and shared memory
KILL = 2  # value: the signal's number
RESTART = (
    7  # value: bytes of JSON that follow, a Restart: import modules before the next child begins
)
# Fork server → parent.
FACTS = 3  # value: bytes of JSON that follow
REFUSED = 4  # the same: why the app cannot be loaded
FORKED = 5  # value: process id
EXITED = 6  # value: wait status
RESTARTED = (
    8  # value: bytes of the facts that follow; children that begin from now on have those modules
)
STOPPED = 10  # value: the signal that stopped the child; 0: it continues
FAILED = 9  # the same: what went wrong with importing them, as text
