"""Puts something else where its FIFOs are named, and goes on asking through those that it has open.

A name that is opened again would lead elsewhere (FIFO-FACTS 4.3). Arguments: a file of the host, and
another workload's folder.
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
