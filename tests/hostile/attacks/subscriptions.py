"""Subscribes 1,024 times with different masks, reads nothing, and rewrites a large config in between.

Each subscription misses one small change, so each lags behind from another version of the whole state.
The answers are small, so the session stays within its budget while the versions behind them grow.
"""

import itertools

from workload import CONFIGS, HELLO, did, in_force, open_input, open_output, read, set_config, write


def run():
    output, _answers = open_output(), open_input()
    write(output, HELLO)
    for count in itertools.count(1):
        if count <= 1_024:
            write(output, read(f"s{count}", [f"{CONFIGS}.mine{count}"], subscribe=True))
            write(output, set_config("u", f"mine{count}", "x"))
        write(output, set_config("u", "large", f"{count:08}" * 32_768))
        if count == 2:
            in_force()
        did(count)
