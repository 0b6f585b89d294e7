//! Exact decimal numbers for control totals and the sums of reports: digits and a scale, never a float.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// `units` / 10^`scale`. Two are equal when they are the same number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exact {
    pub units: i128,
    pub scale: u8,
}

impl Exact {
    /// A whole number.
    pub fn whole(units: i128) -> Exact {
        Exact { units, scale: 0 }
    }

    /// `None` beyond 128 bits.
    pub fn checked_add(self, other: Exact) -> Option<Exact> {
        let scale = self.scale.max(other.scale);
        let units = self.at(scale)?.checked_add(other.at(scale)?)?;
        Some(Exact { units, scale })
    }

    /// `None` beyond 128 bits, or 255 digits behind the point.
    pub fn checked_mul(self, other: Exact) -> Option<Exact> {
        Some(Exact {
            units: self.units.checked_mul(other.units)?,
            scale: self.scale.checked_add(other.scale)?,
        })
    }

    /// `None` for the least of 128 bits.
    pub fn checked_neg(self) -> Option<Exact> {
        Some(Exact {
            units: self.units.checked_neg()?,
            ..self
        })
    }

    /// The units at a scale that is no smaller.
    fn at(self, scale: u8) -> Option<i128> {
        let factor = 10i128.checked_pow(u32::from(scale.checked_sub(self.scale)?))?;
        self.units.checked_mul(factor)
    }

    /// Without zeros at the end of the fraction.
    fn reduced(mut self) -> Exact {
        while self.scale > 0 && self.units % 10 == 0 {
            self.units /= 10;
            self.scale -= 1;
        }
        self
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Exact) -> bool {
        let (one, other) = (self.reduced(), other.reduced());
        (one.units, one.scale) == (other.units, other.scale)
    }
}

impl Eq for Exact {}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let digits = self.units.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// What [`Exact`] is not made of.
#[derive(Debug, thiserror::Error)]
#[error("«{0}» is not an exact number")]
pub struct NotExact(String);

impl FromStr for Exact {
    type Err = NotExact;

    fn from_str(text: &str) -> Result<Exact, NotExact> {
        let wrong = || NotExact(text.to_string());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let scale = u8::try_from(fraction.len()).map_err(|_| wrong())?;
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if digits.is_empty() || !plain(digits) || !plain(fraction) || text.ends_with('.') {
            return Err(wrong());
        }
        let units = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
        Ok(Exact { units, scale })
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_read_back_as_written() {
        for text in [
            "0",
            "-7",
            "14311.08",
            "-0.05",
            "0.00",
            "170141183460469231731687303715884105727",
        ] {
            assert_eq!(exact(text).to_string(), text);
        }
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "1e3",
            "1,5",
            "+1",
            "1.2.3",
            "170141183460469231731687303715884105728",
        ] {
            assert!(text.parse::<Exact>().is_err(), "{text}");
        }
    }

    #[test]
    fn sums_are_exact_and_compared_as_numbers() {
        assert_eq!(exact("0.1").checked_add(exact("0.20")).unwrap().to_string(), "0.30");
        assert_eq!(exact("1.50"), exact("1.5"));
        assert_ne!(exact("1.50"), exact("1.51"));
        assert_eq!(Exact::whole(i128::MAX).checked_add(Exact::whole(1)), None);
        assert_eq!(Exact::whole(i128::MAX).checked_add(exact("0.1")), None);
        assert_eq!(exact("-1.50").checked_mul(exact("0.2")).unwrap().to_string(), "-0.300");
        assert_eq!(Exact::whole(i128::MAX).checked_mul(exact("0.2")), None);
        assert_eq!(exact("0.5").checked_neg().unwrap().to_string(), "-0.5");
        assert_eq!(Exact::whole(i128::MIN).checked_neg(), None);
    }
}
