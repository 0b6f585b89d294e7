//! How blocks are compressed.

use std::io::{Read, Write};

use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Compression,
};

use super::MAX_BLOCK;

/// Two percent larger than level 3, in a fraction of its time.
const ZSTD_LEVEL: i32 = 1;

/// Most blocks unpack to less.
const FIRST_ROOM: usize = 64 * 1024;

/// Bytes behind a block of snappy: the CRC-32 of what it unpacks to, highest byte first.
const CHECKSUM: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl Codec {
    const ALL: [Codec; 4] = [Codec::Null, Codec::Deflate, Codec::Snappy, Codec::Zstandard];

    /// As it stands in a header.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Null => "null",
            Codec::Deflate => "deflate",
            Codec::Snappy => "snappy",
            Codec::Zstandard => "zstandard",
        }
    }

    pub fn named(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Those that are read, in words.
    pub fn known() -> String {
        Codec::ALL.map(Codec::name).join(", ")
    }

    /// Errors: `Config` for what Avro has no codec for.
    pub fn of(compression: Compression) -> Result<Codec, TaskError> {
        Ok(match compression {
            Compression::Auto | Compression::Deflate => Codec::Deflate,
            Compression::None => Codec::Null,
            Compression::Snappy => Codec::Snappy,
            Compression::Zstd => Codec::Zstandard,
            Compression::Gzip | Compression::Lz4 => {
                return Err(TaskError::new(
                    ErrorClass::Config,
                    format!("blocks of Avro files are compressed by deflate, snappy or zstd, not {compression:?}"),
                ));
            }
        })
    }

    /// The block as it is stored.
    pub fn pack(self, block: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Codec::Null => Ok(block.to_vec()),
            Codec::Deflate => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(block)?;
                encoder.finish()
            }
            Codec::Snappy => {
                let mut packed = snap::raw::Encoder::new()
                    .compress_vec(block)
                    .map_err(std::io::Error::other)?;
                packed.extend_from_slice(&checksum(block).to_be_bytes());
                Ok(packed)
            }
            Codec::Zstandard => zstd::bulk::compress(block, ZSTD_LEVEL),
        }
    }

    /// What a stored block unpacks to, in `out`. Errors say what is wrong with it.
    pub fn unpack(self, stored: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        match self {
            Codec::Null => {
                out.reserve_exact(stored.len());
                out.extend_from_slice(stored);
            }
            Codec::Deflate => read_bounded(flate2::read::DeflateDecoder::new(stored), out)?,
            Codec::Zstandard => {
                let decoder = zstd::Decoder::new(stored).map_err(|error| error.to_string())?;
                read_bounded(decoder, out)?;
            }
            Codec::Snappy => {
                let (packed, sum) = stored
                    .split_last_chunk::<CHECKSUM>()
                    .ok_or("it is too short for its checksum")?;
                let len = snap::raw::decompress_len(packed).map_err(|error| error.to_string())?;
                if len > MAX_BLOCK {
                    return Err(too_large());
                }
                out.reserve_exact(len);
                out.resize(len, 0);
                snap::raw::Decoder::new()
                    .decompress(packed, out)
                    .map_err(|error| error.to_string())?;
                if checksum(out).to_be_bytes() != *sum {
                    return Err("its checksum does not agree".into());
                }
            }
        }
        Ok(())
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn too_large() -> String {
    format!("it unpacks to more than {} MiB", MAX_BLOCK >> 20)
}

/// What a few bytes unpack to may be without bounds. Room doubles, but not beyond the largest block.
fn read_bounded(mut reader: impl Read, out: &mut Vec<u8>) -> Result<(), String> {
    loop {
        let more = out.len().max(FIRST_ROOM).min(MAX_BLOCK + 1 - out.len());
        out.reserve_exact(more);
        let room = out.capacity() - out.len();
        let read = reader.by_ref().take(room as u64).read_to_end(out);
        let read = read.map_err(|error| error.to_string())?;
        if out.len() > MAX_BLOCK {
            return Err(too_large());
        }
        if read < room {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_codec_gives_back_what_it_took() {
        let block: Vec<u8> = (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut out = vec![1; 3];
        for codec in Codec::ALL {
            for block in [&block[..], b""] {
                let packed = codec.pack(block).unwrap();
                codec.unpack(&packed, &mut out).unwrap();
                assert!(out == block, "{}", codec.name());
            }
            assert_eq!(Codec::named(codec.name()), Some(codec));
        }
        let mut packed = Codec::Snappy.pack(&block).unwrap();
        *packed.last_mut().unwrap() ^= 1;
        let error = Codec::Snappy.unpack(&packed, &mut out).unwrap_err();
        assert_eq!(error, "its checksum does not agree");
        assert!(Codec::Snappy.unpack(b"abc", &mut out).is_err());
        assert!(Codec::Deflate.unpack(b"\xff\xff", &mut out).is_err());
    }

    #[test]
    fn a_bomb_is_stopped() {
        let zeros = vec![0; MAX_BLOCK + 1];
        for codec in [Codec::Deflate, Codec::Snappy, Codec::Zstandard] {
            for mut out in [Vec::new(), vec![1; 100_000]] {
                let bomb = codec.pack(&zeros).unwrap();
                let error = codec.unpack(&bomb, &mut out).unwrap_err();
                assert_eq!(error, "it unpacks to more than 64 MiB", "{}", codec.name());
                assert!(
                    out.capacity() <= MAX_BLOCK + FIRST_ROOM,
                    "{} took {}",
                    codec.name(),
                    out.capacity()
                );
                let most = codec.pack(&zeros[..MAX_BLOCK]).unwrap();
                codec.unpack(&most, &mut out).unwrap();
                assert!(out == zeros[..MAX_BLOCK], "{}", codec.name());
                assert!(
                    out.capacity() <= MAX_BLOCK + FIRST_ROOM,
                    "{} took {}",
                    codec.name(),
                    out.capacity()
                );
            }
        }
        // One that says it is large and is not.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0];
        assert!(Codec::Snappy.unpack(&lie, &mut Vec::new()).is_err());
    }
}
