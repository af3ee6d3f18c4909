//! Which records are wanted.

use crate::names::{Names, below};
use crate::position::Position;
use anyhow::{Result, bail};
use clap::Args;
use journal_format::event::{Caller, Event, codec};
use journal_format::record::RecordHeader;
use std::net::{IpAddr, Ipv6Addr};

#[derive(Args, Default)]
pub struct Filter {
    /// Only records that begin at this LSN or behind it, or not before this time (RFC 3339, or @SECONDS)
    #[arg(long, value_name = "LSN|TIME")]
    from: Option<Position>,
    /// Only records that end at this LSN or before it, or that were written before this time
    #[arg(long, value_name = "LSN|TIME")]
    to: Option<Position>,
    /// Only what is about this path or what lies below it, as paths are at each record (as dump writes them)
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only calls of this client's address; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    client: Vec<IpAddr>,
    /// Only calls of this user, after squashing; may be given more than once
    #[arg(long, value_name = "UID")]
    uid: Vec<u32>,
    /// Only what belongs to this job; may be given more than once
    #[arg(long, value_name = "JOB")]
    job: Vec<u32>,
    /// Only records of this kind (Write, Rename, Cursor, …); may be given more than once
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
}

impl Filter {
    pub fn check(&self) -> Result<()> {
        for kind in &self.kind {
            if !codec::KINDS.iter().any(|row| row.name.eq_ignore_ascii_case(kind)) {
                let known: Vec<&str> = codec::KINDS.iter().map(|row| row.name).collect();
                bail!("there is no record kind {kind:?}; known are {}", known.join(", "));
            }
        }
        Ok(())
    }

    /// Paths are asked for.
    pub fn wants_paths(&self) -> bool {
        self.path.is_some()
    }

    /// No segment outside can hold a wanted record.
    pub fn lsns(&self) -> (u64, u64) {
        let lsn = |at: Option<Position>, none| match at {
            Some(Position::Lsn(lsn)) => lsn,
            Some(Position::Time(_)) | None => none,
        };
        (lsn(self.from, 0), lsn(self.to, u64::MAX))
    }

    /// The record lies in the wanted range.
    pub fn in_range(&self, header: &RecordHeader) -> bool {
        let from = match self.from {
            Some(Position::Lsn(lsn)) => header.lsn.0 >= lsn,
            Some(Position::Time(time)) => header.time >= time,
            None => true,
        };
        let to = match self.to {
            Some(Position::Lsn(lsn)) => header.end().0 <= lsn,
            Some(Position::Time(time)) => header.time < time,
            None => true,
        };
        from && to
    }

    /// Kinds are looked at before anything is decoded.
    pub fn takes_kind(&self, kind: u16) -> bool {
        let wanted = |row: &codec::Row| self.kind.iter().any(|kind| kind.eq_ignore_ascii_case(row.name));
        self.kind.is_empty() || codec::KINDS.iter().any(|row| row.kind == kind && wanted(row))
    }

    /// Nothing but range and kind decides.
    pub fn takes_any_event(&self) -> bool {
        self.path.is_none() && self.client.is_empty() && self.uid.is_empty() && self.job.is_empty()
    }

    pub fn takes(&self, event: &Event, paths: &[String]) -> bool {
        self.takes_but_path(event)
            && self.path.as_ref().is_none_or(|prefix| paths.iter().any(|path| below(path, prefix)))
    }

    /// Whatever path it is about.
    pub fn takes_but_path(&self, event: &Event) -> bool {
        let caller = caller(event);
        let by = |caller: &Caller| {
            let address = address(caller);
            (self.client.is_empty() || self.client.iter().any(|client| client.to_canonical() == address))
                && (self.uid.is_empty() || self.uid.contains(&caller.uid))
        };
        let asked = self.client.is_empty() && self.uid.is_empty() || caller.is_some_and(by);
        asked && (self.job.is_empty() || job(event).is_some_and(|job| self.job.contains(&job)))
    }
}

/// The paths of an event, and what it does to paths.
pub fn paths_of(names: Option<&mut Names>, header: &RecordHeader, event: &Event) -> Vec<String> {
    let Some(names) = names else { return Vec::new() };
    let paths = names.of(event);
    names.apply(header.lsn, event);
    paths
}

pub fn address(caller: &Caller) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(caller.addr)).to_canonical()
}

pub fn caller(event: &Event) -> Option<&Caller> {
    match event {
        Event::Write(e) => Some(&e.caller),
        Event::SetAttr(e) => Some(&e.caller),
        Event::Make(e) => Some(&e.caller),
        Event::Remove(e) => Some(&e.caller),
        Event::Rename(e) => Some(&e.caller),
        Event::Link(e) => Some(&e.caller),
        _ => None,
    }
}

fn job(event: &Event) -> Option<u32> {
    match event {
        Event::JunctionSwitched(e) => Some(e.job.0),
        Event::JobCreated(e) => Some(e.job.0),
        Event::JobStateChanged(e) => Some(e.job.0),
        Event::ListBegin(e) => Some(e.job.0),
        Event::Listed(e) => Some(e.job.0),
        Event::CopyRange(e) => Some(e.job.0),
        Event::CopyDone(e) => Some(e.job.0),
        _ => None,
    }
}
