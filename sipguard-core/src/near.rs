//! Names that somebody may have meant. Pure.

/// Names that are told at the most.
const MOST: usize = 3;

/// What to say behind "there is no such name": the names near to it, such as ` (did you mean carrier?)`; empty where none is near.
#[must_use]
pub fn hint<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let near = nearest(text, names);
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) }
}

/// The names nearest to a text, three at the most: one letter in three is other, and no more than three, or one of the two begins with the
/// other.
#[must_use]
pub(crate) fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let most = (text.chars().count() / 3).clamp(1, 3);
    let distance = |name: &str| {
        if begins(text, name) || begins(name, text) { 1 } else { distance(text, name) }
    };
    let mut near: Vec<(usize, &str)> = names.into_iter().map(|name| (distance(name), name)).collect();
    near.retain(|(distance, _)| *distance <= most);
    near.sort_unstable();
    let least = near.first().map(|(least, _)| *least);
    near.into_iter()
        .filter(|(distance, _)| Some(*distance) == least)
        .take(MOST)
        .map(|(_, name)| name)
        .collect()
}

/// Whether a name begins with a text of three letters or more.
fn begins(text: &str, name: &str) -> bool {
    text.len() >= 3 && name.starts_with(text)
}

/// How many letters are inserted, left out, replaced, or exchanged with their neighbour (the optimal string alignment distance).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: [Vec<usize>; 3] = [Vec::new(), Vec::new(), (0..=other.len()).collect()];
    for (at, letter) in one.iter().enumerate() {
        rows.rotate_left(1);
        let mut row = vec![at + 1];
        for (to, wanted) in other.iter().enumerate() {
            let changed = rows[1][to] + usize::from(letter != wanted);
            let mut least = changed.min(rows[1][to + 1] + 1).min(row[to] + 1);
            let exchanged = at > 0 && to > 0 && one[at - 1] == *wanted && other[to - 1] == *letter;
            if exchanged {
                least = least.min(rows[0][to - 1] + 1);
            }
            row.push(least);
        }
        rows[2] = row;
    }
    rows[2][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant() {
        let names = ["carrier", "carrier-2", "main", "lb", "sip-scan"];
        for (text, near) in [
            ("carier", &["carrier"][..]),
            ("carreir", &["carrier"]),
            ("carrier-3", &["carrier", "carrier-2"]),
            ("car", &["carrier", "carrier-2"]),
            ("mian", &["main"]),
            ("bl", &["lb"]),
            ("nobody", &[]),
            ("", &[]),
        ] {
            assert_eq!(nearest(text, names), near, "{text}");
        }
        assert_eq!(hint("mian", names), " (did you mean main?)");
        assert_eq!(hint("nobody", names), "");
        assert_eq!(hint("car", ["car-1", "car-2"]), " (did you mean car-1 or car-2?)");
    }
}
