//! What stands between the fields of a line.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One byte, or a text of a few: `,`, tab, `||`, `§`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Delimiter {
    bytes: [u8; Delimiter::MAX_BYTES],
    len: u8,
}

impl Delimiter {
    /// Longer than any in use; short enough to be copied about like a number.
    pub const MAX_BYTES: usize = 8;

    pub const COMMA: Delimiter = Delimiter::of_byte(b',');
    pub const TAB: Delimiter = Delimiter::of_byte(b'\t');

    pub const fn of_byte(byte: u8) -> Delimiter {
        let mut bytes = [0; Self::MAX_BYTES];
        bytes[0] = byte;
        Delimiter { bytes, len: 1 }
    }

    /// `None` for a text that is empty, too long, or holds the end of a line or NUL.
    pub fn of_text(text: &str) -> Option<Delimiter> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        if !fits || text.contains(['\n', '\r', '\0']) {
            return None;
        }
        let mut bytes = [0; Self::MAX_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Delimiter {
            bytes,
            len: text.len() as u8,
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub fn first(&self) -> u8 {
        self.bytes[0]
    }

    /// Where it is one byte: that.
    pub fn byte(&self) -> Option<u8> {
        (self.len == 1).then_some(self.bytes[0])
    }

    /// Its bytes but one.
    pub fn further(&self) -> usize {
        usize::from(self.len) - 1
    }

    /// Whether it is found within `text`, or across the end of `text`, when it is written behind it.
    pub fn cuts(&self, text: &[u8]) -> bool {
        let sign = self.as_bytes();
        let across = |kept: usize| text.ends_with(&sign[..kept]) && sign[kept..] == sign[..sign.len() - kept];
        text.windows(sign.len()).any(|window| window == sign) || (1..sign.len()).any(across)
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delimiter({:?})", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// One byte is a number, as it was when there was nothing else.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Byte(u8),
    Text(String),
}

impl Serialize for Delimiter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self.byte() {
            Some(byte) => Written::Byte(byte),
            None => Written::Text(self.to_string()),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Delimiter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Byte(byte) => Ok(Delimiter::of_byte(byte)),
            Written::Text(text) => {
                Delimiter::of_text(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no delimiter")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_where_a_reader_from_the_left_finds_it() {
        let cuts = |sign: &str, text: &str| Delimiter::of_text(sign).unwrap().cuts(text.as_bytes());
        assert!(cuts(",", "a,b") && !cuts(",", "ab"));
        assert!(cuts("||", "a||b") && cuts("||", "a|") && !cuts("||", "|a") && !cuts("||", ""));
        // No end of it is its beginning.
        assert!(!cuts("|~", "a|") && cuts("|~", "|~"));
        assert!(cuts("~|~", "a~|") && !cuts("~|~", "a~"));
        assert!(cuts("§", "1§2") && !cuts("§", "1£2"));
    }

    #[test]
    fn it_is_stored_as_what_it_is() {
        for (text, stored) in [(",", "44"), ("\t", "9"), ("||", r#""||""#), ("§", r#""§""#)] {
            let delimiter = Delimiter::of_text(text).unwrap();
            assert_eq!(serde_json::to_string(&delimiter).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Delimiter>(stored).unwrap(), delimiter);
        }
        for no in ["", "123456789", "a\nb", "\r", "\0"] {
            assert_eq!(Delimiter::of_text(no), None, "{no:?}");
        }
        assert!(serde_json::from_str::<Delimiter>("\"\"").is_err());
    }
}
