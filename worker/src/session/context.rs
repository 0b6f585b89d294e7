//! What slots know of steps: asked for once for each (run, step, edition), and again when a later stage needs
//! what was not there yet.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use gapless_common::{
    error::{ErrorClass, TaskError},
    ids::{RunId, Stage, StepNo},
    job::{self, Job},
};
use gapless_proto::v1;

use super::{
    calls::Calls,
    held::Held,
    limits::{MAX_CONTEXTS, MAX_JOBS},
};
use crate::attempt::StepContext;

/// The contexts of the steps worked on lately.
#[derive(Debug, Default)]
pub struct Contexts(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    /// The job files of the runs served lately, the latest last: a run's steps share one.
    jobs: VecDeque<(RunId, Arc<Job>)>,
    uses: u64,
    places: HashMap<PlaceKey, (u64, Arc<Place>)>,
}

/// A step that is planned anew is another one here.
type PlaceKey = (RunId, StepNo, u32);

/// Locked while the step is asked for, so that many slots ask once.
type Place = Mutex<Option<Known>>;

#[derive(Clone, Debug)]
struct Known {
    context: Arc<StepContext>,
    /// The latest stage for which it was asked for.
    stage: Stage,
}

impl Known {
    /// Whether asking again can teach a task of this stage anything. What the leader tells of a
    /// step is only ever added to, and by the end of stages.
    fn is_enough_for(&self, stage: Stage) -> bool {
        let context = &self.context;
        let complete = context.frame.is_some() && context.preparation.is_some() && context.seal.is_some();
        complete || (stage <= self.stage && (context.frame.is_some() || !needs_frame(stage)))
    }
}

/// A step that is cancelled may never have been split.
fn needs_frame(stage: Stage) -> bool {
    match stage {
        Stage::Survey | Stage::Abort => false,
        Stage::Prepare | Stage::Scatter | Stage::Execute | Stage::Merge | Stage::Publish => true,
    }
}

impl Contexts {
    /// The context of the attempt's step, complete enough for its stage. Blocks while it is asked for.
    pub fn get(&self, held: &Held, calls: &Calls) -> Result<Arc<StepContext>, TaskError> {
        let task = held.task;
        let place = self.place((task.run, task.step, held.edition));
        let mut known = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.is_enough_for(task.stage)) {
            return Ok(known.context.clone());
        }
        let context = Arc::new(self.ask(held, calls)?);
        *known = Some(Known {
            context: context.clone(),
            stage: task.stage,
        });
        if context.frame.is_none() && needs_frame(task.stage) {
            let message = format!("{task}: the leader has no plan of this step yet");
            return Err(TaskError::new(ErrorClass::Transient, message));
        }
        Ok(context)
    }

    fn ask(&self, held: &Held, calls: &Calls) -> Result<StepContext, TaskError> {
        let run = held.task.run;
        let known = self.job(run);
        let answer = calls.get_step(held, known.is_some())?;
        let job = match known {
            Some(job) => job,
            None => {
                let job = Arc::new(read_job(held, &answer)?);
                self.keep_job(run, job.clone());
                job
            }
        };
        read(held, job, answer)
    }

    fn job(&self, run: RunId) -> Option<Arc<Job>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cache.jobs.iter().find(|(of, _)| *of == run);
        found.map(|(_, job)| job.clone())
    }

    fn keep_job(&self, run: RunId, job: Arc<Job>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.jobs.retain(|(of, _)| *of != run);
        if cache.jobs.len() >= MAX_JOBS {
            cache.jobs.pop_front();
        }
        cache.jobs.push_back((run, job));
    }

    fn place(&self, key: PlaceKey) -> Arc<Place> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.uses += 1;
        let uses = cache.uses;
        if let Some((used, place)) = cache.places.get_mut(&key) {
            *used = uses;
            return place.clone();
        }
        if cache.places.len() >= MAX_CONTEXTS
            && let Some(oldest) = cache
                .places
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| *key)
        {
            cache.places.remove(&oldest);
        }
        let place = Arc::new(Place::default());
        cache.places.insert(key, (uses, place.clone()));
        place
    }
}

fn bad(held: &Held, reason: &dyn std::fmt::Display) -> TaskError {
    TaskError::new(ErrorClass::Config, format!("{}: {reason}", held.task))
}

fn read_job(held: &Held, step: &v1::GetStepResponse) -> Result<Job, TaskError> {
    let parameters: BTreeMap<String, String> = step.parameters.clone().into_iter().collect();
    let (job, _) = job::parse_redrive(&step.job_text, &step.redrive, "the job file")
        .and_then(|parsed| parsed.bind(&parameters))
        .map_err(|errors| bad(held, &errors))?;
    Ok(job)
}

fn read(held: &Held, job: Arc<Job>, step: v1::GetStepResponse) -> Result<StepContext, TaskError> {
    let task = held.task;
    if usize::from(task.step) >= job.steps.len() {
        return Err(bad(held, &format!("the job file has {} steps", job.steps.len())));
    }
    if step.edition != held.edition {
        let message = format!(
            "{task}: the step is planned anew: this is an attempt at its edition {}, there is {}",
            held.edition, step.edition
        );
        return Err(TaskError::new(ErrorClass::Fenced, message));
    }
    let frame = match step.frame.as_ref() {
        [] => None,
        json => Some(serde_json::from_slice(json).map_err(|reason| bad(held, &format!("the step's frame: {reason}")))?),
    };
    Ok(StepContext {
        job,
        step_no: task.step,
        run: task.run,
        edition: step.edition,
        base_dir: PathBuf::from(step.base_dir),
        started_micros: step.started_micros,
        scratch: PathBuf::from(step.scratch),
        frame,
        preparation: Some(step.preparation.to_vec()).filter(|json| !json.is_empty()),
        seal: Some(step.seal).filter(|seal| *seal != 0),
    })
}
