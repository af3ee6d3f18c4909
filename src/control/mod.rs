//! Commands from operators: the HTTP API below `/api/v1`, on a Unix socket (mode 0600) or TCP.
//!
//! ```text
//!  CLI, scripts ──HTTP──► http.rs ──► commands.rs ──Command──► ledger (decide, append, durable)
//!                            │            │ probes, opens, creates, claims
//!                            ▼            ▼
//!                         views.rs      port.rs: everything this room asks of the running service
//! ```
//!
//! * Control never changes State: it gathers what a command needs (identities, node ids, what lies at the destination)
//!   and puts it in. `decide` judges; a refusal is 409 with `error` and `remedy`, an unknown name 404, a bad request 400.
//! * What is refused has changed nothing: a directory that was made for a destination is taken away again, a marker too.
//!   The marker is put *before* the command, so that a place is never used without it; a crash between the two leaves
//!   a marker of our own journal for a location that is not in use, which the next command may replace.
//! * Commands that create run one at a time, in a task of their own: a client that hangs up does not stop one half way.
//! * Bounds: a body of 64 KiB, 64 connections (who is not being answered gives way to a new one: `seats.rs`), 30 seconds for
//!   the head of a request and as many for its body, 30 for each answer of a filer, few calls that a filer has not answered
//!   (`asked.rs`). How long an answer takes is not bounded: nobody is cut off whose command goes on.

mod asked;
mod commands;
mod folding;
mod http;
mod listen;
mod port;
mod seats;
mod twice;
mod views;

#[cfg(test)]
pub(crate) mod tests;

pub use listen::Api;
pub use port::{JournalPin, LockStatus, Port, ProcedureTimes, ReplayerStatus, ServiceStatus};
pub use views::mount_command;

use crate::ledger::CommandError;
use crate::state::Refusal;

/// Understand what requests carry, and forget it: for the fuzzer.
#[doc(hidden)]
pub fn understand(bytes: &[u8]) {
    http::understand(bytes);
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// 400: the request says nothing that could be done.
    Bad(Refusal),
    /// 404: it names what is not there.
    Unknown(Refusal),
    /// 409: what it asks for cannot be.
    Refused(Refusal),
    /// 500: the service could not.
    Failed(Refusal),
}

type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    fn bad(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem::Bad(refusal(reason, remedy))
    }
    fn unknown(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem::Unknown(refusal(reason, remedy))
    }
    fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem::Refused(refusal(reason, remedy))
    }
}

fn refusal(reason: impl Into<String>, remedy: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), remedy: remedy.into() }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal) => Problem::Refused(refusal),
            CommandError::Journal(e @ crate::journal::Error::Full { .. }) => {
                Problem::Failed(refusal(e.to_string(), "'tain status' says who keeps it; try again when there is room"))
            }
            CommandError::Journal(e) => Problem::Failed(refusal(e.to_string(), "look at the service's log")),
            late @ CommandError::Late => Problem::Failed(refusal(late.to_string(), "try again")),
        }
    }
}
