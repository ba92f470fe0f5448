#!/bin/sh
# Sends malformed frames, and is served afterwards all the same. The fourth argument is the pair of another
# workload.
. "$(dirname "$0")/workload.sh"
other=$4

say hello-of-a-later-major
expect connectionClosed "Unsupported protocol version '2.0.0'. Currently supported '1'"
say hello
expect controlInterfaceAccepted

say read-everything
expect '"requestId":"all"' 'Access denied'

# Malformed messages get no answer. The next answer belongs to the request behind them.
say no-content no-protobuf read-speed
expect '"requestId":"read"' completeState

# The only writer closes within a frame. fifogate has seen this close once it has served the other workload
# twice. A writer before that moment would write the rest of the half frame.
say half-of-subscribe-speed
exec 3>&-
sh "$(dirname "$0")/publisher.sh" "$other" "$frames" "$fifogate"
exec 3> "$pair/output"
say read-speed
expect '"requestId":"read"' completeState

for misfit in length-over-the-limit length-of-too-many-bytes; do
    say "$misfit"
    expect connectionClosed 'Frame'
    # fifogate skips all bytes up to the next Hello.
    say subscribe-speed hello
    expect controlInterfaceAccepted
    say read-speed
    expect '"requestId":"read"' completeState
done
