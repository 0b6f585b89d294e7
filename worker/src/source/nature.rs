//! What a file is by its first bytes, where it is read as plain text and is none: packed, columnar, an archive. Its
//! records would be told as bad ones, which says nothing of what to do.

use gapless_common::error::TaskError;

use super::pins::config;

/// So many bytes of a file tell what it is.
pub(super) const TOLD_BY: usize = 64;

/// Errors: `Config` for a file that begins as no text does, with what it is and what to do.
pub(super) fn check(path: &str, first: &[u8]) -> Result<(), TaskError> {
    match of(first) {
        None => Ok(()),
        Some((name, remedy)) => Err(config(format!(
            "{path}: this is {name}, and is read as plain text; {remedy}"
        ))),
    }
}

/// What begins so, and what to do with it. A text may begin with the letters of a format, so that these alone tell nothing.
fn of(first: &[u8]) -> Option<(&'static str, &'static str)> {
    const GZIP: &str = "name it `….gz`, or declare `compression: gzip`";
    const ZSTD: &str = "name it `….zst`, or declare `compression: zstd`";
    const PARQUET: &str = "read it with `source: {parquet: …}`";
    const AVRO: &str = "read it with `source: {avro: …}`";
    const UNPACK: &str = "unpack it, or pack it as gzip or zstd instead";
    const ARCHIVE: &str = "unpack it, or save the spreadsheet as csv";
    Some(match first {
        [0x1f, 0x8b, 0x08, ..] => ("gzip data", GZIP),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd data", ZSTD),
        // What follows is a page, or the footer of a file without rows: both begin with a first field of 32 bits.
        [b'P', b'A', b'R', b'1', 0x15, ..] => ("a Parquet file", PARQUET),
        // Its header names the schema or the codec.
        [b'O', b'b', b'j', 1, rest @ ..] if rest.windows(5).any(|part| part == b"avro.") => ("an Avro file", AVRO),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => ("bzip2 data", UNPACK),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz data", UNPACK),
        [0x04, 0x22, 0x4d, 0x18, ..] => ("lz4 data", UNPACK),
        [b'P', b'K', 3, 4, ..] => ("a zip archive or a spreadsheet (.xlsx)", ARCHIVE),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_alone_are_text() {
        for text in [
            &b""[..],
            b"P",
            b"PAR1,PAR2\n1,2\n",
            b"PK,v\n",
            b"BZh9,v\n1,2\n",
            b"Obj\x01id\n1\x012\n",
            b"\x1f\x8b",
            b"\xef\xbb\xbfid\n",
        ] {
            assert!(check("in.csv", text).is_ok(), "{}", text.escape_ascii());
        }
        for (bytes, name) in [
            (&b"\x1f\x8b\x08\x00\x00"[..], "gzip data"),
            (b"\x28\xb5\x2f\xfd\x00", "zstd data"),
            (b"PAR1\x15\x04", "a Parquet file"),
            (b"Obj\x01\x04\x16avro.schema", "an Avro file"),
            (b"BZh91AY&SY", "bzip2 data"),
            (b"PK\x03\x04\x14\x00", "a zip archive"),
        ] {
            let told = check("in.csv", bytes).expect_err("no text").message;
            assert!(told.starts_with(&format!("in.csv: this is {name}")), "{told}");
        }
    }
}
