//! "Did you mean": the known word that is nearest to what was written.

/// Words that other firewalls use for our keys.
const SYNONYMS: [(&str, &str); 14] = [
    ("source", "from"),
    ("src", "from"),
    ("saddr", "from"),
    ("destination", "to"),
    ("dst", "to"),
    ("daddr", "to"),
    ("target", "to"),
    ("dport", "port"),
    ("ports", "port"),
    ("sport", "from-port"),
    ("proto", "protocol"),
    ("iface", "interface"),
    ("comment", "name"),
    ("forward", "port-forward"),
];

/// The word of `known` that `written` was probably meant to be.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('_', "-");
    let synonym = SYNONYMS.iter().find(|(word, _)| *word == written).map(|(_, key)| *key);
    let distance = |word: &str| match synonym {
        Some(key) if key == word => 0,
        _ => strsim::damerau_levenshtein(&written, word),
    };
    let tolerated = (written.chars().count() / 3).max(1);
    let candidates = known.into_iter().map(|word| (distance(word), word));
    candidates.filter(|(distance, _)| *distance <= tolerated).min().map(|(_, word)| word)
}

/// Words as a sentence counts them: `accept, drop or reject`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_foreign_words() {
        let known = ["from", "to", "port", "protocol", "port-forward"];
        assert_eq!(nearest("protcol", known), Some("protocol"));
        assert_eq!(nearest("Port_Forward", known), Some("port-forward"));
        assert_eq!(nearest("source", known), Some("from"));
        assert_eq!(nearest("ports", known), Some("port"));
        assert_eq!(nearest("balance", known), None);
    }

    #[test]
    fn counts_words() {
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
        assert_eq!(one_of(&["a"]), "a");
    }
}
