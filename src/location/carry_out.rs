//! The second half of a round, and the end of a batch: data and attributes in LSN order per node, nodes side by side;
//! kept times last. The same code for a secondary's replayer and for redo.

use super::copy::Source;
use super::reconcile::{Settled, Site};
use super::round::{DataOp, Renew, Round};
use super::{Location, View, index_error};
use crate::filer::aside::side_by_side;
use crate::filer::{Changes, Error, ErrorKind, Result};
use crate::index::live::Live;
use journal_format::event::{CopyFailed, RangeDone};
use journal_format::ids::{Identity, Lsn, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What a round came to.
#[derive(Default)]
pub struct Carried {
    pub made: Vec<(NodeId, Identity)>,
    pub ranges: Vec<RangeDone>,
    pub failed: Vec<CopyFailed>,
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
) -> Result<Carried> {
    let settled = Site::new(location, view, source, round).settle().await?;
    crash_point!("CARRY_NAMES_SETTLED");
    let at = Data { location, view, source, round, settled: &settled, done };
    let nodes: Vec<_> = round.data.iter().map(|(node, ops)| at.node(*node, ops)).collect();
    let results: Vec<NodeCarried> = side_by_side(nodes).await?;
    let mut carried = Carried { made: settled.made, ranges: Vec::new(), failed: settled.failed };
    for (ranges, failed) in results {
        carried.ranges.extend(ranges);
        carried.failed.extend(failed);
    }
    Ok(carried)
}

type NodeCarried = (Vec<RangeDone>, Option<CopyFailed>);

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
        let mut ranges = Vec::new();
        if self.settled.broken.contains(&node) {
            return Ok((ranges, None)); // reported when it could not be made
        }
        let site = Site::new(self.location, self.view, self.source, self.round);
        let Some(object) = site.locate(node).await? else {
            return self.missing(node, ops);
        };
        let filer = self.location.filer.as_ref();
        for op in ops {
            let result = match op {
                DataOp::Write { offset, data, mode } => match filer.write(&object, *offset, data.clone()).await {
                    Ok(()) if crate::planted::is('j') && self.round.ask_filer => {
                        filer.write(&object, *offset + data.len() as u64, data.clone()).await
                    }
                    Ok(()) if mode.is_some() => filer.set(&object, Changes { mode: *mode, ..Changes::default() }).await,
                    other => other,
                },
                DataOp::Set(changes) => filer.set(&object, *changes).await,
                DataOp::Copy { range, .. } if self.done.contains(&(range.node, range.offset)) => Ok(()),
                DataOp::Renew(renew) => self.renew(node, renew, &object).await,
                DataOp::Copy { range, lsn } => self.copy(range, *lsn, &object, &mut ranges).await,
            };
            crash_point!("CARRY_DATA_OP");
            if let Err(error) = result {
                return self.failed(node, error).map(|failed| (ranges, Some(failed)));
            }
        }
        Ok((ranges, None))
    }

    async fn copy(
        &self,
        range: &journal_format::event::Range,
        lsn: Lsn,
        object: &crate::filer::Object,
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

    async fn renew(&self, node: NodeId, renew: &Renew, object: &crate::filer::Object) -> Result<()> {
        let source =
            self.source.ok_or_else(|| Error::new(ErrorKind::Invalid, "renew", "there is no source to copy from"))?;
        source.renew(node, renew, self.location.filer.as_ref(), object).await
    }

    /// No object: right when its source was gone (steps on it are void), an error report otherwise.
    fn missing(&self, node: NodeId, ops: &[DataOp]) -> Result<NodeCarried> {
        let gone = self.settled.void.contains(&node) || self.source.is_some_and(|source| source.is_gone(node));
        if !gone {
            let error = Error::new(
                ErrorKind::Stale,
                "write",
                "the object is not on the filer any more: it was removed behind tain's back",
            );
            return self.failed(node, error).map(|failed| (Vec::new(), Some(failed)));
        }
        let void = ops.iter().filter_map(|op| match op {
            DataOp::Copy { range, .. } if !self.done.contains(&(range.node, range.offset)) => {
                Some(RangeDone { node, offset: range.offset, len: 0, digest: [0; 32], last: range.last, void: true })
            }
            _ => None,
        });
        Ok((void.collect(), None))
    }

    /// An error of one object is reported; one that may pass, or concerns the whole filer, ends the round.
    fn failed(&self, node: NodeId, error: Error) -> Result<CopyFailed> {
        if error.kind.is_transient() && error.kind != ErrorKind::Io || error.kind == ErrorKind::ReadOnly {
            return Err(error);
        }
        let path = self.source.map_or_else(|| format!("node {node}").into_bytes(), |source| source.path(node));
        Ok(CopyFailed { node, path, error: error.to_string(), fatal: false })
    }
}

/// Put the kept modification times of these nodes on the location. Nodes that have ended are passed over.
pub async fn put_times(location: &Location, view: &dyn View, live: &Live, nodes: &BTreeSet<NodeId>) -> Result<()> {
    let puts: Vec<_> = nodes.iter().map(|node| put_time(location, view, live, *node)).collect();
    side_by_side(puts).await.map(drop)
}

async fn put_time(location: &Location, view: &dyn View, live: &Live, node: NodeId) -> Result<()> {
    let Some(rec) = live.node(node).map_err(index_error)? else { return Ok(()) };
    let object = match location.object(view, node).await {
        Ok(object) => object,
        // Gone meanwhile, or reported when it could not be made.
        Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) => return Ok(()),
        Err(error) => return Err(error),
    };
    match location.filer.set(&object, Changes { mtime: Some(rec.mtime), ..Changes::default() }).await {
        Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

/// Failures by node, for marking them incomplete.
#[must_use]
pub fn by_node(failed: &[CopyFailed]) -> BTreeMap<NodeId, &CopyFailed> {
    failed.iter().map(|f| (f.node, f)).collect()
}
