"""Replaces the names of its FIFOs, and continues to send requests through its open descriptors.

A daemon would reach another file if it opened such a name again. Arguments: a file of the host, and
the folder of another workload.
"""

import itertools
import os

from workload import CONFIGS, HELLO, did, drain_in_child, in_force, open_output, read, write


def regular(name):
    with open(name, "wb") as file:
        file.write(HELLO)


def run(victim, other):
    output = open_output()
    drain_in_child()
    write(output, HELLO)
    puts = [
        lambda name: os.symlink(victim, name),
        lambda name: os.symlink(os.path.join(other, "input"), name),
        lambda name: os.symlink(os.path.join(other, "output"), name),
        lambda name: os.symlink("nowhere", name),
        regular,
        os.mkfifo,
        os.mkdir,
    ]
    names = ["input", "output"]
    for name in names:
        os.unlink(name)
    in_force()
    for count in itertools.count(1):
        for name in names:
            puts[count % len(puts)](name)
        write(output, read("r", [CONFIGS]))
        write(output, HELLO)
        for name in names:
            (os.rmdir if os.path.isdir(name) and not os.path.islink(name) else os.unlink)(name)
        did(count)
