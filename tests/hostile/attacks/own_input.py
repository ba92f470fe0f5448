"""Writes the beginning of a forged frame into its own `input`, and asks for more answers.

So the daemon is not the only writer of this pipe: the bytes in it are more than its own.
"""

import itertools
import os

from workload import CONFIGS, HELLO, did, in_force, open_input, open_output, read, write


def run():
    output, answers = open_output(os.O_NONBLOCK), open_input()
    forged = os.open("input", os.O_WRONLY | os.O_NONBLOCK)
    write(output, HELLO)
    ask = read("r", [CONFIGS])
    in_force()
    for count in itertools.count(1):
        for call, argument in [(os.write, (forged, b"\xff\x7f" * 50)), (os.write, (output, ask))]:
            try:
                call(*argument)
            except BlockingIOError:
                pass
        if count % 100 == 0:
            try:
                os.read(answers, 65_536)
            except BlockingIOError:
                pass
        did(count)
