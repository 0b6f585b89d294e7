//! `Cluster`: for operators.

use gapless_platform::clock::Clock;
use gapless_proto::v1::{self, cluster_server::Cluster};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::{seat::Seat, view};

pub struct ClusterService {
    pub seat: Seat,
    pub clock: Clock,
    /// The URL of this coordinator.
    pub address: String,
}

impl ClusterService {
    async fn info(&self) -> Result<v1::ClusterInfo, Status> {
        let version = env!("CARGO_PKG_VERSION").to_string();
        let leader = self.address.clone();
        if let Some(holding) = self.seat.holding() {
            return Ok(v1::ClusterInfo {
                id: holding.cluster.to_string(),
                epoch: holding.epoch.0,
                term: holding.term.0,
                version,
                leader,
                held: holding.reason,
                ..Default::default()
            });
        }
        let control = self.seat.lead()?.control;
        let info = control.read(|state| v1::ClusterInfo {
            id: state
                .cluster
                .as_ref()
                .map(|row| row.cluster.to_string())
                .unwrap_or_default(),
            epoch: state.term.epoch().0,
            term: state.term.0,
            version,
            live_workers: state.sessions.values().filter(|session| !session.row.void).count() as u32,
            slots: state.slots(),
            live_runs: state.live().len() as u32,
            leader,
            held: String::new(),
        });
        Ok(info.await?)
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Result<Response<v1::ClusterInfo>, Status> {
        Ok(Response::new(self.info().await?))
    }

    async fn accept_restore(
        &self,
        request: Request<v1::AcceptRestoreRequest>,
    ) -> Result<Response<v1::ClusterInfo>, Status> {
        let Some(holding) = self.seat.holding() else {
            // Whoever does not lead says so, and who does.
            self.seat.lead()?;
            return Err(Status::failed_precondition(
                "nothing has to be accepted: the store is not older than what was seen of it",
            ));
        };
        let epoch = request.into_inner().epoch;
        if epoch != holding.epoch.0 + 1 {
            return Err(Status::failed_precondition(format!(
                "the epoch is {}, and accepting makes it {}; {epoch} was asked for: look again with `gapless cluster show`",
                holding.epoch,
                holding.epoch.0 + 1
            )));
        }
        let (reply, accepted) = oneshot::channel();
        let gone = |_| Status::unavailable("this coordinator has lost the lead meanwhile; look again");
        holding
            .accept
            .send(reply)
            .await
            .map_err(|error| gone(error.0.is_closed()))?;
        match accepted.await {
            Ok(Ok(())) => Ok(Response::new(self.info().await?)),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(gone(true)),
        }
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let now = self.clock.now_micros();
        let control = self.seat.lead()?.control;
        let workers = control.read(move |state| view::workers(state, now)).await?;
        Ok(Response::new(v1::ListWorkersResponse { workers }))
    }
}
