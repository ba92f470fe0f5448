"""Stops a writer and a reader (SIGSTOP) in the middle of a frame.

Both hold their ends open, and the kernel reports no event for this. After a while the attack replaces
both by new ones.
"""

import itertools
import os
import signal
import time

from workload import HELLO, child, did, in_force, open_input, open_output, read, write


def stop_in_a_read():
    os.read(open_input(0), 1_000)
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_in_a_write():
    ask = read("r", ["desiredState"])
    write(open_output(), HELLO + ask + ask[: len(ask) // 2])
    os.kill(os.getpid(), signal.SIGSTOP)


def run():
    for count in itertools.count(1):
        pair = [child(stop_in_a_write), child(stop_in_a_read)]
        for pid in pair:
            os.waitpid(pid, os.WUNTRACED)
        if count == 1:
            in_force()
        did(count)
        time.sleep(0.2)
        for pid in pair:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
