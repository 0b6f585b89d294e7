//! A worker at the level of the wire: it says what it is told to, whether that is right or not.

use gapless_common::{
    plan::{Facts, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_proto::{
    access::Access,
    v1::{self, leader_command::Command, worker_event::Event, workers_client::WorkersClient},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use uuid::Uuid;

use crate::world::PATIENCE;

pub struct Wire {
    outbound: mpsc::Sender<v1::WorkerMessage>,
    inbound: Streaming<v1::LeaderMessage>,
    heard: Vec<Command>,
}

pub fn hello(name: &str) -> Event {
    Event::Hello(v1::Hello {
        mark: 0,
        reign: Default::default(),
        worker: Uuid::now_v7().as_bytes().to_vec().into(),
        name: name.to_string(),
        slots: 1,
        ..Default::default()
    })
}

impl Wire {
    /// Opens a session with this first word.
    pub async fn open(channel: Channel, access: &Access, first: Event) -> Result<Wire, Status> {
        let (outbound, messages) = mpsc::channel(4);
        let said = outbound.try_send(message(first));
        said.expect("an empty channel");
        let mut client = WorkersClient::with_interceptor(channel, access.clone());
        let inbound = client.session(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Wire {
            outbound,
            inbound,
            heard: Vec::new(),
        })
    }

    pub async fn say(&self, event: Event) {
        self.outbound.send(message(event)).await.expect("an open session");
    }

    /// The next command of a kind; others before it are passed over.
    pub async fn hear<T>(&mut self, what: &str, find: impl Fn(Command) -> Option<T>) -> T {
        loop {
            while !self.heard.is_empty() {
                if let Some(found) = find(self.heard.remove(0)) {
                    return found;
                }
            }
            let message = timeout(PATIENCE, self.inbound.message()).await;
            let message = message.unwrap_or_else(|_| panic!("waited in vain for {what}"));
            let message = message.expect("an open session").expect("not ended");
            self.heard = message
                .commands
                .into_iter()
                .filter_map(|command| command.command)
                .collect();
        }
    }

    pub async fn granted(&mut self) -> v1::Grant {
        let grant = |command| match command {
            Command::Grant(grant) => Some(grant),
            _ => None,
        };
        self.hear("a grant", grant).await
    }

    /// Offers a commit and gives the answer.
    pub async fn offer(&mut self, commit: v1::CommitRequest) -> v1::CommitReply {
        self.say(Event::Commit(commit)).await;
        let reply = |command| match command {
            Command::CommitReply(reply) => Some(reply),
            _ => None,
        };
        self.hear("a reply", reply).await
    }

    /// Hangs up without a word of leaving, as when the connection is gone.
    pub fn break_off(self) {
        drop(self);
    }

    /// Waits for the end of the session, and says why it ended.
    pub async fn ended(&mut self) -> String {
        loop {
            let message = timeout(PATIENCE, self.inbound.message()).await;
            match message.expect("it ends") {
                Ok(Some(_)) => {}
                Ok(None) => return String::new(),
                Err(status) => return status.message().to_string(),
            }
        }
    }
}

fn message(event: Event) -> v1::WorkerMessage {
    v1::WorkerMessage {
        events: vec![v1::WorkerEvent { event: Some(event) }],
    }
}

/// What a survey of the numbers from 0 to `to` reports.
pub fn facts(to: u64) -> Vec<u8> {
    let facts = Facts {
        unit: Unit::Number,
        files: Vec::new(),
        domain: UnitRange::new(0, to),
        columns: Vec::new(),
        read_columns: None,
        inputs: Vec::new(),
        output: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: "none".to_string(),
        },
        rows: to,
        bytes: 8 * to,
        sample: None,
        warnings: Vec::new(),
        lookups: Vec::new(),
        standing: None,
    };
    serde_json::to_vec(&facts).expect("JSON")
}
