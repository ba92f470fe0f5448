"""Shrinks and grows its pipes during the exchange of frames of many sizes.

A frame with enough room a moment ago fits only in part.
"""

import fcntl
import itertools

from workload import (
    CONFIGS, HELLO, child, did, drain_in_child, in_force, open_input, open_output, read, set_config,
    write,
)

SIZES = [4_096, 1 << 20, 8_192, 65_536]


def resize(fds, sizes):
    for fd in fds:
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, next(sizes))
        except OSError:
            pass  # The pipe holds more bytes, or the size is over our share.


def run():
    output = open_output()
    drain_in_child()
    child(resize, [output, open_input()], itertools.cycle(SIZES))
    write(output, HELLO)
    in_force()
    for count in itertools.count(1):
        write(output, set_config("u", "mine", "x" * (count * 7_919 % 200_000)))
        write(output, read("r", [CONFIGS]))
        did(count)
