//! NSM: hosts that have restarted. They say so by UDP or TCP; an address that no policy lets in is not listened to.

use super::super::access::know;
use super::super::{Shared, count};
use crate::wire::nsm::Args;
use std::net::SocketAddr;
use std::sync::Arc;

impl Shared {
    /// There is no result.
    pub(in super::super) fn nsm(self: &Arc<Self>, peer: SocketAddr, args: &Args) {
        if let Args::Notify(change) = args {
            if know(&self.backend.state(), peer) {
                self.restarted(peer, &change.name, change.state);
            } else {
                count(&self.stats.refused);
            }
        }
    }
}
