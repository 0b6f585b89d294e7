//! Counts in messages.

/// `1 record`, `2 records`; `0 records`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|count| counted(count, "record")),
            ["0 records", "1 record", "2 records"]
        );
    }
}
