//! Packed text whose members (gzip) or frames (zstd) follow one another, unpacked one by one, so that what stands
//! behind the last of them and is none is told with its place.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, BufRead, BufReader, Read},
};

/// Bytes of packed text taken at once.
const PACKED: usize = 128 * 1024;

/// Bytes behind the packed data that a message shows.
const SHOWN: usize = 16;

/// What follows the packed data of a file is no more of it.
#[derive(Debug)]
pub(in crate::source) struct Trailing {
    codec: &'static str,
    at: u64,
    begins: Vec<u8>,
}

impl std::error::Error for Trailing {}

impl fmt::Display for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (codec, at) = (self.codec, self.at);
        let begins = match self.begins.iter().all(|byte| *byte == 0) {
            true => "zeros".to_string(),
            false => format!("«{}»", self.begins.escape_ascii()),
        };
        write!(
            f,
            "its {codec} data ends at byte {at}, and what stands behind it is none ({begins}); cut the file off there \
             (`head -c {at}`), or copy or make it again"
        )
    }
}

/// A reader of packed bytes that counts them, and can look ahead.
struct Counted<R> {
    inner: BufReader<R>,
    at: u64,
    /// Bytes that were looked at and not taken yet.
    ahead: VecDeque<u8>,
}

impl<R: Read> Counted<R> {
    /// The next bytes, fewer than [`SHOWN`] only at the end.
    fn look(&mut self) -> io::Result<&[u8]> {
        while self.ahead.len() < SHOWN {
            let next = match self.inner.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                next => next?,
            };
            let count = next.len().min(SHOWN - self.ahead.len());
            if count == 0 {
                break;
            }
            self.ahead.extend(&next[..count]);
            self.inner.consume(count);
        }
        Ok(self.ahead.make_contiguous())
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(buffer)?;
        self.consume(got);
        Ok(got)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.ahead.is_empty() {
            true => self.inner.fill_buf(),
            false => Ok(self.ahead.make_contiguous()),
        }
    }

    fn consume(&mut self, count: usize) {
        match self.ahead.is_empty() {
            true => self.inner.consume(count),
            false => drop(self.ahead.drain(..count)),
        }
        self.at += count as u64;
    }
}

/// How one kind of packed data is read.
trait Member<R: Read>: Read + Sized {
    const NAME: &'static str;

    fn open(packed: Counted<R>) -> io::Result<Self>;

    /// What is left behind the member, which has ended.
    fn packed(self) -> Counted<R>;

    /// Whether a further member may begin so. One that is cut off before that can be told may.
    fn may_begin(bytes: &[u8]) -> bool;
}

type Gzip<R> = flate2::bufread::GzDecoder<Counted<R>>;

impl<R: Read> Member<R> for Gzip<R> {
    const NAME: &'static str = "gzip";

    fn open(packed: Counted<R>) -> io::Result<Self> {
        Ok(Self::new(packed))
    }

    fn packed(self) -> Counted<R> {
        self.into_inner()
    }

    fn may_begin(bytes: &[u8]) -> bool {
        begins(bytes, super::input::GZIP_MAGIC)
    }
}

type Zstd<R> = zstd::stream::read::Decoder<'static, Counted<R>>;

impl<R: Read> Member<R> for Zstd<R> {
    const NAME: &'static str = "zstd";

    fn open(packed: Counted<R>) -> io::Result<Self> {
        Ok(Self::with_buffer(packed)?.single_frame())
    }

    fn packed(self) -> Counted<R> {
        self.finish()
    }

    fn may_begin(bytes: &[u8]) -> bool {
        begins(bytes, super::input::ZSTD_MAGIC)
            || (bytes[0] & 0xf0 == 0x50 && begins(&bytes[1..], super::input::ZSTD_SKIPPABLE))
    }
}

fn begins(bytes: &[u8], magic: &[u8]) -> bool {
    let len = bytes.len().min(magic.len());
    bytes[..len] == magic[..len]
}

/// All members of a file, as one text.
struct Members<R: Read, M: Member<R>> {
    /// `None` at the end, and behind an error.
    member: Option<M>,
    packed: std::marker::PhantomData<R>,
}

impl<R: Read, M: Member<R>> Read for Members<R, M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let got = member.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            let mut packed = self.member.take().expect("it was read from").packed();
            let at = packed.at;
            let next = packed.look()?;
            if next.is_empty() {
                break;
            }
            if !M::may_begin(next) {
                let begins = next.to_vec();
                let codec = M::NAME;
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    Trailing { codec, at, begins },
                ));
            }
            self.member = Some(M::open(packed)?);
        }
        Ok(0)
    }
}

fn members<M: Member<Packed> + Send + 'static>(packed: Packed) -> io::Result<Box<dyn Read + Send>> {
    let inner = BufReader::with_capacity(PACKED, packed);
    let member = Some(M::open(Counted {
        inner,
        at: 0,
        ahead: VecDeque::new(),
    })?);
    let packed = std::marker::PhantomData;
    Ok(Box::new(Members::<Packed, M> { member, packed }))
}

type Packed = Box<dyn Read + Send>;

pub(super) fn gunzip(packed: Packed) -> io::Result<Box<dyn Read + Send>> {
    members::<Gzip<Packed>>(packed)
}

pub(super) fn unzstd(packed: Packed) -> io::Result<Box<dyn Read + Send>> {
    members::<Zstd<Packed>>(packed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text).expect("packed");
        packer.finish().expect("packed")
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(text, 1).expect("packed")
    }

    /// Gives a byte at a time, so that each look ahead sees one.
    struct Dribble(VecDeque<u8>);

    impl Read for Dribble {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (buffer.first_mut(), self.0.pop_front()) {
                (Some(place), Some(byte)) => {
                    *place = byte;
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
    }

    #[test]
    fn members_are_one_text_and_what_is_behind_them_is_told() {
        type Open = fn(Packed) -> io::Result<Box<dyn Read + Send>>;
        type Pack = fn(&[u8]) -> Vec<u8>;
        let codecs: [(Open, Pack, &str); 2] = [(gunzip, gzip, "gzip"), (unzstd, zstd, "zstd")];
        let texts: [&[u8]; 4] = [b"one\n", b"", &[b'x'; 300_000], b"two"];
        for (open, pack, name) in codecs {
            let all: Vec<u8> = texts.iter().flat_map(|text| pack(text)).collect();
            let size = all.len();
            let read = |bytes: &[u8]| {
                let mut ends = Vec::new();
                let whole: Packed = Box::new(io::Cursor::new(bytes.to_vec()));
                let dribble: Packed = Box::new(Dribble(bytes.iter().copied().collect()));
                for packed in [whole, dribble] {
                    let mut text = Vec::new();
                    let read = open(packed).expect("opened").read_to_end(&mut text);
                    ends.push(read.map(|_| text).map_err(|error| error.to_string()));
                }
                assert_eq!(ends[0].is_ok(), ends[1].is_ok(), "{name}");
                ends.swap_remove(0)
            };
            assert!(read(&all) == Ok(texts.concat()), "{name}");
            for garbage in [&b"A"[..], b"GARBAGE that is no packed data", &[0; 512]] {
                let error = read(&[&all, garbage].concat()).expect_err("it is none");
                assert!(
                    error.starts_with(&format!(
                        "its {name} data ends at byte {size}, and what stands behind it is none"
                    )),
                    "{error}"
                );
            }
        }
    }
}
