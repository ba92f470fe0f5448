"""Sends masks at the limits of depth and length and far beyond, and request ids of 3 MiB.

Each answer has to repeat the request id.
"""

import itertools

from workload import HELLO, did, drain_in_child, in_force, open_output, read, write


def run():
    output = open_output()
    drain_in_child()
    write(output, HELLO)
    deep = ".".join("*" * 512)
    asks = [
        read("deep", [deep] * 256),
        read("deep", [deep + f".x{number}" for number in range(250)]),
        read("long", ["x" * 1_024] * 256),
        read("too long", ["*." * 50_000 + "x"] * 40),
        read("one", ["x" * 4_000_000]),
        read("i" * (3 << 20), ["agents"]),
        read("j" * (3 << 20), ["agents"], subscribe=True),
        read("k" * (3 << 20), [deep]),
    ]
    in_force()
    for count in itertools.count(1):
        write(output, asks[count % len(asks)])
        did(count)
