//! How long answers took.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Three digits are what a reader can use.
const SIGNIFICANT_DIGITS: u8 = 3;

/// How long answers took, in microseconds.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None so far.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(SIGNIFICANT_DIGITS)?))
    }

    /// One more answer.
    pub(crate) fn record(&mut self, latency: Duration) -> anyhow::Result<()> {
        Ok(self.0.record(u64::try_from(latency.as_micros())?)?)
    }

    /// Takes in what another has.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// A quantile in milliseconds.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }
}
