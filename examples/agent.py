#!/usr/bin/env python3
"""A complete agent for fifogate in Python, with nothing but protobuf.

It spawns fifogate, adds two workloads, changes the state, and answers the update of one of them.
Usage: agent.py PATH-TO-FIFOGATE PATH-TO-GENERATED-PYTHON RUN-DIR

The generated modules come from the schemas in `proto/`:
    protoc --proto_path proto --python_out GENERATED proto/*.proto
"""

import collections
import itertools
import subprocess
import sys

fifogate, generated, run_dir = sys.argv[1:4]
sys.path.insert(0, generated)
import agent_link_pb2 as link  # noqa: E402  (in the folder of the second argument)
import ank_base_pb2 as ank  # noqa: E402


class Gate:
    """fifogate as a child process: it takes commands and sends messages."""

    def __init__(self):
        command = [fifogate, "run", "--agent-link", "stdio", "--updates", "forward"]
        command += ["--run-dir", run_dir]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ids = itertools.count(1)
        # Messages that came while an acknowledgement was awaited: requests of workloads among them.
        self.early = collections.deque()
        hello = self.read().hello
        print(f"fifogate speaks {hello.protocolVersion} and keeps its pairs in {hello.runDir}")
        if hello.protocolVersion.split(".")[0] != "1":
            sys.exit("this agent speaks version 1 of the link")
        self.call(hello=link.AgentHello(protocolVersion="1.0.0", agentName="node_a"))

    def send(self, **content):
        """Writes one command as a frame: its length as a varint, then the message."""
        message = link.FromAgent(id=next(self.ids), **content)
        body = message.SerializeToString()
        length, rest = bytearray(), len(body)
        while rest >= 0x80:
            length.append(rest & 0x7F | 0x80)
            rest >>= 7
        length.append(rest)
        self.process.stdin.write(bytes(length) + body)
        self.process.stdin.flush()
        return message.id

    def receive(self):
        """Returns the oldest message not returned yet, or waits for one. None is the end of the link."""
        return self.early.popleft() if self.early else self.read()

    def read(self):
        """Waits for one message from fifogate. Returns None at the end of the link."""
        length = shift = 0
        while True:
            byte = self.process.stdout.read(1)
            if not byte:
                return None
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
        return link.ToAgent.FromString(self.process.stdout.read(length))

    def call(self, **content):
        """Sends a command and waits for its acknowledgement."""
        wanted = self.send(**content)
        while message := self.read():
            if message.WhichOneof("content") == "ack" and message.ack.id == wanted:
                return
            if message.WhichOneof("content") == "rejected":
                sys.exit(f"fifogate refused: {message.rejected.reason}")
            self.early.append(message)
        sys.exit("fifogate hung up")


def show(message):
    kind = message.WhichOneof("content")
    if kind == "workload_ready":
        print(f"ready {message.workload_ready.controlInterfaceDir}", flush=True)
    elif kind == "session":
        name = message.session.instanceName.workloadName
        print(f"{name} {link.Phase.Name(message.session.phase).lower()}", flush=True)


def rule(operation, *masks):
    return ank.AccessRightsRule(
        stateRule=ank.StateRule(operation=operation, filterMasks=masks)
    )


gate = Gate()
# The state comes first: a workload that is added before it would read an empty one.
state = ank.CompleteState()
state.desiredState.apiVersion = "v1"
state.desiredState.workloads.SetInParent()
state.desiredState.configs.configs["speed"].String = "50"
gate.call(replace_state=link.ReplaceState(state=state))

for name, access in (
    ("reader", rule(ank.RW_READ, "desiredState.configs")),
    ("writer", rule(ank.RW_READ_WRITE, "desiredState.configs")),
):
    instance = ank.WorkloadInstanceName(workloadName=name, agentName="node_a", id="1")
    access = ank.ControlInterfaceAccess(allowRules=[access])
    gate.call(add_workload=link.AddWorkload(instanceName=instance, access=access))
print("workloads added", flush=True)

while message := gate.receive():
    show(message)
    if message.WhichOneof("content") == "request":
        asked = message.request
        update = asked.request.updateStateRequest
        print(f"{asked.instanceName.workloadName} updates {list(update.updateMask)}", flush=True)
        # The agent decides. This one applies every update, and then answers.
        gate.call(update_state=link.UpdateState(newState=update.newState, updateMask=update.updateMask))
        done = ank.Response(requestId=asked.request.requestId)
        done.UpdateStateSuccess.SetInParent()
        gate.call(
            response=link.ForwardedResponse(instanceName=asked.instanceName, response=done)
        )
        gate.send(shutdown=link.Shutdown())
sys.exit(gate.process.wait())
