//! What is asked of a portmapper: version 2 (RFC 1833 §3) for ports, and rpcbind version 4 (§2) for registrations over its
//! local socket.

use super::xdr::{Reader, Result, Wire, Writer, message};
use bytes::Bytes;

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

/// Procedures; those of version 4 have the same numbers (GETPORT is GETADDR there).
pub mod procedure {
    pub const SET: u32 = 1;
    pub const UNSET: u32 = 2;
    pub const GETPORT: u32 = 3;
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

/// A universal address (RFC 5665 §5.2.3.3).
#[must_use]
pub fn universal(host: &str, port: u16) -> String {
    format!("{host}.{}.{}", port >> 8, port & 0xff)
}

/// The port of a universal address.
#[must_use]
pub fn port_of(universal: &str) -> Option<u16> {
    let mut parts = universal.rsplit('.');
    let (low, high) = (parts.next()?.parse::<u8>().ok()?, parts.next()?.parse::<u8>().ok()?);
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_universal_address_says_its_port() {
        for port in [0, 111, 255, 256, 2049, u16::MAX] {
            assert_eq!(port_of(&universal("0.0.0.0", port)), Some(port));
            assert_eq!(port_of(&universal("::", port)), Some(port));
        }
        for not in ["", "1", "256.1", "a.b", "."] {
            assert_eq!(port_of(not), None, "{not}");
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
