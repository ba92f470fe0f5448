#!/bin/sh
# A workload with nothing but a shell and the command line. It tries a forbidden update, then reports its
# speed again and again. Usage: engine.sh PATH-TO-FIFOGATE FILE
set -u
tell() { "$1" -q set -d "$CONTROL_INTERFACE_DIR" "$2"; }

tell "$1" desiredState.configs.limit=500 2>> "$2" || true
speed=0
while :; do
    speed=$((speed + 10))
    tell "$1" "desiredState.configs.speed=$speed" > /dev/null
    sleep 0.5
done
