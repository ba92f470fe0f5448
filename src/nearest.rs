//! The known name nearest to a mistyped one.
//!
//! Two names go in, their distance comes out: the least number of letters to add, to leave out, to
//! replace or to swap with their neighbour. Names can be as long as a message, so long ones are not
//! compared.

/// Most letters of a compared name. No field and no valid name is longer.
const MOST_COMPARED: usize = 64;

/// The known name with the least distance to `name`, if it is at most `within`.
pub(crate) fn nearest<'k>(
    name: &str,
    known: impl IntoIterator<Item = &'k str>,
    within: usize,
) -> Option<&'k str> {
    let name = letters(name)?;
    let distances = known.into_iter().filter_map(|known| {
        let other = letters(known)?;
        // Each letter more is one to add: most names need no table.
        let is_near = other.len().abs_diff(name.len()) <= within;
        let distance = is_near.then(|| distance(&name, &other))?;
        (distance <= within).then_some((distance, known))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

fn letters(name: &str) -> Option<Vec<char>> {
    let letters: Vec<_> = name.chars().take(MOST_COMPARED + 1).collect();
    (letters.len() <= MOST_COMPARED).then_some(letters)
}

fn distance(one: &[char], other: &[char]) -> usize {
    // Rows of the table of distances between starts of both: for the last two letters, and this one.
    let (mut last_but_one, mut last) = (Vec::new(), (0..=other.len()).collect::<Vec<_>>());
    for (row, letter) in one.iter().enumerate() {
        let mut now = vec![row + 1];
        for (column, own) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != own);
            let mut least = replaced.min(last[column + 1] + 1).min(now[column] + 1);
            if row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *own {
                let swapped: usize = last_but_one[column - 1];
                least = least.min(swapped + 1);
            }
            now.push(least);
        }
        last_but_one = std::mem::replace(&mut last, now);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_are_one_step_as_is_one_more_or_less_or_another() {
        for (name, expected) in [
            ("agents", 0),
            ("agent", 1),
            ("agentss", 1),
            ("agints", 1),
            ("agenst", 1),
            ("gaents", 1),
            ("", 6),
            ("agent_B", 2),
            ("stnega", 5),
        ] {
            let [one, other] = [name, "agents"].map(|own| own.chars().collect::<Vec<_>>());
            assert_eq!(distance(&one, &other), expected, "{name}");
            assert_eq!(distance(&other, &one), expected, "{name}");
            assert_eq!(nearest(name, ["agents"], expected), Some("agents"), "{name}");
            if let Some(less) = expected.checked_sub(1) {
                assert_eq!(nearest(name, ["agents"], less), None, "{name}");
            }
        }
    }

    #[test]
    fn least_distance_counts_and_of_equal_ones_the_first() {
        assert_eq!(nearest("ab", ["abcd", "abc", "abd"], 2), Some("abc"));
        assert_eq!(nearest("grüße", ["grüßen", "gruesse"], 1), Some("grüßen"));
        assert_eq!(nearest("ab", [], 2), None);
    }

    #[test]
    fn names_at_the_limit_are_compared_and_longer_ones_are_not() {
        let (most, more) = ("ü".repeat(MOST_COMPARED), "ü".repeat(MOST_COMPARED + 1));
        let known = most.replacen('ü', "x", 1);
        assert_eq!(nearest(&most, [&*known], 1), Some(&*known));
        assert_eq!(nearest(&more, [&*more], 1), None);
        assert_eq!(nearest(&most, [&*more], 1), None);
    }
}
