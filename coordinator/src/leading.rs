//! Leading: a coordinator begins a term, reigns while the term is confirmed, and ends. With the
//! embedded store it does so once; with etcd it waits until nobody leads, and afterwards waits again.

use std::thread;

use gapless_platform::{
    clock::Clock,
    retry::{self, Delays},
    shutdown::Shutdown,
};
use gapless_proto::v1::{jobs_server::JobsServer, workers_server::WorkersServer};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic_health::server::HealthReporter;
use tracing::{debug, error, info, warn};

use crate::{
    control::{Control, ControlConfig},
    grpc::{JobsService, WorkersService},
    limits::{CONFIRM_FRACTION, LOOP_GRACE, TICK},
    metrics::Metrics,
    seat::{Confirmation, Lead, Role},
    store::{Etcd, EtcdStore, Standing, Store, StoreError, StoreFull},
};

pub struct Leading {
    pub role: watch::Sender<Role>,
    pub health: HealthReporter,
    pub clock: Clock,
    pub config: ControlConfig,
    pub metrics: Metrics,
    reign: Option<Reign>,
}

/// A term of this coordinator.
struct Reign {
    control: Control,
    thread: thread::JoinHandle<Result<(), StoreError>>,
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
    ) -> Leading {
        Leading {
            role,
            health,
            clock,
            config,
            metrics,
            reign: None,
        }
    }

    /// Begins a term and lets the services answer, as long as the term is confirmed where others may lead.
    pub async fn begin(
        &mut self,
        store: Box<dyn Store>,
        full: watch::Receiver<Option<StoreFull>>,
        confirmation: Option<Confirmation>,
    ) -> Result<(), StoreError> {
        let (clock, config, stop) = (self.clock.clone(), self.config, Shutdown::new());
        let (own, metrics) = (stop.clone(), self.metrics.clone());
        // Beginning reads all rows, and blocks.
        let started = tokio::task::spawn_blocking(move || Control::start(store, clock, config, own, metrics)).await;
        let (control, thread) = started.map_err(|error| StoreError::Read {
            reason: format!("the loop did not start: {error}"),
        })??;
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

    /// Ends the term, if there is one, after what is under way. Says whether its loop had failed.
    pub async fn end(&mut self) -> bool {
        self.fall_silent("").await;
        let Some(Reign {
            control, thread, stop, ..
        }) = self.reign.take()
        else {
            return false;
        };
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
        match joined {
            Ok(Ok(Ok(()) | Err(StoreError::LostTerm { .. }))) => false,
            // The loop has said why.
            Ok(Ok(Err(_))) => true,
            Ok(Err(_)) | Err(_) => {
                error!("the control loop panicked; please report it");
                true
            }
        }
    }

    /// Tells the loop that time passes, until the loop has ended.
    pub async fn keep_time(&self) {
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
        loop {
            self.metrics.stands_by();
            let mut known = String::new();
            etcd.until_free(|leader| {
                if leader != known {
                    info!(leader, "standing by");
                    known = leader.to_string();
                    let leader = known.clone();
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
                    tokio::select! {
                        () = self.reign(&confirmation) => {}
                        () = etcd.upkeep(tell_full) => {}
                    }
                    let failed = self.end().await;
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
