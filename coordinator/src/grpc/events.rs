//! The history of a run as a stream.

use futures::{Stream, StreamExt, stream};
use gapless_common::ids::RunId;
use gapless_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use crate::{control::Control, limits::WATCH_INTERVAL, view};

/// Where a reader of a history is.
struct Reader {
    control: Control,
    changes: watch::Receiver<u64>,
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
    control: Control,
    run: RunId,
    after_micros: i64,
    follow: bool,
) -> impl Stream<Item = Result<v1::RunEvent, Status>> + Send {
    let reader = Reader {
        changes: control.changes(),
        control,
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
            let lost = |_| Status::unavailable("this coordinator leads no more");
            self.changes.changed().await.map_err(lost)?;
            tokio::time::sleep(WATCH_INTERVAL).await;
            self.changes.mark_unchanged();
        }
        self.looked = true;
        let (run, after) = (self.run, self.after_micros);
        let found = self.control.read(move |state| view::events(state, run, after)).await?;
        let (events, over) = found.ok_or_else(|| Status::not_found(format!("no run {run}")))?;
        if let Some(last) = events.last() {
            self.after_micros = last.at_micros;
        }
        self.ended = over || !self.follow;
        Ok(events)
    }
}
