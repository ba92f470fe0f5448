use super::*;

fn fault(text: &str, bounds: &Bounds) -> Option<YamlFault> {
    load(text, bounds).err().map(|error| error.fault)
}

/// A sequence of a value with the anchor `a`, and of this many aliases of it.
fn repeated(anchored: &str, aliases: usize, rest: &str) -> String {
    format!("[&a {anchored}{}{rest}]", ", *a".repeat(aliases))
}

#[test]
fn aliased_values_pass_at_their_limit_and_not_one_above_it() {
    let most = FOR_MANIFESTS.aliased_values;
    // The sequence itself is a value, too.
    let thousand = format!("[{}]", ["x"; 999].join(","));
    let at = repeated(&thousand, most / 1_000, "");
    assert_eq!(fault(&at, &FOR_MANIFESTS), None);
    let above = repeated(&thousand, most / 1_000, ", &b y, *b");
    assert_eq!(fault(&above, &FOR_MANIFESTS), Some(YamlFault::TooManyAliased(most)));
}

#[test]
fn aliased_bytes_pass_at_their_limit_and_not_one_above_it() {
    let most = FOR_MANIFESTS.aliased_bytes;
    let text = "x".repeat(most / 16);
    assert_eq!(fault(&repeated(&text, 16, ", &b '', *b"), &FOR_MANIFESTS), None);
    let above = repeated(&text, 16, ", &b y, *b");
    assert_eq!(fault(&above, &FOR_MANIFESTS), Some(YamlFault::TooLongAliased(most)));
}

#[test]
fn values_and_levels_pass_at_their_limits_and_not_one_above_them() {
    let bounds = Bounds { levels: 3, values: 10, aliased_values: 10, aliased_bytes: 10 };
    assert_eq!(fault("[1, 2, 3, 4, &a [6, 7], *a]", &Bounds { values: 11, ..bounds }), None);
    let values = Some(YamlFault::TooManyValues);
    assert_eq!(fault("[1, 2, 3, 4, &a [6, 7], *a]", &bounds), values);
    assert_eq!(fault("[1, 2, 3, 4, 5, 6, 7, 8, 9]", &bounds), None);
    assert_eq!(fault("[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]", &bounds), values);
    for (at, above) in [("[[[x]]]", "[[[[x]]]]"), ("a:\n b:\n  c: x", "a:\n b:\n  c:\n   d: x")] {
        assert_eq!(fault(at, &bounds), None);
        assert_eq!(fault(above, &bounds), Some(YamlFault::TooDeep));
    }
    assert_eq!(fault("[&a [x], [*a]]", &bounds), None);
    assert_eq!(fault("[&a [x], [[*a]]]", &bounds), Some(YamlFault::TooDeep));
}

#[test]
fn keys_pass_at_their_limit_as_it_is_written_and_not_one_above_it() {
    let plain = |len: usize| "k".repeat(len);
    let quoted = |len: usize| format!("\"{}\"", "k".repeat(len - 2));
    let escaped = |len: usize| format!("\"\\n{}\"", "k".repeat(len - 4));
    let blank = |len: usize| format!("k{}", " ".repeat(len - 1));
    for key in [plain, quoted, escaped, blank] {
        for text in [|key: &str| format!("{key}: v"), |key: &str| format!("{{{key}: v}}")] {
            let at = text(&key(MOST_IN_KEY));
            let shown = &at[..10];
            assert_eq!(fault(&at, &FOR_MANIFESTS), None, "{shown}");
            let above = fault(&text(&key(MOST_IN_KEY + 1)), &FOR_MANIFESTS);
            assert!(matches!(above, Some(YamlFault::NoYaml(_))), "{shown}: {above:?}");
        }
    }
    // A key with its own indicator has no bound.
    assert_eq!(fault(&format!("? {}\n: v", plain(2 * MOST_IN_KEY)), &FOR_MANIFESTS), None);
}
