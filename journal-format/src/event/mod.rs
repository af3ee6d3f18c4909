//! Events: what a record says. Facts are in the past tense; copy steps are orders, answered by `CopyDone`.

pub mod codec;
pub mod copy;
pub mod filer;
pub mod host;
pub mod job;
pub mod junction;
#[expect(missing_docs, reason = "the derive leaves the fields of archived variants undocumented")]
pub mod node;
pub mod policy;
pub mod position;
#[doc(hidden)]
pub mod samples;

pub use copy::*;
pub use filer::*;
pub use host::*;
pub use job::*;
pub use junction::*;
pub use node::*;
pub use policy::*;
pub use position::*;

/// Every event the format can express, one variant per record kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Bytes written to a file; the bytes are the record's bulk data.
    Write(Write),
    /// Attributes or size set.
    SetAttr(SetAttr),
    /// An object created: CREATE, MKDIR, SYMLINK, MKNOD.
    Make(Make),
    /// A name removed: REMOVE, RMDIR.
    Remove(Remove),
    /// A name moved.
    Rename(Rename),
    /// A further name for a file.
    Link(Link),
    /// Objects that were there already, met for the first time.
    Adopt(Adopt),
    /// An operation ended without effect.
    Failed(Failed),
    /// An operation ended with part of its effect.
    Partial(Partial),
    /// What was created on a location, and how the filer names it.
    Made(Made),
    /// A core filer added.
    FilerAdded(FilerAdded),
    /// A core filer removed.
    FilerRemoved(FilerRemoved),
    /// A junction added.
    JunctionAdded(JunctionAdded),
    /// A junction removed.
    JunctionRemoved(JunctionRemoved),
    /// What an operator may change of a junction was changed.
    JunctionModified(JunctionModified),
    /// An access policy was added, or its rules changed.
    PolicySet(PolicySet),
    /// An access policy was removed.
    PolicyRemoved(PolicyRemoved),
    /// A client host may hold locks.
    HostMonitored(HostMonitored),
    /// It holds none any more.
    HostForgotten(HostForgotten),
    /// The service has restarted, and with it the locks are lost.
    LocksLost(LocksLost),
    /// A junction points to another location from here on.
    JunctionSwitched(JunctionSwitched),
    /// A job created.
    JobCreated(JobCreated),
    /// A job changed its state.
    JobStateChanged(JobStateChanged),
    /// A directory's listing begins: from here on its name operations are replayed.
    ListBegin(ListBegin),
    /// A page of a directory's listing.
    Listed(Listed),
    /// Order: copy these ranges.
    CopyRange(CopyRange),
    /// Answer: these steps are done and durable on the destination, those failed.
    CopyDone(CopyDone),
    /// A location has durably applied everything before `lsn`.
    Cursor(Cursor),
    /// A secondary fell out of the journal's reach.
    OutOfSync(OutOfSync),
    /// It is back.
    InSync(InSync),
    /// Everything before this record is durable: follows the last flush when the journal falls idle.
    Durable(Durable),
    /// The journal's key material and identity; first record of a journal.
    JournalCreated(JournalCreated),
}
