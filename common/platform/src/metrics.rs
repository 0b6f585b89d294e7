//! What the metrics of every process have in common: the registry to begin with, labels, buckets.

use std::{fmt, hash::Hash};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{
        family::{Family, MetricConstructor},
        gauge::ConstGauge,
        info::Info,
    },
    registry::{Metric, Registry},
};

use crate::{clock::Clock, process};

/// Labels of one metric: names and values from small sets that are known beforehand.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Upper bounds in seconds for waits on a disk or a network: half a millisecond to 16 seconds.
pub fn wait_buckets() -> impl Iterator<Item = f64> {
    (0..16).map(|power| 0.0005 * f64::from(1u32 << power))
}

/// Upper bounds in seconds for tasks: ten milliseconds to three quarters of an hour.
pub fn task_buckets() -> impl Iterator<Item = f64> {
    (0..10).map(|power| 0.01 * f64::from(4u32.pow(power)))
}

/// A registry that tells of the process already: its version, memory and start.
pub fn registry(part: &'static str, clock: &Clock) -> Registry {
    let mut registry = Registry::default();
    let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("part", part)]);
    registry.register(
        "gapless_build",
        "Version of Gapless, and which part of it this is",
        build,
    );
    registry.register_collector(Box::new(ThisProcess {
        started: clock.now_micros() as f64 / 1e6,
    }));
    registry
}

/// Registers a metric under its whole name, but for the `_total` of a counter, and gives it back.
pub fn add<M: Metric + Clone>(registry: &mut Registry, name: &'static str, help: &'static str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Makes every series of a family, at zero: what is absent cannot be told from what is zero.
pub fn begin_at_zero<S, M, C>(family: &Family<S, M, C>, series: impl IntoIterator<Item = S>)
where
    S: Clone + Eq + Hash,
    C: MetricConstructor<M>,
{
    for labels in series {
        drop(family.get_or_create(&labels));
    }
}

/// All that is registered, in the text format of OpenMetrics.
pub fn encode(registry: &Registry) -> String {
    let mut encoded = String::new();
    // Writing to a string does not fail, and our own collectors do not either.
    text::encode(&mut encoded, registry).expect("metrics are written to memory");
    encoded
}

/// Facts that are read when they are asked for.
#[derive(Debug)]
struct ThisProcess {
    /// Seconds since the epoch.
    started: f64,
}

impl Collector for ThisProcess {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            let place = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(place)
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory of the process",
            process::resident_bytes() as f64,
        )?;
        gauge(
            "process_start_time_seconds",
            "When the process was started, since the epoch",
            self.started,
        )
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_registry_tells_of_the_process_and_of_what_is_added() {
        let mut registry = registry("worker", &Clock::manual(5_000_000));
        let commits = Family::<Labels<1>, Counter>::default();
        let commits = add(&mut registry, "gapless_commits", "Commits", commits);
        commits.get_or_create(&[("stage", "execute")]).inc_by(3);
        let text = encode(&registry);
        for line in [
            "# TYPE gapless_commits counter",
            "gapless_commits_total{stage=\"execute\"} 3",
            "# TYPE process_resident_memory_bytes gauge",
            "process_start_time_seconds 5.0",
            "part=\"worker\"} 1",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn bounds_rise_and_span_what_they_should() {
        let waits: Vec<f64> = wait_buckets().collect();
        assert!(waits.is_sorted() && waits[0] == 0.0005 && waits[15] > 16.0, "{waits:?}");
        let tasks: Vec<f64> = task_buckets().collect();
        assert!(tasks.is_sorted() && tasks[0] == 0.01 && tasks[9] > 2600.0, "{tasks:?}");
    }
}
