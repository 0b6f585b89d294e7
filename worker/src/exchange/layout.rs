//! The layout of an exchange file (`.gx`).
//!
//! ```text
//! magic  block*  footer  tail
//! block   = segment*              one for each bucket, in bucket order
//! segment = column* ipc?          validity bitmap (if nullable), then cells or lengths and bytes;
//!                                 then an Arrow IPC stream of the columns that travel so
//! tail    = footer length (u32), XXH3-64 of the footer, magic
//! ```
//!
//! All numbers are little-endian. A cell is the distance from the block's minimum of its column in
//! 0, 1, 2, 4 or 8 bytes, or the value itself in 16; the cells of texts are their lengths. Everything needed to read a segment is the
//! block's column layout and the segment's row count, so segments carry no headers. Lengths of
//! texts give the end of their bytes.

use std::io::Cursor;

use arrow::{
    datatypes::SchemaRef,
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use gapless_common::{attempt::RecordHash, range::UnitRange};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

#[cfg(target_endian = "big")]
compile_error!("exchange files are written in native order, which must be little-endian");

/// Name and version of the format.
pub(super) const MAGIC: [u8; 8] = *b"GAPLGX01";
/// Footer length, footer hash, magic.
pub(super) const TAIL: usize = 4 + 8 + 8;

/// Bytes of one cell in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Width {
    /// All values are the minimum.
    #[default]
    W0 = 0,
    W1 = 1,
    W2 = 2,
    W4 = 4,
    W8 = 8,
    W16 = 16,
}

impl Width {
    /// The least width that holds distances up to `greatest`.
    pub(super) fn for_distance(greatest: u128) -> Width {
        match greatest {
            0 => Width::W0,
            1..=0xff => Width::W1,
            0x100..=0xffff => Width::W2,
            0x1_0000..=0xffff_ffff => Width::W4,
            0x1_0000_0000..=0xffff_ffff_ffff_ffff => Width::W8,
            _ => Width::W16,
        }
    }

    fn from_byte(byte: u8) -> Option<Width> {
        [Width::W0, Width::W1, Width::W2, Width::W4, Width::W8, Width::W16]
            .into_iter()
            .find(|&width| width as u8 == byte)
    }
}

/// How one column of a block is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ColumnLayout {
    pub(super) minimum: i128,
    pub(super) width: Width,
    /// Whether each segment has a validity bitmap.
    pub(super) nullable: bool,
}

/// The rows of one bucket in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) rows: u32,
    pub(super) bytes: u32,
    /// Zero where there are no rows, so that empty segments add nothing.
    pub(super) hash: u128,
}

impl Segment {
    pub(super) const EMPTY: Segment = Segment {
        rows: 0,
        bytes: 0,
        hash: 0,
    };
}

/// What a segment's bytes mean; part of their hash.
#[derive(Clone, Copy)]
pub(super) struct SegmentKey {
    pub(super) bucket: u32,
    pub(super) rows: u32,
    /// [`columns_hash`] of its block.
    pub(super) columns: u64,
}

/// XXH3-64 of a block's column layouts.
pub(super) fn columns_hash(columns: &[ColumnLayout]) -> u64 {
    let mut bytes = Vec::new();
    for column in columns {
        put_layout(column, &mut bytes);
    }
    xxh3_64(&bytes)
}

/// The hash of one segment: XXH3-128 of its bytes under a seed of bucket, rows and column layouts,
/// so that bytes read as something else than what was written give another hash.
pub(super) fn segment_hash(key: SegmentKey, stored: &[u8]) -> u128 {
    let mut meaning = [0; 16];
    meaning[..4].copy_from_slice(&key.bucket.to_le_bytes());
    meaning[4..8].copy_from_slice(&key.rows.to_le_bytes());
    meaning[8..].copy_from_slice(&key.columns.to_le_bytes());
    xxh3_128_with_seed(stored, xxh3_64(&meaning))
}

/// Rows that were split together: one segment for each bucket, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the first segment begins in the file.
    pub(super) offset: u64,
    pub(super) columns: Vec<ColumnLayout>,
    pub(super) segments: Vec<Segment>,
}

/// The index of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Footer {
    pub(super) schema: SchemaRef,
    pub(super) buckets: u32,
    pub(super) blocks: Vec<Block>,
}

/// Rows and fingerprint of a stretch of buckets, as an index tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scattered {
    pub rows: u64,
    pub records: RecordHash,
}

impl std::ops::AddAssign for Scattered {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.records += other.records;
    }
}

impl Footer {
    pub(super) fn scattered(&self, buckets: UnitRange) -> Scattered {
        let mut sum = Scattered::default();
        for block in &self.blocks {
            for segment in &block.segments[buckets.low as usize..buckets.high as usize] {
                sum.rows += u64::from(segment.rows);
                sum.records.add(segment.hash);
            }
        }
        sum
    }

    /// Rows of the whole file.
    pub(super) fn rows(&self) -> u64 {
        self.blocks
            .iter()
            .flat_map(|block| &block.segments)
            .map(|segment| u64::from(segment.rows))
            .sum()
    }

    /// Footer and tail as they stand at the end of a file, and the footer's hash.
    pub(super) fn encode(&self) -> Result<(Vec<u8>, u64), ArrowError> {
        let mut out = Vec::new();
        let mut schema = StreamWriter::try_new(Vec::new(), &self.schema)?;
        schema.finish()?;
        let schema = schema.into_inner()?;
        out.extend_from_slice(&(schema.len() as u32).to_le_bytes());
        out.extend_from_slice(&schema);
        out.extend_from_slice(&self.buckets.to_le_bytes());
        out.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        for block in &self.blocks {
            out.extend_from_slice(&block.offset.to_le_bytes());
            for column in &block.columns {
                put_layout(column, &mut out);
            }
            for segment in &block.segments {
                out.extend_from_slice(&segment.rows.to_le_bytes());
                out.extend_from_slice(&segment.bytes.to_le_bytes());
                out.extend_from_slice(&segment.hash.to_le_bytes());
            }
        }
        let hash = xxh3_64(&out);
        out.extend_from_slice(&(out.len() as u32).to_le_bytes());
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        Ok((out, hash))
    }

    /// Reads a footer (without its tail). The words say what is wrong with it.
    pub(super) fn decode(footer: &[u8]) -> Result<Footer, String> {
        let mut rest = Bytes(footer);
        let schema_length = rest.u32()? as usize;
        let schema = StreamReader::try_new(Cursor::new(rest.take(schema_length)?), None)
            .map_err(|error| format!("its schema cannot be read: {error}"))?
            .schema();
        let buckets = rest.u32()?;
        let blocks = rest.u32()?;
        let blocks = (0..blocks)
            .map(|_| {
                let offset = rest.u64()?;
                let columns = schema
                    .fields()
                    .iter()
                    .map(|_| rest.layout())
                    .collect::<Result<_, _>>()?;
                let segments = (0..buckets).map(|_| rest.segment()).collect::<Result<_, _>>()?;
                Ok(Block {
                    offset,
                    columns,
                    segments,
                })
            })
            .collect::<Result<_, String>>()?;
        if !rest.0.is_empty() {
            return Err(format!("its index has {} bytes too many", rest.0.len()));
        }
        Ok(Footer {
            schema,
            buckets,
            blocks,
        })
    }

    /// About what a decoded footer takes in memory.
    pub(super) fn memory(&self) -> usize {
        self.blocks.len() * self.buckets as usize * size_of::<Segment>() + 1024
    }
}

/// The tail's footer length and hash. The words say what is wrong with it.
pub(super) fn decode_tail(tail: &[u8]) -> Result<(usize, u64), String> {
    let mut rest = Bytes(tail);
    let (length, hash) = (rest.u32()? as usize, rest.u64()?);
    match rest.take(MAGIC.len())? {
        magic if magic == MAGIC => Ok((length, hash)),
        _ => Err("it does not end as an exchange file of this version does".into()),
    }
}

fn put_layout(column: &ColumnLayout, out: &mut Vec<u8>) {
    out.extend_from_slice(&column.minimum.to_le_bytes());
    out.push(column.width as u8);
    out.push(u8::from(column.nullable));
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("its index is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many as asked"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn layout(&mut self) -> Result<ColumnLayout, String> {
        let minimum = i128::from_le_bytes(self.array()?);
        let [width, nullable] = self.array()?;
        let width = Width::from_byte(width).ok_or_else(|| format!("cells of {width} bytes are unknown"))?;
        Ok(ColumnLayout {
            minimum,
            width,
            nullable: nullable != 0,
        })
    }

    fn segment(&mut self) -> Result<Segment, String> {
        Ok(Segment {
            rows: self.u32()?,
            bytes: self.u32()?,
            hash: u128::from_le_bytes(self.array()?),
        })
    }
}
