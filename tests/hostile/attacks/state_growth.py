"""Sets new configs of 1 MiB without end, reads each answer, and counts the rejected updates.

It parses answers only as far as needed: field 3 of a response is an Error with its text.
"""

import os

from workload import HELLO, did, in_force, open_input, open_output, set_config, write


def run():
    output, answers = open_output(), open_input(0)
    write(output, HELLO)
    os.read(answers, 65_536)
    in_force()
    refused = 0
    count = 0
    while True:
        count += 1
        write(output, set_config("u", f"key{count}", "x" * (1 << 20)))
        # The body is FromAnkaios.response (1a LEN), requestId "u" (0a 01 75), and the tag of the content.
        answer = os.read(answers, 65_536)
        refused += answer[answer.index(b"\x0a\x01u") + 3] == 3 << 3 | 2
        did(refused)
