//! One line per kind of filer.
