#!/bin/sh
# The same as dashboard.py, without Python: a line for each change. Usage: dashboard.sh FIFOGATE FILE
set -eu
"$1" watch -d "$CONTROL_INTERFACE_DIR" --output json 'workloadStates.*.*.*.state' \
    desiredState.configs.speed |
    # Each line is one object. This prints its names and states in their order.
    grep --line-buffered -oE '"speed":"[0-9]+"|"[A-Za-z_-]+":\{"[0-9a-f]{64}"|"state":"[A-Za-z]+"' |
    sed -uE -n 's/^"speed":"(.*)"$/speed \1/p; /\{/{s/^"(.*)":\{.*/\1/;h}; /^"state"/{s/.*:"(.*)"/\1/;G
        s/(.*)\n(.*)/\2 is \1/p}' >> "$2"
