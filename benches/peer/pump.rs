//! A connection with many calls in flight, driven by one thread: for every reply that comes the next call goes.

use crate::Failed;
use crate::wire::{Call, Reply};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Of a reply, what is kept: enough for everything but the data of a large READ.
const KEPT: usize = 128 << 10;
/// Nothing of what is asked for takes so long.
const HANG: Duration = Duration::from_secs(120);

pub struct Conn {
    stream: TcpStream,
    xid: u32,
    input: Vec<u8>,
    /// Bytes of `input` that are filled, and of these, used.
    filled: usize,
    used: usize,
    out: Vec<u8>,
}

/// One call's place in the order of calls, and how long it took.
pub struct Answered<'a> {
    pub at: usize,
    pub results: Reply<'a>,
}

impl Conn {
    pub fn open(port: u16, first_xid: u32) -> Result<Self, Failed> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_write_timeout(Some(HANG))?;
        Ok(Self { stream, xid: first_xid, input: vec![0; 2 * KEPT], filled: 0, used: 0, out: Vec::new() })
    }

    /// One call, and what is made of its results.
    pub fn call<R>(
        &mut self,
        call: Call<'_>,
        answer: impl FnOnce(Reply<'_>) -> Result<R, Failed>,
    ) -> Result<R, Failed> {
        let (mut answer, mut result) = (Some(answer), None);
        self.pump(1, std::iter::once(call), |answered| {
            result = answer.take().map(|answer| answer(answered.results)).transpose()?;
            Ok(())
        })?;
        result.ok_or_else(|| "no answer".into())
    }

    /// All of the calls, so many in flight; `answer` is told in the order in which replies come. The calls' latencies.
    pub fn pump<'a>(
        &mut self,
        in_flight: usize,
        calls: impl IntoIterator<Item = Call<'a>>,
        mut answer: impl FnMut(Answered<'_>) -> Result<(), Failed>,
    ) -> Result<Vec<Duration>, Failed> {
        let mut calls = calls.into_iter();
        let mut waiting: HashMap<u32, (usize, Instant)> = HashMap::with_capacity(in_flight);
        let (mut latencies, mut next) = (Vec::new(), 0);
        loop {
            while waiting.len() < in_flight {
                let Some(call) = calls.next() else { break };
                self.xid = self.xid.wrapping_add(1);
                call.put(self.xid, &mut self.out);
                waiting.insert(self.xid, (next, Instant::now()));
                next += 1;
                if !call.data.is_empty() {
                    if call.data.len() < KEPT {
                        self.out.extend_from_slice(call.data);
                    } else {
                        self.flush()?;
                        self.stream.write_all(call.data)?;
                    }
                }
            }
            self.flush()?;
            if waiting.is_empty() {
                return Ok(latencies);
            }
            // At least one, and all that have come.
            let mut record = self.record(true)?;
            while let Some((from, to)) = record {
                let kept = &self.input[from..to];
                let (at, sent) = waiting.remove(&Reply::xid(kept)?).ok_or("an answer that nobody asked for")?;
                latencies.push(sent.elapsed());
                answer(Answered { at, results: Reply::results(kept)? })?;
                record = self.record(false)?;
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next record, in `input`, up to [`KEPT`] bytes of it. `wait`: else only what has been read already.
    fn record(&mut self, wait: bool) -> Result<Option<(usize, usize)>, Failed> {
        loop {
            let there = self.filled - self.used;
            if let Some(mark) = self.input[self.used..self.filled].first_chunk::<4>() {
                let len = usize::try_from(u32::from_be_bytes(*mark) & 0x7fff_ffff)?;
                let kept = len.min(KEPT);
                if there >= 4 + kept {
                    let from = self.used + 4;
                    let rest = len - (there - 4).min(len);
                    self.used = from + (len - rest);
                    self.skip(rest)?;
                    return Ok(Some((from, from + kept)));
                }
            }
            if !wait {
                return Ok(None);
            }
            if self.input.len() - self.used < 4 + KEPT {
                self.input.copy_within(self.used..self.filled, 0);
                (self.filled, self.used) = (there, 0);
            }
            match self.stream.read(&mut self.input[self.filled..])? {
                0 => return Err("the server closed the connection".into()),
                n => self.filled += n,
            }
        }
    }

    /// Bytes that nobody looks at.
    fn skip(&mut self, mut bytes: usize) -> Result<(), Failed> {
        let mut scratch = [0; 64 << 10];
        while bytes > 0 {
            let len = bytes.min(scratch.len());
            match self.stream.read(&mut scratch[..len])? {
                0 => return Err("the server closed the connection".into()),
                n => bytes -= n,
            }
        }
        Ok(())
    }
}
