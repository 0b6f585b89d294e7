//! Finds the ends of fields and lines in a block of text, 64 bytes at a time.
//!
//! One bit mask for each of separator, newline and quote is made by vector compares; the prefix xor
//! of the quote mask tells which bytes lie inside quotes (Langdale and Lemire, "Parsing gigabytes of
//! JSON per second", 2019). A newline always ends a record, so the quote state starts afresh there.
//! Lines whose quotes do not open at the start of a field, or stay open at the end of the line, are
//! flagged; a slower and exact splitter looks at them again.

use gapless_common::job::Delimiter;

use super::block::PAD;

/// Where fields and lines of one block end. Positions are indices into the padded block.
#[derive(Default)]
pub(super) struct Scan {
    /// `ends[0]` is the position before the text; then the position of the separator (its last byte)
    /// or newline behind each field, in order.
    pub ends: Vec<u32>,
    /// For each complete line: the number of entries of `ends` up to and with its newline.
    pub lines: Vec<u32>,
    /// Lines (indices into `lines`, ascending) that need the exact splitter.
    pub odd: Vec<u32>,
    /// Whether any byte has its high bit set.
    pub high: bool,
    /// Whether a quote may stand within a quoted field.
    pub doubled: bool,
    /// Whether there are escapes.
    pub escaped: bool,
}

/// The signs that structure a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// Of one byte where the scan is not the exact one.
    pub delimiter: Delimiter,
    /// `None`: quotes are ordinary bytes.
    pub quote: Option<u8>,
    /// The byte behind it stands for itself.
    pub escape: Option<u8>,
    /// A line that begins with it is no record.
    pub comment: Option<u8>,
    pub newline: u8,
    /// Whether a line end within quotes or behind an escape is part of the field.
    pub multiline: bool,
}

impl Signs {
    /// Comma and double quote, each line a record.
    #[cfg(test)]
    pub const USUAL: Signs = Signs {
        delimiter: Delimiter::COMMA,
        quote: Some(b'"'),
        escape: None,
        comment: None,
        newline: b'\n',
        multiline: false,
    };
}

struct Masks {
    separator: u64,
    newline: u64,
    quote: u64,
    high: u64,
}

impl Scan {
    /// Scans `block[from..to]`, which has [`PAD`] readable bytes behind it.
    pub fn run(&mut self, block: &[u8], from: usize, to: usize, signs: Signs) {
        assert!(from >= 1 && from <= to && to + PAD <= block.len() && block.len() <= u32::MAX as usize);
        debug_assert!(signs.delimiter.byte().is_some());
        self.ends.clear();
        self.lines.clear();
        self.odd.clear();
        self.high = false;
        self.doubled = false;
        self.escaped = false;
        // Each byte may end a field; the flattening writes a few entries beyond the last.
        self.ends.reserve(to - from + 1 + 64);
        self.lines.reserve(to - from);
        self.ends.push(from as u32 - 1);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("popcnt")
            {
                // SAFETY: the features were just detected.
                unsafe { self.run_avx2(block, from, to, signs) };
            } else {
                self.run_sse2(block, from, to, signs);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.run_portable(block, from, to, signs);
        self.odd.sort_unstable();
        self.odd.dedup();
        self.doubled |= !self.odd.is_empty();
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    unsafe fn run_avx2(&mut self, block: &[u8], from: usize, to: usize, signs: Signs) {
        use std::arch::x86_64::*;
        let separators = _mm256_set1_epi8(signs.delimiter.first() as i8);
        let newlines = _mm256_set1_epi8(b'\n' as i8);
        let quotes = _mm256_set1_epi8(signs.quote.unwrap_or(b'\n') as i8);
        self.drive(block, from, to, signs.quote.is_some(), |at: *const u8| {
            // SAFETY: `drive` passes addresses with 64 readable bytes.
            let (low, high) = unsafe { (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())) };
            let mask = |low: __m256i, high: __m256i| {
                u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
            };
            let equal = |sign| mask(_mm256_cmpeq_epi8(low, sign), _mm256_cmpeq_epi8(high, sign));
            Masks {
                separator: equal(separators),
                newline: equal(newlines),
                quote: equal(quotes),
                high: mask(low, high),
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    fn run_sse2(&mut self, block: &[u8], from: usize, to: usize, signs: Signs) {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of x86-64.
        let sign = |byte: u8| unsafe { _mm_set1_epi8(byte as i8) };
        let (separators, newlines, quotes) = (
            sign(signs.delimiter.first()),
            sign(b'\n'),
            sign(signs.quote.unwrap_or(b'\n')),
        );
        self.drive(block, from, to, signs.quote.is_some(), |at: *const u8| {
            let mut masks = Masks {
                separator: 0,
                newline: 0,
                quote: 0,
                high: 0,
            };
            for part in 0..4 {
                // SAFETY: `drive` passes addresses with 64 readable bytes; SSE2 is part of x86-64.
                unsafe {
                    let text = _mm_loadu_si128(at.add(16 * part).cast());
                    let equal = |sign| u64::from(_mm_movemask_epi8(_mm_cmpeq_epi8(text, sign)) as u32) << (16 * part);
                    masks.separator |= equal(separators);
                    masks.newline |= equal(newlines);
                    masks.quote |= equal(quotes);
                    masks.high |= u64::from(_mm_movemask_epi8(text) as u32) << (16 * part);
                }
            }
            masks
        });
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn run_portable(&mut self, block: &[u8], from: usize, to: usize, signs: Signs) {
        let quote = signs.quote.unwrap_or(b'\n');
        self.drive(block, from, to, signs.quote.is_some(), |at: *const u8| {
            // SAFETY: `drive` passes addresses with 64 readable bytes.
            let text = unsafe { &*at.cast::<[u8; 64]>() };
            let mask = |test: &dyn Fn(u8) -> bool| {
                text.iter()
                    .enumerate()
                    .fold(0u64, |mask, (i, &byte)| mask | u64::from(test(byte)) << i)
            };
            Masks {
                separator: mask(&|byte| byte == signs.delimiter.first()),
                newline: mask(&|byte| byte == b'\n'),
                quote: mask(&|byte| byte == quote),
                high: mask(&|byte| byte >= 0x80),
            }
        });
    }

    #[inline(always)]
    fn drive(&mut self, block: &[u8], from: usize, to: usize, quoting: bool, masks: impl Fn(*const u8) -> Masks) {
        // All ones while inside quotes; bit 0 says whether the byte before was a boundary.
        let mut inside_before = 0u64;
        let mut boundary_before = 1u64;
        // The last quote before, and the quotes that open a text again right after one closed it.
        let mut quote_before = 0u64;
        let mut doubled = 0u64;
        let mut high = 0u64;
        for base in (from..to).step_by(64) {
            let left = to - base;
            let valid = if left >= 64 { !0 } else { (1 << left) - 1 };
            // SAFETY: `run` asserted PAD (at least 64) readable bytes behind `to`.
            let found = masks(unsafe { block.as_ptr().add(base) });
            let newline = found.newline & valid;
            let mut separator = found.separator & valid;
            high |= found.high & valid;
            if quoting {
                let quote = found.quote & valid;
                if quote | inside_before == 0 {
                    boundary_before = (separator | newline) >> 63;
                    quote_before = 0;
                } else {
                    let mut inside = prefix_xor(quote) ^ inside_before;
                    if newline & inside != 0 {
                        inside = self.close_at_newlines(newline, inside);
                    }
                    separator &= !inside;
                    let boundary = separator | newline | quote;
                    let stray = quote & inside & !(boundary << 1 | boundary_before);
                    if stray != 0 {
                        self.flag(newline, stray);
                    }
                    doubled |= quote & inside & (quote << 1 | quote_before);
                    inside_before = ((inside as i64) >> 63) as u64;
                    boundary_before = boundary >> 63;
                    quote_before = quote >> 63;
                }
            }
            self.flatten(separator | newline, newline, base as u32);
        }
        self.high = high != 0;
        self.doubled = doubled != 0;
    }

    /// Quotes still open at a newline: flags the line and lets the next one begin outside quotes.
    #[cold]
    fn close_at_newlines(&mut self, newline: u64, mut inside: u64) -> u64 {
        let mut open = newline & inside;
        while open != 0 {
            let at = open.trailing_zeros();
            self.flag(newline, 1 << at);
            inside ^= !0 << at;
            open = newline & inside & (!0 << at << 1);
        }
        inside
    }

    /// Flags the lines in which the bits of `marks` lie.
    #[cold]
    fn flag(&mut self, newline: u64, mut marks: u64) {
        while marks != 0 {
            let before = newline & ((1 << marks.trailing_zeros()) - 1);
            self.odd.push(self.lines.len() as u32 + before.count_ones());
            marks &= marks - 1;
        }
    }

    /// Appends the positions of the bits of `ends`, and for each newline the count up to it.
    #[inline(always)]
    fn flatten(&mut self, ends: u64, newline: u64, base: u32) {
        let had = self.ends.len();
        let count = ends.count_ones() as usize;
        // SAFETY: `run` reserved one entry for each byte of text plus 64; a round writes fewer than
        // that beyond `count`.
        const ROUND: usize = 16;
        unsafe {
            let mut out = self.ends.as_mut_ptr().add(had);
            let mut rest = ends;
            let mut written = 0;
            while written < count {
                for _ in 0..ROUND {
                    // Volatile: else the compiler gathers the results of a round in vector registers,
                    // one insertion after another, which takes twice the time.
                    out.write_volatile(base + rest.trailing_zeros());
                    out = out.add(1);
                    rest &= rest.wrapping_sub(1);
                }
                written += ROUND;
            }
            self.ends.set_len(had + count);
        }
        let mut rest = newline;
        while rest != 0 {
            let up_to = ends & (rest ^ (rest - 1));
            // SAFETY: `run` reserved one entry for each byte of text.
            unsafe {
                let lines = self.lines.len();
                self.lines
                    .as_mut_ptr()
                    .add(lines)
                    .write(had as u32 + up_to.count_ones());
                self.lines.set_len(lines + 1);
            }
            rest &= rest - 1;
        }
    }
}

/// Bit i of the answer is the xor of bits 0..=i.
#[inline(always)]
fn prefix_xor(mut mask: u64) -> u64 {
    mask ^= mask << 1;
    mask ^= mask << 2;
    mask ^= mask << 4;
    mask ^= mask << 8;
    mask ^= mask << 16;
    mask ^= mask << 32;
    mask
}

/// Why a line cannot be split into fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFault {
    OpenQuote,
}

/// Splits one line (without its line end) exactly: a quote counts only at the start of a field.
/// Appends the position of each separator, then the end of the line, each shifted by `shift`.
pub(super) fn split_line(line: &[u8], signs: Signs, shift: u32, ends: &mut Vec<u32>) -> Result<(), LineFault> {
    let mut at = 0;
    loop {
        if signs.quote.is_some() && line.get(at).copied() == signs.quote {
            let quote = line[at];
            at += 1;
            // The closing quote is the first that is not doubled.
            loop {
                match memchr::memchr(quote, &line[at..]) {
                    None => return Err(LineFault::OpenQuote),
                    Some(found) if line.get(at + found + 1) == Some(&quote) => at += found + 2,
                    Some(found) => {
                        at += found + 1;
                        break;
                    }
                }
            }
        }
        match memchr::memchr(signs.delimiter.first(), &line[at..]) {
            Some(found) => {
                ends.push(shift + (at + found) as u32);
                at += found + 1;
            }
            None => {
                ends.push(shift + line.len() as u32);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(text: &str) -> Vec<u8> {
        let mut block = vec![b','; PAD];
        block.extend_from_slice(text.as_bytes());
        block.extend_from_slice(&[b'"'; PAD]);
        block
    }

    fn shown(scan: &Scan, text: &str) -> Vec<Vec<String>> {
        let mut fields = Vec::new();
        let mut from = 1;
        for &to in &scan.lines {
            let line = (from..to as usize).map(|i| {
                let (start, end) = (scan.ends[i - 1] as usize + 1 - PAD, scan.ends[i] as usize - PAD);
                text[start..end].to_string()
            });
            fields.push(line.collect());
            from = to as usize;
        }
        fields
    }

    #[test]
    fn every_implementation_finds_the_same_ends() {
        let signs = Signs::USUAL;
        let long = format!("{},\"{}\"\n", "x".repeat(61), "a,b".repeat(50));
        let texts = [
            "a,b\nc,d\n",
            "\"a,1\",b\n\"\",\"x\"\"y,z\"\n",
            "open,\"quote\nnext,line\n",
            "5\" pipe,x\ny\"z\",w\n,,,\n\n\nrest",
            &long,
            &long.repeat(7),
            &"1,2,3\n".repeat(100),
            "é,ü\n",
        ];
        for text in texts {
            let block = padded(text);
            let (from, to) = (PAD, PAD + text.len());
            let mut best = Scan::default();
            best.run(&block, from, to, signs);
            let mut portable = Scan::default();
            portable.ends.reserve(text.len() + 65);
            portable.lines.reserve(text.len());
            portable.ends.push(from as u32 - 1);
            portable.run_portable(&block, from, to, signs);
            portable.odd.sort_unstable();
            portable.odd.dedup();
            assert_eq!(best.ends, portable.ends, "{text}");
            assert_eq!(best.lines, portable.lines, "{text}");
            assert_eq!(best.odd, portable.odd, "{text}");
            assert_eq!(best.high, portable.high, "{text}");
            assert_eq!(best.high, !text.is_ascii());
            #[cfg(target_arch = "x86_64")]
            {
                let mut sse2 = Scan::default();
                sse2.ends.reserve(text.len() + 65);
                sse2.lines.reserve(text.len());
                sse2.ends.push(from as u32 - 1);
                sse2.run_sse2(&block, from, to, signs);
                sse2.odd.sort_unstable();
                sse2.odd.dedup();
                assert_eq!(
                    (best.ends, best.lines, best.odd),
                    (sse2.ends, sse2.lines, sse2.odd),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn lines_with_unusual_quotes_are_flagged() {
        let signs = Signs::USUAL;
        let text = "a,\"b,c\"\n5\" pipe,x\nopen,\"q,\nfine,\"a\"\"b\"\n";
        let mut scan = Scan::default();
        let block = padded(text);
        scan.run(&block, PAD, PAD + text.len(), signs);
        assert_eq!(scan.odd, [1, 2]);
        let fields = shown(&scan, text);
        assert_eq!(fields[0], ["a", "\"b,c\""]);
        assert_eq!(fields[3], ["fine", "\"a\"\"b\""]);
        let mut ends = Vec::new();
        split_line(b"5\" pipe,x", signs, 0, &mut ends).unwrap();
        assert_eq!(ends, [7, 9]);
        assert_eq!(split_line(b"open,\"q,", signs, 0, &mut ends), Err(LineFault::OpenQuote));
    }
}
