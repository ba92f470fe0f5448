#!/usr/bin/env python3
"""A workload that a test driver remote-controls, through the unmodified Ankaios Python SDK.

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

# Who an exception blames, in words that both SDKs' workloads share.
BLAME = [
    (AnkaiosResponseError, "refused"),
    (ConnectionClosedException, "closed"),
    (ControlInterfaceException, "not connected"),
    (TimeoutError, "timeout"),
]

_output = threading.Lock()


def say(step, **fields):
    """Tells the driver one thing. Events are told by threads of their own, hence the lock."""
    with _output:
        print(json.dumps({"step": step, **fields}), flush=True)


def camel_case(name):
    """AGENT_DISCONNECTED -> AgentDisconnected, as the Rust SDK spells the same names."""
    return "".join(word.title() for word in name.split("_"))


class LogWatcher(logging.Handler):
    """Tells the driver what the SDK shows nowhere but in its log.

    That is the state of its connection, and events which it drops because nobody here asked.
    """

    def emit(self, record):
        message = record.getMessage()
        if changed := re.match(r"State changed to (\w+)", message):
            say("connection", state=camel_case(changed[1]))
        elif message.startswith("Received event with unknown request id"):
            say("stray", message=message)


def plain(state):
    """A CompleteState as both SDKs' workloads print it: only what the scenarios look at."""
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
    """One event campaign, and the thread that passes its events on."""

    def __init__(self, name, queue):
        self.name = name
        self.queue = queue
        # The SDK puts the state at the time of the subscription in front of the events.
        self.initial_state = plain(queue.get().complete_state)
        self._forwarder = threading.Thread(target=self._forward, daemon=True)

    def start(self):
        """Begins to pass events on; called when the driver knows of the subscription."""
        self._forwarder.start()

    def finish(self):
        """Returns when every event that the SDK had received has been told."""
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
    """The commands: one method each, which says its own answer."""

    def __init__(self, ankaios):
        self.ankaios = ankaios
        self.subscriptions = {}

    def obey(self, command):
        """Carries out one command; whatever the SDK raises is the answer to it."""
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
        """Subscribes to events, which are told under the given name."""
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
        """Sets one config item to 1, 2, 3, ..., each after the answer to the one before."""
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
    """Connects, obeys until standard input ends, and disconnects."""
    # Before the SDK connects, so that no change of state goes unseen.
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
