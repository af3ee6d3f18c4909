//! What happens to calls: faults, and how long they take.

use crate::filer::ErrorKind;
use std::time::Duration;

/// What a script does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens.
    Before(ErrorKind),
    /// It happens, and the caller is told this.
    After(ErrorKind),
    /// A sync that fails: bytes written since the last one are lost for good, though they can be read.
    Lost(ErrorKind),
}

/// One call's fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Until it happens, and from then to its answer. A caller that is dropped meanwhile never knows which.
    pub before: Duration,
    pub after: Duration,
    pub fault: Option<Fault>,
}

/// Asked before every call, by the method's name.
pub type Script = Box<dyn Fn(&'static str) -> Turn + Send + Sync>;

pub type Hook = Box<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;
