//! How much text files hold, about, without unpacking them: what their ends and beginnings say of it.

use std::path::Path;

use gapless_common::{error::TaskError, job::Encoding, plan::PinnedFile};
use zstd::zstd_safe::get_frame_content_size;

use super::{
    csv::Codec,
    pins::{io_error, open_pinned},
};
use crate::storage::StoredFile;

/// Text compresses to about a quarter, where nothing tells how far it did.
const COMPRESSED_TO_TEXT: u64 = 4;

/// Packed files that are asked how much they hold; the others are taken to be like them. Each costs a request in an
/// object store.
const ASKED: usize = 64;

/// The last field of a gzip file: the size of what its last member holds, but for multiples of 4 GiB.
const GZIP_SIZE: u64 = 4;

/// Larger ones may hold more than 4 GiB, so their last field tells nothing.
const GZIP_SURE: u64 = 512 << 20;

/// The longest header of a zstd frame.
const ZSTD_HEADER: usize = 18;

/// Bytes of UTF-8 text in all of the files.
///
/// Errors: as opening.
pub(crate) fn text_size(
    base_dir: &Path,
    files: &[PinnedFile],
    encoding: Encoding,
    codec: &dyn Fn(&str) -> Result<Codec, TaskError>,
) -> Result<u64, TaskError> {
    let (mut plain, mut packed) = (0u64, Vec::new());
    for file in files {
        match codec(&file.path)? {
            Codec::Plain => plain = plain.saturating_add(file.size),
            codec => packed.push((file, codec)),
        }
    }
    let asked = packed.len().min(ASKED);
    let (mut size, mut text) = (0u64, 0u64);
    for at in 0..asked {
        let (file, codec) = packed[at * packed.len() / asked];
        let opened = open_pinned(base_dir, file)?;
        let told = told(&opened, file.size, codec).map_err(|error| io_error(&file.path, "reading", &error))?;
        size = size.saturating_add(file.size);
        text = text.saturating_add(told.unwrap_or(file.size.saturating_mul(COMPRESSED_TO_TEXT)));
    }
    let all: u64 = packed.iter().map(|(file, _)| file.size).sum();
    let unpacked = u128::from(all) * u128::from(text) / u128::from(size.max(1));
    let text = plain.saturating_add(u64::try_from(unpacked).unwrap_or(u64::MAX));
    Ok(match encoding {
        Encoding::Utf16 | Encoding::Utf16Le | Encoding::Utf16Be => text / 2,
        Encoding::Utf8 | Encoding::Latin1 | Encoding::Windows1252 => text,
    })
}

/// What a packed file says of its content. One of several parts tells of one of them: less than it could pack is not
/// believed.
fn told(file: &StoredFile, size: u64, codec: Codec) -> std::io::Result<Option<u64>> {
    let told = match codec {
        Codec::Plain => Some(size),
        Codec::Gzip if size <= GZIP_SIZE || size > GZIP_SURE => None,
        Codec::Gzip => {
            let mut last = [0; GZIP_SIZE as usize];
            file.read_exact_at(&mut last, size - GZIP_SIZE)?;
            Some(u64::from(u32::from_le_bytes(last)))
        }
        Codec::Zstd => {
            let mut first = vec![0; ZSTD_HEADER.min(size as usize)];
            file.read_exact_at(&mut first, 0)?;
            get_frame_content_size(&first).ok().flatten()
        }
    };
    // Text that does not become smaller has a header and a sum beside it.
    Ok(told.filter(|told| told.saturating_add(told / 64 + 64) >= size))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use gapless_common::job::Compression;

    use crate::source::{csv::codec_of, pins::pin};

    fn gzip(text: &str) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn size_of(files: &[(&str, Vec<u8>)], encoding: Encoding) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let pinned: Vec<PinnedFile> = files
            .iter()
            .map(|(name, content)| {
                std::fs::write(dir.path().join(name), content).unwrap();
                pin(dir.path(), name).unwrap().1
            })
            .collect();
        text_size(dir.path(), &pinned, encoding, &|path| codec_of(Compression::Auto, path)).unwrap()
    }

    #[test]
    fn what_packed_files_say_of_their_text_is_believed() {
        let text = "1,2.50,north\n".repeat(10_000);
        let all = text.len() as u64;
        let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
        let plain = ("a.csv", text.clone().into_bytes());
        assert_eq!(size_of(std::slice::from_ref(&plain), Encoding::Utf8), all);
        assert_eq!(size_of(std::slice::from_ref(&plain), Encoding::Utf16Le), all / 2);
        assert_eq!(size_of(&[plain, ("b.csv.gz", gzip(&text))], Encoding::Utf8), 2 * all);
        // A stream does not say it.
        let streamed = 4 * zstd.len() as u64;
        assert_eq!(size_of(&[("c.csv.zst", zstd)], Encoding::Utf8), streamed);
        let mut whole = zstd::bulk::Compressor::new(3).unwrap();
        let whole = whole.compress(text.as_bytes()).unwrap();
        assert_eq!(size_of(&[("d.csv.zst", whole)], Encoding::Utf8), all);
        // Of two members the last, which is small, tells nothing.
        let two = [gzip(&text), gzip("1,2,3\n")].concat();
        let guessed = 4 * two.len() as u64;
        assert_eq!(size_of(&[("e.csv.gz", two)], Encoding::Utf8), guessed);
        assert_eq!(size_of(&[("f.csv.gz", Vec::new())], Encoding::Utf8), 0);
        // More files than are asked are taken to be like those.
        let many: Vec<String> = (0..100).map(|number| format!("{number}.csv.gz")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), gzip(&text))).collect();
        assert_eq!(size_of(&many, Encoding::Utf8), 100 * all);
    }
}
