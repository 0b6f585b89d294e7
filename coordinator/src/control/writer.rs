//! Writing what was decided: a turn at a time, in order, in as many batches as the store needs.
//!
//! Whoever writes has the store. While a thread of its own writes a turn, the loop has no store, and decides
//! what comes next: so there is never more than one transaction in flight.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use gapless_common::ids::{Epoch, Term};
use gapless_platform::{clock::Clock, retry::Delays, shutdown::Shutdown};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use super::{
    Waiting,
    batches::{Decided, Most},
};
use crate::{
    metrics::Metrics,
    store::{Batch, Store, StoreError, Write},
};

/// A store under a term, and how far it has been written.
pub struct Writer {
    pub store: Box<dyn Store>,
    /// As the store counts it.
    pub term: Term,
    /// Of the cluster; with what the store has reached it makes the mark.
    pub epoch: Epoch,
    /// Batches written in this term.
    pub seq: u64,
    /// For others to see; 0 before the first write.
    pub mark: Arc<AtomicU64>,
    pub waits: watch::Sender<Option<Waiting>>,
    pub runtime: Handle,
    pub stop: Shutdown,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl Writer {
    /// Makes a turn durable.
    pub fn write(&mut self, decided: Decided) -> Result<(), StoreError> {
        for batch in decided.batches(Most::as_a_rule(&*self.store)) {
            if batch.creates <= self.store.creates_per_batch() || self.store.takes(&batch.writes) {
                self.write_batch(batch.writes)?;
                continue;
            }
            for batch in batch.batches(Most::always(&*self.store)) {
                self.write_batch(batch.writes)?;
            }
        }
        Ok(())
    }

    /// Makes a batch durable. An unknown outcome is settled by asking again with the same batch, for as
    /// long as the store allows: nobody may be answered meanwhile, and a term that is not lost is kept.
    pub fn write_batch(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        let batch = Batch {
            term: self.term,
            seq: self.seq + 1,
            writes,
        };
        let mut delays = Delays::new(self.store.unknown_policy());
        let mut tries = 0u32;
        let begun = self.clock.monotonic();
        loop {
            match self.store.write(&batch) {
                Ok(()) => break,
                Err(StoreError::OutOfSequence { offered, stored }) if offered == stored && tries > 0 => break,
                Err(error @ (StoreError::Unknown { .. } | StoreError::Full { .. })) => {
                    self.metrics.store_asked_again();
                    tries += 1;
                    if tries.is_power_of_two() {
                        warn!(%error, tries, seq = batch.seq, "a batch is not written yet; asking again");
                    }
                    self.waits.send_replace(Some(Waiting::on(&error)));
                    let delay = delays.next_delay().filter(|_| !self.stop.is_stopping());
                    let Some(delay) = delay else {
                        return Err(error);
                    };
                    // A loop that asks is not stuck.
                    self.metrics.turned();
                    let wait = async { tokio::time::sleep(delay).await };
                    self.runtime.block_on(self.stop.stopping().run_until_cancelled(wait));
                }
                Err(lost) => return Err(lost),
            }
        }
        if tries > 0 {
            info!(tries, seq = batch.seq, "the batch is written");
            self.waits.send_replace(None);
        }
        self.seq += 1;
        self.note_mark();
        let took = self.clock.monotonic().saturating_sub(begun);
        self.metrics.stored(batch.writes.len(), took);
        Ok(())
    }

    /// Lets others see how far the store has come.
    pub fn note_mark(&self) {
        let mark = Term::of(self.epoch, self.store.reached());
        self.mark.store(mark.0, Ordering::Relaxed);
    }
}

/// Where turns go to be written, one at a time.
pub struct Pipeline {
    /// Away while a turn is being written.
    writer: Option<Box<Writer>>,
    /// None where the loop itself writes.
    apart: Option<Apart>,
}

/// The thread that writes.
struct Apart {
    turns: SyncSender<(Box<Writer>, Decided)>,
    written: mpsc::Receiver<(Box<Writer>, Result<(), StoreError>)>,
    thread: JoinHandle<()>,
}

/// What became of a turn that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    Written,
    /// [`Pipeline::written`] tells how it ends.
    UnderWay,
}

impl Pipeline {
    pub fn new(writer: Writer) -> Result<Pipeline, StoreError> {
        let apart = match writer.store.is_remote() {
            true => Some(Apart::start()?),
            false => None,
        };
        Ok(Pipeline {
            writer: Some(Box::new(writer)),
            apart,
        })
    }

    pub fn is_writing(&self) -> bool {
        self.writer.is_none()
    }

    /// The writer, unless a turn is being written.
    pub fn writer(&mut self) -> Result<&mut Writer, StoreError> {
        self.writer.as_deref_mut().ok_or_else(busy)
    }

    /// Begins to write a turn, where none is being written.
    pub fn begin(&mut self, decided: Decided) -> Result<Begun, StoreError> {
        let Some(apart) = &self.apart else {
            self.writer()?.write(decided)?;
            return Ok(Begun::Written);
        };
        let writer = self.writer.take().ok_or_else(busy)?;
        // An error says that the thread has panicked, as `written` finds too.
        let _ = apart.turns.send((writer, decided));
        Ok(Begun::UnderWay)
    }

    /// Waits for the end of the turn that is being written; without one, for ever. Nothing is lost when it is
    /// dropped.
    pub async fn written(&mut self) -> Result<(), StoreError> {
        let (Some(apart), None) = (&mut self.apart, &self.writer) else {
            return std::future::pending().await;
        };
        match apart.written.recv().await {
            Some((writer, result)) => {
                self.writer = Some(writer);
                result
            }
            None => self.join(),
        }
    }

    /// Ends the thread. A panic there is one here.
    fn join(&mut self) -> Result<(), StoreError> {
        if let Some(Apart { turns, thread, .. }) = self.apart.take() {
            drop(turns);
            if let Err(panicked) = thread.join() {
                panic::resume_unwind(panicked);
            }
        }
        Err(busy())
    }

    /// Ends it, after the turn that is being written. Blocks.
    pub fn end(mut self) -> Option<Box<Writer>> {
        if let Some(apart) = &mut self.apart
            && self.writer.is_none()
        {
            self.writer = apart.written.blocking_recv().map(|(writer, _)| writer);
        }
        // It says that nobody has the store, which the answer says too.
        let _ = self.join();
        self.writer
    }
}

impl Apart {
    fn start() -> Result<Apart, StoreError> {
        let (turns, to_write) = sync_channel::<(Box<Writer>, Decided)>(1);
        let (tell, written) = mpsc::channel(1);
        let thread = thread::Builder::new().name("store".into()).spawn(move || {
            for (mut writer, decided) in to_write {
                let result = writer.write(decided);
                if tell.blocking_send((writer, result)).is_err() {
                    // The loop has panicked.
                    return;
                }
            }
        });
        let thread = thread.map_err(|error| StoreError::Read {
            reason: format!("no thread for the store: {error}"),
        })?;
        Ok(Apart { turns, written, thread })
    }
}

fn busy() -> StoreError {
    StoreError::Refused {
        reason: "another turn is being written".into(),
    }
}
