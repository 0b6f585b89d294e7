//! CSV over byte ranges: one pass finds separators and newlines, then one typed loop for each column
//! makes Arrow arrays. A record is a line and belongs to the range that holds its first byte; a
//! header line (and a byte order mark) belongs to no record. A line without a byte is no record
//! either, except in a file of one column.
//!
//! `scan` finds the ends (`exact` where a line is not always a record, or escapes are used), `encoding`
//! brings other encodings to UTF-8, `columns` and `values` decode, `input` brings blocks of text, `members` unpacks
//! compressed ones, `layout` knows the header and the types, `first_record` what stands in its place without one, `json` makes fields of lines that are objects,
//! `objects` reads such lines that lie in no file, `lines` knows line numbers; the reader here joins them.

pub(in crate::source) mod block;
pub(in crate::source) mod columns;
pub(crate) mod encoding;
mod exact;
mod first_record;
pub(in crate::source) mod input;
mod json;
pub(in crate::source) mod layout;
pub(in crate::source) mod lines;
mod members;
mod objects;
mod reader;
mod scan;
pub(in crate::source) mod values;

#[cfg(test)]
mod tests;

pub use columns::{arrow_type, column_type};
pub(crate) use encoding::utf8;
pub use input::MAX_RECORD;
pub use layout::{Codec, Format, Layout, Records, columns_of_header};
pub(crate) use layout::{codec_of, projected, projected_schema};
pub(crate) use objects::ObjectLines;
pub use reader::{CsvReader, header_of, names_of};
