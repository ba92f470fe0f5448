"""Shared code of the attacks: the pair, messages, and reports to the test on standard output.

The line "in force" reports the begin of the effect. A number reports the work done so far.
"""

import os
import threading
import time

CONFIGS = "desiredState.configs"
_done = 0


def in_force():
    print("in force", flush=True)
    threading.Thread(target=_tell, daemon=True).start()


def did(count):
    """Notes the work done so far. A thread reports it at intervals."""
    global _done
    _done = count


def _tell():
    while True:
        print(_done, flush=True)
        time.sleep(0.05)


def open_output(flags=0):
    return os.open("output", os.O_WRONLY | flags)


def open_input(flags=os.O_NONBLOCK):
    return os.open("input", os.O_RDONLY | flags)


def child(work, *arguments):
    """Repeats `work` forever in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                work(*arguments)
        finally:
            os._exit(1)
    return pid


def drain_in_child():
    """Reads all answers at full speed, so the daemon continues to accept requests."""
    fd = open_input(0)
    return child(os.read, fd, 1 << 20)


def write(fd, data):
    """Writes all of `data`, even if a signal interrupts a call."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number, content):
    """A field of protobuf with bytes as its value."""
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def frame(body):
    return varint(len(body)) + body


HELLO = frame(field(1, field(2, "1.0.0")))


def request(name, kind, content):
    return frame(field(3, field(1, name) + field(kind, content)))


def read(name, masks, subscribe=False):
    """A CompleteStateRequest."""
    flag = varint(2 << 3) + b"\1" if subscribe else b""
    return request(name, 3, b"".join(field(1, mask) for mask in masks) + flag)


def set_config(name, key, value):
    """An UpdateStateRequest with a text for one config."""
    item = field(1, field(1, key) + field(2, field(1, value)))
    new_state = field(1, field(3, item))
    return request(name, 2, field(1, new_state) + field(2, f"{CONFIGS}.{key}"))
