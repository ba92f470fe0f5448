#!/bin/sh
# Says Hello, follows one config, is told of one event, and cancels.
. "$(dirname "$0")/workload.sh"

say hello
expect controlInterfaceAccepted

say subscribe-speed
expect '"requestId":"speed"' completeState '"String":"0"'

echo subscribed # whoever sends the event waits for this
expect '"requestId":"speed"' alteredFields '"updatedFields":["desiredState.configs.speed"]' \
    '"String":"80"'

say cancel-speed
expect '"requestId":"speed"' eventsCancelAccepted

# Nothing was left in between: the next answer is that to the next request.
say read-speed
expect '"requestId":"read"' '"String":"80"'
