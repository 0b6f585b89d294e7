//! CSV over byte ranges: one pass finds separators and newlines, then one typed loop for each column
//! makes Arrow arrays. A record is a line and belongs to the range that holds its first byte; a
//! header line (and a byte order mark) belongs to no record. A line without a byte is no record
//! either, except in a file of one column.
//!
//! `scan` finds the ends (`exact` where a line is not always a record, or escapes are used), `encoding`
//! brings other encodings to UTF-8, `columns` and `values` decode, `input` brings blocks of text, `layout`
//! knows the header and the types, `json` makes fields of lines that are objects, `lines` knows line numbers; the reader here joins them.

pub(in crate::source) mod block;
pub(in crate::source) mod columns;
mod encoding;
mod exact;
mod input;
mod json;
mod layout;
pub(in crate::source) mod lines;
mod reader;
mod scan;
pub(in crate::source) mod values;

#[cfg(test)]
mod tests;

pub use columns::{arrow_type, column_type};
pub use input::MAX_RECORD;
pub(crate) use layout::projected;
pub use layout::{Codec, Format, Layout, Records, columns_of_header};
pub use reader::{CsvReader, header_of, names_of};
