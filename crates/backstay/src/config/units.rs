//! Amounts with units as people write them: `"64MiB"`, `"60s"`.

use std::time::Duration;

use wire::ByteCount;

/// Units of bytes; one letter means the binary unit, as `truncate -s` and `dd` read it.
const BYTE_UNITS: [(&str, u64); 14] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Units of time, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Why text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountFault {
    /// There is no number in front.
    NoNumber,
    /// There is no unit behind the number.
    NoUnit,
    /// The unit is not known.
    UnknownUnit,
    /// Larger than 2^64.
    TooLarge,
}

impl AmountFault {
    /// The fault in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NoNumber => "there is no whole number in front",
            Self::NoUnit => "the unit is missing",
            Self::UnknownUnit => "the unit is not known",
            Self::TooLarge => "the amount is too large",
        }
    }
}

/// Reads an amount of bytes such as `64MiB`, `16MB`, `256M` or `512B`.
///
/// # Errors
/// [`AmountFault`] says what is wrong.
pub fn bytes(text: &str) -> Result<ByteCount, AmountFault> {
    amount(text, &BYTE_UNITS).map(ByteCount)
}

/// Reads a span of time such as `500ms`, `60s`, `5m`, `2h` or `1d`.
///
/// # Errors
/// [`AmountFault`] says what is wrong.
pub fn time(text: &str) -> Result<Duration, AmountFault> {
    amount(text, &TIME_UNITS).map(Duration::from_millis)
}

fn amount(text: &str, units: &[(&str, u64)]) -> Result<u64, AmountFault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(AmountFault::NoNumber);
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(AmountFault::NoUnit);
    }
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let factor = factor.ok_or(AmountFault::UnknownUnit)?;
    let number: u64 = number.parse().map_err(|_| AmountFault::TooLarge)?;
    number.checked_mul(factor).ok_or(AmountFault::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_need_a_number_and_a_known_unit() {
        assert_eq!(bytes("64MiB"), Ok(ByteCount(64 << 20)));
        assert_eq!(bytes("256M"), Ok(ByteCount(256 << 20)));
        assert_eq!(bytes("16 MB"), Ok(ByteCount(16_000_000)));
        assert_eq!(bytes("64"), Err(AmountFault::NoUnit));
        assert_eq!(bytes("MiB"), Err(AmountFault::NoNumber));
        assert_eq!(bytes("1 furlong"), Err(AmountFault::UnknownUnit));
        assert_eq!(bytes("99999999999TiB"), Err(AmountFault::TooLarge));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(time("-1s"), Err(AmountFault::NoNumber));
    }
}
