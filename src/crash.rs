//! Named crash points: places between two steps whose order matters, at which a test kills the process.
//!
//! ```text
//! TAIN_CRASH=WRITE_AFTER_APPEND:3      SIGKILL to ourselves when that place is reached for the third time
//! ```
//!
//! Only a build with feature `crash-points` has them; any other build has nothing where they stand. A name is
//! `ROOM_STEP`, stands once in the source (what clients ask for: once per kind of operation and step, see
//! [`KINDS`] and [`STEPS`]), and once in the list of `tests/crashpoints`, which dies at every one of them (`tidy.rs`
//! compares the two). The signal takes the process down as it is: no destructor runs, nothing is flushed.

/// Die here, if the environment says so.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(feature = "crash-points")]
        $crate::crash::hit(&[$name]);
    };
    // A client's operation: kind and step together are the name.
    ($kind:expr, $step:literal) => {
        #[cfg(feature = "crash-points")]
        $crate::crash::hit(&[$kind, "_", $step]);
    };
}

/// Kinds of client operations, and the steps of each.
pub const KINDS: [&str; 7] = ["WRITE", "SETATTR", "MAKE", "REMOVE", "RENAME", "LINK", "ADOPT"];
pub const STEPS: [&str; 6] =
    ["BEFORE_APPEND", "AFTER_APPEND", "AFTER_DURABLE", "AFTER_CARRY_OUT", "AFTER_INDEX", "BEFORE_ANSWER"];

/// The name of an operation's kind; one that nobody wishes for when no client asks for it.
#[cfg(feature = "crash-points")]
#[must_use]
pub const fn kind(event: &journal_format::event::Event) -> &'static str {
    use journal_format::event::Event;
    match event {
        Event::Write(_) => "WRITE",
        Event::SetAttr(_) => "SETATTR",
        Event::Make(_) => "MAKE",
        Event::Remove(_) => "REMOVE",
        Event::Rename(_) => "RENAME",
        Event::Link(_) => "LINK",
        Event::Adopt(_) => "ADOPT",
        _ => "NONE",
    }
}

/// A test is about to kill this process at a crash point.
#[cfg(feature = "crash-points")]
#[must_use]
pub fn armed() -> bool {
    std::env::var_os("TAIN_CRASH").is_some()
}

/// Never, in any other build.
#[cfg(not(feature = "crash-points"))]
#[must_use]
pub const fn armed() -> bool {
    false
}

/// Called by [`crash_point!`]; the name comes in parts.
#[cfg(feature = "crash-points")]
pub fn hit(parts: &[&str]) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| wanted(std::env::var("TAIN_CRASH").ok()?));
    static HITS: AtomicU64 = AtomicU64::new(0);
    let Some((name, at)) = &*WANTED else { return };
    if !is(name, parts) || HITS.fetch_add(1, Ordering::AcqRel) + 1 != *at {
        return;
    }
    // Not logged: a line that is written late would be a line too many.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park(); // until the signal has come
    }
}

/// `NAME:k`. Anything else is a mistake of the test, and said so.
#[cfg(feature = "crash-points")]
fn wanted(text: String) -> Option<(String, u64)> {
    let parsed = text.split_once(':').and_then(|(name, at)| Some((name.to_owned(), at.parse().ok()?)));
    assert!(parsed.is_some(), "TAIN_CRASH={text}: write NAME:k");
    parsed
}

#[cfg(feature = "crash-points")]
fn is(name: &str, parts: &[&str]) -> bool {
    let mut rest = Some(name);
    for part in parts {
        rest = rest.and_then(|rest| rest.strip_prefix(part));
    }
    rest == Some("")
}

#[cfg(all(test, feature = "crash-points"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_met_whole_or_not_at_all() {
        assert!(is("WRITE_AFTER_APPEND", &["WRITE", "_", "AFTER_APPEND"]));
        assert!(is("SWITCH_HELD", &["SWITCH_HELD"]));
        assert!(!is("SWITCH_HELD_LONG", &["SWITCH_HELD"]));
        assert!(!is("SWITCH", &["SWITCH_HELD"]));
    }

    #[test]
    fn a_wish_has_a_name_and_a_count() {
        assert_eq!(wanted("X_Y:3".into()), Some(("X_Y".into(), 3)));
    }
}
