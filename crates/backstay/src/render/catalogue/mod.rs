//! The texts, one table per language. A text that a language lacks comes in English.
//!
//! A text may have places such as `{node}`, which [`fill`] replaces. Keys are stable: `problem.BS-301`, `action.BS-301`,
//! `about.BS-301`, `event.lease-lost`, `rule.go-solo` and so on.

mod en;
mod en_problems;
mod ko;

use crate::output::Lang;

/// Replacement of one place.
pub type Arg<'a> = (&'a str, String);

fn find(table: &'static [(&'static str, &'static str)], key: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, text)| *text)
}

/// The text with this key; none if no language has it.
pub fn text(lang: Lang, key: &str) -> Option<&'static str> {
    let english = || find(en::TEXTS, key).or_else(|| find(en_problems::TEXTS, key));
    match lang {
        Lang::En => english(),
        Lang::Ko => find(ko::TEXTS, key).or_else(english),
    }
}

/// The text with this key and its places filled. An unknown key is shown as itself.
pub fn fill(lang: Lang, key: &str, args: &[Arg<'_>]) -> String {
    let Some(template) = text(lang, key) else {
        return key.to_owned();
    };
    let mut filled = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            filled.push('{');
            rest = after;
            continue;
        };
        // Values are not searched for places again: a name with braces stays as it is.
        match args.iter().find(|(arg, _)| *arg == name) {
            Some((_, value)) => filled.push_str(value),
            None => filled.push_str(name),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// All problem codes, in order.
pub fn codes() -> impl Iterator<Item = &'static str> {
    en_problems::TEXTS
        .iter()
        .filter_map(|(key, _)| key.strip_prefix("about."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        let args = [("node", "{group}".to_owned()), ("group", "db".to_owned())];
        let text = fill(Lang::En, "problem.BS-301", &args);
        assert!(text.contains("{group}") && text.contains("db"), "{text}");
    }

    #[test]
    fn a_missing_translation_comes_in_english() {
        assert_eq!(
            text(Lang::Ko, "about.BS-101"),
            text(Lang::En, "about.BS-101")
        );
        assert_eq!(fill(Lang::En, "no.such.key", &[]), "no.such.key");
    }

    #[test]
    fn keys_are_unique_and_each_code_is_complete() {
        let all = en::TEXTS.iter().chain(en_problems::TEXTS);
        let keys: Vec<&str> = all.map(|(key, _)| *key).collect();
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{key} comes twice");
        }
        for code in codes() {
            for part in ["problem", "action", "about"] {
                assert!(
                    text(Lang::En, &format!("{part}.{code}")).is_some(),
                    "{part}.{code}"
                );
            }
        }
        for (key, _) in ko::TEXTS {
            assert!(keys.contains(key), "{key} is translated, but not used");
        }
    }
}
