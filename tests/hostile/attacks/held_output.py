"""Holds the lock of `output`: three splicers that wait for bytes of something idle.

splice() and sendfile() from a socket or a terminal into a pipe sleep with the pipe's lock held
(FIFO-FACTS 0.1). One byte for the splicer that holds it wakes the daemon, and the lock goes on to the
next splicer: the daemon's read() then sleeps too, non-blocking or not. A common writer waits among
them, as it would in a workload. All bytes belong to one long frame, so nothing looks wrong.

Which of them comes next is the kernel's choice, so some bytes are fed quickly, one after the other,
before the lock is held for a while.

Arguments: socket, tty or sendfile; for how many seconds to hold it; how many bytes to feed between.
"""

import itertools
import os
import pty
import socket
import time
import tty

from workload import child, did, in_force, open_output, varint, write


def idle(how):
    """Something that has no bytes until they are put in: gives both its ends."""
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
