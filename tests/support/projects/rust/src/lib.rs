//! Something to build.

/// Returns a word that only the dependency makes.
pub fn word() -> String {
    itoa::Buffer::new().format(42).to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn word() {
        assert_eq!(super::word(), "42");
    }
}
