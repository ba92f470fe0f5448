"""Sends whole frames with malformed messages in an open session. Each one is owed an answer.

The messages: empty, without content, with unknown fields, with a wrong kind of field, with a length
beyond the end, with an open group, with text in no valid UTF-8. Argument: silent, or reading.
"""

import itertools

from workload import HELLO, did, drain_in_child, field, frame, in_force, open_output, varint, write

NONSENSE = [
    b"",
    field(3, b""),
    field(99, b"unknown"),
    field(3, field(77, b"unknown")),
    varint(3 << 3) + b"\1",
    b"\x1a\x7f",
    b"\x1b" * 60,
    field(3, field(1, b"\xff\xfe") + field(3, b"")),
    b"\xff" * 30,
]


def run(mode):
    output = open_output()
    if mode == "reading":
        drain_in_child()
    write(output, HELLO)
    batch = b"".join(frame(body) for body in NONSENSE) * 100
    in_force()
    for count in itertools.count(1):
        write(output, batch)
        did(count * 100 * len(NONSENSE))
