//! States of any shape: many leaves, deep, wide, long texts, long names; configs, workloads and what
//! they hold, execution states, agents.

use super::{
    genome::Genome,
    wire::{entry, message, put, put_number},
};

/// Most bytes that the messages around one level add to it.
const AROUND_A_LEVEL: usize = 24;
/// Most bytes of one entry: with some masks it has to fit into a message.
const MOST_OF_ONE: usize = 4_180_000;
/// The same of an entry of short texts, of which a message may hold fewer bytes.
const MOST_OF_SHORT_TEXTS: usize = 250_000;
const SHORT: usize = 64;

pub(crate) struct Shape {
    part: &'static str,
    form: &'static str,
    keys: usize,
    depth: usize,
    fan: usize,
    tip: usize,
    leaf: usize,
    key: usize,
    size: usize,
}

/// Which of two states that take turns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) second: bool,
    pub(crate) toggle: &'static str,
}

impl Variant {
    pub(crate) const FIRST: Self = Self { second: false, toggle: "same" };

    fn is(self, toggle: &str) -> bool {
        self.second && self.toggle == toggle
    }
}

impl Shape {
    pub(crate) fn of(genome: &Genome, block: &str) -> Self {
        let size = |name: &str| genome.size(&format!("{block}.{name}"));
        Self {
            part: genome.choice(&format!("{block}.part")),
            form: genome.choice(&format!("{block}.form")),
            keys: size("keys"),
            depth: size("depth"),
            fan: size("fan"),
            tip: size("tip"),
            leaf: size("leaf"),
            key: size("key"),
            size: size("size"),
        }
    }

    /// The names of the entries and the entries of the map that this shape fills.
    pub(crate) fn entries(&self, variant: Variant) -> Vec<(String, Vec<u8>)> {
        self.entries_of(variant, MOST_OF_ONE)
    }

    /// Entries that messages can bring one by one.
    pub(crate) fn entries_to_bring(&self) -> Vec<(String, Vec<u8>)> {
        let short = self.leaf < SHORT;
        self.entries_of(Variant::FIRST, if short { MOST_OF_SHORT_TEXTS } else { MOST_OF_ONE })
    }

    fn entries_of(&self, variant: Variant, most_of_one: usize) -> Vec<(String, Vec<u8>)> {
        if variant.is("gone") {
            return Vec::new();
        }
        let around = (self.depth + 4) * AROUND_A_LEVEL;
        let mut left = self.size;
        let mut all = Vec::new();
        while all.len() < self.keys && (left > around || all.is_empty()) {
            let most = left.min(most_of_one).saturating_sub(around);
            let mut grower = Grower { shape: self, variant, left: most };
            let first = if variant.is("names") { 'c' } else { 'b' };
            let name = self.name(first, all.len());
            let value = match self.part {
                "configs" | "effective" => grower.item(self.depth),
                "workloads" => grower.workload(all.len()),
                "states" => grower.states(),
                _ => message(2, &grower.texts(1)),
            };
            let entry = entry(&name, &value);
            left = left.saturating_sub(entry.len() + 6);
            all.push((name, entry));
        }
        all
    }

    /// A complete state that holds these entries.
    pub(crate) fn state_of<'a>(&self, entries: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut map = Vec::new();
        entries.into_iter().for_each(|entry| put(&mut map, 1, entry));
        let state = |part| {
            let mut state = message(1, b"v1");
            put(&mut state, part, &map);
            state
        };
        match self.part {
            "configs" => message(1, &state(3)),
            "workloads" => message(1, &state(2)),
            "states" => message(2, &map),
            "agents" => message(3, &map),
            _ => message(4, &state(3)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The mask of an entry, where a workload may write such entries.
    pub(crate) fn mask_of(&self, name: &str) -> Option<String> {
        ["configs", "workloads"]
            .contains(&self.part)
            .then(|| format!("desiredState.{}.{name}", self.part))
    }

    fn name(&self, first: char, number: usize) -> String {
        format!("{first}{number}{}", "_".repeat(self.key))
    }
}

/// Makes values until all bytes are spent.
struct Grower<'a> {
    shape: &'a Shape,
    variant: Variant,
    left: usize,
}

impl Grower<'_> {
    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// A text that differs in the second of two variants.
    fn text(&mut self) -> Vec<u8> {
        let second = self.variant.is("values");
        let len = self.shape.leaf.min(self.left).max(usize::from(second));
        self.spend(len);
        vec![if second { b'w' } else { b'v' }; len]
    }

    /// A config item of so many levels.
    fn item(&mut self, depth: usize) -> Vec<u8> {
        if depth == 0 {
            return message(1, &self.text());
        }
        let (mut inside, mut count) = (Vec::new(), 0);
        let fan = if depth == 1 && self.shape.tip > 0 { self.shape.tip } else { self.shape.fan };
        while count < fan && (self.left > 0 || count == 0) {
            let (before, item) = (inside.len(), self.item(depth - 1));
            match self.shape.form {
                "arrays" => put(&mut inside, 1, &item),
                _ => put(&mut inside, 1, &entry(&self.shape.name('k', count), &item)),
            }
            self.spend(inside.len() - before - item.len() + 2);
            count += 1;
        }
        message(if self.shape.form == "arrays" { 2 } else { 3 }, &inside)
    }

    fn workload(&mut self, number: usize) -> Vec<u8> {
        let mut workload = message(1, b"a");
        put(&mut workload, 5, b"r");
        self.spend(AROUND_A_LEVEL);
        match self.shape.form {
            "tags" => put(&mut workload, 4, &self.texts(1)),
            "files" => put(
                &mut workload,
                9,
                &self.list(|this, n| {
                    let mut file = message(1, format!("/{n}").as_bytes());
                    put(&mut file, 2, &this.text());
                    file
                }),
            ),
            "dependencies" => put(
                &mut workload,
                3,
                &self.list(|this, n| {
                    let mut key = message(1, this.shape.name('b', number + 1 + n).as_bytes());
                    put_number(&mut key, 2, 0);
                    key
                }),
            ),
            "rules" => put(&mut workload, 7, &self.list(Self::rule)),
            "aliases" => put(
                &mut workload,
                8,
                &self.list(|this, n| entry(&this.shape.name('k', n), b"good")),
            ),
            _ => put(&mut workload, 6, &self.text()),
        }
        if self.shape.form != "text" {
            put(&mut workload, 6, b"x");
        }
        workload
    }

    /// A rule to read; its masks are as many as the shape has levels.
    fn rule(&mut self, number: usize) -> Vec<u8> {
        let mut rule = Vec::new();
        put_number(&mut rule, 1, 1);
        for level in 0..=self.shape.depth {
            put(&mut rule, 2, format!("desiredState.configs.k{number}.*.{level}").as_bytes());
        }
        message(1, &rule)
    }

    /// A map of texts in a field.
    fn texts(&mut self, field: u32) -> Vec<u8> {
        let map = self.list(|this, n| entry(&this.shape.name('k', n), &this.text()));
        if field == 1 { map } else { message(field, &map) }
    }

    /// As many elements of field 1 as the fan says.
    fn list(&mut self, mut element: impl FnMut(&mut Self, usize) -> Vec<u8>) -> Vec<u8> {
        let (mut list, mut count) = (Vec::new(), 0);
        while count < self.shape.fan && (self.left > 0 || count == 0) {
            let before = self.left;
            let element = element(self, count);
            put(&mut list, 1, &element);
            let spent = before - self.left;
            self.spend((element.len() + 6).saturating_sub(spent));
            count += 1;
        }
        list
    }

    /// The execution states of the workloads of an agent.
    fn states(&mut self) -> Vec<u8> {
        self.list(|this, n| {
            let mut state = message(1, &this.text());
            put_number(&mut state, 4, 0);
            entry(&this.shape.name('k', n), &message(1, &entry("id", &state)))
        })
    }
}
