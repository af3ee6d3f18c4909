//! NSM: hosts that have restarted. They say so by UDP or TCP; an address that no policy lets in, and where nobody
//! may hold locks, is not listened to.

use super::super::access::know;
use super::super::{Shared, count};
use super::Ends;
use crate::wire::nsm::Args;
use std::sync::Arc;

impl Shared {
    /// There is no result.
    pub(in super::super) fn nsm(self: &Arc<Self>, ends: Ends, args: &Args) {
        if let Args::Notify(change) = args {
            if know(&self.backend.state(), ends.peer) || self.has_lock_hosts(ends.peer) {
                self.restarted(ends, &change.name, change.state);
            } else {
                count(&self.stats.refused);
            }
        }
    }
}
