//! A row's value in etcd: a mark, then the value, or where its parts are.
//!
//! etcd takes 1.5 MiB in a request, while the text of a job and what a survey finds can be larger. Such
//! a value is written in parts first; they count from the moment a batch puts the row that names them.

/// The value follows.
const WHOLE: u8 = b'=';
/// The name of the parts follows, and after a space how many they are.
const PARTS: u8 = b'+';

/// A value as it was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Whole(&'a [u8]),
    Parts { name: &'a str, count: usize },
}

pub fn whole(value: &[u8]) -> Vec<u8> {
    let mut marked = Vec::with_capacity(value.len() + 1);
    marked.push(WHOLE);
    marked.extend_from_slice(value);
    marked
}

pub fn in_parts(name: &str, count: usize) -> Vec<u8> {
    format!("{}{name} {count}", PARTS as char).into_bytes()
}

/// `None`: it was not written here.
pub fn read(bytes: &[u8]) -> Option<Value<'_>> {
    let (mark, rest) = bytes.split_first()?;
    match *mark {
        WHOLE => Some(Value::Whole(rest)),
        PARTS => {
            let (name, count) = std::str::from_utf8(rest).ok()?.rsplit_once(' ')?;
            Some(Value::Parts {
                name,
                count: count.parse().ok()?,
            })
        }
        _ => None,
    }
}

/// The key of a part below its value's name: in order of their numbers.
pub fn part_key(name: &str, number: usize) -> String {
    format!("{name}/{number:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for value in ["", "=", "+1 2", "{}"] {
            assert_eq!(read(&whole(value.as_bytes())), Some(Value::Whole(value.as_bytes())));
        }
        let parts = Value::Parts {
            name: "7-1-0",
            count: 3,
        };
        assert_eq!(read(&in_parts("7-1-0", 3)), Some(parts));
        for alien in ["", "{}", "+", "+name", "+name x"] {
            assert_eq!(read(alien.as_bytes()), None, "{alien}");
        }
    }
}
