//! `gapless cluster`: the cluster itself: who leads it, and what an operator has to say about its store.

use clap::{Args, Subcommand};
use gapless_proto::v1::ClusterInfo;

use crate::{
    app::App,
    arguments::{OutputArguments, TargetArguments},
    client::Client,
    failure::{Failure, Kind, talk},
    output::{self, Format, Table},
    view::ClusterView,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the cluster's identity, its epoch, who leads and in which term
    Show(Show),
    /// Go on with a store that is older than what others have seen of it (wiped, or restored from a copy)
    AcceptRestore(AcceptRestore),
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Debug, Args)]
struct AcceptRestore {
    #[command(flatten)]
    target: TargetArguments,
    /// Do it; without this flag it is only said what it would mean
    #[arg(long)]
    yes: bool,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Show(show) => show_cluster(show, app).await,
        Verb::AcceptRestore(accept) => accept_restore(accept, app).await,
    }
}

async fn show_cluster(arguments: Show, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let cluster = client.cluster().await?;
    client.close().await?;
    let text = match arguments.output.output {
        Format::Json => output::json(&ClusterView::from(&cluster))?,
        Format::Yaml => output::yaml(&ClusterView::from(&cluster))?,
        Format::Name => format!("{}\n", cluster.id),
        Format::Table | Format::Wide => table(&cluster),
    };
    if !cluster.held.is_empty() {
        talk(&cluster.held);
    }
    output::print(&text)
}

fn table(cluster: &ClusterInfo) -> String {
    let mut table = Table::new(&[
        "CLUSTER", ">EPOCH", ">TERM", "LEADER", "VERSION", "STATE", ">WORKERS", ">RUNS",
    ]);
    let (workers, runs, state) = match cluster.held.is_empty() {
        true => (
            cluster.live_workers.to_string(),
            cluster.live_runs.to_string(),
            "leading",
        ),
        false => ("-".to_string(), "-".to_string(), "held"),
    };
    table.row(vec![
        cluster.id.clone(),
        cluster.epoch.to_string(),
        cluster.term.to_string(),
        cluster.leader.clone(),
        cluster.version.clone(),
        state.to_string(),
        workers,
        runs,
    ]);
    table.text()
}

async fn accept_restore(arguments: AcceptRestore, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let before = client.cluster().await?;
    if before.held.is_empty() {
        client.close().await?;
        return Err(Failure::new(
            Kind::Conflict,
            "nothing has to be accepted: the store is not older than what was seen of it",
        ));
    }
    let epoch = before.epoch + 1;
    talk(meaning(&before, epoch));
    if !arguments.yes {
        let target = client.target().to_string();
        client.close().await?;
        return Err(Failure::usage(format!(
            "nothing was done; `gapless cluster accept-restore --yes{target}` does it"
        )));
    }
    let after = client.accept_restore(epoch).await?;
    client.close().await?;
    output::print(&format!("cluster {} goes on in epoch {}\n", after.id, after.epoch))
}

fn meaning(cluster: &ClusterInfo, epoch: u32) -> String {
    format!(
        "{}\n\
         Accepting makes this store, as it is now, the one of cluster {} from epoch {epoch} on:\n\
         - Runs that it does not have are forgotten. What they have published stays published, and a job of the same \
         identity may be submitted again; where its output exists it is refused or replaced as its `exists` says.\n\
         - Runs that it has go on from what it knows of them. What was done since is done again; a step whose output was \
         published meanwhile is not published a second time.\n\
         - Attempts that workers still hold and that it does not know are stopped.\n\
         - It cannot be undone. If a newer copy of the store exists, stop here, restore that one, and start anew.",
        cluster.held, cluster.id
    )
}
