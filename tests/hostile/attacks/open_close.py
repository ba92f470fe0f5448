"""Opens and closes its FIFOs in a tight loop. Each close of the last writer or reader is an event.

Argument: output, input, or hold (opens both a thousand times and keeps them open).
"""

import itertools
import os
import resource
import signal

from workload import did, in_force, open_input, open_output


def hold():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = [opener() for _ in range(1_000) for opener in (open_output, open_input)]
    did(len(held))
    in_force()
    signal.pause()


def run(what):
    if what == "hold":
        hold()
    opener = open_output if what == "output" else open_input
    in_force()
    for count in itertools.count(1):
        os.close(opener())
        did(count)
