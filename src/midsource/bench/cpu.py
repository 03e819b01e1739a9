"""*cpu*: CPU seconds of the sender for 1 000 messages without the signature, everything else included.

Of the `mta` processes alone, from /proc, over the deliveries of *send-unsigned*: leasing, rendering, SMTP, journal,
settling. It is the figure that a noisy neighbour changes least.
"""

from __future__ import annotations

from midsource.bench import send, send_unsigned
from midsource.bench.midhalf import the_mid
from midsource.bench.row import Goal, Row
from midsource.bench.stage import Bench

NAME = "cpu"
WHAT = "sender CPU without the signature, everything else included"
TARGET = (Goal("mta CPU", 0.10, "s per 1 000", at_most=True),)


def run(bench: Bench) -> Row:
    """Read the CPU of the unsigned deliveries."""
    runs = send_unsigned.measured(bench)
    return Row(
        NAME, WHAT, runs["mta CPU"], TARGET, (), runs.several(("PostgreSQL CPU", "busy cores")),
        send.setting(the_mid(bench), bench), scaled=bench.scale < 1,
    )  # fmt: skip
