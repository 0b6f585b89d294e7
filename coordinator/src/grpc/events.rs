//! The history of a run as a stream.

use futures::{Stream, StreamExt, stream};
use gapless_common::ids::RunId;
use gapless_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    control::Changes,
    limits::WATCH_INTERVAL,
    seat::{Lead, not_leader},
    view,
};

/// Where a reader of a history is.
struct Reader {
    lead: Lead,
    changes: watch::Receiver<Changes>,
    run: RunId,
    /// The time of the last event that was sent.
    after_micros: i64,
    follow: bool,
    /// Whether it was looked at before.
    looked: bool,
    ended: bool,
}

/// The events of a run after a time; with `follow`, also those that come until it has ended.
pub fn stream(
    lead: Lead,
    run: RunId,
    after_micros: i64,
    follow: bool,
) -> impl Stream<Item = Result<v1::RunEvent, Status>> + Send {
    let reader = Reader {
        changes: lead.control.changes(),
        lead,
        run,
        after_micros,
        follow,
        looked: false,
        ended: false,
    };
    stream::unfold(reader, |mut reader| async move {
        if reader.ended {
            return None;
        }
        let events = match reader.look().await {
            Ok(events) => events.into_iter().map(Ok).collect(),
            Err(status) => {
                reader.ended = true;
                vec![Err(status)]
            }
        };
        Some((stream::iter(events), reader))
    })
    .flatten()
}

impl Reader {
    /// What is new. Waits for a change first, where it has looked before.
    async fn look(&mut self) -> Result<Vec<v1::RunEvent>, Status> {
        if self.looked {
            let over = self.lead.over.stopping();
            let changed = async {
                self.changes.changed().await.map_err(|_| not_leader(""))?;
                tokio::time::sleep(WATCH_INTERVAL).await;
                Ok::<(), Status>(())
            };
            over.run_until_cancelled(changed)
                .await
                .ok_or_else(|| not_leader(""))??;
            self.changes.mark_unchanged();
        }
        self.looked = true;
        let (run, after) = (self.run, self.after_micros);
        let found = self
            .lead
            .control
            .read(move |state| view::events(state, run, after))
            .await?;
        let (events, over) = found.ok_or_else(|| Status::not_found(format!("no run {run}")))?;
        if let Some(last) = events.last() {
            self.after_micros = last.at_micros;
        }
        self.ended = over || !self.follow;
        Ok(events)
    }
}
