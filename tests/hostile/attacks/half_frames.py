"""Sends half of a frame of 4 MiB and leaves, again and again. A daemon holds this half in vain.

The end of the last writer is the only sign of a missing rest. Another writer may open the pipe
before the daemon notices this end.
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
