#!/bin/sh
# Stands for systemctl: starts and stops the agent as its unit says. It notes its arguments, for the test.
set -eu
echo "$*" >>/tmp/systemctl
unit=/usr/lib/systemd/system/fifogate-agent.service
stop() {
    [ -e /tmp/agent.pid ] || return 0
    # KillMode=process: the main process alone.
    pid=$(cat /tmp/agent.pid)
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm /tmp/agent.pid
}
start() {
    [ ! -e /tmp/agent.pid ] || return 0
    exec_line=$(sed -n 's/^ExecStart=//p' "$unit")
    $exec_line </dev/null >/dev/null 2>>/tmp/agent.log &
    echo $! >/tmp/agent.pid
}
reload() {
    exec_line=$(sed -n 's/^ExecReload=//p' "$unit")
    MAINPID=$(cat /tmp/agent.pid)
    export MAINPID
    eval "$exec_line"
}
case " $* " in
*" fifogate-agent.service "*) ;;
*" is-enabled "*) echo disabled; exit 1 ;;
*" is-active "*) exit 3 ;;
*) exit 0 ;;
esac
case " $* " in
*" is-enabled "*) echo enabled ;;
*" is-active "*) [ -e /tmp/agent.pid ] ;;
*" stop "*) stop ;;
*" reload "*) reload ;;
*" restart "*) stop; start ;;
*" start "*) start ;;
esac
