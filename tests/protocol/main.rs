//! NFSv3 and MOUNT on the wire: each of the 22 procedures, and what outlives a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests outside the service time what they see")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod acl;
mod attributes;
mod big;
mod data;
mod durable;
mod hostile;
mod locks;
mod matrix;
mod mount;
mod names;
mod oracle;
mod starved;
mod statuses;

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_it_ends_or_refuses_and_nothing_that_was_answered_is_lost() {
    starved::starved(None).await;
}
