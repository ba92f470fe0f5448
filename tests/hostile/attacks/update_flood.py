"""Writes one config at full speed. A hundred of its own subscriptions need an event for each write."""

import itertools

from workload import (
    CONFIGS, HELLO, did, drain_in_child, in_force, open_output, read, set_config, write,
)


def run():
    output = open_output()
    drain_in_child()
    write(output, HELLO)
    for number in range(100):
        write(output, read(f"s{number}", [f"{CONFIGS}.mine"], subscribe=True))
    in_force()
    for count in itertools.count(1):
        write(output, set_config("u", "mine", str(count)))
        did(count)
