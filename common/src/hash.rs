//! The partitioning hash: which bucket a record belongs to. Specified here to the byte, so that no
//! engine, library version or machine can move a record; the known answers below must never change.
//!
//! All arithmetic is on unsigned 64-bit integers and wraps. `mix` is David Stafford's variant 13 of
//! the MurmurHash3 finaliser (the one of SplitMix64,
//! <http://zimbry.blogspot.com/2011/09/better-bit-mixing-improving-on.html>), a bijection:
//!
//! ```text
//! mix(x): x = (x ^ x>>30) * 0xBF58476D1CE4E5B9;  x = (x ^ x>>27) * 0x94D049BB133111EB;  x ^ x>>31
//! ```
//!
//! **One value.** `TAG_*` are the constants of this module, the first outputs of SplitMix64 from
//! seed 0; signed values enter in two's complement.
//!
//! | value | hash |
//! |---|---|
//! | NULL of any type | `mix(TAG_NULL)` |
//! | bool | `mix(TAG_BOOL + 0 or 1)` |
//! | integer of any width, signed or not, that fits 64 signed bits | `mix(TAG_INT + v)` |
//! | other integer up to 128 signed bits | `mix(mix(TAG_WIDE + low 64 bits) + high 64 bits)` |
//! | decimal n * 10^-s, first made shortest: trailing zeros of n are dropped from n and s, 0 has s = 0 | `mix(I + TAG_DECIMAL * (2s + 1))` where I is the integer hash of n; s may be negative |
//! | float, 32-bit ones widened; -0 is 0, every NaN is 0x7FF8000000000000 | `mix(TAG_FLOAT + bits)` |
//! | date | `mix(TAG_DATE + days since 1970-01-01)` |
//! | timestamp | `mix(TAG_TIMESTAMP + microseconds since the epoch)` |
//! | text and binary | XXH3-64, seed 0, of the bytes (text as UTF-8) |
//!
//! So `1` is the same as int32 and int64, and `1.0` the same as `1.00`; an integer, a decimal and a
//! float of equal value differ: the columns of a step have one type.
//!
//! **Several columns**, in the order in which they are named: the hash of the first, then
//! `h = h * 0x9E3779B97F4A7C15 ^ next` for each further one. (Both sides are mixed already, and the
//! top bits of the product depend on all bits of `h`.)
//!
//! **Bucket** = floor(hash * buckets / 2^64), by a 128-bit product.

use xxhash_rust::xxh3::xxh3_64;

use crate::key::{Key, KeyType};

const TAG_NULL: u64 = 0xE220_A839_7B1D_CDAF;
const TAG_BOOL: u64 = 0x6E78_9E6A_A1B9_65F4;
const TAG_INT: u64 = 0x06C4_5D18_8009_454F;
const TAG_WIDE: u64 = 0xF88B_B8A8_724C_81EC;
const TAG_DECIMAL: u64 = 0x1B39_896A_51A8_749B;
const TAG_FLOAT: u64 = 0x53CB_9F0C_747E_A2EA;
const TAG_DATE: u64 = 0x2C82_9ABE_1F45_32E1;
const TAG_TIMESTAMP: u64 = 0xC584_133A_C916_AB3C;
const COMBINE: u64 = 0x9E37_79B9_7F4A_7C15;
const CANONICAL_NAN: u64 = 0x7FF8_0000_0000_0000;

#[inline(always)]
const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// NULL, of whatever type.
#[inline]
pub const fn hash_null() -> u64 {
    mix(TAG_NULL)
}

#[inline]
pub const fn hash_bool(value: bool) -> u64 {
    mix(TAG_BOOL.wrapping_add(value as u64))
}

/// Integers of up to 64 signed bits, widened.
#[inline]
pub const fn hash_i64(value: i64) -> u64 {
    mix(TAG_INT.wrapping_add(value as u64))
}

/// Unsigned integers: those beyond `i64::MAX` are wide.
#[inline]
pub const fn hash_u64(value: u64) -> u64 {
    match value <= i64::MAX as u64 {
        true => hash_i64(value as i64),
        false => hash_i128(value as i128),
    }
}

/// Integers of every width; equal to [`hash_i64`] where the value fits.
#[inline]
pub const fn hash_i128(value: i128) -> u64 {
    let narrow = value as i64;
    match narrow as i128 == value {
        true => hash_i64(narrow),
        false => mix(mix(TAG_WIDE.wrapping_add(value as u64)).wrapping_add((value >> 64) as u64)),
    }
}

/// The decimal `unscaled * 10^-scale`.
#[inline]
pub const fn hash_decimal(unscaled: i128, scale: i8) -> u64 {
    let narrow = unscaled as i64;
    // 64-bit divisions cost a fraction of 128-bit ones, and nearly all decimals are narrow.
    let (integer, scale) = match narrow as i128 == unscaled {
        true => {
            let (mut n, mut s) = (narrow, scale as i64);
            if n == 0 {
                s = 0;
            }
            while n != 0 && n % 10 == 0 {
                n /= 10;
                s -= 1;
            }
            (hash_i64(n), s)
        }
        false => {
            let (mut n, mut s) = (unscaled, scale as i64);
            while n % 10 == 0 {
                n /= 10;
                s -= 1;
            }
            (hash_i128(n), s)
        }
    };
    mix(integer.wrapping_add(TAG_DECIMAL.wrapping_mul((2 * scale + 1) as u64)))
}

/// Floats; 32-bit ones are widened, which is exact.
#[inline]
pub const fn hash_f64(value: f64) -> u64 {
    let bits = if value.is_nan() {
        CANONICAL_NAN
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    mix(TAG_FLOAT.wrapping_add(bits))
}

/// Days since 1970-01-01.
#[inline]
pub const fn hash_date(days: i64) -> u64 {
    mix(TAG_DATE.wrapping_add(days as u64))
}

/// Microseconds since 1970-01-01T00:00:00.
#[inline]
pub const fn hash_timestamp(micros: i64) -> u64 {
    mix(TAG_TIMESTAMP.wrapping_add(micros as u64))
}

/// Text (as UTF-8) and binary.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The hash of columns so far, with that of the next one.
#[inline]
pub const fn combine(hash: u64, next: u64) -> u64 {
    hash.wrapping_mul(COMBINE) ^ next
}

/// The bucket of a hash, below `buckets`, which must not be 0.
#[inline]
pub const fn bucket(hash: u64, buckets: u32) -> u32 {
    ((hash as u128 * buckets as u128) >> 64) as u32
}

/// The hash of a key of a column; the slow way, for plans and tests. Dates and timestamps beyond 64
/// bits do not exist in any source; they hash by their low bits.
pub fn hash_key(key: Option<&Key>, ty: KeyType) -> u64 {
    match (key, ty) {
        (None, _) => hash_null(),
        (Some(Key::Float(value)), _) => hash_f64(*value),
        (Some(Key::Text(text)), _) => hash_bytes(text.as_bytes()),
        (Some(Key::Int(value)), KeyType::Bool) => hash_bool(*value != 0),
        (Some(Key::Int(value)), KeyType::Date) => hash_date(*value as i64),
        (Some(Key::Int(value)), KeyType::Timestamp) => hash_timestamp(*value as i64),
        (Some(Key::Int(value)), KeyType::Decimal { scale }) => hash_decimal(*value, scale),
        (Some(Key::Int(value)), KeyType::Int | KeyType::Float | KeyType::Text) => hash_i128(*value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by a separate program from the specification above. A change here moves records
    /// between the buckets of running jobs: never change it, add a second hash.
    #[test]
    fn known_answers() {
        let answers = KNOWN;
        let computed = [
            hash_null(),
            hash_bool(false),
            hash_bool(true),
            hash_i64(0),
            hash_i64(1),
            hash_i64(-1),
            hash_i64(i64::MIN),
            hash_u64(u64::MAX),
            hash_i128(i128::MIN),
            hash_decimal(150, 2),
            hash_decimal(-12_345, 3),
            hash_decimal(0, 2),
            hash_decimal(10i128.pow(30) + 1, 10),
            hash_f64(0.0),
            hash_f64(1.5),
            hash_f64(f64::NAN),
            hash_date(19_782),
            hash_timestamp(1_500_000),
            combine(hash_i64(1), hash_i64(2)),
            combine(combine(hash_i64(1), hash_null()), hash_bool(true)),
        ];
        for (at, (computed, answer)) in computed.into_iter().zip(answers).enumerate() {
            assert_eq!(computed, answer, "answer {at}: {computed:#018x}");
        }
        // XXH3-64's own test vectors.
        assert_eq!(hash_bytes(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(hash_bytes(b"a"), 0xE6C6_32B6_1E96_4E1F);
        assert_eq!(hash_bytes(b"abc"), 0x78AF_5F94_892F_3950);
    }

    const KNOWN: [u64; 20] = [
        0x4821_8226_FF3C_D4BF,
        0xCD73_FE3D_E975_AC26,
        0x0921_B5C2_E35C_60D0,
        0x7B47_6C5A_5333_D0EC,
        0x6E96_DCF4_FAB4_7F5E,
        0xAE72_3130_66E6_4CC0,
        0x2749_FAA0_1D39_CB59,
        0x39BB_A689_204E_5F2A,
        0x9022_3EB1_5EEA_F606,
        0x6054_6E9C_A1F2_070E,
        0x3DA5_9643_0048_5E10,
        0x0432_DF6F_DDBB_1A90,
        0xE026_76E3_BFE1_E311,
        0x00E7_8A7F_5764_41A3,
        0xD578_E42C_20BE_8703,
        0x468F_0678_740D_3349,
        0x38BF_ADF3_58BD_185C,
        0x831A_4310_88E2_4461,
        0x7074_96A2_51F6_A2FE,
        0x87BA_2CE9_5111_426D,
    ];

    #[test]
    fn equal_values_have_one_hash_whatever_their_form() {
        assert_eq!(hash_i128(-5), hash_i64(-5));
        assert_eq!(hash_u64(5), hash_i64(5));
        assert_eq!(hash_u64(u64::MAX), hash_i128(i128::from(u64::MAX)));
        assert_eq!(hash_decimal(10, 1), hash_decimal(100, 2));
        assert_eq!(hash_decimal(1, -2), hash_decimal(100, 0));
        assert_eq!(hash_decimal(0, 5), hash_decimal(0, -5));
        assert_eq!(hash_decimal(5 * 10i128.pow(30), 30), hash_decimal(5, 0));
        assert_ne!(hash_decimal(15, 1), hash_decimal(15, 2));
        assert_eq!(hash_f64(-0.0), hash_f64(0.0));
        assert_eq!(hash_f64(-f64::NAN), hash_f64(f64::NAN));
        assert_eq!(hash_f64(f64::from(1.1f32)), hash_f64(1.1f32 as f64));
        assert_ne!(combine(hash_i64(1), hash_i64(2)), combine(hash_i64(2), hash_i64(1)));
    }

    #[test]
    fn buckets_are_even_for_the_keys_that_data_has() {
        type Hash = fn(i64) -> u64;
        let sets: [(&str, Hash); 8] = [
            ("consecutive", hash_i64),
            ("every 1024th", |i| hash_i64(i * 1024)),
            ("both columns alike", |i| combine(hash_i64(i), hash_i64(i))),
            ("three columns alike", |i| {
                combine(combine(hash_i64(i), hash_i64(i)), hash_i64(i))
            }),
            ("a grid of two columns", |i| {
                combine(hash_i64(i % 512), hash_i64(i / 512))
            }),
            ("dates", hash_date),
            ("cents", |i| hash_decimal(i128::from(i), 2)),
            ("whole floats", |i| hash_f64(i as f64)),
        ];
        const KEYS: usize = 256 * 1_000;
        for (name, hash) in sets {
            let mut counts = [0u32; 256];
            for key in 0..KEYS as i64 {
                counts[bucket(hash(key), 256) as usize] += 1;
            }
            // Six standard deviations of a fair throw of 1,000 keys a bucket (31.6 each).
            let worst = counts.iter().map(|count| count.abs_diff(1_000)).max();
            assert!(worst < Some(190), "{name}: off by {worst:?}");
        }
    }

    #[test]
    fn buckets_span_the_whole_hash() {
        assert_eq!(bucket(0, 256), 0);
        assert_eq!(bucket(u64::MAX, 256), 255);
        assert_eq!(bucket(u64::MAX, 3), 2);
        assert_eq!(bucket(u64::MAX / 2, 2), 0);
        assert_eq!(bucket(u64::MAX / 2 + 1, 2), 1);
    }
}
