"""Holds the lock of `input` by splicing an answer from it into a full socket.

splice() from a pipe into a full socket sleeps and keeps the lock of the pipe, so the next call of the
daemon on this pipe sleeps too. More requests provoke such a call.
"""

import fcntl
import itertools
import os
import socket
import termios
import time

from workload import CONFIGS, HELLO, child, did, in_force, open_input, open_output, read, write


def is_held(fd):
    """Whether the lock of this pipe is held: a question for its length then never returns."""
    pid = os.fork()
    if pid == 0:
        fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)
        os._exit(0)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.001)
    return True


def run():
    full, _other = socket.socketpair()
    full.setblocking(False)
    try:
        while True:
            full.send(b"\0" * 4096)
    except BlockingIOError:
        full.setblocking(True)
    answers, output = open_input(0), open_output(os.O_NONBLOCK)
    child(os.splice, answers, full.fileno(), 4096)
    write(output, HELLO)
    while not is_held(answers):
        pass
    in_force()
    for count in itertools.count(1):
        try:
            os.write(output, read("r", [CONFIGS]))
        except BlockingIOError:
            pass
        did(count)
        time.sleep(0.01)
