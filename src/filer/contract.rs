//! One suite that every kind of filer passes.
