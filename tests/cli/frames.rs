//! `encode` and `decode`.

use std::io::{BufRead, BufReader, Write};

use predicates::{prelude::*, str::contains};
use serde_json::Value;

use crate::{fifogate, into_closed_pipe, start};

/// Every kind of message from a workload, in canonical JSON.
const REQUESTS: &str = r#"
{"hello":{"protocolVersion":"1.0.0"}}
{"request":{"requestId":"a@b","completeStateRequest":{"fieldMask":["a.*","b"],"subscribeForEvents":true}}}
{"request":{"completeStateRequest":{}}}
{"request":{"requestId":"2","updateStateRequest":{"newState":{"desiredState":{"apiVersion":"v1","workloads":{"workloads":{"w":{"agent":"","restartPolicy":"NEVER","dependencies":{"dependencies":{"d":"ADD_COND_FAILED"}},"tags":{"tags":{"k":"v"}},"runtime":"podman","runtimeConfig":"a\nb","controlInterfaceAccess":{"allowRules":[{"stateRule":{"operation":"RW_READ_WRITE","filterMasks":["*"]}},{"logRule":{"workloadNames":["w*"]}}]},"configs":{"configs":{"a":"b"}},"files":{"files":[{"mountPoint":"/a","data":"b"},{"mountPoint":"/c","binaryData":"QUJD"}]}}}},"configs":{"configs":{"s":{"String":"x"},"a":{"array":{"values":[{"String":"1"}]}},"o":{"object":{"fields":{"k":{"String":""}}}}}}}},"updateMask":["desiredState"]}}}
{"request":{"requestId":"3","logsRequest":{"workloadNames":[{"workloadName":"w","agentName":"a","id":"i"}],"follow":false,"tail":-1,"since":"","until":"2026-01-01T00:00:00Z"}}}
{"request":{"requestId":"4","logsCancelRequest":{}}}
{"request":{"requestId":"5","eventsCancelRequest":{}}}
{}
"#;

/// Every kind of message to a workload, in canonical JSON.
const RESPONSES: &str = r#"
{"controlInterfaceAccepted":{}}
{"connectionClosed":{"reason":"why"}}
{"response":{"requestId":"1","error":{"message":"Access denied"}}}
{"response":{"requestId":"2","completeStateResponse":{"completeState":{"workloadStates":{"agentStateMap":{"":{"wlNameStateMap":{"w":{"idStateMap":{"i":{"additionalInfo":"","pending":"PENDING_INITIAL"}}}}}}},"agents":{"agents":{"a":{"status":{"cpuUsage":{"cpuUsage":7},"freeMemory":{"freeMemory":"18446744073709551615"}},"tags":{}}}},"effectiveState":{"apiVersion":"v1","workloads":{}}},"alteredFields":{"addedFields":["a"],"updatedFields":["b"],"removedFields":["c"]}}}}
{"response":{"requestId":"3","UpdateStateSuccess":{"addedWorkloads":["w.i.a"],"deletedWorkloads":["v.i."]}}}
{"response":{"requestId":"4","logsRequestAccepted":{"workloadNames":[{"workloadName":"w"}]}}}
{"response":{"requestId":"5","logEntriesResponse":{"logEntries":[{"workloadName":{"id":"i"},"message":"m"}]}}}
{"response":{"requestId":"6","logsStopResponse":{"workloadName":{"agentName":"a"}}}}
{"response":{"requestId":"7","logsCancelAccepted":{}}}
{"response":{"requestId":"8","eventsCancelAccepted":{}}}
"#;

const HELLO: &[u8] = b"\x09\x0a\x07\x12\x05\x31\x2e\x30\x2e\x30";
const ACCEPTED: &[u8] = b"\x02\x22\x00";

fn encoded(args: &[&str], json: &str) -> Vec<u8> {
    let mut command = fifogate(&[&["encode"], args].concat());
    command.write_stdin(json).assert().success().get_output().stdout.clone()
}

fn values(lines: &str) -> Vec<Value> {
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_kind_of_message_comes_back_as_it_was() {
    for (message_type, json) in [("ToAnkaios", REQUESTS), ("FromAnkaios", RESPONSES)] {
        let frames = encoded(&["--type", message_type], json);
        let mut command = fifogate(&["decode", "--type", message_type]);
        let output = command.write_stdin(frames).assert().success().get_output().clone();
        assert_eq!(values(str::from_utf8(&output.stdout).unwrap()), values(json));
    }
}

#[test]
fn encode_gives_the_documented_bytes_and_skips_empty_lines() {
    assert_eq!(encoded(&[], "\n \t\n{\"hello\":{\"protocolVersion\":\"1.0.0\"}}\r\n\n"), HELLO);
    assert_eq!(encoded(&["--type=FromAnkaios"], "{\"controlInterfaceAccepted\":{}}"), ACCEPTED);
    assert_eq!(encoded(&[], ""), b"");
}

#[test]
fn names_of_the_schema_are_accepted_as_those_of_json_are() {
    let status = |cpu: &str, memory: &str| {
        let json = r#"{"response":{"completeStateResponse":{"completeState":{"agents":{"agents":
            {"a":{"status":{"CPU":{"CPU":1},"MEM":{"MEM":2}}}}}}}}}"#;
        let json = json.replace("CPU", cpu).replace("MEM", memory).replace('\n', "");
        encoded(&["--type=FromAnkaios"], &json)
    };
    assert_eq!(status("cpu_usage", "free_memory"), status("cpuUsage", "freeMemory"));
}

#[test]
fn encode_stops_at_the_line_that_is_no_message_with_the_ones_before_it_written() {
    let expected = [
        ("{\"hallo\":{}}", "unrecognized field name 'hallo' at column"),
        ("{\"hello\":{}", "EOF while parsing"),
        ("{\"hello\":{}} {}", "trailing characters at column"),
        ("{\"hello\":{\"protocolVersion\":1}}", "invalid type: integer `1`"),
        ("{\"hello\":{},\"request\":{}}", "at column"),
        ("\u{fffd}", "expected value at column 1"),
    ];
    for (line, what) in expected {
        let stdin = format!("{{\"hello\":{{\"protocolVersion\":\"1.0.0\"}}}}\n\n{line}\n{{}}\n");
        let said = fifogate(&["encode"]).write_stdin(stdin).assert().code(2).stdout(HELLO);
        let right = "a line holds one ToAnkaios, such as {\"hello\":";
        said.stderr(contains("error: <stdin>:3: ").and(contains(what)).and(contains(right)));
    }
}

#[test]
fn decode_prints_a_message_before_the_next_byte_comes() {
    let mut decode = start(&["decode", "--type", "ToAnkaios"]);
    let mut stdin = decode.stdin.take().unwrap();
    let mut lines = BufReader::new(decode.stdout.take().unwrap()).lines();
    for split in 0..=HELLO.len() {
        stdin.write_all(&HELLO[..split]).unwrap();
        stdin.write_all(&HELLO[split..]).unwrap();
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line, "{\"hello\":{\"protocolVersion\":\"1.0.0\"}}");
    }
    drop(stdin);
    assert_eq!(decode.wait().unwrap().code(), Some(0));
}

#[test]
fn encode_writes_a_message_before_the_next_line_comes() {
    let mut encode = start(&["encode", "--type", "FromAnkaios"]);
    let mut stdin = encode.stdin.take().unwrap();
    let mut stdout = encode.stdout.take().unwrap();
    for _ in 0..3 {
        stdin.write_all(b"{\"controlInterfaceAccepted\":{}}\n").unwrap();
        let mut frame = [0; 3];
        std::io::Read::read_exact(&mut stdout, &mut frame).unwrap();
        assert_eq!(frame, ACCEPTED);
    }
    drop(stdin);
    assert_eq!(encode.wait().unwrap().code(), Some(0));
}

#[test]
fn decode_says_at_which_byte_the_input_is_torn_or_unreadable() {
    let accepted = "{\"controlInterfaceAccepted\":{}}\n";
    let expected: &[(&[u8], &str)] = &[
        (b"\x02\x22", "<stdin>: byte 3: the input ends at byte 5, within the frame"),
        (b"\x80", "<stdin>: byte 3: the input ends at byte 4, within the frame"),
        (b"\x81\x80\x80\x02\x00", "<stdin>: byte 3: Frame of 4194305 bytes exceeds"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "<stdin>: byte 3: Frame length is not"),
    ];
    for (rest, what) in expected {
        let mut command = fifogate(&["decode"]);
        command.write_stdin([ACCEPTED, rest].concat());
        command.assert().code(1).stdout(accepted).stderr(contains(*what));
    }
}

#[test]
fn decode_takes_frames_up_to_the_limit_that_it_is_given() {
    let mut command = fifogate(&["decode", "--max-frame", "2"]);
    command.write_stdin(ACCEPTED).assert().success();
    let mut command = fifogate(&["decode", "--max-frame", "1"]);
    command.write_stdin(ACCEPTED).assert().code(1).stdout("").stderr(contains("--max-frame"));
}

#[test]
fn decode_goes_on_behind_a_message_that_does_not_decode_and_fails_in_the_end() {
    let stream = [ACCEPTED, b"\x02\x22\x09", ACCEPTED].concat();
    let accepted = "{\"controlInterfaceAccepted\":{}}\n";
    let said = fifogate(&["decode"]).write_stdin(stream).assert().code(1);
    said.stdout(accepted.repeat(2)).stderr(contains("byte 3: this is no FromAnkaios"));
}

#[test]
fn nobody_reading_the_messages_is_no_failure() {
    let hello = b"{\"hello\":{}}\n";
    assert_eq!(into_closed_pipe(&["encode"], &hello.repeat(9)), (Some(0), String::new()));
    assert_eq!(into_closed_pipe(&["decode"], &ACCEPTED.repeat(9)), (Some(0), String::new()));
}
