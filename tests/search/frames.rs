//! The frames that a genome stands for.

use std::fmt::Write;

use bytes::Bytes;
use fifogate::frame::encode;

use super::{
    genome::Genome,
    shape::{Shape, Variant},
    wire::{entry, message, put},
};

/// Most bytes of a message by the default limits.
pub(crate) const MAX_FRAME: usize = 4 << 20;
/// Most masks of a request by the default limits.
const MAX_MASKS: usize = 256;

/// The parts that a message can repeat, and where: numbers of fields from the request down to what is repeated.
/// Below zero, it is one entry of the map in that field, and its value.
pub(crate) const REPEATED: [(&str, &[i32]); 29] = [
    ("files", &[2, 1, 1, 2, -1, 9, 1]),
    ("workloads", &[2, 1, 1, 2, 1]),
    ("workload", &[2, 1, 1, 2, 1, 2]),
    ("tags", &[2, 1, 1, 2, -1, 4, 1]),
    ("dependencies", &[2, 1, 1, 2, -1, 3, 1]),
    ("allow", &[2, 1, 1, 2, -1, 7, 1]),
    ("deny", &[2, 1, 1, 2, -1, 7, 2]),
    ("filters", &[2, 1, 1, 2, -1, 7, 1, 1, 2]),
    ("log_names", &[2, 1, 1, 2, -1, 7, 1, 2, 1]),
    ("aliases", &[2, 1, 1, 2, -1, 8, 1]),
    ("configs", &[2, 1, 1, 3, 1]),
    ("items", &[2, 1, 1, 3, -1, 2, 1]),
    ("fields", &[2, 1, 1, 3, -1, 3, 1]),
    ("arrays", &[2, 1, 1, 3, -1, 2]),
    ("agent_states", &[2, 1, 2, 1]),
    ("workload_states", &[2, 1, 2, -1, 1]),
    ("id_states", &[2, 1, 2, -1, -1, 1]),
    ("agents", &[2, 1, 3, 1]),
    ("agent_tags", &[2, 1, 3, -1, 2, 1]),
    ("effective", &[2, 1, 4, 3, 1]),
    ("effective_workloads", &[2, 1, 4, 2, 1]),
    ("desired", &[2, 1, 1]),
    ("new_state", &[2, 1]),
    ("update", &[2]),
    ("update_masks", &[2, 2]),
    ("field_masks", &[3, 1]),
    ("logs", &[4, 1]),
    ("unknown", &[2, 1, 1, 99]),
    ("unknown_in_request", &[99]),
];

/// Some entries of the state, by their names.
pub(crate) type Part = Vec<(String, Vec<u8>)>;

/// A frame, or bytes that are none.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Whether an answer is waited for.
    pub(crate) answered: bool,
}

pub(crate) struct Script {
    /// Hello, and the subscriptions.
    pub(crate) setup: Vec<Piece>,
    /// A round, and the one that takes turns with it.
    pub(crate) rounds: [Vec<Piece>; 2],
}

impl Script {
    pub(crate) fn of(genome: &Genome) -> Self {
        let mut setup = vec![hello(b"1.0.0")];
        for n in 0..genome.size("subs") {
            setup.push(state_request(&format!("s{n}"), &masks(genome, "subs", n), true));
        }
        let round = |second| -> Vec<_> {
            ["a", "b"].iter().flat_map(|block| act(genome, block, second)).collect()
        };
        let takes_turns = ["a.toggle", "b.toggle"].iter().any(|own| genome.choice(own) != "same");
        let first = round(false);
        let second = if takes_turns { round(true) } else { first.clone() };
        let rounds = [first, second];
        Self { setup, rounds }
    }

    /// Bytes of the longest frame.
    pub(crate) fn longest(&self) -> usize {
        self.rounds.iter().flatten().map(|piece| piece.bytes.len()).max().unwrap_or(0)
    }
}

fn frame(body: &[u8]) -> Piece {
    Piece { bytes: encode(body), answered: true }
}

fn hello(version: &[u8]) -> Piece {
    frame(&message(1, &message(2, version)))
}

/// A request with this id and this content in this field.
fn request(id: &str, field: u32, content: &[u8]) -> Piece {
    let mut request = message(1, id.as_bytes());
    put(&mut request, field, content);
    frame(&message(3, &request))
}

fn state_request(id: &str, masks: &[String], subscribe: bool) -> Piece {
    let mut ask = Vec::new();
    masks.iter().for_each(|mask| put(&mut ask, 1, mask.as_bytes()));
    if subscribe {
        super::wire::put_number(&mut ask, 2, 1);
    }
    request(id, 3, &ask)
}

fn update_of(id: &str, state: &[u8], masks: &[String]) -> Piece {
    let mut update = message(1, state);
    masks.iter().for_each(|mask| put(&mut update, 2, mask.as_bytes()));
    request(id, 2, &update)
}

/// The state to begin with, in parts that fit into a message by their bytes. How many values a message
/// may hold is for who sends it to find out, and then to halve the part.
pub(crate) fn state_parts(genome: &Genome) -> Vec<Part> {
    let shape = Shape::of(genome, "state");
    if shape.is_empty() {
        return Vec::new();
    }
    let mut entries = shape.entries_to_bring();
    entries.retain(|(name, _)| shape.mask_of(name).is_some());
    let mut parts: Vec<Part> = Vec::new();
    let mut size = usize::MAX;
    for (name, entry) in entries {
        let own = entry.len() + 100;
        let fits = size.saturating_add(own) < MAX_FRAME;
        match parts.last_mut().filter(|part| fits && part.len() < MAX_MASKS) {
            Some(part) => {
                part.push((name, entry));
                size += own;
            }
            None => {
                parts.push(vec![(name, entry)]);
                size = own;
            }
        }
    }
    parts
}

/// The update that brings a part of the state.
pub(crate) fn update_of_part(genome: &Genome, part: &[(String, Vec<u8>)]) -> Piece {
    let shape = Shape::of(genome, "state");
    let state = shape.state_of(part.iter().map(|(_, entry)| &entry[..]));
    let masks: Vec<_> = part.iter().filter_map(|(name, _)| shape.mask_of(name)).collect();
    update_of("k", &state, &masks)
}

/// The pieces of one act.
fn act(genome: &Genome, block: &str, second: bool) -> Vec<Piece> {
    let of = |name: &str| format!("{block}.{name}");
    let (count, kind) = (genome.size(&of("count")), genome.choice(&of("kind")));
    let size = genome.size(&of("size"));
    let all_alike = |piece: Piece| vec![piece; count];
    match kind {
        "update" => all_alike(update(genome, block, second)),
        "repeat" => all_alike(repeat(genome, block)),
        "read" => (0..count).map(|n| state_request("a", &masks(genome, block, n), false)).collect(),
        "subscribe" => {
            let ask = |n| state_request(&format!("t{n}"), &masks(genome, block, n), true);
            (0..count).map(ask).collect()
        }
        "cancel" => (0..count).map(|n| request(&format!("s{n}"), 6, b"")).collect(),
        "hello" => all_alike(hello(&vec![b'1'; size])),
        "zeros" => all_alike(Piece { bytes: vec![0; size].into(), answered: false }),
        "garbage" => all_alike(Piece { bytes: garbage(size), answered: false }),
        _ => Vec::new(),
    }
}

/// Bytes without a pattern, and always the same.
fn garbage(size: usize) -> Bytes {
    let mut state = 1_u32;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    next.take(size).collect()
}

fn update(genome: &Genome, block: &str, second: bool) -> Piece {
    let toggle = genome.choice(&format!("{block}.toggle"));
    let shape = Shape::of(genome, block);
    let entries = match shape.is_empty() {
        true => Vec::new(),
        false => shape.entries(Variant { second, toggle }),
    };
    let mut masks = masks(genome, block, 0);
    let state = shape.state_of(entries.iter().map(|(_, entry)| &entry[..]));
    let mut room = MAX_FRAME.saturating_sub(state.len() + 64);
    masks.retain(|mask| {
        let fits = mask.len() + 4 <= room;
        room -= if fits { mask.len() + 4 } else { 0 };
        fits
    });
    update_of("a", &state, &masks)
}

/// A message that repeats one field until it has its size.
fn repeat(genome: &Genome, block: &str) -> Piece {
    let of = |name: &str| format!("{block}.{name}");
    let what = genome.choice(&of("what"));
    let (_, path) = REPEATED.iter().find(|(name, _)| *name == what).unwrap();
    let (unit, size) = (genome.size(&of("unit")), genome.size(&of("size")));
    let (inner, own) = (genome.number(&of("inner")), genome.choice(&of("own")) == "own");
    let is_text = ["filters", "log_names", "update_masks", "field_masks"].contains(&what);
    let element = |number: usize| {
        let text = if own { format!("{number:0>unit$}") } else { "x".repeat(unit) };
        match (unit, is_text) {
            (0, _) => Vec::new(),
            (_, true) => text.into_bytes(),
            _ => message(inner, &text.as_bytes()[..text.len() - usize::from(!own)]),
        }
    };
    let (last, above) = path.split_last().unwrap();
    let (mut body, mut number, alike) = (Vec::new(), 0, element(0));
    while body.len() + unit + 32 < size {
        let field = last.unsigned_abs();
        if own {
            put(&mut body, field, &element(number))
        } else {
            put(&mut body, field, &alike)
        }
        number += 1;
    }
    for field in above.iter().rev() {
        let inside = if *field < 0 { entry("b0", &body) } else { body };
        body = message(field.unsigned_abs(), &inside);
    }
    let mut request = message(1, b"a");
    request.extend_from_slice(&body);
    frame(&message(3, &request))
}

/// The masks of the request with this number.
pub(crate) fn masks(genome: &Genome, block: &str, request: usize) -> Vec<String> {
    let of = |name: &str| format!("{block}.{name}");
    let count = genome.size(&of("masks"));
    let first = if genome.choice(&of("own")) == "own" { request * count } else { 0 };
    (first..first + count).map(|number| mask(genome, block, number)).collect()
}

fn mask(genome: &Genome, block: &str, number: usize) -> String {
    let of = |name: &str| format!("{block}.{name}");
    let (root, levels) = (genome.choice(&of("root")), genome.number(&of("levels")));
    let (stars, spread) = (genome.number(&of("stars")), genome.size(&of("spread")));
    let turned = match genome.choice(&of("turn")) {
        "yes" => (stars as u8).rotate_left((number % 8) as u32),
        _ => stars as u8,
    };
    let above_entries = root.ends_with("configs") || root.ends_with("workloads");
    let mut mask = root.to_owned();
    for level in 0..levels {
        let dot = if mask.is_empty() { "" } else { "." };
        let first = if above_entries && level == 0 { 'b' } else { 'k' };
        let _ = match turned >> (level % 8) & 1 {
            1 => write!(mask, "{dot}*"),
            _ => write!(mask, "{dot}{first}{}", number % spread),
        };
    }
    let dot = if mask.is_empty() { "" } else { "." };
    let _ = match genome.choice(&of("end")) {
        "there" => write!(mask, "{dot}k{number}"),
        "absent" => write!(mask, "{dot}x{number}"),
        "long" => write!(mask, "{dot}x{number:0>800}"),
        _ => Ok(()),
    };
    mask
}
