//! Record layouts: where the fields of a line stand, how a line tells its type, which lines make a
//! record, and what the first and the last line of a file declare. One model for reading and writing.

use serde::{Deserialize, Serialize};

use super::{ColumnType, Compression, Encoding, FileSink};

/// Records as lines of fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordLayout {
    /// What stands between fields; `None`: each field has a place and a width.
    pub delimiter: Option<u8>,
    /// The types of lines, in the order in which they stand in a record of several lines.
    pub lines: Vec<LineType>,
    /// Whether a record is a group of lines: from one of the first type up to the next of it.
    pub multiline: bool,
    /// The column with the name of the line's type; where lines of several types are records of their own.
    pub type_column: Option<String>,
    pub header: Option<LineType>,
    pub trailer: Option<LineType>,
    /// Lines that begin with this text are no records.
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Packing::is_plain")]
    pub packing: Packing,
}

/// How the text of a file becomes its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    /// `auto`: by the name of a file that is read, none of one that is written.
    pub compression: Compression,
    pub encoding: Encoding,
}

impl Default for Packing {
    fn default() -> Self {
        Packing {
            compression: Compression::Auto,
            encoding: Encoding::Utf8,
        }
    }
}

impl Packing {
    pub fn is_plain(&self) -> bool {
        *self == Packing::default()
    }
}

/// One type of line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineType {
    pub name: String,
    /// The text that tells the type; `None` where it is the only one.
    pub tag: Option<String>,
    /// Place of the tag, from 0; in a delimited line the tag is the first field.
    pub tag_at: u32,
    pub fields: Vec<LayoutField>,
    /// Whether a record may lack it.
    pub optional: bool,
    /// Whether a record may have several, one behind the other.
    pub repeats: bool,
    /// A column that says whether the record has the line.
    pub present: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayoutField {
    /// The column; `None` for a field that is only filled.
    pub name: Option<String>,
    /// Place of the first character, from 0. Only without a delimiter, as `width`.
    pub at: u32,
    pub width: u32,
    pub ty: ColumnType,
    pub align: Align,
    pub pad: u8,
    /// Whether the point of a decimal is not written.
    pub implied_point: bool,
    /// The text that always stands there.
    pub value: Option<String>,
    /// What a field of a header or trailer declares.
    pub total: Option<Total>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    Left,
    Right,
}

/// What a header or trailer declares of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Total {
    /// How many records there are.
    Records,
    /// How many lines there are between header and trailer.
    Lines,
    /// The sum of a column, or of a repeated line's field as `LINE.FIELD`.
    Sum(String),
}

/// Files of records as a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordsSource {
    pub paths: Vec<String>,
    pub layout: RecordLayout,
    /// As that of a [`super::CsvSource`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<String>,
}

/// Files of records as a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordsSink {
    pub file: FileSink,
    pub layout: RecordLayout,
    /// Whether lines end with a carriage return too.
    pub crlf: bool,
}

impl ColumnType {
    pub fn is_number(self) -> bool {
        !matches!(
            self,
            ColumnType::String | ColumnType::Bool | ColumnType::Date | ColumnType::Timestamp
        )
    }

    /// Whether sums of its values are exact.
    pub fn is_exact_number(self) -> bool {
        self.is_number() && !matches!(self, ColumnType::Float32 | ColumnType::Float64)
    }
}

impl LineType {
    /// Characters of a line without a delimiter.
    pub fn width(&self) -> u32 {
        let tag = self.tag.as_ref().map_or(0, |tag| self.tag_at + chars(tag));
        let fields = self.fields.iter().map(|field| field.at + field.width);
        fields.max().unwrap_or(0).max(tag)
    }

    pub fn field(&self, name: &str) -> Option<&LayoutField> {
        self.fields.iter().find(|field| field.name.as_deref() == Some(name))
    }
}

pub(super) fn chars(text: &str) -> u32 {
    text.chars().count() as u32
}

impl RecordLayout {
    /// Header and trailer, where they are.
    pub fn edges(&self) -> impl Iterator<Item = &LineType> {
        self.header.iter().chain(&self.trailer)
    }

    /// Whether the files declare totals, which must agree before anything is published.
    pub fn has_totals(&self) -> bool {
        self.edges()
            .any(|line| line.fields.iter().any(|field| field.total.is_some()))
    }

    /// The fields of body lines whose values a sum is of, as (line, field).
    pub fn summed<'a>(&'a self, of: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        let fields = move |(line_no, line): (usize, &'a LineType)| {
            let wanted = match line.repeats && self.multiline {
                true => of
                    .strip_prefix(line.name.as_str())
                    .and_then(|rest| rest.strip_prefix('.')),
                false => Some(of),
            };
            line.fields
                .iter()
                .enumerate()
                .filter(move |(_, field)| wanted.is_some() && field.name.as_deref() == wanted)
                .map(move |(field_no, _)| (line_no, field_no))
        };
        self.lines.iter().enumerate().flat_map(fields)
    }
}
