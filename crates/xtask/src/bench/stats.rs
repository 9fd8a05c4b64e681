//! Figures of runs, and what they say.

/// What one run of a load showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Operations per second.
    pub(crate) iops: f64,
    /// Bytes per second.
    pub(crate) bandwidth: f64,
    /// Mean latency, in microseconds.
    pub(crate) mean_us: f64,
    /// 99th percentile of the latency, in microseconds.
    pub(crate) p99_us: f64,
    /// Processor time of the contestant's processes per operation, user and system, in microseconds.
    pub(crate) cpu_us: f64,
    /// Part of the writes whose regions were in the intent log already; none where there is no such log.
    pub(crate) hot: Option<f64>,
}

/// Which figure a row compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Iops,
    Bandwidth,
    Mean,
    P99,
    Cpu,
}

impl Figure {
    pub(crate) const fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Iops => sample.iops,
            Self::Bandwidth => sample.bandwidth,
            Self::Mean => sample.mean_us,
            Self::P99 => sample.p99_us,
            Self::Cpu => sample.cpu_us,
        }
    }

    pub(crate) const fn more_is_better(self) -> bool {
        match self {
            Self::Iops | Self::Bandwidth => true,
            Self::Mean | Self::P99 | Self::Cpu => false,
        }
    }

    /// The value with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Iops => format!("{value:.0}/s"),
            Self::Bandwidth => format!("{:.0} MB/s", value / 1e6),
            Self::Mean | Self::P99 | Self::Cpu => format!("{value:.1} µs"),
        }
    }
}

/// How a ratio stands to what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Aim,
    Floor,
    Below,
    /// Nothing was asked for: the row tells a price.
    NotAsked,
}

impl Verdict {
    pub(crate) fn of(ratio: f64, floor: f64, aim: f64) -> Self {
        // An aim above its floor: more is better.
        let better = |than: f64| {
            if aim >= floor {
                ratio >= than
            } else {
                ratio <= than
            }
        };
        if better(aim) {
            Self::Aim
        } else if better(floor) {
            Self::Floor
        } else {
            Self::Below
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Aim => "aim",
            Self::Floor => "floor",
            Self::Below => "**below**",
            Self::NotAsked => "–",
        }
    }
}

/// The middle value; of an even number the mean of the two in the middle. Zero of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (_, _) if values.is_empty() => 0.0,
        (at, 0) => f64::midpoint(values[at - 1], values[at]),
        (at, _) => values[at],
    }
}

/// The median of the ratios round by round: what drifts during the runs drifts for both.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios = ours.iter().zip(theirs).map(|(a, b)| a / b.max(1e-9));
    median(ratios.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_one_out_does_not_move_the_median() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![1.0, 3.0]) - 2.0).abs() < 1e-9);
        assert!((ratio(&[2.0, 40.0, 6.0], &[1.0, 2.0, 3.0]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn less_is_better_where_the_aim_is_below_the_floor() {
        assert_eq!(Verdict::of(1.6, 1.5, 2.5), Verdict::Floor);
        assert_eq!(Verdict::of(2.5, 1.5, 2.5), Verdict::Aim);
        assert_eq!(Verdict::of(0.7, 0.8, 0.5), Verdict::Floor);
        assert_eq!(Verdict::of(0.9, 0.8, 0.5), Verdict::Below);
    }
}
