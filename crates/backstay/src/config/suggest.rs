//! "Did you mean".

/// The candidate that is closest to `word`, if one is close enough to be meant.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may be wrong, but at least one: `role` for `rol`, not `user` for `disk`.
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `a, b or c`.
pub(super) fn list_or<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_suggested_and_far_ones_are_not() {
        let keys = ["name", "role", "zone", "heartbeat"];
        assert_eq!(closest("heartbeet", keys), Some("heartbeat"));
        assert_eq!(closest("nmae", keys), Some("name"));
        assert_eq!(closest("disk", keys), None);
    }
}
