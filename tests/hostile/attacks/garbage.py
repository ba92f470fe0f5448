"""Writes meaningless bytes into `output` without end.

Argument: random (the framing is lost again and again), or zeros (each byte is a whole, empty message:
a full pipe holds 65,536 of them, in an open session).
"""

import os

from workload import HELLO, did, in_force, open_output, write


def run(kind):
    output = open_output()
    write(output, HELLO)
    noise = os.urandom(1 << 20) if kind == "random" else bytes(1 << 20)
    in_force()
    count = 0
    while True:
        # Each piece starts at another place of the noise.
        start = int.from_bytes(os.urandom(2), "big")
        write(output, noise[start : start + 65_536])
        count += 65_536
        did(count)
