#!/bin/sh
# Sends Hello and one custom event.
. "$(dirname "$0")/workload.sh"

say hello
expect controlInterfaceAccepted

say set-speed-to-80
expect '"requestId":"set"' UpdateStateSuccess
