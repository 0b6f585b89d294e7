//! Blocks of text: a stretch of a file with readable bytes around it, shared with the columns that
//! point into it and used again when nobody does.

use arrow::buffer::Buffer;

/// Readable bytes before and behind the text, so that vector and word loads need no edge cases.
pub(in crate::source) const PAD: usize = 64;

/// More blocks than this are in use only when somebody keeps batches; then memory is theirs.
const MAX_POOLED: usize = 4;

/// Buffers that were handed out, to be used again as soon as nothing points into them.
#[derive(Default)]
pub(in crate::source) struct Pool {
    lent: Vec<Buffer>,
}

impl Pool {
    /// A buffer of at least `len` bytes, content undefined but initialised.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        for at in 0..self.lent.len() {
            match self.lent.swap_remove(at).into_vec::<u8>() {
                Ok(mut bytes) => {
                    if bytes.len() < len {
                        bytes.resize(len, 0);
                    }
                    return bytes;
                }
                Err(buffer) => {
                    // Still in use: back to its place.
                    self.lent.push(buffer);
                    let last = self.lent.len() - 1;
                    self.lent.swap(at, last);
                }
            }
        }
        vec![0; len]
    }

    /// Shares `bytes` with columns; the pool takes them back later.
    pub fn share(&mut self, bytes: Vec<u8>) -> Buffer {
        let buffer = Buffer::from_vec(bytes);
        if self.lent.len() == MAX_POOLED {
            self.lent.swap_remove(0);
        }
        self.lent.push(buffer.clone());
        buffer
    }
}

/// Words before and behind positions of a padded block.
///
/// Positions passed to its methods lie within the text, so [`PAD`] bytes on either side exist.
#[derive(Clone, Copy)]
pub(in crate::source) struct Text<'a> {
    bytes: &'a [u8],
}

impl<'a> Text<'a> {
    /// `bytes` has [`PAD`] bytes before and behind the text.
    pub fn new(bytes: &'a [u8]) -> Self {
        assert!(bytes.len() >= 2 * PAD);
        Self { bytes }
    }

    #[inline(always)]
    pub fn slice(self, start: usize, end: usize) -> &'a [u8] {
        debug_assert!(PAD <= start && start <= end && end + PAD <= self.bytes.len());
        // SAFETY: positions come from the scan of this block and lie within its text.
        unsafe { self.bytes.get_unchecked(start..end) }
    }

    #[inline(always)]
    pub fn byte(self, at: usize) -> u8 {
        debug_assert!(at < self.bytes.len());
        // SAFETY: as in `slice`.
        unsafe { *self.bytes.get_unchecked(at) }
    }

    /// The eight bytes that end before `end`, the last one highest.
    #[inline(always)]
    pub fn word_before(self, end: usize) -> u64 {
        debug_assert!(end >= 8 && end <= self.bytes.len());
        // SAFETY: `end` lies in the text and PAD bytes stand before the text.
        u64::from_le(unsafe { self.bytes.as_ptr().add(end - 8).cast::<u64>().read_unaligned() })
    }

    /// The eight bytes from `start`, the first one lowest.
    #[inline(always)]
    pub fn word(self, start: usize) -> u64 {
        debug_assert!(start + 8 <= self.bytes.len());
        // SAFETY: `start` lies in the text and PAD bytes stand behind the text.
        u64::from_le(unsafe { self.bytes.as_ptr().add(start).cast::<u64>().read_unaligned() })
    }

    /// The sixteen bytes from `start`, the first one lowest.
    #[inline(always)]
    pub fn wide(self, start: usize) -> u128 {
        debug_assert!(start + 16 <= self.bytes.len());
        // SAFETY: as in `word`.
        u128::from_le(unsafe { self.bytes.as_ptr().add(start).cast::<u128>().read_unaligned() })
    }
}
