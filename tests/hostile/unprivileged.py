"""Runs an attack with the rights of a workload: unprivileged.py UID ATTACK [ARGUMENT...]

UID 0 keeps the current user. The working folder is the folder of the pair, as if it were mounted for a
container. All code is loaded before the process gives up its rights, so none of it has to be readable
for others. The test ends the attack and its children by closing our standard input.
"""

import importlib
import os
import signal
import sys
import threading


def end_with_the_test():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


uid, name, *arguments = sys.argv[1:]
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacks"))
attack = importlib.import_module(name)
if int(uid) != 0:
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
threading.Thread(target=end_with_the_test, daemon=True).start()
attack.run(*arguments)
