//! Files of a record layout over byte ranges: fixed-width or delimited lines of one or several types,
//! each a record of its own or several of them one, with a header and a trailer that may declare totals.
//!
//! A record belongs to the range that holds its first byte. A line tells its type by itself, so that a
//! range that begins anywhere finds the first line of a record without reading what stands before.
//! Header and trailer of a file are found by whoever opens it; what is declared there travels with the
//! counts of each chunk to the publisher, who compares.
//!
//! A file that is compressed or in another encoding is read from its beginning, by one partition.
//!
//! `content` is the text of a file, `shape` is the layout made ready for reading, `edges` header and trailer, `body` blocks of whole
//! records, `cells` typed columns; the reader joins them.

mod body;
mod cells;
mod content;
mod edges;
mod reader;
mod shape;

#[cfg(test)]
mod tests;

pub(crate) use cells::reads_back;
pub(crate) use content::{Content, is_packed};
pub(crate) use edges::edges;
pub use reader::RecordsReader;
pub(crate) use reader::{PASS, recount};
pub(crate) use shape::Shape;
