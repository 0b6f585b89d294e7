//! Avro object container files: their header, their blocks and codecs, and how records lie in them.
//!
//! The frame is our own, so that positions are known to the byte, codecs are those that the engine is built with, and
//! the marker between blocks follows from the content. What records mean in Arrow is arrow-avro's.

mod blocks;
mod codec;
mod header;
mod shape;

pub(crate) use blocks::{Block, Blocks};
pub(crate) use codec::Codec;
pub(crate) use header::{Header, MARKER, marker_of, write_block};
pub(crate) use shape::Shape;

/// A block larger than this, as it is stored or unpacked, is refused: each slot holds one in memory as a whole, both ways,
/// outside of what its queries may take. Writers end a block after some ten kilobytes to some megabytes.
pub(crate) const MAX_BLOCK: usize = 64 << 20;

/// Room for a block is kept for the next one up to this size; what a rare larger one took is given back.
pub(crate) const KEPT_ROOM: usize = 4 << 20;

/// An integer as Avro writes it: zigzag, seven bits a byte, the lowest first.
pub(crate) fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads an integer at `at` and moves behind it; `None` where the bytes end in it or it has more than 64 bits.
pub(crate) fn take_long(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..).step_by(7) {
        let byte = *bytes.get(*at)?;
        // The tenth byte has the one bit that is left.
        if shift == 63 && byte > 1 {
            return None;
        }
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_back_and_too_long_ones_do_not() {
        for value in [0, -1, 1, 63, 64, -65, i64::from(i32::MAX), i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put_long(value, &mut bytes);
            let mut at = 0;
            assert_eq!(take_long(&bytes, &mut at), Some(value));
            assert_eq!(at, bytes.len());
            let mut at = 0;
            assert_eq!(take_long(&bytes[..bytes.len() - 1], &mut at), None);
        }
        assert_eq!(take_long(&[0xff; 11], &mut 0), None);
        assert_eq!(
            take_long(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0),
            None
        );
    }
}
