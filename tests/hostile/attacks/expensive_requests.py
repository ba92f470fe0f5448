"""Asks for the complete state in the most expensive ways, again and again.

`masks` sends requests with 256 masks, each with a visit to every workload: a few masks give the whole
state, the others find nothing. `short` sends requests so short that thousands of them fit into the
pipe. The second argument is the way of reading the answers: silent (not at all), slow, or reading (at
full speed).
"""

import itertools
import os
import time

from workload import HELLO, child, did, drain_in_child, in_force, open_input, open_output, read, write

MASKS = ["*.*.*", "*.*.*.*", "desiredState.*.*.runtime", "*.workloads.*.*"]
MASKS += [f"*.*.*.nothing{number}" for number in range(256 - len(MASKS))]


def read_slowly(answers):
    os.read(answers, 1_000)
    time.sleep(0.01)


def run(kind, mode):
    output = open_output()
    if mode == "reading":
        drain_in_child()
    if mode == "slow":
        child(read_slowly, open_input(0))
    write(output, HELLO)
    ask = read("r", MASKS if kind == "masks" else ["*"])
    for count in itertools.count(1):
        write(output, ask)
        if count == 1:
            in_force()
        did(count)
