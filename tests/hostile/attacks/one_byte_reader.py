"""Asks for much and reads it one byte a time: the pipe has room for so little that nothing fits, and
each read may wake the daemon (FIFO-FACTS 2.2, 3.3)."""

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
