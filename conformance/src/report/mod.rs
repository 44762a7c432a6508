//! What came out: for a terminal, for machines, for a browser.

pub mod terminal;
