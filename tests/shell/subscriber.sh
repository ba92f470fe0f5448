#!/bin/sh
# Sends Hello, subscribes to one config, receives one event, and cancels.
. "$(dirname "$0")/workload.sh"

say hello
expect controlInterfaceAccepted

say subscribe-speed
expect '"requestId":"speed"' completeState '"String":"0"'

echo subscribed # the sender of the event waits for this line
expect '"requestId":"speed"' alteredFields '"updatedFields":["desiredState.configs.speed"]' \
    '"String":"80"'

say cancel-speed
expect '"requestId":"speed"' eventsCancelAccepted

# No other message is left: the next answer belongs to the next request.
say read-speed
expect '"requestId":"read"' '"String":"80"'
