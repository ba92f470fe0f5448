"""Writes random bytes into `output` without end; the framing is lost again and again."""

import os

from workload import did, in_force, open_output, write


def run():
    output = open_output()
    noise = os.urandom(1 << 20)
    in_force()
    count = 0
    while True:
        # Never cut at the same place twice.
        start = int.from_bytes(os.urandom(2), "big")
        write(output, noise[start : start + 65_536])
        count += 65_536
        did(count)
