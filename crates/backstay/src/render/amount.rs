//! Amounts as people read them.

use std::time::Duration;

use wire::{ByteCount, ByteRange};

/// `0 B`, `512 B`, `3.1 MiB`.
pub fn bytes(count: ByteCount) -> String {
    const UNITS: [(&str, u64); 5] = [
        ("PiB", 1 << 50),
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    for (unit, size) in UNITS {
        if count.0 < size {
            continue;
        }
        // Rounded to a tenth; in u128, because ten times a count may not fit.
        let tenths = (u128::from(count.0) * 10 + u128::from(size / 2)) / u128::from(size);
        let (whole, tenth) = (tenths / 10, tenths % 10);
        return if tenth == 0 || whole >= 100 {
            format!("{whole} {unit}")
        } else {
            format!("{whole}.{tenth} {unit}")
        };
    }
    format!("{} B", count.0)
}

/// `4 KiB at 1.5 GiB`: a part of a volume.
pub fn range(range: ByteRange) -> String {
    let (len, at) = (ByteCount(range.len()), ByteCount(range.offset()));
    format!("{} at {}", bytes(len), bytes(at))
}

/// `0.6 ms`, `512 ms`, `1.93 s`, `4 min 10 s`, `2 h 5 min`, `12 d`.
pub fn time(span: Duration) -> String {
    let (ms, us) = (span.as_millis(), span.as_micros());
    let seconds = span.as_secs();
    match seconds {
        0 if us == 0 => "0 ms".into(),
        0 if ms < 10 => format!("{}.{} ms", ms, us % 1_000 / 100),
        0 => format!("{ms} ms"),
        1..=9 => format!("{seconds}.{:02} s", ms % 1_000 / 10),
        10..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min{}", seconds / 60, rest(seconds % 60, "s")),
        7_200..=172_799 => format!("{} h{}", seconds / 3_600, rest(seconds % 3_600 / 60, "min")),
        _ => format!(
            "{} d{}",
            seconds / 86_400,
            rest(seconds % 86_400 / 3_600, "h")
        ),
    }
}

fn rest(count: u64, unit: &str) -> String {
    if count == 0 {
        String::new()
    } else {
        format!(" {count} {unit}")
    }
}

/// A span in milliseconds with microseconds, for JSON.
pub fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        let shown = [0, 512, 4096, 3_250_585, 200 << 30].map(|count| bytes(ByteCount(count)));
        assert_eq!(shown, ["0 B", "512 B", "4 KiB", "3.1 MiB", "200 GiB"]);
        let spans = [
            0,
            640,
            9_999,
            512_000,
            1_931_000,
            61_000_000,
            250_000_000,
            7_500_000_000,
        ];
        let shown = spans.map(|us| time(Duration::from_micros(us)));
        assert_eq!(
            shown,
            [
                "0 ms",
                "0.6 ms",
                "9.9 ms",
                "512 ms",
                "1.93 s",
                "61 s",
                "4 min 10 s",
                "2 h 5 min"
            ]
        );
    }

    #[test]
    fn milliseconds_keep_microseconds() {
        assert!((ms(Duration::from_micros(1_234)) - 1.234).abs() < 1e-9);
    }
}
