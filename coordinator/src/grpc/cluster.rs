//! `Cluster`: for operators.

use gapless_platform::clock::Clock;
use gapless_proto::v1::{self, cluster_server::Cluster};
use tonic::{Request, Response, Status};

use crate::{seat::Seat, view};

pub struct ClusterService {
    pub seat: Seat,
    pub clock: Clock,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Result<Response<v1::ClusterInfo>, Status> {
        let control = self.seat.lead()?.control;
        let info = control.read(|state| v1::ClusterInfo {
            id: state
                .cluster
                .as_ref()
                .map(|row| row.cluster.to_string())
                .unwrap_or_default(),
            term: state.term.0,
            version: env!("CARGO_PKG_VERSION").to_string(),
            live_workers: state.sessions.values().filter(|session| !session.row.void).count() as u32,
            slots: state.slots(),
            live_runs: state.live().len() as u32,
        });
        Ok(Response::new(info.await?))
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
