//! What is asked of a portmapper: version 2 (RFC 1833 §3) for ports, and rpcbind version 4 (§2) for registrations over its
//! local socket.

use super::xdr::{Reader, Result, Wire, Writer, message};
use bytes::Bytes;
use std::net::SocketAddr;

pub const PROGRAM: u32 = 100_000;
/// The portmapper's version.
pub const VERSION: u32 = 2;
/// Version of rpcbind that knows owners.
pub const RPCBIND: u32 = 4;
/// Where it is.
pub const PORT: u16 = 111;
/// Protocol numbers as a mapping has them.
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;

/// Procedures; those of version 4 have the same numbers. (GETPORT is GETADDR there, of which rpcbind answers for the
/// transport that it is asked over, whatever the arguments say: DUMP tells all.)
pub mod procedure {
    pub const SET: u32 = 1;
    pub const UNSET: u32 = 2;
    pub const GETPORT: u32 = 3;
    pub const DUMP: u32 = 4;
}

/// Longest string of rpcbind that is read.
const TEXT_MAX: usize = 256;

/// netid, universal address, owner: text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Wire for Text {
    fn put(&self, w: &mut Writer) {
        w.opaque(self.0.as_bytes());
    }
    fn get(r: &mut Reader) -> Result<Self> {
        let bytes: Bytes = r.opaque(TEXT_MAX)?;
        String::from_utf8(bytes.to_vec()).map(Self).map_err(|_| super::xdr::Malformed)
    }
}

message! {
    /// mapping.
    pub struct Mapping { program: u32, version: u32, protocol: u32, port: u32 }
    /// rpcb.
    pub struct Rpcb { program: u32, version: u32, netid: Text, addr: Text, owner: Text }
}

/// All registrations: rpcblist_ptr.
#[derive(Clone, Debug)]
pub struct Registered(pub Vec<Rpcb>);

impl Wire for Registered {
    fn put(&self, w: &mut Writer) {
        for rpcb in &self.0 {
            w.put(&true).put(rpcb);
        }
        w.put(&false);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        let mut all = Vec::new();
        while r.get::<bool>()? {
            all.push(r.get()?);
        }
        Ok(Self(all))
    }
}

/// A universal address (RFC 5665 §5.2.3.3).
#[must_use]
pub fn universal(host: &str, port: u16) -> String {
    format!("{host}.{}.{}", port >> 8, port & 0xff)
}

/// What a universal address says; `None`: it is none of IPv4 or IPv6.
#[must_use]
pub fn socket_of(universal: &str) -> Option<SocketAddr> {
    let mut parts = universal.rsplitn(3, '.');
    let (low, high) = (parts.next()?.parse::<u8>().ok()?, parts.next()?.parse::<u8>().ok()?);
    Some(SocketAddr::new(parts.next()?.parse().ok()?, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_universal_address_says_its_host_and_port() {
        for port in [0, 111, 255, 256, 2049, u16::MAX] {
            for host in ["0.0.0.0", "10.1.2.3", "::", "fe80::1"] {
                assert_eq!(socket_of(&universal(host, port)), Some(SocketAddr::new(host.parse().unwrap(), port)));
            }
        }
        for not in ["", "1", "256.1", "a.b", ".", "1.1", ".1.1", "10.0.0.1.256.1", "/run/rpcbind.sock"] {
            assert_eq!(socket_of(not), None, "{not}");
        }
    }

    #[test]
    fn a_list_of_registrations_comes_back_as_it_was_and_no_cut_one_is_taken() {
        let text = |text: &str| Text(text.into());
        let entry = |program| Rpcb { program, version: 1, netid: text("udp"), addr: text("::.0.1"), owner: text("") };
        for all in [vec![], vec![entry(1), entry(2)]] {
            let mut w = Writer::default();
            w.put(&Registered(all.clone()));
            let wire = Bytes::from(w.finish().to_vec()).slice(4..);
            let back = Reader::new(wire.clone()).get::<Registered>().unwrap();
            assert_eq!(format!("{:?}", back.0), format!("{all:?}"));
            for cut in 0..wire.len() {
                assert!(Reader::new(wire.slice(..cut)).get::<Registered>().is_err());
            }
        }
    }

    #[test]
    fn mappings_come_back_as_they_were() {
        let mut w = Writer::default();
        let text = |text: &str| Text(text.into());
        let (netid, addr) = (text("tcp"), Text(universal("0.0.0.0", 2049)));
        w.put(&Rpcb { program: 100_021, version: 4, netid, addr, owner: text("superuser") });
        w.put(&Mapping { program: 1, version: 2, protocol: TCP, port: 4 });
        let mut r = Reader::new(Bytes::from(w.finish().to_vec()).slice(4..));
        let rpcb: Rpcb = r.get().unwrap();
        assert_eq!((rpcb.program, rpcb.version, &*rpcb.netid.0, &*rpcb.addr.0), (100_021, 4, "tcp", "0.0.0.0.8.1"));
        let mapping: Mapping = r.get().unwrap();
        assert_eq!((mapping.program, mapping.version, mapping.protocol, mapping.port), (1, 2, TCP, 4));
        assert!(r.get::<Mapping>().is_err());
    }
}
