//! XDR (RFC 4506), as little of it as NFSv3 needs, written for the demo's client alone.

use super::Error;
use bytes::{Buf, Bytes};

/// Puts values into a buffer.
#[derive(Debug, Default)]
pub struct Encoder {
    buf: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.buf.extend_from_slice(&v.to_be_bytes());
        self
    }

    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.buf.extend_from_slice(&v.to_be_bytes());
        self
    }

    pub fn bool(&mut self, v: bool) -> &mut Self {
        self.u32(u32::from(v))
    }

    /// Bytes of a length both sides know.
    pub fn fixed(&mut self, v: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(v);
        self.pad(v.len())
    }

    /// Length, bytes, padding.
    pub fn opaque(&mut self, v: &[u8]) -> &mut Self {
        let len = u32::try_from(v.len()).unwrap_or(u32::MAX);
        self.u32(len).fixed(v)
    }

    /// `Some`: true and the value; `None`: false.
    pub fn opt_u32(&mut self, v: Option<u32>) -> &mut Self {
        self.bool(v.is_some());
        if let Some(v) = v {
            self.u32(v);
        }
        self
    }

    pub fn opt_u64(&mut self, v: Option<u64>) -> &mut Self {
        self.bool(v.is_some());
        if let Some(v) = v {
            self.u64(v);
        }
        self
    }

    fn pad(&mut self, len: usize) -> &mut Self {
        let pad = (4 - len % 4) % 4;
        self.buf.extend_from_slice(&[0; 3][..pad]);
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.buf
    }
}

/// Takes values out of a reply. Opaque data is a slice of the reply, not a copy.
#[derive(Clone, Debug)]
pub struct Decoder {
    buf: Bytes,
}

impl Decoder {
    pub fn new(buf: Bytes) -> Self {
        Self { buf }
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        self.need(4)?;
        Ok(self.buf.get_u32())
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        self.need(8)?;
        Ok(self.buf.get_u64())
    }

    pub fn bool(&mut self) -> Result<bool, Error> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            n => Err(Error::Wire(format!("a bool of {n}"))),
        }
    }

    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.need(N)?;
        let mut out = [0; N];
        self.buf.copy_to_slice(&mut out);
        self.skip((4 - N % 4) % 4)?;
        Ok(out)
    }

    pub fn opaque(&mut self) -> Result<Bytes, Error> {
        let len = usize::try_from(self.u32()?).map_err(|_| Error::Wire("a length beyond memory".into()))?;
        self.need(len)?;
        let out = self.buf.split_to(len);
        self.skip((4 - len % 4) % 4)?;
        Ok(out)
    }

    /// Nothing may be left over.
    pub fn end(&self) -> Result<(), Error> {
        if self.buf.is_empty() { Ok(()) } else { Err(Error::Wire(format!("{} bytes too many", self.buf.len()))) }
    }

    /// What has not been taken yet.
    pub fn rest(self) -> Bytes {
        self.buf
    }

    fn skip(&mut self, n: usize) -> Result<(), Error> {
        self.need(n)?;
        self.buf.advance(n);
        Ok(())
    }

    fn need(&self, n: usize) -> Result<(), Error> {
        if self.buf.len() >= n {
            Ok(())
        } else {
            Err(Error::Wire(format!("reply ends: {} bytes left, {n} wanted", self.buf.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_and_nothing_is_left() {
        let mut e = Encoder::new();
        e.u32(7).opaque(b"hello").u64(9).bool(true).opt_u32(Some(3)).opt_u64(None).fixed(b"12345678");
        let mut d = Decoder::new(Bytes::from(e.finish()));
        assert_eq!(d.u32().unwrap(), 7);
        assert_eq!(&d.opaque().unwrap()[..], b"hello");
        assert_eq!(d.u64().unwrap(), 9);
        assert!(d.bool().unwrap());
        assert!(d.bool().unwrap());
        assert_eq!(d.u32().unwrap(), 3);
        assert!(!d.bool().unwrap());
        assert!(d.end().is_err(), "eight bytes are left");
        assert_eq!(&d.fixed::<8>().unwrap(), b"12345678");
        d.end().unwrap();
        assert!(d.u32().is_err());
    }
}
