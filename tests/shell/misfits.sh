#!/bin/sh
# Says what no workload should, and is served afterwards all the same. The fourth argument is the pair
# of another workload.
. "$(dirname "$0")/workload.sh"
other=$4

say hello-of-a-later-major
expect connectionClosed "Unsupported protocol version '2.0.0'. Currently supported '1'"
say hello
expect controlInterfaceAccepted

say read-everything
expect '"requestId":"all"' 'Access denied'

# To these there is no answer: the next one is that to a request behind them.
say no-content no-protobuf read-speed
expect '"requestId":"read"' completeState

# The only writer closes within a frame. That the other workload is served twice from here on means
# that it was seen: a writer that comes sooner would write the rest of that frame.
say half-of-subscribe-speed
exec 3>&-
sh "$(dirname "$0")/publisher.sh" "$other" "$frames" "$fifogate"
exec 3> "$pair/output"
say read-speed
expect '"requestId":"read"' completeState

for misfit in length-over-the-limit length-of-too-many-bytes; do
    say "$misfit"
    expect connectionClosed 'Frame'
    # What follows cannot be understood, up to the next Hello.
    say subscribe-speed hello
    expect controlInterfaceAccepted
    say read-speed
    expect '"requestId":"read"' completeState
done
