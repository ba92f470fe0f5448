#!/usr/bin/env python3
"""A dashboard of workload states and one config, with the Ankaios Python SDK.

It subscribes once, and adds a line to FILE for each change. Usage: dashboard.py FILE
"""

import sys

from ankaios_sdk import Ankaios, AnkaiosLogLevel

FOLLOWED = ["workloadStates.*.*.*.state", "desiredState.configs.speed"]


def main(path):
    """Writes the current values first, then each change."""
    known = {}
    with open(path, "a", encoding="utf-8") as out, Ankaios(AnkaiosLogLevel.ERROR) as ankaios:
        events = ankaios.register_event(FOLLOWED)
        while True:
            # The first one holds the current state.
            event = events.get()
            state = event.complete_state
            now = {f"speed {value}": "" for value in [state.get_configs().get("speed")] if value}
            for instance in state.get_workload_states().get_as_list():
                name = instance.workload_instance_name.workload_name
                now[name] = f" is {instance.execution_state.state}"
            # workloadStates.AGENT.WORKLOAD, of an instance that is replaced or gone.
            removed = [field.split(".")[2] for field in event.removed_fields if "Stat" in field]
            now.update((name, " is gone") for name in removed if name not in now)
            for name, text in now.items():
                if known.get(name) != text:
                    print(f"{name}{text}", file=out, flush=True)
            known.update((name, text) for name, text in now.items() if text)


if __name__ == "__main__":
    main(sys.argv[1])
