"""Kills readers in the middle of a frame, one after the other, and sends more requests meanwhile.

The rest of the frame of a killed reader stays in the pipe.
"""

import itertools
import os
import signal

from workload import HELLO, child, did, in_force, open_input, open_output, read, write


def read_a_little(told):
    """Reads a part of the answers, reports this on `told`, and waits to be killed."""
    os.read(open_input(0), 700)
    os.write(told, b"\0")
    signal.pause()


def ask(output, question):
    write(output, question)


def run():
    output = open_output()
    write(output, HELLO)
    child(ask, output, read("r", ["desiredState"]))
    hear, told = os.pipe()
    in_force()
    for count in itertools.count(1):
        reader = child(read_a_little, told)
        os.read(hear, 1)
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        did(count)
