//! As much of XDR, RPC, MOUNT and NFSv3 as the rows need: calls are put into a buffer, of replies only what is asked for
//! is looked at. Written for this alone, so that the generator takes as little of the machine as it can.

use crate::Failed;

pub const MOUNT: u32 = 100_005;
pub const NFS: u32 = 100_003;

/// Of a WRITE.
#[derive(Clone, Copy)]
pub enum Stable {
    Unstable = 0,
    FileSync = 2,
}

/// A file handle.
pub type Fh = Vec<u8>;

/// A call without its xid, and the data that goes behind it on the wire (a multiple of four bytes).
pub struct Call<'a> {
    program: u32,
    procedure: u32,
    args: Vec<u8>,
    pub data: &'a [u8],
}

impl Call<'static> {
    fn new(program: u32, procedure: u32) -> Self {
        Self { program, procedure, args: Vec::new(), data: &[] }
    }

    pub fn mount(path: &str) -> Self {
        Self::new(MOUNT, 1).opaque(path.as_bytes())
    }

    pub fn getattr(fh: &[u8]) -> Self {
        Self::new(NFS, 1).opaque(fh)
    }

    pub fn lookup(dir: &[u8], name: &str) -> Self {
        Self::new(NFS, 3).opaque(dir).opaque(name.as_bytes())
    }

    pub fn read(fh: &[u8], offset: u64, count: u32) -> Self {
        Self::new(NFS, 6).opaque(fh).u64(offset).u32(count)
    }

    /// GUARDED, mode 0644.
    pub fn create(dir: &[u8], name: &str) -> Self {
        Self::new(NFS, 8).opaque(dir).opaque(name.as_bytes()).u32(1).attrs(0o644)
    }

    pub fn mkdir(dir: &[u8], name: &str) -> Self {
        Self::new(NFS, 9).opaque(dir).opaque(name.as_bytes()).attrs(0o755)
    }

    pub fn remove(dir: &[u8], name: &str) -> Self {
        Self::new(NFS, 12).opaque(dir).opaque(name.as_bytes())
    }

    pub fn readdirplus(dir: &[u8], cookie: u64, verifier: [u8; 8]) -> Self {
        const COUNT: u32 = 64 << 10;
        Self::new(NFS, 17).opaque(dir).u64(cookie).fixed(&verifier).u32(COUNT / 8).u32(COUNT)
    }

    pub fn commit(fh: &[u8]) -> Self {
        Self::new(NFS, 21).opaque(fh).u64(0).u32(0)
    }
}

impl<'a> Call<'a> {
    pub fn write(fh: &[u8], offset: u64, stable: Stable, data: &'a [u8]) -> Self {
        assert!(data.len().is_multiple_of(4), "no padding is sent");
        let len = u32::try_from(data.len()).expect("a WRITE is short");
        let head = Call::new(NFS, 7).opaque(fh).u64(offset).u32(len).u32(stable as u32).u32(len);
        Call { data, ..head }
    }

    fn u32(mut self, v: u32) -> Self {
        self.args.extend_from_slice(&v.to_be_bytes());
        self
    }

    fn u64(mut self, v: u64) -> Self {
        self.args.extend_from_slice(&v.to_be_bytes());
        self
    }

    fn fixed(mut self, v: &[u8]) -> Self {
        self.args.extend_from_slice(v);
        self.args.resize(self.args.len().next_multiple_of(4), 0);
        self
    }

    fn opaque(self, v: &[u8]) -> Self {
        let len = u32::try_from(v.len()).expect("names and handles are short");
        self.u32(len).fixed(v)
    }

    /// sattr3 with a mode alone.
    fn attrs(self, mode: u32) -> Self {
        self.u32(1).u32(mode).u32(0).u32(0).u32(0).u32(0).u32(0)
    }

    /// The record up to the data.
    pub fn put(&self, xid: u32, out: &mut Vec<u8>) {
        // AUTH_UNIX: no time, no name, root.
        const CREDENTIAL: [u32; 7] = [1, 20, 0, 0, 0, 0, 0];
        let len = 4 * (6 + CREDENTIAL.len() + 2) + self.args.len() + self.data.len();
        let mark = u32::try_from(len).expect("a call is short") | 1 << 31;
        for word in [mark, xid, 0, 2, self.program, 3, self.procedure].into_iter().chain(CREDENTIAL).chain([0, 0]) {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.args);
    }
}

/// A reply, or as much of it as was kept.
pub struct Reply<'a>(&'a [u8]);

/// What a page of READDIRPLUS says.
#[derive(Default)]
pub struct Page {
    pub entries: u64,
    pub cookie: u64,
    pub verifier: [u8; 8],
    pub end: bool,
}

impl<'a> Reply<'a> {
    /// Its results: an error unless the call was carried out and its status is 0.
    pub fn results(record: &'a [u8]) -> Result<Self, Failed> {
        let mut reply = Self(record);
        let (_xid, message, denied) = (reply.u32()?, reply.u32()?, reply.u32()?);
        let (_flavor, _verifier) = (reply.u32()?, reply.opaque()?);
        let accepted = reply.u32()?;
        if (message, denied, accepted) != (1, 0, 0) {
            return Err(format!("RPC: message {message}, denied {denied}, accepted {accepted}").into());
        }
        match reply.u32()? {
            0 => Ok(reply),
            status => Err(format!("status {status}").into()),
        }
    }

    pub fn xid(record: &[u8]) -> Result<u32, Failed> {
        Reply(record).u32()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Failed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("a reply ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn u32(&mut self) -> Result<u32, Failed> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4)?);
        Ok(u32::from_be_bytes(word))
    }

    fn u64(&mut self) -> Result<u64, Failed> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    pub fn opaque(&mut self) -> Result<&'a [u8], Failed> {
        let len = usize::try_from(self.u32()?)?;
        let padded = self.take(len.next_multiple_of(4))?;
        Ok(&padded[..len])
    }

    /// post_op_attr.
    fn skip_attr(&mut self) -> Result<(), Failed> {
        if self.u32()? == 1 {
            self.take(84)?;
        }
        Ok(())
    }

    /// post_op_fh3, as CREATE and MKDIR give it.
    pub fn made(&mut self) -> Result<Fh, Failed> {
        match self.u32()? {
            1 => Ok(self.opaque()?.to_vec()),
            _ => Err("no handle for what was made".into()),
        }
    }

    /// Of a READ.
    pub fn read_count(&mut self) -> Result<u32, Failed> {
        self.skip_attr()?;
        self.u32()
    }

    /// Of a WRITE.
    pub fn written(&mut self) -> Result<u32, Failed> {
        if self.u32()? == 1 {
            self.take(24)?;
        }
        self.skip_attr()?;
        self.u32()
    }

    pub fn page(&mut self) -> Result<Page, Failed> {
        self.skip_attr()?;
        let mut page = Page::default();
        page.verifier.copy_from_slice(self.take(8)?);
        while self.u32()? == 1 {
            let _fileid = self.u64()?;
            let _name = self.opaque()?;
            page.cookie = self.u64()?;
            self.skip_attr()?;
            if self.u32()? == 1 {
                self.opaque()?;
            }
            page.entries += 1;
        }
        page.end = self.u32()? == 1;
        Ok(page)
    }
}
