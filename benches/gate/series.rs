//! Several values of one quantity.

use std::fmt;

/// The values of one quantity, one of each run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
    }

    pub(crate) fn smallest(&self) -> f64 {
        self.sorted()[0]
    }

    pub(crate) fn largest(&self) -> f64 {
        *self.sorted().last().unwrap()
    }

    /// Run by run, as a machine that was slow for a while was so for both.
    pub(crate) fn over(&self, other: &Self) -> Self {
        assert_eq!(self.0.len(), other.0.len());
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }

    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|value| value * factor).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Median and spread.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (number(self.smallest()), number(self.largest()));
        let median = number(self.median());
        if low == high { f.write_str(&median) } else { write!(f, "{median} [{low} - {high}]") }
    }
}

/// Three digits that mean something, or all before the point, in groups.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// Without what comes after the point.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Times of many rounds of one run.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<u64>);

impl Times {
    pub(crate) fn push(&mut self, time: std::time::Duration) {
        self.0.push(u64::try_from(time.as_nanos()).unwrap());
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// In microseconds.
    pub(crate) fn percentile(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len() - 1;
        self.0[last * percent / 100] as f64 / 1_000.0
    }
}
