//! The name in a client's certificate, for people. The certificate has been verified before; this
//! reads no more than its subject (RFC 5280, 4.1; DER as in X.690).

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// The optional version stands in a context tag of its own.
const VERSION: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A name stands in log lines.
const MAX_NAME: usize = 64;

/// The subject's common name; `None` where it has none that can be printed.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = any(rest)?.2;
    }
    // serial number, signature algorithm, issuer, validity
    for _ in 0..4 {
        rest = any(rest)?.2;
    }
    let (mut names, _) = element(rest, SEQUENCE)?;
    while !names.is_empty() {
        let (mut set, after) = element(names, SET)?;
        names = after;
        while !set.is_empty() {
            let (attribute, after) = element(set, SEQUENCE)?;
            set = after;
            let (kind, value) = element(attribute, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME {
                return printable(value);
            }
        }
    }
    None
}

fn printable(value: &[u8]) -> Option<String> {
    let (tag, text, _) = any(value)?;
    if !matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let name: String = text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    (!name.is_empty()).then_some(name)
}

/// Content of an element of this kind, and what follows it.
fn element(input: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any(input)?;
    (tag == kind).then_some((content, rest))
}

/// Tag, content and what follows.
fn any(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A long length: so many bytes of it follow. Four are 4 GiB.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(fill: impl FnOnce(&mut DistinguishedName)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        fill(&mut params.distinguished_name);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_wherever_it_stands() {
        let alone = certificate(|name| name.push(DnType::CommonName, "alice"));
        assert_eq!(common_name(&alone).as_deref(), Some("alice"));
        let among = certificate(|name| {
            name.push(DnType::OrganizationName, "o".repeat(300));
            name.push(DnType::CommonName, "Bob Ä\n2");
            name.push(DnType::CountryName, "DE");
        });
        assert_eq!(common_name(&among).as_deref(), Some("Bob Ä2"));
        let without = certificate(|name| name.push(DnType::OrganizationName, "o"));
        assert_eq!(common_name(&without), None);
    }

    #[test]
    fn broken_certificates_have_no_name_and_do_no_harm() {
        let whole = certificate(|name| name.push(DnType::CommonName, "alice"));
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "cut at {end}");
        }
        for at in 0..whole.len() {
            for value in [0x00, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                common_name(&broken);
            }
        }
    }
}
