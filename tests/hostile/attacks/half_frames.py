"""Sends half of a frame of 4 MiB and leaves, again and again: whoever gathers it holds it in vain.

The last writer's leaving is the only sign that the rest will not come (FIFO-FACTS 1.2), and another
may have opened before anybody looked (1.6).
"""

import itertools
import os

from workload import did, in_force, open_output, varint, write


def run():
    half = varint(4 << 20) + b"\0" * (2 << 20)
    for count in itertools.count(1):
        output = open_output()
        write(output, half)
        os.close(output)
        if count == 1:
            in_force()
        did(count)
