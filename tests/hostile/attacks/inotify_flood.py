"""Causes as many events of its FIFO as possible while the daemon waits for its next read.

A daemon with a watch on the file gets an event for each open, read and close. The kernel merges equal
neighbours, so the attack alternates between them. All watched files share one queue of 16,384 events.
"""

import itertools
import os

from workload import HELLO, did, in_force, open_input, open_output, read, write


def run():
    output, answers = open_output(), open_input(0)
    forged = os.open("input", os.O_WRONLY | os.O_NONBLOCK)
    write(output, HELLO)
    # One answer of several pages stays in the pipe, and another waits behind it.
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
