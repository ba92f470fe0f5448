"""Frames that are whole and make no sense, in an open session; each is owed an answer.

Nothing at all, no content, unknown fields, a wrong kind of field, a length beyond the end, a group
that does not end, text that is no UTF-8. Argument: silent, or reading.
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
