"""Makes as many events of its FIFO as it can while the daemon waits for it to read on.

A daemon that watches the file is told of each open, read and close; equal neighbours merge, so they
take turns (FIFO-FACTS 3.5). The queue of 16,384 is shared with all that it watches.
"""

import itertools
import os

from workload import HELLO, did, in_force, open_input, open_output, read, write


def run():
    output, answers = open_output(), open_input(0)
    forged = os.open("input", os.O_WRONLY | os.O_NONBLOCK)
    write(output, HELLO)
    # An answer of some pages stays in the pipe, and another waits behind it.
    os.read(answers, 16)
    write(output, read("r", ["desiredState"]) * 4)
    os.read(answers, 16)
    in_force()
    for count in itertools.count(1):
        os.close(open_input())
        try:
            os.write(forged, b"\0")
        except BlockingIOError:
            pass
        os.read(answers, 1)
        did(count)
