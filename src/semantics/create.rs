//! Guarded and exclusive CREATE.

use journal_format::ids::Kind;

/// What a CREATE whose name is taken comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// UNCHECKED: use what is there (and set its size, if asked).
    Use,
    /// EXCLUSIVE, and the verifier is the one that made it: this call is a repetition, and gets the same answer.
    Repeated,
    /// The name is taken: NFS3ERR_EXIST.
    Exists,
    /// A directory is in the way of an UNCHECKED one: NFS3ERR_ISDIR.
    IsDir,
}

/// How it is to be created, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Unchecked,
    Guarded,
    Exclusive([u8; 8]),
}

/// `kept` is the verifier that the index has of what is there.
#[must_use]
pub fn taken(how: How, kind: Kind, kept: Option<[u8; 8]>) -> Taken {
    match how {
        How::Guarded => Taken::Exists,
        How::Exclusive(verifier) if kind == Kind::File && kept == Some(verifier) => Taken::Repeated,
        How::Exclusive(_) => Taken::Exists,
        How::Unchecked if kind == Kind::Dir => Taken::IsDir,
        How::Unchecked => Taken::Use,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_create_is_repeated_only_by_the_same_verifier() {
        let v = [7; 8];
        assert_eq!(taken(How::Exclusive(v), Kind::File, Some(v)), Taken::Repeated);
        assert_eq!(taken(How::Exclusive(v), Kind::File, Some([8; 8])), Taken::Exists);
        assert_eq!(taken(How::Exclusive(v), Kind::File, None), Taken::Exists);
        assert_eq!(taken(How::Exclusive(v), Kind::Dir, Some(v)), Taken::Exists);
    }

    #[test]
    fn guarded_always_refuses_and_unchecked_uses_what_is_no_directory() {
        assert_eq!(taken(How::Guarded, Kind::File, None), Taken::Exists);
        assert_eq!(taken(How::Unchecked, Kind::File, None), Taken::Use);
        assert_eq!(taken(How::Unchecked, Kind::Fifo, None), Taken::Use);
        assert_eq!(taken(How::Unchecked, Kind::Dir, None), Taken::IsDir);
    }
}
