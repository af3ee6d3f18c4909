//! Bugs that tests plant, to see that the suite catches them. Only a build with feature `planted-bugs` has any, and there
//! `TAIN_PLANTED=x` chooses one, by its letter; `src/planted.rs` of the service lists them.

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn is(bug: char) -> bool {
    static PLANTED: std::sync::LazyLock<Option<char>> =
        std::sync::LazyLock::new(|| std::env::var("TAIN_PLANTED").ok()?.chars().next());
    *PLANTED == Some(bug)
}

/// None is.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is(_bug: char) -> bool {
    false
}
