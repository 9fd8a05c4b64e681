//! One value of the file into one Rust value, or what is wrong with it.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};
use wire::ByteCount;

use super::diagnostic::Fault;
use super::fields::{
    LATER_ACKS, LATER_DRIVERS, LATER_KINDS, LATER_REGISTERS, NAME_MAX, NAME_RULE, Shape,
};
use super::suggest::{closest, list_or};
use super::units;

/// What is wrong with a value. The reader adds key, object and place.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) fault: Fault,
    /// Continues "`key` in object …".
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl Bad {
    fn value(what: impl Into<String>) -> Self {
        Self {
            fault: Fault::Value,
            what: what.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn wrong_type(shape: Shape, value: &DeValue<'_>) -> Self {
        Self::value(format!(
            "must be {}, but is {}",
            expected(shape),
            type_name(value)
        ))
    }
}

/// The shape in words.
pub(super) fn expected(shape: Shape) -> String {
    match shape {
        Shape::Name => "a name".into(),
        Shape::Text => "text".into(),
        Shape::Path => "an absolute path".into(),
        Shape::Flag => "true or false".into(),
        Shape::Count(low, high) => format!("a whole number from {low} to {high}"),
        Shape::Bytes(..) => "an amount of bytes such as \"64MiB\"".into(),
        Shape::Time(..) => "a time such as \"60s\"".into(),
        Shape::Address => "an address such as \"10.0.1.11\"".into(),
        Shape::Addresses => "a list of addresses such as [\"10.0.1.11\"]".into(),
        Shape::Command => "a program and its arguments such as [\"/usr/bin/app\", \"-v\"]".into(),
        Shape::Choice(words) => list_or(words.iter().copied()),
        Shape::PathPerNode => "a path, or a table of node names and paths".into(),
        Shape::Table(_) => "a table".into(),
        Shape::Tables(_) | Shape::Kinds(_) => "a list of tables".into(),
    }
}

/// What a person calls the type of a TOML value.
pub(super) const fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Text of the shapes `Name`, `Text`, `Path` and `Choice`.
pub(super) fn text(shape: Shape, value: &DeValue<'_>) -> Result<String, Bad> {
    let Some(text) = value.as_str() else {
        return Err(Bad::wrong_type(shape, value));
    };
    check_text(shape, text)?;
    Ok(text.to_owned())
}

fn check_text(shape: Shape, text: &str) -> Result<(), Bad> {
    if text.is_empty() {
        return Err(Bad::value(format!(
            "must be {}, but is empty",
            expected(shape)
        )));
    }
    if text.contains('\0') {
        return Err(Bad::value("has a zero character in it"));
    }
    if matches!(shape, Shape::Name) && !is_name(text) {
        let bad = Bad::value(format!("is not a name: `{text}`"));
        return Err(bad.hint(format!("use {NAME_RULE}")));
    }
    if matches!(shape, Shape::Path) && !text.starts_with('/') {
        return Err(Bad::value(format!(
            "must be an absolute path, but is `{text}`"
        )));
    }
    if let Shape::Choice(words) = shape
        && !words.contains(&text)
    {
        return Err(unknown_choice(words, text));
    }
    Ok(())
}

fn unknown_choice(words: &'static [&'static str], text: &str) -> Bad {
    let later = [LATER_REGISTERS, LATER_DRIVERS, LATER_KINDS, LATER_ACKS];
    let bad = if later.iter().any(|list| list.contains(&text)) {
        let what = format!("is `{text}`, which is not in this release");
        Bad {
            fault: Fault::NotYet,
            what,
            hint: None,
        }
    } else {
        Bad::value(format!("is not known: `{text}`"))
    };
    match closest(text, words.iter().copied()) {
        Some(word) => bad.hint(format!("did you mean `{word}`?")),
        None => bad.hint(format!("use {}", list_or(words.iter().copied()))),
    }
}

/// True for a text that keeps [`NAME_RULE`].
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(super) fn flag(shape: Shape, value: &DeValue<'_>) -> Result<bool, Bad> {
    value.as_bool().ok_or_else(|| Bad::wrong_type(shape, value))
}

pub(super) fn count(shape: Shape, value: &DeValue<'_>) -> Result<u64, Bad> {
    let Some(integer) = value.as_integer() else {
        return Err(Bad::wrong_type(shape, value));
    };
    let Shape::Count(low, high) = shape else {
        return Err(Bad::wrong_type(shape, value));
    };
    whole(integer)
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| Bad::value(format!("must be {}, but is {integer}", expected(shape))))
}

fn whole(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok()
}

pub(super) fn bytes(shape: Shape, value: &DeValue<'_>) -> Result<ByteCount, Bad> {
    let text = with_unit(shape, value, "MiB")?;
    let amount = units::bytes(text).map_err(|fault| not_amount(shape, text, fault))?;
    if let Shape::Bytes(low, high) = shape
        && !(low..=high).contains(&amount.0)
    {
        let range = format!("{} to {}", plain_bytes(low), plain_bytes(high));
        return Err(Bad::value(format!("must be from {range}, but is {text}")));
    }
    Ok(amount)
}

pub(super) fn time(shape: Shape, value: &DeValue<'_>) -> Result<Duration, Bad> {
    let text = with_unit(shape, value, "s")?;
    let span = units::time(text).map_err(|fault| not_amount(shape, text, fault))?;
    if let Shape::Time(low, high) = shape
        && !(u128::from(low)..=u128::from(high)).contains(&span.as_millis())
    {
        let range = format!("{} to {}", plain_ms(low), plain_ms(high));
        return Err(Bad::value(format!("must be from {range}, but is {text}")));
    }
    Ok(span)
}

fn with_unit<'v>(shape: Shape, value: &'v DeValue<'_>, unit: &str) -> Result<&'v str, Bad> {
    match value {
        DeValue::String(text) => Ok(text),
        DeValue::Integer(number) => {
            Err(Bad::wrong_type(shape, value).hint(format!("write the unit: \"{number}{unit}\"")))
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err(Bad::wrong_type(shape, value)),
    }
}

fn not_amount(shape: Shape, text: &str, fault: units::AmountFault) -> Bad {
    let units = if matches!(shape, Shape::Time(..)) {
        "ms, s, m, h, d"
    } else {
        "KiB, MiB, GiB"
    };
    Bad::value(format!(
        "must be {}, but is `{text}`: {}",
        expected(shape),
        fault.words()
    ))
    .hint(format!("units are {units}"))
}

/// A limit in the largest unit that it is a multiple of.
fn plain_bytes(count: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let found = units
        .iter()
        .find(|(_, bits)| count >= 1 << bits && count.trailing_zeros() >= *bits);
    found.map_or_else(
        || format!("{count}B"),
        |(unit, bits)| format!("{}{unit}", count >> bits),
    )
}

fn plain_ms(ms: u64) -> String {
    match ms {
        _ if ms > 0 && ms.is_multiple_of(86_400_000) => format!("{}d", ms / 86_400_000),
        _ if ms > 0 && ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

pub(super) fn address(shape: Shape, value: &DeValue<'_>) -> Result<IpAddr, Bad> {
    let Some(text) = value.as_str() else {
        return Err(Bad::wrong_type(shape, value));
    };
    let ip = text.parse::<IpAddr>().map_err(|_| not_address(text))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Bad::value(format!(
            "must be the address of one host, but is {ip}"
        )));
    }
    Ok(ip)
}

fn not_address(text: &str) -> Bad {
    let bad = Bad::value(format!("is not an address: `{text}`"));
    match text.split_once('/') {
        Some((ip, _)) if ip.parse::<IpAddr>().is_ok() => {
            bad.hint(format!("write the address alone: \"{ip}\""))
        }
        _ if text.bytes().any(|b| b.is_ascii_alphabetic()) => {
            bad.hint("host names are not looked up, so that DNS cannot stop a failover")
        }
        _ => bad,
    }
}

pub(super) fn word(value: &DeValue<'_>) -> Result<String, Bad> {
    let Some(text) = value.as_str() else {
        return Err(Bad::value(format!(
            "must have only texts in it, but has {}",
            type_name(value)
        )));
    };
    if text.contains('\0') {
        return Err(Bad::value("has a zero character in it"));
    }
    Ok(text.to_owned())
}
