#!/usr/bin/env python3
"""A workload under the remote control of a test driver, on the unmodified Ankaios Python SDK.

Commands come in on standard input and answers go out on standard output, one JSON object a line;
../README.md describes them. ../rust/src/main.rs is the same program for the Rust SDK.
"""

import json
import logging
import re
import sys
import threading

from ankaios_sdk import (
    Ankaios,
    AnkaiosLogLevel,
    AnkaiosResponseError,
    ConnectionClosedException,
    ControlInterfaceException,
    Workload,
)
from ankaios_sdk.utils import get_logger

# The cause of an exception, in the shared words of both SDKs' workloads.
BLAME = [
    (AnkaiosResponseError, "refused"),
    (ConnectionClosedException, "closed"),
    (ControlInterfaceException, "not connected"),
    (TimeoutError, "timeout"),
]

_output = threading.Lock()


def say(step, **fields):
    """Sends one message to the driver. Events come from threads of their own, hence the lock."""
    with _output:
        print(json.dumps({"step": step, **fields}), flush=True)


def camel_case(name):
    """AGENT_DISCONNECTED -> AgentDisconnected, the spelling of the Rust SDK."""
    return "".join(word.title() for word in name.split("_"))


class LogWatcher(logging.Handler):
    """Reports facts from the log of the SDK to the driver, because no interface shows them.

    They are the state of the connection, and events dropped by the SDK for want of a subscription.
    """

    def emit(self, record):
        message = record.getMessage()
        if changed := re.match(r"State changed to (\w+)", message):
            say("connection", state=camel_case(changed[1]))
        elif message.startswith("Received event with unknown request id"):
            say("stray", message=message)


def plain(state):
    """A CompleteState in the form of both SDKs' workloads: only the parts used by scenarios."""
    return {
        "apiVersion": state.get_api_version(),
        "configs": state.get_configs(),
        "workloads": sorted(workload.name for workload in state.get_workloads()),
        "workloadStates": {
            instance.workload_instance_name.workload_name: camel_case(
                str(instance.execution_state.substate)
            )
            for instance in state.get_workload_states().get_as_list()
        },
    }


class Subscription:
    """One subscription, and the thread for its events."""

    def __init__(self, name, queue):
        self.name = name
        self.queue = queue
        # The SDK puts the state at the time of subscribing in front of the events.
        self.initial_state = plain(queue.get().complete_state)
        self._forwarder = threading.Thread(target=self._forward, daemon=True)

    def start(self):
        """Begins to forward events. The driver knows of the subscription by then."""
        self._forwarder.start()

    def finish(self):
        """Returns after every event received by the SDK has been forwarded."""
        self.queue.put(None)
        self._forwarder.join()

    def _forward(self):
        for event in iter(self.queue.get, None):
            say(
                "event",
                subscription=self.name,
                added=list(event.added_fields),
                updated=list(event.updated_fields),
                removed=list(event.removed_fields),
                state=plain(event.complete_state),
            )


class RemoteControl:
    """The commands: one method each, with its own answer."""

    def __init__(self, ankaios):
        self.ankaios = ankaios
        self.subscriptions = {}

    def obey(self, command):
        """Carries out one command. Any exception of the SDK becomes its answer."""
        action = command.pop("do")
        try:
            getattr(self, f"do_{action}")(**command)
        except Exception as error:  # pylint: disable=broad-exception-caught
            why = next((why for kind, why in BLAME if isinstance(error, kind)), "broken")
            say("failed", do=action, why=why, message=str(error))

    def do_read(self, masks):
        """Reads a part of the state."""
        say("read", state=plain(self.ankaios.get_state(masks)))

    def do_subscribe(self, name, masks):
        """Subscribes to events, reported under the given name."""
        subscription = Subscription(name, self.ankaios.register_event(masks))
        self.subscriptions[name] = subscription
        say("subscribed", name=name, state=subscription.initial_state)
        subscription.start()

    def do_cancel(self, name):
        """Ends a subscription."""
        subscription = self.subscriptions.pop(name)
        self.ankaios.unregister_event(subscription.queue)
        subscription.finish()
        say("cancelled", name=name)

    def do_update(self, config, value):
        """Sets one config item."""
        self.ankaios.add_config(config, value)
        say("updated", config=config)

    def do_count(self, config, upto):
        """Sets one config item to 1, 2, 3, ..., each after the answer to the previous one."""
        for number in range(1, upto + 1):
            self.ankaios.add_config(config, str(number))
        say("counted", config=config, upto=upto)

    def do_add_workload(self, name, agent):
        """Adds a workload to the desired state."""
        workload = (
            Workload.builder()
            .workload_name(name)
            .agent_name(agent)
            .runtime("podman")
            .runtime_config("image: example.org/nothing:1")
            .build()
        )
        success = self.ankaios.apply_workload(workload)
        say("added", workloads=[added.workload_name for added in success.added_workloads])


def main():
    """Connects, carries out commands until standard input ends, and disconnects."""
    # It starts before the SDK connects, so no change of state is missed.
    get_logger().addHandler(LogWatcher())
    try:
        ankaios = Ankaios(log_level=AnkaiosLogLevel.DEBUG)
    except (ConnectionClosedException, ControlInterfaceException) as error:
        say("failed", do="connect", why="not connected", message=str(error))
        sys.exit(1)
    with ankaios:
        say("ready")
        control = RemoteControl(ankaios)
        for line in sys.stdin:
            control.obey(json.loads(line))


if __name__ == "__main__":
    main()
