//! XDR (RFC 4506) over a record that is already in memory.

use bytes::{Buf, Bytes};
use nfsserve::nfs::{fattr3, fsinfo3, nfsstat3, nfstime3, post_op_attr, pre_op_attr, sattr3, specdata3, wcc_data};
use nfsserve::xdr::XDR;

/// Longest string any argument may carry, in bytes; names and paths have tighter limits above, with errors of their own.
pub const STRING_MAX: usize = 64 << 10;

/// The bytes are not what the type says, or end too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed XDR")]
pub struct Malformed;

pub type Result<T> = std::result::Result<T, Malformed>;

/// Bytes of padding that follow `len` bytes of opaque data.
#[must_use]
pub const fn padding(len: usize) -> usize {
    (4 - len % 4) % 4
}

/// `len` with its padding.
#[must_use]
pub const fn padded(len: usize) -> usize {
    len.saturating_add(padding(len))
}

/// Takes values off the front of a record.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &Bytes {
        &self.bytes
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.bytes.try_get_u32().map_err(|_| Malformed)
    }

    /// Variable-length opaque of at most `max` bytes: a slice of the record. Padding must be there; its value is nobody's
    /// business.
    pub fn opaque(&mut self, max: usize) -> Result<Bytes> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if len > max || padded(len) > self.bytes.len() {
            return Err(Malformed);
        }
        let data = self.bytes.split_to(len);
        self.bytes.advance(padding(len));
        Ok(data)
    }

    /// A value of fixed size by `nfsserve`'s own decoder, which may be trusted with those alone.
    fn fixed<T: XDR>(&mut self, value: &mut T) -> Result<()> {
        let mut left: &[u8] = &self.bytes;
        value.deserialize(&mut left).map_err(|_| Malformed)?;
        let used = self.bytes.len() - left.len();
        self.bytes.advance(used);
        Ok(())
    }

    pub fn get<T: Wire>(&mut self) -> Result<T> {
        T::get(self)
    }
}

/// Collects values into one RPC message; its first four bytes are kept for the record mark. A `tail` (the data of a
/// READ) is sent from where it lies.
#[derive(Clone, Debug)]
pub struct Writer {
    head: Vec<u8>,
    tail: Bytes,
}

impl Default for Writer {
    fn default() -> Self {
        Self { head: vec![0; 4], tail: Bytes::new() }
    }
}

impl Writer {
    pub fn u32(&mut self, value: u32) {
        self.head.extend_from_slice(&value.to_be_bytes());
    }

    /// A length as XDR has it. All we send is bounded far below 4 GiB.
    pub fn len(&mut self, len: usize) {
        self.u32(u32::try_from(len).expect("messages are bounded by RECORD_MAX and the reply limits"));
    }

    pub fn opaque(&mut self, data: &[u8]) {
        self.len(data.len());
        self.head.extend_from_slice(data);
        self.head.resize(self.head.len() + padding(data.len()), 0);
    }

    /// XDR that is there already.
    pub fn raw(&mut self, xdr: &[u8]) {
        self.head.extend_from_slice(xdr);
    }

    /// Opaque data that ends the message, not copied.
    pub fn opaque_last(&mut self, data: Bytes) {
        self.len(data.len());
        self.tail = data;
    }

    pub fn put<T: Wire>(&mut self, value: &T) -> &mut Self {
        value.put(self);
        self
    }

    fn fixed<T: XDR>(&mut self, value: &T) {
        value.serialize(&mut self.head).expect("memory takes every byte");
    }

    /// Bytes so far, without the record mark.
    #[must_use]
    pub fn written(&self) -> usize {
        self.head.len() - 4 + padded(self.tail.len())
    }

    /// The message as it goes onto the wire.
    #[must_use]
    pub fn finish(mut self) -> Frame {
        let len = u32::try_from(self.written()).expect("messages are bounded by RECORD_MAX and the reply limits");
        self.head[..4].copy_from_slice(&(super::record::LAST | len).to_be_bytes());
        Frame { head: self.head.into(), tail: self.tail }
    }
}

/// One message, mark included, ready to be written: `head`, `tail`, and the tail's padding.
#[derive(Clone, Debug)]
pub struct Frame {
    pub head: Bytes,
    pub tail: Bytes,
}

impl Frame {
    /// Bytes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.head.len() + padded(self.tail.len())
    }

    /// The zeros behind the tail.
    #[must_use]
    pub fn pad(&self) -> &'static [u8] {
        &[0u8; 3][..padding(self.tail.len())]
    }

    /// All of it in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head[..], &self.tail[..], self.pad()].concat()
    }
}

/// A type with an XDR form.
pub trait Wire: Sized {
    fn put(&self, w: &mut Writer);
    fn get(r: &mut Reader) -> Result<Self>;
}

macro_rules! fixed {
    ($($t:ty: $zero:expr),* $(,)?) => {$(
        impl Wire for $t {
            fn put(&self, w: &mut Writer) {
                w.fixed(self);
            }
            fn get(r: &mut Reader) -> Result<Self> {
                let mut value = $zero;
                r.fixed(&mut value)?;
                Ok(value)
            }
        }
    )*};
}

fixed! {
    u32: 0, u64: 0, bool: false, [u8; 8]: [0; 8],
    nfsstat3: nfsstat3::NFS3_OK, nfstime3: nfstime3::default(), specdata3: specdata3::default(),
    sattr3: sattr3::default(), fattr3: fattr3::default(), pre_op_attr: pre_op_attr::default(),
    post_op_attr: post_op_attr::default(), wcc_data: wcc_data::default(), fsinfo3: fsinfo3::default(),
}

impl Wire for () {
    fn put(&self, _w: &mut Writer) {}
    fn get(_r: &mut Reader) -> Result<Self> {
        Ok(())
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, w: &mut Writer) {
        w.put(&self.0).put(&self.1);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        Ok((r.get()?, r.get()?))
    }
}

/// `bool` and, when true, the value: post_op_fh3, sattrguard3.
impl<T: Wire> Wire for Option<T> {
    fn put(&self, w: &mut Writer) {
        w.put(&self.is_some());
        if let Some(value) = self {
            w.put(value);
        }
    }
    fn get(r: &mut Reader) -> Result<Self> {
        if r.get()? { Ok(Some(r.get()?)) } else { Ok(None) }
    }
}

/// nfsstat3, then what belongs to success or to failure.
impl<T: Wire, E: Wire> Wire for std::result::Result<T, (nfsstat3, E)> {
    fn put(&self, w: &mut Writer) {
        match self {
            Ok(value) => w.put(&nfsstat3::NFS3_OK).put(value),
            Err((status, with)) => w.put(status).put(with),
        };
    }
    fn get(r: &mut Reader) -> Result<Self> {
        match r.get()? {
            nfsstat3::NFS3_OK => Ok(Ok(r.get()?)),
            status => Ok(Err((status, r.get()?))),
        }
    }
}

/// Declares a struct whose XDR form is its fields in order.
macro_rules! message {
    ($($(#[$doc:meta])* pub struct $name:ident { $($field:ident: $t:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $(pub $field: $t,)*
        }
        impl $crate::wire::xdr::Wire for $name {
            fn put(&self, w: &mut $crate::wire::xdr::Writer) {
                $(w.put(&self.$field);)*
            }
            fn get(r: &mut $crate::wire::xdr::Reader) -> $crate::wire::xdr::Result<Self> {
                Ok(Self { $($field: r.get()?,)* })
            }
        }
    )*};
}
pub(crate) use message;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opaque_that_promises_more_than_is_there_or_allowed_is_refused() {
        for len in [5u32, 9, 1 << 20, u32::MAX - 3, u32::MAX] {
            let mut bytes = len.to_be_bytes().to_vec();
            bytes.extend_from_slice(b"12345678");
            assert_eq!(Reader::new(bytes.clone().into()).opaque(4), Err(Malformed), "over the limit: {len}");
            if len > 8 {
                assert_eq!(Reader::new(bytes.into()).opaque(usize::MAX), Err(Malformed), "over what is left: {len}");
            }
        }
    }

    #[test]
    fn an_opaque_needs_its_padding_and_is_a_slice_of_the_record() {
        let record = Bytes::from_static(b"\0\0\0\x05abcde\0\0\0rest");
        let mut r = Reader::new(record.clone());
        let got = r.opaque(8).unwrap();
        assert_eq!(&got[..], b"abcde");
        assert_eq!(got.as_ptr(), record[4..].as_ptr(), "no copy");
        assert_eq!(&r.rest()[..], b"rest");
        assert_eq!(Reader::new(record.slice(..11)).opaque(8), Err(Malformed), "padding cut off");
    }

    #[test]
    fn a_frame_states_its_own_length_and_pads_its_tail() {
        let mut w = Writer::default();
        w.u32(7);
        w.opaque_last(Bytes::from_static(b"abcde"));
        let frame = w.finish();
        assert_eq!(frame.to_vec(), b"\x80\0\0\x10\0\0\0\x07\0\0\0\x05abcde\0\0\0");
        assert_eq!(frame.wire_len(), 20);
    }
}
