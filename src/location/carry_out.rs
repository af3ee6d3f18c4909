//! The second half of a round, and the end of a batch: data and attributes in LSN order per node, nodes side by side;
//! kept times last. The same code for a secondary's replayer and for redo.

use super::copy::Source;
use super::reconcile::{Refusal, Settled, Site, is_final};
use super::round::{DataOp, Renew, Round};
use super::{Location, Recorder, View, index_error};
use crate::filer::aside::{PART, side_by_side};
use crate::filer::{Changes, Error, ErrorKind, Object, Result, in_order};
use crate::index::live::Live;
use journal_format::event::{CopyFailed, PartDone, RangeDone};
use journal_format::ids::{Identity, Lsn, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Modification times that a primary refuses for good, which it is asked for again.
const UNTIMED_MAX: usize = 1000;
/// An object that gives an I/O error when its time is put holds its primary's cursor for so many checkpoints.
const UNTIMED_TRIES: u32 = 3;

/// What a round came to.
#[derive(Default)]
pub struct Carried {
    pub made: Vec<(NodeId, Identity)>,
    pub ranges: Vec<RangeDone>,
    pub failed: Vec<CopyFailed>,
    /// Of a primary's redo: what the filer refused for good.
    pub refused: Vec<Refusal>,
    /// Of a primary's redo: modification times that these objects have already.
    pub has_time: BTreeMap<NodeId, Time>,
}

/// Copy steps that the journal says are done: never read or written again (I4). By record and node and offset.
pub type DoneSteps = BTreeSet<(NodeId, u64)>;

/// Carry a whole round out.
pub async fn carry_out(
    location: &Location,
    view: &dyn View,
    source: Option<&Source>,
    round: &Round,
    done: &DoneSteps,
    recorder: &dyn Recorder,
) -> Result<Carried> {
    let settled = Site::new(location, view, source, round).recorded(recorder).settle().await?;
    crash_point!("CARRY_NAMES_SETTLED");
    let at = Data { location, view, source, round, settled: &settled, done };
    let nodes: Vec<(&NodeId, &Vec<DataOp>)> =
        round.data.iter().filter(|(node, _)| !settled.whole.contains_key(node)).collect();
    let mut results: Vec<NodeCarried> = Vec::with_capacity(nodes.len());
    for part in nodes.chunks(PART) {
        results.extend(side_by_side(part.iter().map(|(node, ops)| at.node(**node, ops)).collect()).await?);
    }
    let has_time = settled.whole.into_iter().filter_map(|(node, mtime)| Some((node, mtime?))).collect();
    let Settled { made, failed, refused, .. } = settled;
    let mut carried = Carried { made, ranges: Vec::new(), failed, refused, has_time };
    for NodeCarried { ranges, failed, refused } in results {
        carried.ranges.extend(ranges);
        carried.failed.extend(failed);
        carried.refused.extend(refused);
    }
    Ok(carried)
}

#[derive(Default)]
struct NodeCarried {
    ranges: Vec<RangeDone>,
    failed: Option<CopyFailed>,
    refused: Option<Refusal>,
}

struct Data<'a> {
    location: &'a Location,
    view: &'a dyn View,
    source: Option<&'a Source>,
    round: &'a Round,
    settled: &'a Settled,
    done: &'a DoneSteps,
}

impl Data<'_> {
    /// One node's operations. Writes and truncates are physical: a second run gives the same bytes.
    async fn node(&self, node: NodeId, ops: &[DataOp]) -> Result<NodeCarried> {
        let mut carried = NodeCarried::default();
        if self.settled.broken.contains(&node) {
            return Ok(carried); // reported when it could not be made
        }
        let site = Site::new(self.location, self.view, self.source, self.round);
        let Some(object) = site.locate(node).await? else {
            return self.missing(node, ops);
        };
        for (i, op) in ops.iter().enumerate() {
            let result = match op {
                DataOp::Copy { range, .. } if self.done.contains(&(range.node, range.offset)) => Ok(()),
                DataOp::Renew(renew) => self.renew(node, renew, &object).await.map_err(|e| (e, None)),
                DataOp::Copy { range, lsn } => {
                    self.copy(range, *lsn, &object, &mut carried.ranges).await.map_err(|e| (e, None))
                }
                DataOp::Write { .. } | DataOp::Set(_) => self.change(op, &object).await,
            };
            crash_point!("CARRY_DATA_OP");
            if let Err((error, part)) = result {
                if self.source.is_some() {
                    carried.failed = Some(self.failed(node, error)?);
                    return Ok(carried);
                }
                // A primary: what time may change is waited for, whatever it is; nothing that was answered is passed over.
                let op = self.round.ops_of.get(&node).and_then(|ops| ops.get(i)).copied();
                let Some(op) = op.filter(|_| is_final(error.kind)) else { return Err(error) };
                carried.refused = Some(Refusal { op, node, part, error });
                return Ok(carried);
            }
        }
        Ok(carried)
    }

    /// A WRITE or SETATTR; when it fails, what of it was done. Group by group: see `Changes`.
    async fn change(&self, op: &DataOp, object: &Object) -> std::result::Result<(), (Error, Option<PartDone>)> {
        let filer = self.location.filer.as_ref();
        match op {
            DataOp::Write { offset, data, mode } => {
                if let Err(error) = filer.write(object, *offset, data.clone()).await {
                    let done = u32::try_from(error.done).unwrap_or(u32::MAX);
                    return Err((error, (done > 0).then_some(PartDone::Bytes(done))));
                }
                if crate::planted::is('j') && self.round.ask_filer {
                    let behind = *offset + data.len() as u64;
                    return filer.write(object, behind, data.clone()).await.map_err(|error| (error, None));
                }
                let Some(mode) = *mode else { return Ok(()) };
                let whole = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let cleared = filer.set(object, Changes { mode: Some(mode), ..Changes::default() }).await;
                cleared.map_err(|error| (error, Some(PartDone::Bytes(whole))))
            }
            DataOp::Set(c) => {
                let none = Changes::default();
                let groups = [
                    Changes { uid: c.uid, gid: c.gid, ..none },
                    Changes { mode: c.mode, ..none },
                    Changes { size: c.size, ..none },
                    Changes { atime: c.atime, mtime: c.mtime, ..none },
                ];
                let mut done = [false; 4];
                for i in in_order(c.mode).into_iter().filter(|i| groups[*i] != none) {
                    let changes = groups[i];
                    if let Err(error) = filer.set(object, changes).await {
                        let [owner, mode, size, times] = done;
                        let part = PartDone::Attrs { mode, owner, size, times };
                        return Err((error, done.contains(&true).then_some(part)));
                    }
                    done[i] = true;
                }
                Ok(())
            }
            DataOp::Copy { .. } | DataOp::Renew(_) => Ok(()),
        }
    }

    async fn copy(
        &self,
        range: &journal_format::event::Range,
        lsn: Lsn,
        object: &Object,
        ranges: &mut Vec<RangeDone>,
    ) -> Result<()> {
        let source =
            self.source.ok_or_else(|| Error::new(ErrorKind::Invalid, "copy", "there is no source to copy from"))?;
        let done = source.copy_range(range, self.location.filer.as_ref(), object).await?;
        crash_point!("COPY_RANGE_WRITTEN");
        super::steplog::copied(self.location.id, lsn, &done);
        ranges.push(done);
        Ok(())
    }

    async fn renew(&self, node: NodeId, renew: &Renew, object: &Object) -> Result<()> {
        let source =
            self.source.ok_or_else(|| Error::new(ErrorKind::Invalid, "renew", "there is no source to copy from"))?;
        source.renew(node, renew, self.location.filer.as_ref(), object).await
    }

    /// No object: right when its source was gone (steps on it are void), an error report otherwise.
    fn missing(&self, node: NodeId, ops: &[DataOp]) -> Result<NodeCarried> {
        if self.source.is_none() {
            // Nothing is left that could be done to it; that no client is told so by a refusal is no loss.
            tracing::error!(location = %self.location.id, %node, "an object is gone from the primary: somebody else removed it");
            let (path, error) = (format!("node {node}").into_bytes(), "the object is not there any more".to_owned());
            return Ok(NodeCarried {
                failed: Some(CopyFailed { node, path, error, fatal: false }),
                ..Default::default()
            });
        }
        // That it could not be made was told when it was tried, and why: this would be told instead.
        let was_made = self.location.objects.identity(node).map_err(index_error)?.is_some();
        if !was_made && !ops.iter().any(|op| matches!(op, DataOp::Copy { .. })) {
            return Ok(NodeCarried::default());
        }
        let gone = self.settled.void.contains(&node) || self.source.is_some_and(|source| source.is_gone(node));
        if !gone {
            let error = Error::new(
                ErrorKind::Stale,
                "write",
                "the object is not on the filer any more: it was removed behind tain's back",
            );
            return self.failed(node, error).map(|failed| NodeCarried { failed: Some(failed), ..Default::default() });
        }
        let void = ops.iter().filter_map(|op| match op {
            DataOp::Copy { range, .. } if !self.done.contains(&(range.node, range.offset)) => {
                Some(RangeDone { node, offset: range.offset, len: 0, digest: [0; 32], last: range.last, void: true })
            }
            _ => None,
        });
        Ok(NodeCarried { ranges: void.collect(), ..NodeCarried::default() })
    }

    /// An error of one object is reported; one that may pass, or concerns the whole filer, ends the round.
    fn failed(&self, node: NodeId, error: Error) -> Result<CopyFailed> {
        if !is_final(error.kind) && error.kind != ErrorKind::Io {
            return Err(error);
        }
        let path = self.source.map_or_else(|| format!("node {node}").into_bytes(), |source| source.path(node));
        Ok(CopyFailed { node, path, error: error.to_string(), fatal: false })
    }
}

/// Put the kept modification times of these nodes on the location. Nodes that have ended are passed over.
///
/// # Returns
/// Those whose time the filer refuses for good, or with an I/O error: that may be of the one object.
pub async fn put_times(
    location: &Location,
    view: &dyn View,
    live: &Live,
    nodes: &BTreeSet<NodeId>,
) -> Result<Vec<(NodeId, Error)>> {
    put_times_but(location, view, live, nodes, |kind| is_final(kind) || kind == ErrorKind::Io).await
}

async fn put_times_but(
    location: &Location,
    view: &dyn View,
    live: &Live,
    nodes: &BTreeSet<NodeId>,
    may_refuse: fn(ErrorKind) -> bool,
) -> Result<Vec<(NodeId, Error)>> {
    let nodes: Vec<NodeId> = nodes.iter().copied().collect();
    let mut refused = Vec::new();
    for part in nodes.chunks(PART) {
        let put = part.iter().map(|node| put_time(location, view, live, *node, may_refuse)).collect();
        let put = side_by_side(put).await?;
        refused.extend(put.into_iter().flatten());
    }
    refused.sort_by_key(|(node, _)| *node);
    Ok(refused)
}

/// The same on a primary: what it refuses it is asked for again at the next checkpoint. Clients see the kept time all the
/// same, and the cursor must get on; past `UNTIMED_MAX` of them nothing is asked for again. An I/O error may pass, and so may
/// that the filer is full: each is an error for `UNTIMED_TRIES`, then it is that object's (the sync that follows tells whether
/// it is the filer's). That the filer is read-only is an error always: so looks a file system that has just failed, whose sync
/// tells nothing.
pub async fn put_primary_times(location: &Location, live: &Live, nodes: &BTreeSet<NodeId>) -> Result<()> {
    const fn may_pass(kind: ErrorKind) -> bool {
        matches!(kind, ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Quota)
    }
    let refused = put_times_but(location, live, live, nodes, |kind| is_final(kind) || may_pass(kind)).await?;
    match refused.iter().find(|(_, error)| may_pass(error.kind)) {
        None => location.untimed.store(0, Ordering::Relaxed),
        Some((_, error)) if location.untimed.fetch_add(1, Ordering::Relaxed) < UNTIMED_TRIES => {
            return Err(error.clone());
        }
        Some(_) => {}
    }
    if let Some((node, error)) = refused.first() {
        tracing::warn!(
            location = %location.id, %node, %error, nodes = refused.len(),
            "modification times could not be put on the filer: clients see them, programs on the filer do not"
        );
    }
    // What there is no room for was asked for in this checkpoint: no more of them than before are asked for again.
    let again = |(n, (_, error)): &(usize, (NodeId, Error))| {
        *n < UNTIMED_MAX || matches!(error.kind, ErrorKind::NoSpace | ErrorKind::Quota)
    };
    for (_, (node, _)) in refused.into_iter().enumerate().filter(again) {
        location.touch(node);
    }
    Ok(())
}

/// What the filer says when it refuses the time in a way that it may.
async fn put_time(
    location: &Location,
    view: &dyn View,
    live: &Live,
    node: NodeId,
    may_refuse: fn(ErrorKind) -> bool,
) -> Result<Option<(NodeId, Error)>> {
    match try_time(location, view, live, node).await {
        Err(error) if may_refuse(error.kind) => Ok(Some((node, error))),
        Err(error) => Err(error),
        Ok(()) => Ok(None),
    }
}

async fn try_time(location: &Location, view: &dyn View, live: &Live, node: NodeId) -> Result<()> {
    let Some(rec) = live.node(node).map_err(index_error)? else { return Ok(()) };
    let object = match location.object(view, node).await {
        Ok(object) => object,
        Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) => {
            // Gone meanwhile; or it could not be made, which was reported.
            if live.node(node).map_err(index_error)?.is_some() {
                tracing::warn!(location = %location.id, %node, %error, "a modification time has no object to be put on");
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match location.filer.set(&object, Changes { mtime: Some(rec.mtime), ..Changes::default() }).await {
        Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) => {
            match location.filer.stat(&object).await {
                Ok(_) => Err(Error::new(ErrorKind::Io, error.op, "the filer calls an object gone that it shows")),
                Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) => Ok(()),
                Err(error) => Err(error),
            }
        }
        done => done,
    }
}
