//! `gapless run`: a whole job in this process, with a coordinator, workers and a store of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use gapless_platform::{
    clock::Clock,
    config::{Config, Origin, Setting},
    said::SaidLayer,
    shutdown::Shutdown,
};
use gapless_proto::{access::Access, v1::RunState};
use tokio::task::JoinSet;

use super::{redrive::redriven, submit::completed};
use crate::{
    app::{App, Flags, flag, start_log},
    arguments::{JobArguments, OutputArguments, TimeoutArgument, folder_flag},
    client::{Client, Submitted},
    embedded::{
        self, Announced, Coordinator, CoordinatorMetrics, CoordinatorSettings, Security, State, WorkerMetrics,
        WorkerSettings,
    },
    failure::{Failure, Kind, talk},
    follow::{Manner, again, follow},
    job_file::JobFile,
    local::{self, programs_log},
    view,
    wording::short,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    job: JobArguments,
    /// Folder of the embedded store [default: .gapless beside the job file]
    #[arg(long, visible_alias = "state-dir", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder, or address in an object store, for exchange files and staged data [default: scratch in the
    /// state folder]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Folder of this machine for what memory does not hold [default: spill in the scratch folder, or in TMPDIR]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,
    /// Number of workers in this process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// Tasks each worker does at a time [default: the cores, divided among the workers]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    #[command(flatten)]
    timeout: TimeoutArgument,
    #[command(flatten)]
    output: OutputArguments,
}

impl Arguments {
    /// The flags that say where the run lives and how it is done, as words that go on in a command line.
    fn words(&self) -> String {
        let folders = [
            ("--state", &self.state),
            ("--scratch", &self.scratch),
            ("--spill-dir", &self.spill_dir),
        ];
        let folders = folders
            .iter()
            .filter_map(|(flag, path)| path.as_ref().map(|path| folder_flag(flag, path)));
        let workers = (self.workers != 1).then(|| format!(" --workers {}", self.workers));
        let slots = self.slots.map(|slots| format!(" --slots {slots}"));
        folders.chain(workers).chain(slots).collect()
    }
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let parameters = arguments.job.parameters()?;
    let job = JobFile::read(&arguments.job.file)?;
    // The coordinator would find the same faults; here they cost no store.
    local::check(&job, &parameters)?;
    let config = settings(&arguments, &job, app)?;
    let same = arguments.words() + &app.words();
    let again = again("run", &arguments.job.file, &arguments.job.parameters, &same);
    let manner = Manner {
        format: arguments.output.output,
        timeout: arguments.timeout.timeout,
        stream: false,
        embedded: true,
        workers: None,
    };
    let whole = Whole {
        job: &job,
        parameters: &parameters,
        workers: arguments.workers,
        again: &again,
        redrive: None,
    };
    do_here(whole, config, manner, app).await
}

/// A job that is done in this process.
pub struct Whole<'a> {
    pub job: &'a JobFile,
    pub parameters: &'a BTreeMap<String, String>,
    pub workers: u32,
    /// The command that goes on with it.
    pub again: &'a str,
    /// Which redrive it is, if it is one.
    pub redrive: Option<u32>,
}

/// Does a job with a coordinator and workers of its own.
pub async fn do_here(whole: Whole<'_>, mut config: Config, manner: Manner<'_>, app: &App) -> Result<(), Failure> {
    if *config.origin(Setting::LogLevel) == Origin::Default {
        config.log_level = "off".to_string();
    }
    // Whoever starts this may start the program as well.
    if *config.origin(Setting::AllowCommand) == Origin::Default {
        config.allow_command = true;
    }
    let said = SaidLayer::new(programs_log(&config.state_dir), app.clock.clone());
    let telling = start_log(&config, "run", Some(said))?;
    let mut house = Household::open(&config, whole.workers).await?;
    let endpoint = house.coordinator.endpoint();
    let leaving = house.shutdown.clone();
    let manner = Manner {
        workers: Some(&leaving),
        ..manner
    };
    let work = async {
        let mut client = Client::connect(vec![endpoint], Access::default()).await?;
        client.speak_of(&config.state_dir);
        let run = loop {
            match client.submit(whole.job, whole.parameters, None).await? {
                Submitted::Accepted { run, resumed } => {
                    let goes_on = if resumed { " goes on" } else { "" };
                    talk(format_args!("run {}{goes_on}", short(&run)));
                    break run;
                }
                Submitted::Exists { run } if cleared_away(&mut client, &run).await? => {}
                Submitted::Exists { run } => break attach(&mut client, run, whole.redrive).await?,
            }
        };
        follow(&mut client, &run, manner, whole.again, app).await
    };
    let done = tokio::select! {
        done = work => done.map(drop),
        failure = house.worker_ended() => Err(failure),
    };
    let closed = house.close().await;
    telling.end().await;
    done.and(closed)
}

/// How long a cancelled run is waited for: its abort tasks remove what was staged.
const CLEARING: Duration = Duration::from_secs(60);

/// Between two looks at a run that is being cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the run was being cancelled and is gone now: the workers of this process see to it.
async fn cleared_away(client: &mut Client, run: &str) -> Result<bool, Failure> {
    let began = Instant::now();
    let mut waited = false;
    while client.get(run).await?.state() == RunState::Cancelling {
        if !waited {
            talk(format_args!(
                "run {} was cancelled; what it staged is removed first",
                short(run)
            ));
        }
        if began.elapsed() > CLEARING {
            let message = format!("run {} is still being cancelled; try again in a while", short(run));
            return Err(Failure::new(Kind::Conflict, message));
        }
        waited = true;
        tokio::time::sleep(LOOK).await;
    }
    Ok(waited)
}

/// A run of this identity is there already: one that goes on is followed, a complete one refused.
async fn attach(client: &mut Client, run: String, redrive: Option<u32>) -> Result<String, Failure> {
    let found = client.get(&run).await?;
    if view::has_ended(&found) {
        let message = match redrive {
            None => completed(&found.job, short(&run), client.target()),
            Some(number) => redriven(short(&run), number, client.target()),
        };
        return Err(Failure::new(Kind::Conflict, message));
    }
    talk(format_args!("run {} goes on", short(&run)));
    Ok(run)
}

fn settings(arguments: &Arguments, job: &JobFile, app: &App) -> Result<Config, Failure> {
    let mut flags = Flags::new();
    flag(
        &mut flags,
        Setting::StateDir,
        arguments.state.as_ref().map(|path| path.display()),
    );
    flag(
        &mut flags,
        Setting::Scratch,
        arguments.scratch.as_ref().map(|path| path.display()),
    );
    flag(
        &mut flags,
        Setting::SpillDir,
        arguments.spill_dir.as_ref().map(|path| path.display()),
    );
    flag(&mut flags, Setting::Slots, arguments.slots);
    let mut config = app.config(flags)?;
    if *config.origin(Setting::StateDir) == Origin::Default {
        let beside = PathBuf::from(&job.base_dir).join(&config.state_dir);
        if *config.origin(Setting::Scratch) == Origin::Default {
            config.scratch = beside.join("scratch");
        }
        config.state_dir = beside;
    }
    if *config.origin(Setting::Slots) == Origin::Default {
        config.slots = (config.slots / arguments.workers).max(1);
    }
    Ok(config)
}

/// The coordinator and the workers of this process.
struct Household {
    coordinator: Coordinator,
    workers: JoinSet<Result<(), Failure>>,
    shutdown: Shutdown,
    _announced: Announced,
}

impl Household {
    async fn open(config: &Config, workers: u32) -> Result<Household, Failure> {
        let shutdown = Shutdown::new();
        let settings = CoordinatorSettings {
            state: State::Folder(config.state_dir.clone()),
            scratch: config.scratch.clone(),
            memory_dir: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            lease_ms: config.lease_ms,
            heartbeat_ms: config.heartbeat_ms,
            own_workers: true,
            metrics: CoordinatorMetrics::new(Clock::system()),
            // Loopback, on a port that nobody knows.
            security: Security::default(),
        };
        // The coordinator outlives the workers, which hand back their attempts as they leave.
        let coordinator = Coordinator::start(settings, Shutdown::new()).await?;
        let announced = Announced::write(&config.state_dir, &coordinator.endpoint())?;
        let mut set = JoinSet::new();
        for number in 1..=workers {
            let settings = WorkerSettings {
                endpoints: vec![coordinator.endpoint()],
                name: Some(format!("worker-{number}")),
                slots: config.slots,
                labels: config.labels.clone(),
                memory_per_slot_mib: config.memory_per_slot_mib,
                metrics: WorkerMetrics::new(config.slots, Clock::system()),
                access: Access::default(),
                allow_paths: config.allow_paths.clone(),
                allow_command: config.allow_command,
                program_variables: config.program_variables.clone(),
                spill_dir: config.spill_dir.clone(),
            };
            set.spawn(embedded::run_worker(settings, shutdown.child()));
        }
        Ok(Household {
            coordinator,
            workers: set,
            shutdown,
            _announced: announced,
        })
    }

    /// A worker of this process must not end before the job has.
    async fn worker_ended(&mut self) -> Failure {
        match self.workers.join_next().await {
            // They were told to, and who told them waits for the run.
            _ if self.shutdown.is_draining() => std::future::pending().await,
            Some(Ok(Err(failure))) => failure,
            Some(Ok(Ok(()))) | None => Failure::failed("a worker of this process ended before the job had"),
            Some(Err(panic)) => Failure::failed(format!("a worker of this process failed: {panic}; please report it")),
        }
    }

    async fn close(mut self) -> Result<(), Failure> {
        self.shutdown.drain();
        while self.workers.join_next().await.is_some() {}
        self.coordinator.stop().await
    }
}
