//! Leading: a coordinator begins a term, reigns while the term is confirmed, and ends. With the
//! embedded store it does so once; with etcd it waits until nobody leads, and afterwards waits again.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    thread,
};

use gapless_common::ids::{ClusterId, Term};
use gapless_platform::{
    clock::Clock,
    retry::{self, Delays},
    shutdown::Shutdown,
};
use gapless_proto::v1::{jobs_server::JobsServer, workers_server::WorkersServer};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinError,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic_health::server::HealthReporter;
use tracing::{debug, error, info, warn};

use crate::{
    control::{Control, ControlConfig, End},
    grpc::{JobsService, WorkersService},
    identity::{self, Memory, Seen},
    limits::{CONFIRM_FRACTION, LOOP_GRACE, REMEMBER, TICK},
    metrics::Metrics,
    seat::{Confirmation, Holding, Lead, Role},
    store::{Etcd, EtcdStore, Standing, Store, StoreError, StoreFull},
    takeover::{Found, Hold, TakenOver, take_over},
};

pub struct Leading {
    pub role: watch::Sender<Role>,
    pub health: HealthReporter,
    pub clock: Clock,
    pub config: ControlConfig,
    pub metrics: Metrics,
    /// What was seen of the cluster, by this coordinator and others.
    memory: Memory,
    reign: Option<Reign>,
    /// A term in which nothing is done before an operator has spoken.
    held: Option<Held>,
}

struct Held {
    hold: Box<Hold>,
    full: watch::Receiver<Option<StoreFull>>,
    confirmation: Option<Confirmation>,
}

/// A term of this coordinator.
struct Reign {
    control: Control,
    thread: thread::JoinHandle<Result<End, StoreError>>,
    /// Ends the loop even while it waits for its store.
    stop: Shutdown,
    full: watch::Receiver<Option<StoreFull>>,
    confirmation: Option<Confirmation>,
}

impl Leading {
    pub fn new(
        role: watch::Sender<Role>,
        health: HealthReporter,
        clock: Clock,
        config: ControlConfig,
        metrics: Metrics,
        memory: Memory,
    ) -> Leading {
        Leading {
            role,
            health,
            clock,
            config,
            metrics,
            memory,
            reign: None,
            held: None,
        }
    }

    /// Begins a term and lets the services answer, as long as the term is confirmed where others may lead;
    /// unless the store is older than what was seen of it: then it is held.
    pub async fn begin(
        &mut self,
        store: Box<dyn Store>,
        full: watch::Receiver<Option<StoreFull>>,
        confirmation: Option<Confirmation>,
    ) -> Result<(), StoreError> {
        let mut memory = std::mem::take(&mut self.memory);
        // Beginning reads all rows, and blocks.
        let begun = tokio::task::spawn_blocking(move || {
            let seen = memory.recall().map_err(|error| StoreError::Read {
                reason: error.to_string(),
            });
            (seen.and_then(|seen| take_over(store, seen.as_ref())), memory)
        });
        let (found, memory) = begun.await.map_err(not_started)?;
        self.memory = memory;
        match found? {
            Found::Ready(taken) => self.start(taken, full, confirmation).await,
            Found::Older(hold) => {
                self.held = Some(Held {
                    hold,
                    full,
                    confirmation,
                });
                Ok(())
            }
        }
    }

    /// Starts the loop on a store that was taken over.
    async fn start(
        &mut self,
        taken: TakenOver,
        full: watch::Receiver<Option<StoreFull>>,
        confirmation: Option<Confirmation>,
    ) -> Result<(), StoreError> {
        let (clock, config, stop) = (self.clock.clone(), self.config, Shutdown::new());
        let (own, metrics) = (stop.clone(), self.metrics.clone());
        let started = tokio::task::spawn_blocking(move || Control::start(taken, clock, config, own, metrics)).await;
        let (control, thread) = started.map_err(not_started)??;
        self.reign = Some(Reign {
            control,
            thread,
            stop,
            full,
            confirmation,
        });
        self.speak().await;
        Ok(())
    }

    /// Lets the services answer.
    async fn speak(&self) {
        let Some(reign) = &self.reign else { return };
        self.role.send_replace(Role::Leads(Lead {
            control: reign.control.clone(),
            over: Shutdown::new(),
            full: reign.full.clone(),
            confirmation: reign.confirmation.clone(),
        }));
        self.health.set_serving::<JobsServer<JobsService>>().await;
        self.health.set_serving::<WorkersServer<WorkersService>>().await;
    }

    /// Lets them answer no more, and closes every session and watch.
    async fn fall_silent(&self, leader: &str) {
        let leader = leader.to_string();
        if let Role::Leads(lead) = self.role.send_replace(Role::Follows { leader }) {
            lead.over.stop();
        }
        self.health.set_not_serving::<JobsServer<JobsService>>().await;
        self.health.set_not_serving::<WorkersServer<WorkersService>>().await;
    }

    /// Nobody leads, and this coordinator must not: everybody is told why.
    fn refuse(&self, reason: String) {
        let known = matches!(&*self.role.borrow(), Role::Refuses { reason: known } if *known == reason);
        if !known {
            error!(reason, "this coordinator does not take the lead");
        }
        self.metrics.refuses(&reason);
        self.role.send_replace(Role::Refuses { reason });
    }

    /// Ends the term, if there is one, after what is under way. Says whether its loop had failed.
    pub async fn end(&mut self) -> bool {
        let failed = self.end_loop().await;
        if let Some(Held { mut hold, .. }) = self.held.take() {
            // A failure has been told.
            let _ = tokio::task::spawn_blocking(move || hold.store.end_term()).await;
        }
        failed
    }

    /// Ends the loop, if there is one. A store that it found older than what was seen is held from now on.
    async fn end_loop(&mut self) -> bool {
        self.fall_silent("").await;
        let Some(Reign {
            control,
            thread,
            stop,
            full,
            confirmation,
        }) = self.reign.take()
        else {
            return false;
        };
        let last = control.clone();
        let mut joined = tokio::task::spawn_blocking(move || thread.join());
        let orderly = timeout(LOOP_GRACE, async {
            control.stop().await;
            (&mut joined).await
        });
        let joined = match orderly.await {
            Ok(joined) => joined,
            Err(_) => {
                stop.stop();
                joined.await
            }
        };
        if let Some(mark) = last.mark() {
            self.note(last.cluster, mark).await;
        }
        match joined {
            Ok(Ok(Ok(End::Older(hold)))) => {
                self.held = Some(Held {
                    hold,
                    full,
                    confirmation,
                });
                false
            }
            Ok(Ok(Ok(End::Over) | Err(StoreError::LostTerm { .. }))) => false,
            // The loop has said why.
            Ok(Ok(Err(_))) => true,
            Ok(Err(_)) | Err(_) => {
                error!("the control loop panicked; please report it");
                true
            }
        }
    }

    /// Remembers how far the cluster has come, and writes it down as far as that is possible.
    async fn note(&mut self, cluster: ClusterId, mark: Term) {
        let by = "this coordinator".to_string();
        self.memory.note(Seen { cluster, mark, by });
        if let Some(file) = self.memory.file() {
            // A file system that hangs must not keep anybody.
            let _ = timeout(LOOP_GRACE, write_down(file.to_path_buf(), cluster, mark)).await;
        }
    }

    /// Writes down from time to time how far the cluster has come. Never returns.
    fn remember(&self) -> impl Future<Output = ()> + use<> {
        let control = self.reign.as_ref().map(|reign| reign.control.clone());
        let file = self.memory.file().map(Path::to_path_buf);
        async move {
            let (Some(control), Some(file)) = (control, file) else {
                return std::future::pending().await;
            };
            let mut known = None;
            loop {
                let mark = control.mark();
                if let Some(mark) = mark.filter(|_| mark != known) {
                    write_down(file.clone(), control.cluster, mark).await;
                }
                // Before the first batch there is nothing to tell, and soon there will be.
                sleep(if mark.is_some() { REMEMBER } else { TICK }).await;
                known = mark;
            }
        }
    }

    /// Leads on a store that nobody else can have, until the loop has ended.
    pub async fn lead_alone(&mut self) {
        loop {
            if !self.hold(std::future::pending()).await {
                return;
            }
            self.keep_time().await;
            if self.end_loop().await || self.held.is_none() {
                return;
            }
        }
    }

    /// Leads until the term is lost or the loop has ended. Says whether the loop had failed.
    async fn lead(&mut self, confirmation: &Confirmation) -> bool {
        loop {
            let mut changes = confirmation.standing.clone();
            let lost = async move {
                let kept = |standing: &Standing| matches!(standing, Standing::Leads { .. });
                // An error says that the store is gone.
                let _ = changes.wait_for(|standing| !kept(standing)).await;
            };
            if !self.hold(lost).await {
                return false;
            }
            tokio::select! {
                () = self.reign(confirmation) => {}
                () = self.remember() => {}
            }
            let failed = self.end_loop().await;
            if failed || self.held.is_none() {
                return failed;
            }
        }
    }

    /// Holds the lead for as long as the store waits for an operator, and starts the loop then. False: the
    /// term is lost.
    async fn hold(&mut self, lost: impl Future<Output = ()>) -> bool {
        let mut lost = pin!(lost);
        while let Some(held) = &self.held {
            let hold = &held.hold;
            let reason = hold.reason();
            error!(reason, "holding the lead without working");
            self.metrics.refuses(&reason);
            let (accept, mut accepted) = mpsc::channel(1);
            let (cluster, epoch) = (hold.cluster(), hold.epoch());
            let seen = hold.why.seen().clone();
            let term = Term::of(epoch, hold.term.0);
            self.role.send_replace(Role::Holds(Holding {
                reason,
                cluster,
                epoch,
                term,
                accept,
            }));
            // So that the next process knows it too.
            if let Some(file) = self.memory.file() {
                let _ = timeout(LOOP_GRACE, write_down(file.to_path_buf(), seen.cluster, seen.mark)).await;
            }
            self.memory.note(seen);
            let reply: Option<oneshot::Sender<_>> = tokio::select! {
                reply = accepted.recv() => reply,
                () = &mut lost => None,
            };
            let (
                Some(reply),
                Some(Held {
                    hold,
                    full,
                    confirmation,
                }),
            ) = (reply, self.held.take())
            else {
                self.fall_silent("").await;
                return false;
            };
            let accepted = match tokio::task::spawn_blocking(move || hold.accept()).await {
                Ok(Ok(taken)) => {
                    warn!(%cluster, epoch = epoch.0 + 1, "an operator has accepted the store as it is");
                    self.memory.forget();
                    self.start(taken, full, confirmation).await
                }
                Ok(Err((error, hold))) => {
                    warn!(%error, "the restore could not be accepted");
                    self.held = Some(Held {
                        hold,
                        full,
                        confirmation,
                    });
                    Err(error)
                }
                Err(error) => Err(not_started(error)),
            };
            let started = accepted.is_ok();
            // The operator may have gone: what was asked for is done all the same.
            let _ = reply.send(accepted);
            if !started && self.held.is_none() {
                return false;
            }
        }
        true
    }

    /// Tells the loop that time passes, until the loop has ended.
    async fn keep_time(&self) {
        let Some(reign) = &self.reign else { return };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if reign.control.tick().is_err() {
                return;
            }
        }
    }

    /// Leads whenever nobody else does. Never returns.
    pub async fn stand(&mut self, etcd: &Etcd) {
        let mut delays = Delays::new(retry::CONNECT);
        self.fall_silent("").await;
        self.metrics.stands_by();
        loop {
            let mut known = String::new();
            etcd.until_free(|leader| {
                if leader != known {
                    info!(leader, "standing by");
                    known = leader.to_string();
                    let leader = known.clone();
                    self.metrics.stands_by();
                    self.role.send_replace(Role::Follows { leader });
                }
            })
            .await;
            let store = EtcdStore::new(etcd.clone());
            let confirmation = Confirmation {
                standing: store.standing(),
                patience: etcd.leader_ttl() / CONFIRM_FRACTION,
            };
            let (tell_full, full) = watch::channel(None);
            match self.begin(Box::new(store), full, Some(confirmation.clone())).await {
                Ok(()) => {
                    let failed = tokio::select! {
                        failed = self.lead(&confirmation) => failed,
                        () = etcd.upkeep(tell_full) => false,
                    };
                    let failed = self.end().await || failed;
                    self.metrics.stands_by();
                    if !failed {
                        delays.reset();
                        continue;
                    }
                }
                Err(StoreError::Led { leader }) => {
                    debug!(leader, "another coordinator was faster");
                    continue;
                }
                Err(error @ StoreError::Schema { .. }) => self.refuse(error.to_string()),
                Err(error) => warn!(%error, "the lead could not be taken"),
            }
            if let Some(delay) = delays.next_delay() {
                sleep(delay).await;
            }
        }
    }

    /// Reigns until the term is lost or the loop has ended. While etcd does not confirm the term this
    /// coordinator speaks to nobody: another one may lead.
    async fn reign(&self, confirmation: &Confirmation) {
        let Some(reign) = &self.reign else { return };
        let mut silent = false;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !matches!(*confirmation.standing.borrow(), Standing::Leads { .. }) {
                info!("the term is over");
                reign.stop.stop();
                return;
            }
            if reign.control.is_over() {
                return;
            }
            let doubtful = confirmation.is_doubtful();
            if doubtful && !silent {
                warn!(
                    patience = ?confirmation.patience,
                    "etcd has not confirmed the term; falling silent until it does"
                );
                self.fall_silent("").await;
                self.metrics.falls_silent();
            }
            if !doubtful && silent {
                info!("etcd confirms the term; speaking again");
                if reign.control.renew_sessions().await.is_err() {
                    return;
                }
                self.metrics.speaks_again();
                self.speak().await;
            }
            silent = doubtful;
            if !silent && reign.control.tick().is_err() {
                return;
            }
        }
    }
}

fn not_started(error: JoinError) -> StoreError {
    StoreError::Read {
        reason: format!("the loop did not start: {error}"),
    }
}

/// Writes down how far a cluster has come. Work goes on without it: workers know it too.
async fn write_down(file: PathBuf, cluster: ClusterId, mark: Term) {
    let name = file.display().to_string();
    let written = tokio::task::spawn_blocking(move || identity::write(&file, cluster, mark)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(file = name, %error, "how far the cluster has come cannot be written down"),
        Err(error) => warn!(file = name, %error, "how far the cluster has come was not written down"),
    }
}
