//! Other encodings to UTF-8, as a reader around a reader. What is no character of its encoding becomes
//! a byte that is never part of UTF-8, so that the record which holds it is rejected like any other.

use std::{
    fmt,
    io::{self, Read},
};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252, mem};
use gapless_common::job::Encoding;

/// Bytes taken from the file at once.
const RAW: usize = 64 * 1024;

/// A byte that no UTF-8 text holds.
const NO_CHARACTER: u8 = 0xFF;

/// A file in `utf-16` does not tell its byte order.
#[derive(Debug)]
pub(super) struct NoByteOrderMark;

impl std::error::Error for NoByteOrderMark {}

impl fmt::Display for NoByteOrderMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no byte order mark at the beginning, which `encoding: utf-16` needs; declare utf-16le or utf-16be if the file \
             is in one of these",
        )
    }
}

/// A file begins with the byte order mark of an encoding that is not the declared one.
#[derive(Debug)]
pub(in crate::source) struct OtherByteOrderMark {
    found: Encoding,
    declared: Encoding,
}

impl std::error::Error for OtherByteOrderMark {}

impl fmt::Display for OtherByteOrderMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.found {
            Encoding::Utf16Be => "FE FF",
            _ => "FF FE",
        };
        let (found, declared) = (self.found.name(), self.declared.name());
        write!(
            f,
            "it begins with the byte order mark of {found} ({mark}), but is read as {declared}; declare `encoding: {found}`"
        )
    }
}

/// Checks how a file begins. In the encodings with one byte for a character a mark may be two letters,
/// but not before half an ASCII character.
pub(in crate::source) fn check_mark(declared: Encoding, bytes: &[u8]) -> Result<(), OtherByteOrderMark> {
    let found = match bytes {
        [0xFF, 0xFE, ..] => Encoding::Utf16Le,
        [0xFE, 0xFF, ..] => Encoding::Utf16Be,
        _ => return Ok(()),
    };
    match declared {
        Encoding::Utf8 | Encoding::Utf16Le | Encoding::Utf16Be if declared != found => {
            Err(OtherByteOrderMark { found, declared })
        }
        Encoding::Latin1 | Encoding::Windows1252 if matches!(bytes, [0xFF, _, _, 0, ..] | [0xFE, _, 0, ..]) => {
            Err(OtherByteOrderMark { found, declared })
        }
        _ => Ok(()),
    }
}

/// `input` as UTF-8. A byte order mark is kept as one.
///
/// Reading fails with [`NoByteOrderMark`] as its cause where `utf-16` lacks it, and with
/// [`OtherByteOrderMark`] where the file has that of another encoding.
pub(crate) fn utf8(encoding: Encoding, input: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
    let way = match encoding {
        Encoding::Utf8 => return input,
        Encoding::Latin1 => Way::Latin1,
        Encoding::Windows1252 => Way::Decoder(WINDOWS_1252.new_decoder_without_bom_handling()),
        Encoding::Utf16 => Way::Unknown,
        Encoding::Utf16Le => Way::Decoder(UTF_16LE.new_decoder_without_bom_handling()),
        Encoding::Utf16Be => Way::Decoder(UTF_16BE.new_decoder_without_bom_handling()),
    };
    Box::new(Transcoder {
        input,
        encoding,
        begun: false,
        way,
        raw: vec![0; RAW],
        text: Vec::new(),
        given: 0,
        ended: false,
    })
}

enum Way {
    /// Each byte is the character with its number; the library's windows-1252 differs from 0x80 to 0x9F.
    Latin1,
    Decoder(Decoder),
    /// The first two bytes will tell.
    Unknown,
}

struct Transcoder {
    input: Box<dyn Read + Send>,
    encoding: Encoding,
    begun: bool,
    way: Way,
    raw: Vec<u8>,
    /// What was decoded; given out up to `given`.
    text: Vec<u8>,
    given: usize,
    ended: bool,
}

impl Transcoder {
    /// Decodes the next piece of the file.
    fn go_on(&mut self) -> io::Result<()> {
        let got = super::layout::read_full(&mut self.input, &mut self.raw)?;
        self.ended = got < self.raw.len();
        let raw = &self.raw[..got];
        if !self.begun {
            check_mark(self.encoding, raw).map_err(|other| io::Error::new(io::ErrorKind::InvalidData, other))?;
            self.begun = true;
        }
        if matches!(self.way, Way::Unknown) {
            self.way = Way::Decoder(match raw {
                [0xFF, 0xFE, ..] => UTF_16LE.new_decoder_without_bom_handling(),
                [0xFE, 0xFF, ..] | [] => UTF_16BE.new_decoder_without_bom_handling(),
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, NoByteOrderMark)),
            });
        }
        self.given = 0;
        match &mut self.way {
            Way::Latin1 => {
                self.text.resize(2 * raw.len(), 0);
                let written = mem::convert_latin1_to_utf8(raw, &mut self.text);
                self.text.truncate(written);
            }
            Way::Decoder(decoder) => decode(decoder, raw, self.ended, &mut self.text),
            Way::Unknown => {}
        }
        Ok(())
    }
}

fn decode(decoder: &mut Decoder, raw: &[u8], last: bool, text: &mut Vec<u8>) {
    // Three bytes for two, or for one; a little more for what the decoder kept from before.
    text.resize(3 * raw.len() + 16, 0);
    let (mut from, mut to) = (0, 0);
    loop {
        let (result, read, written) = decoder.decode_to_utf8_without_replacement(&raw[from..], &mut text[to..], last);
        from += read;
        to += written;
        match result {
            DecoderResult::InputEmpty => break,
            DecoderResult::OutputFull => text.resize(text.len() + 64, 0),
            DecoderResult::Malformed(..) => {
                if to == text.len() {
                    text.push(0);
                }
                text[to] = NO_CHARACTER;
                to += 1;
            }
        }
    }
    text.truncate(to);
}

impl Read for Transcoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            if self.ended {
                return Ok(0);
            }
            self.go_on()?;
        }
        let left = &self.text[self.given..];
        let len = left.len().min(buffer.len());
        buffer[..len].copy_from_slice(&left[..len]);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(encoding: Encoding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        utf8(encoding, Box::new(io::Cursor::new(bytes.to_vec()))).read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn each_encoding_becomes_utf8() {
        let check = |encoding, bytes: &[u8], expected: &[u8]| {
            assert_eq!(text(encoding, bytes).unwrap(), expected, "{encoding:?}");
        };
        check(Encoding::Latin1, b"caf\xe9\x80", "café\u{80}".as_bytes());
        check(Encoding::Windows1252, b"caf\xe9\x80", "café€".as_bytes());
        check(Encoding::Utf16Le, b"a\0\xe9\0=\xd8\0\xde", "aé😀".as_bytes());
        check(Encoding::Utf16Be, b"\0a\0\xe9", "aé".as_bytes());
        check(Encoding::Utf16, b"\xff\xfea\0", "\u{feff}a".as_bytes());
        check(Encoding::Utf16, b"\xfe\xff\0a", "\u{feff}a".as_bytes());
        check(Encoding::Utf16, b"", b"");
        // Half a pair, half a character.
        check(Encoding::Utf16Le, b"=\xd8a\0b", b"\xffa\xff");
        let error = text(Encoding::Utf16, b"a\0").unwrap_err();
        assert!(error.get_ref().unwrap().is::<NoByteOrderMark>());
        // The mark of the other order.
        for (encoding, bytes) in [(Encoding::Utf16Le, b"\xfe\xff\0a"), (Encoding::Utf16Be, b"\xff\xfea\0")] {
            let error = text(encoding, bytes).unwrap_err();
            assert!(error.get_ref().unwrap().is::<OtherByteOrderMark>());
        }
    }

    #[test]
    fn pieces_add_up_to_the_whole() {
        // A sign of three bytes in UTF-8, and one that needs a pair, across the borders of pieces.
        let expected = "x€😀".repeat(RAW / 3 + 7);
        let bytes: Vec<u8> = expected.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(text(Encoding::Utf16Le, &bytes).unwrap(), expected.as_bytes());
        let latin = vec![0xE9; 3 * RAW + 1];
        assert_eq!(
            text(Encoding::Latin1, &latin).unwrap(),
            "é".repeat(latin.len()).as_bytes()
        );
    }
}
