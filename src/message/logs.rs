//! How large log entries are sent on (docs/protocol.md#size-of-log-entries).

use bytes::Bytes;
use prost::{Message, encoding::encoded_len_varint};

use crate::pb::ank_base::{self as pb, request::RequestContent};

/// Most bytes of one `LogEntriesResponse`.
// This bound, both texts and the reserve are rules of docs/protocol.md#size-of-log-entries.
const LIMIT: usize = 2 << 20;
const SUFFIX: &str = " [truncated]";
const NOTE: &str = "The previous message was truncated due to exceeding the maximum 2 MB size.";
/// Room set aside by the rule beside the suffix and the note.
const RESERVE: usize = 10;

/// The encoded request that ends the log campaign `request_id`, as its workload could send it.
pub(crate) fn cancel_logs(request_id: &str) -> Bytes {
    let content = RequestContent::LogsCancelRequest(pb::LogsCancelRequest {});
    let request_id = request_id.to_owned();
    pb::Request { request_id, request_content: Some(content) }.encode_to_vec().into()
}

/// `response` as messages of at most about 2 MiB, in order. A single larger entry is cut, and a note
/// behind it says so.
pub(super) fn split(response: pb::LogEntriesResponse) -> Vec<pb::LogEntriesResponse> {
    if response.encoded_len() <= LIMIT {
        return vec![response];
    }
    let mut messages = Vec::new();
    let mut pending = pb::LogEntriesResponse::default();
    let mut bytes = 0;
    for entry in response.log_entries {
        let len = entry.encoded_len();
        if len > LIMIT {
            // The entries before it go first: a log keeps its order.
            flush(&mut pending, &mut messages);
            let (entry, note) = cut(entry);
            messages.push(pb::LogEntriesResponse { log_entries: vec![entry, note] });
            continue;
        }
        // Tag and length of the new element do not count (docs/protocol.md#size-of-log-entries).
        if bytes + len > LIMIT {
            flush(&mut pending, &mut messages);
        }
        if pending.log_entries.is_empty() {
            bytes = 0;
        }
        // As in `encoded_len`: the tag, the length, and the entry.
        bytes += 1 + encoded_len_varint(len as u64) + len;
        pending.log_entries.push(entry);
    }
    flush(&mut pending, &mut messages);
    messages
}

fn flush(pending: &mut pb::LogEntriesResponse, messages: &mut Vec<pb::LogEntriesResponse>) {
    if !pending.log_entries.is_empty() {
        messages.push(std::mem::take(pending));
    }
}

/// The entry with as much of its text as fits, and the note behind it.
fn cut(mut entry: pb::LogEntry) -> (pb::LogEntry, pb::LogEntry) {
    let note = pb::LogEntry { workload_name: entry.workload_name.clone(), message: NOTE.into() };
    let overhead = entry.encoded_len() - entry.message.len();
    let reserved = overhead + SUFFIX.len() + note.encoded_len() + RESERVE;
    // A long workload name can take all of the limit, and leave no byte for the text.
    let mut end = LIMIT.saturating_sub(reserved).min(entry.message.len());
    while !entry.message.is_char_boundary(end) {
        end -= 1;
    }
    entry.message.truncate(end);
    entry.message.push_str(SUFFIX);
    (entry, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(len: usize) -> pb::LogEntry {
        pb::LogEntry { workload_name: None, message: "ä".repeat(len / 2) }
    }

    fn response(lens: &[usize]) -> pb::LogEntriesResponse {
        pb::LogEntriesResponse { log_entries: lens.iter().map(|len| entry(*len)).collect() }
    }

    #[test]
    fn what_fits_is_sent_unchanged() {
        let small = response(&[10, LIMIT - 100]);
        assert_eq!(split(small.clone()), [small]);
    }

    #[test]
    fn entries_are_packed_in_order_up_to_the_limit() {
        let half = LIMIT / 2;
        let messages = split(response(&[half - 20, half - 20, 50, half, half]));
        let counts: Vec<_> = messages.iter().map(|message| message.log_entries.len()).collect();
        assert_eq!(counts, [2, 2, 1]);
        assert!(messages.iter().all(|message| message.encoded_len() <= LIMIT + 10));
    }

    #[test]
    fn entry_over_the_limit_is_cut_at_a_character_and_a_note_follows() {
        let messages = split(response(&[10, 3 * LIMIT, 10]));
        assert_eq!(messages.len(), 3);
        let [cut, note] = &messages[1].log_entries[..] else {
            panic!("{}", messages[1].log_entries.len())
        };
        assert!(cut.message.ends_with("ä [truncated]"));
        assert_eq!(note.message, NOTE);
        let len = messages[1].encoded_len();
        assert!((LIMIT - 40..=LIMIT).contains(&len), "{len}");
    }
}
