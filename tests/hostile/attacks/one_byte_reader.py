"""Asks for much and reads it one byte at a time.

The pipe rarely has room for a whole frame, and each read may wake the daemon.
"""

import itertools
import os

from workload import HELLO, child, did, in_force, open_input, open_output, read, write


def ask(output, question):
    write(output, question)


def run():
    output, answers = open_output(), open_input(0)
    write(output, HELLO)
    child(ask, output, read("r", ["desiredState"]))
    in_force()
    for count in itertools.count(1):
        os.read(answers, 1)
        did(count)
