//! Search for the most expensive field: a hill climb from random templates and configs towards the most
//! time per step. It finds work of the engine without a charge.
//!
//! `SEARCH_SECONDS` sets its duration, `SEED` its random numbers.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

/// Most time of a step: in a release build some 100 ns on an idle processor, and twice that with both
/// threads of a core busy. Other builds are up to 30 times slower.
const MOST_OF_A_STEP: Duration =
    if cfg!(debug_assertions) { Duration::from_nanos(5_000) } else { Duration::from_nanos(400) };

/// Steps lost in the error of a measurement.
const BASE: u64 = 2_000;

/// A part of a template, its number of repetitions, and its content if it is a block.
#[derive(Clone, Debug)]
struct Piece {
    kind: usize,
    count: usize,
    inner: Vec<Piece>,
}

/// Opening and closing text of each kind.
const PIECES: &[(&str, &str)] = &[
    ("{{#each @root.l}}", "{{/each}}"),
    ("{{#each @root.m}}", "{{/each}}"),
    ("{{#each @root.n as |x y|}}", "{{/each}}"),
    ("{{#each [1, \"a\", [2, 3], {\"a\": \"b\"}]}}", "{{/each}}"),
    ("{{#each (lookup @root 'l')}}", "{{/each}}"),
    ("{{#with (lookup @root 'm') as |x|}}", "{{/with}}"),
    ("{{#with @root.b}}", "{{/with}}"),
    ("{{#with \"a literal that is a little longer than most of them are\"}}", "{{/with}}"),
    ("{{#if (ne @root.b @root.d)}}", "{{else}}{{/if}}"),
    ("{{#if (eq @root.m @root.e)}}", "{{/if}}"),
    ("{{#eq @root.l @root.f}}", "{{/eq}}"),
    ("{{#unless @root.b}}", "{{/unless}}"),
    ("{{#if (and @root.b @root.l (or @root.d @root.m) (not @root.n))}}", "{{/if}}"),
    ("{{#if (gt @root.b @root.d)}}", "{{else if (lt '1.5' 7)}}{{/if}}"),
    ("{{{{raw}}}}", "{{{{/raw}}}}"),
    ("{{> indent content=@root.b}}\n", ""),
    ("  {{> indent content=@root.s}}\n", ""),
    ("{{> indent @root.m content='x'}}", ""),
    ("{{> indent content=(lookup @root.l 0)}}", ""),
    ("{{@root.b}}", ""),
    ("{{@root.l}}", ""),
    ("{{@root.n}}", ""),
    ("{{len @root.l}}", ""),
    ("{{len (lookup @root.n 0)}}", ""),
    ("{{lookup @root.m 'k'}}", ""),
    ("{{this}}", ""),
    ("{{@key}}", ""),
    ("{{@index}}", ""),
    ("{{../this}}", ""),
    ("{{eq this ../this}}", ""),
    ("{{log @root.b @root.l level='warn'}}", ""),
    ("{{!-- comment --}}", ""),
    ("{{!-- }}", ""),
    ("\\{{no}}", ""),
    ("text ", ""),
    ("\n", ""),
    ("{{~len 'text'~}}", ""),
    ("{{len [[[[[[1]]]]]]}}", ""),
    ("{{len a=1 b=@root.b c=(len @root.l)}}", ""),
];

#[derive(Clone, Debug)]
struct Genes {
    pieces: Vec<Piece>,
    /// Number of list values, bytes of a text, bytes of a key, levels of a nested list.
    list: usize,
    text: usize,
    key: usize,
    levels: usize,
}

fn piece(random: &mut StdRng, depth: usize) -> Piece {
    let kind = random.random_range(0..PIECES.len());
    let count = 1 << random.random_range(0..8);
    let inner = if PIECES[kind].1.is_empty() || depth > 4 {
        Vec::new()
    } else {
        (0..random.random_range(0..3)).map(|_| piece(random, depth + 1)).collect()
    };
    Piece { kind, count, inner }
}

impl Genes {
    fn random(random: &mut StdRng) -> Self {
        Self {
            pieces: (0..random.random_range(1..4)).map(|_| piece(random, 0)).collect(),
            list: 1 << random.random_range(0..14),
            text: 1 << random.random_range(0..20),
            key: random.random_range(1..60),
            levels: random.random_range(0..18),
        }
    }

    fn mutated(&self, random: &mut StdRng) -> Self {
        let mut new = self.clone();
        match random.random_range(0..9) {
            0 => new.list = (new.list * 2).min(1 << 14),
            1 => new.list = (new.list / 2).max(1),
            2 => new.text = (new.text * 2).min(1 << 20),
            3 => new.text = (new.text / 2).max(1),
            4 => new.key = random.random_range(1..60),
            5 => new.levels = random.random_range(0..18),
            _ => alter(&mut new.pieces, random, 0),
        }
        new
    }

    fn template(&self) -> String {
        let mut text = String::new();
        write(&self.pieces, &mut text);
        text
    }

    fn configs(&self) -> Map<Node> {
        let text = Node::text(&"y".repeat(self.text));
        let list = Node::seq((0..self.list).map(|own| Node::text(&own.to_string())));
        let key = |own: usize| format!("{own}{}", "k".repeat(self.key));
        let map = (0..self.list).map(|own| (key(own), Node::text("v")));
        let map: Map<Node> = map.map(|(key, value)| (Key::from(key.as_str()), value)).collect();
        let nested = (0..self.levels).fold(Node::text("x"), |own, _| Node::seq([own]));
        let nested = Node::seq(vec![nested; self.list.min(1_000)]);
        let lines = Node::text(&"line\n".repeat(self.text / 5));
        [
            ("b", text.clone()),
            ("d", text),
            ("l", list.clone()),
            ("f", list),
            ("m", Node::Map(map.clone())),
            ("e", Node::Map(map)),
            ("n", nested),
            ("s", lines),
        ]
        .into_iter()
        .map(|(name, value)| (Key::from(name), value))
        .collect()
    }
}

fn alter(pieces: &mut Vec<Piece>, random: &mut StdRng, depth: usize) {
    if pieces.is_empty() || random.random_bool(0.2) {
        pieces.push(piece(random, depth));
        return;
    }
    let index = random.random_range(0..pieces.len());
    match random.random_range(0..6) {
        0 if pieces.len() > 1 => drop(pieces.remove(index)),
        1 => pieces[index].count = (pieces[index].count * 2).min(4_096),
        2 => pieces[index].count = (pieces[index].count / 2).max(1),
        3 => pieces[index] = piece(random, depth),
        _ if depth < 5 && !PIECES[pieces[index].kind].1.is_empty() => {
            alter(&mut pieces[index].inner, random, depth + 1);
        }
        _ => pieces[index].kind = random.random_range(0..PIECES.len()),
    }
}

fn write(pieces: &[Piece], text: &mut String) {
    for piece in pieces {
        let (open, close) = PIECES[piece.kind];
        for _ in 0..piece.count {
            if text.len() > 200_000 {
                return;
            }
            text.push_str(open);
            if !close.is_empty() {
                write(&piece.inner, text);
            }
            text.push_str(close);
        }
    }
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Time and steps of a field, and its text.
fn measure(genes: &Genes) -> (Duration, u64, Result<String, TemplateError>) {
    let configs = genes.configs();
    let aliases = configs.iter().map(|(key, _)| (key.clone(), Node::text(key.as_str()))).collect();
    let template = genes.template();
    let mut budget = Budget::of_update();
    let whole = budget.left();
    let begun = processor_time();
    let made = match Data::new(&aliases, &configs, &mut budget) {
        Ok(data) => fill_in(&mut budget, &template, &data),
        Err(error) => Err(error.into()),
    };
    let time = processor_time() - begun;
    (time, whole - budget.left() + BASE + template.len() as u64 / 2, made)
}

fn fitness(time: Duration, steps: u64) -> f64 {
    time.as_nanos() as f64 / steps as f64
}

#[test]
fn no_field_that_a_search_finds_takes_longer_than_its_steps_say() {
    let number = |name: &str, or: u64| {
        std::env::var(name).ok().and_then(|own| own.parse().ok()).unwrap_or(or)
    };
    let end = processor_time() + Duration::from_secs(number("SEARCH_SECONDS", 2));
    let mut random = StdRng::seed_from_u64(number("SEED", 1));
    let mut kept: Vec<(f64, Genes)> = Vec::new();
    let (mut tried, mut rendered, mut longest) = (0, 0, Duration::ZERO);
    while processor_time() < end {
        let genes = match kept.choose(&mut random) {
            Some((_, genes)) if random.random_bool(0.8) => genes.mutated(&mut random),
            _ => Genes::random(&mut random),
        };
        let (mut time, steps, made) = measure(&genes);
        if time > MOST_OF_A_STEP * u32::try_from(steps).unwrap() {
            // Other processes may disturb a single measurement.
            time = time.min(measure(&genes).0).min(measure(&genes).0);
        }
        (tried, rendered) = (tried + 1, rendered + usize::from(made.is_ok()));
        longest = longest.max(time);
        let fitness = fitness(time, steps);
        let short = genes.template().chars().take(300).collect::<String>();
        assert!(
            time <= MOST_OF_A_STEP * u32::try_from(steps).unwrap(),
            "{fitness:.0} ns a step, {time:?}, {steps} steps: {genes:?}\n{short}\n{:?}",
            made.map(|text| text.len())
        );
        kept.push((fitness, genes));
        kept.sort_by(|one, other| other.0.total_cmp(&one.0));
        kept.truncate(20);
    }
    let best = &kept[0];
    println!(
        "{tried} tried, {rendered} rendered, longest {longest:?}; dearest step {:.0} ns: {:?}",
        best.0, best.1
    );
    assert!(tried > 10 && rendered > 0, "{tried} {rendered}");
}

#[test]
fn templates_become_what_the_engine_alone_makes_of_them() {
    let mut plain = ENGINE.clone();
    let mut random = StdRng::seed_from_u64(7);
    let (mut same, mut refused) = (0, 0);
    for _ in 0..400 {
        let mut genes = Genes::random(&mut random);
        (genes.list, genes.text) = (random.random_range(0..4), random.random_range(0..20));
        few(&mut genes.pieces);
        let template = genes.template();
        let configs = genes.configs();
        let aliases = configs.iter().map(|(key, _)| (key.clone(), Node::text(key.as_str())));
        let mut budget = Budget::of_update();
        let data = Data::new(&aliases.collect(), &configs, &mut budget).unwrap();
        let expected = plain
            .register_template_string("", &template)
            .map_err(|_| ())
            .and_then(|()| plain.render_with_context("", &data.context).map_err(|_| ()));
        match fill_in(&mut budget, &template, &data) {
            Err(error) if error.to_string().contains("steps") => refused += 1,
            made => {
                assert_eq!(made.as_ref().ok(), expected.as_ref().ok(), "{template}: {made:?}");
                same += usize::from(made.is_ok());
            }
        }
    }
    assert!(same > 50 && refused < 100, "{same} {refused}");
}

fn few(pieces: &mut [Piece]) {
    for piece in pieces {
        piece.count = piece.count.min(2);
        few(&mut piece.inner);
    }
}
