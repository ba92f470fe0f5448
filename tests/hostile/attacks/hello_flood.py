"""Sends Hello as fast as the pipe accepts it. Each one begins another session and needs an answer.

Argument: silent, or reading.
"""

import itertools

from workload import HELLO, did, drain_in_child, in_force, open_output, write


def run(mode):
    output = open_output()
    if mode == "reading":
        drain_in_child()
    in_force()
    for count in itertools.count(1):
        write(output, HELLO * 1_000)
        did(count * 1_000)
