"""Announces a frame of the maximum length and sends it one byte at a time.

Each byte wakes the daemon, and the frame never seems to end.
"""

import itertools
import os

from workload import did, in_force, open_output, varint


def run():
    output = open_output()
    os.write(output, varint(4 << 20))
    in_force()
    for count in itertools.count(1):
        os.write(output, b"\0")
        did(count)
