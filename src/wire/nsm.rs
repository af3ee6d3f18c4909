//! NSM version 1 (X/Open XNFS): a host tells that it has restarted, and so has lost its locks. Monitoring on behalf of
//! another lock manager (SM_MON and its kin) is for a host's own programs, and is not served.

use super::nlm4::Short;
use super::xdr::{Reader, Result, Writer, message};

pub const PROGRAM: u32 = 100_024;
pub const VERSION: u32 = 1;
/// SM_NOTIFY's number.
pub const NOTIFY: u32 = 6;

message! {
    /// stat_chge: who has restarted, and its number from now on.
    pub struct Change { name: Short, state: u32 }
}

#[derive(Clone, Debug)]
pub enum Args {
    Null,
    Notify(Change),
}

impl Args {
    /// `None`: there is no such procedure, or it is not served.
    #[must_use]
    pub fn decode(procedure: u32, r: &mut Reader) -> Option<Result<Self>> {
        Some(match procedure {
            0 => Ok(Args::Null),
            NOTIFY => r.get().map(Args::Notify),
            _ => return None,
        })
    }

    #[must_use]
    pub const fn procedure(&self) -> u32 {
        match self {
            Args::Null => 0,
            Args::Notify(_) => NOTIFY,
        }
    }

    pub fn put(&self, w: &mut Writer) {
        if let Args::Notify(change) = self {
            w.put(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::nlm4::TEXT_MAX;
    use bytes::Bytes;

    #[test]
    fn a_notification_comes_back_as_it_was_and_no_cut_or_long_one_is_taken() {
        for (len, good) in [(0, true), (6, true), (TEXT_MAX, true), (TEXT_MAX + 1, false)] {
            let mut w = Writer::default();
            Args::Notify(Change { name: Short(vec![b'n'; len].into()), state: 7 }).put(&mut w);
            let wire = Bytes::from(w.finish().to_vec()).slice(4..);
            match Args::decode(NOTIFY, &mut Reader::new(wire.clone())).unwrap() {
                Ok(Args::Notify(change)) if good => assert_eq!((change.name.0.len(), change.state), (len, 7)),
                other => assert!(other.is_err() && !good, "{len}: {other:?}"),
            }
            for cut in 0..wire.len() {
                assert!(Args::decode(NOTIFY, &mut Reader::new(wire.slice(..cut))).unwrap().is_err());
            }
        }
        assert!(Args::decode(2, &mut Reader::new(Bytes::new())).is_none());
    }
}
