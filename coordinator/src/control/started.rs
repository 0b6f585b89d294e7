//! What tests of the loop share: a loop on a store of theirs, and a worker that says hello.

use gapless_common::{ids::Term, labels::Labels};
use gapless_platform::{clock::Clock, shutdown::Shutdown};
use uuid::Uuid;

use super::{Control, ControlConfig, End, Hello};
use crate::{
    metrics::Metrics,
    store::{Store, StoreError},
    takeover::taken_over,
};

pub const LEASE_MS: u32 = 3000;

type Thread = std::thread::JoinHandle<Result<End, StoreError>>;

/// A loop that leads, and its thread, which ends with the last way to it.
pub async fn started(store: Box<dyn Store>, clock: Clock) -> (Control, Thread) {
    let started = tokio::task::spawn_blocking(move || {
        let config = ControlConfig {
            lease_ms: LEASE_MS,
            heartbeat_ms: 100,
            workers_died: false,
        };
        let metrics = Metrics::new(clock.clone());
        Control::start(taken_over(store), clock, config, Shutdown::new(), metrics)
    });
    started.await.expect("no panic").expect("it leads")
}

/// What a worker says first that holds nothing.
pub fn hello(worker: u128) -> Hello {
    Hello {
        worker: Uuid::from_u128(worker),
        name: worker.to_string(),
        version: String::new(),
        slots: 1,
        labels: Labels::default(),
        mark: Term(0),
        reign: None,
        held: Vec::new(),
    }
}
