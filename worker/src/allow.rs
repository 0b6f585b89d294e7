//! The folders outside which a worker touches no data: looked at before each task, before anything of
//! it is opened.
//!
//! It stops job files, not somebody who changes links in an allowed folder while a task begins: a
//! worker is to run as a user who may touch no more than it has to.

use std::{
    collections::HashSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use gapless_common::{
    address::{ObjectUrl, is_url},
    error::{ErrorClass, TaskError},
    ids::Stage,
    job::{Source, Step},
};

use crate::{
    attempt::{Assignment, StepContext},
    source::pins::expand,
    storage::{StepFolders, is_object, resolve},
};

/// Signs that make a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The folders, without links. Empty allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    folders: Vec<PathBuf>,
}

/// A folder that cannot be allowed.
#[derive(Debug, thiserror::Error)]
#[error("allow_paths (--allow-path): {}: {source}; name folders that are there", path.display())]
pub struct AllowError {
    path: PathBuf,
    source: io::Error,
}

impl AllowList {
    /// Follows the links of each folder now: what is meant is where they lead at the start.
    pub fn new(folders: &[PathBuf]) -> Result<AllowList, AllowError> {
        let resolved = folders.iter().map(|path| {
            let resolved = match is_object(path) {
                true => address(path),
                false => fs::canonicalize(path),
            };
            resolved.map_err(|source| AllowError {
                path: path.clone(),
                source,
            })
        });
        Ok(AllowList {
            folders: resolved.collect::<Result<_, _>>()?,
        })
    }

    /// Checks every path that this task may touch.
    ///
    /// Errors: `Config` naming the path and the setting.
    pub fn check(&self, assignment: &Assignment) -> Result<(), TaskError> {
        if self.folders.is_empty() {
            return Ok(());
        }
        let context = &assignment.context;
        self.inside(&context.scratch, "scratch")?;
        let step = context.step();
        self.check_sink(step, context)?;
        match assignment.task.stage {
            Stage::Survey | Stage::Prepare | Stage::Scatter | Stage::Execute => {}
            // These read what was staged: a source may be gone by then.
            Stage::Merge | Stage::Publish | Stage::Abort => return Ok(()),
        }
        self.check_lookups(step, context)?;
        self.check_source(step, context)?;
        let pinned = context.frame.iter().flat_map(|frame| &frame.facts.files);
        for file in pinned {
            self.inside(&resolve(&context.base_dir, &file.path), "a source")?;
        }
        Ok(())
    }

    /// The step's source; where that is an earlier step, also what that one is read and written with,
    /// since its columns may have to be found out from there.
    fn check_source(&self, step: &Step, context: &StepContext) -> Result<(), TaskError> {
        let (mut left, mut seen) = (vec![step], HashSet::from([step.name.as_str()]));
        while let Some(step) = left.pop() {
            for input in step.source.inputs() {
                let patterns = match input {
                    Source::Csv(_) | Source::Ndjson(_) | Source::Parquet(_) | Source::Avro(_) | Source::Records(_) => {
                        input.paths()
                    }
                    Source::Sequence { .. } | Source::Merge(_) => continue,
                    Source::Step(name) => {
                        if let Some(earlier) = context.job.step(name).filter(|_| seen.insert(name)) {
                            self.check_sink(earlier, context)?;
                            self.check_lookups(earlier, context)?;
                            left.push(earlier);
                        }
                        continue;
                    }
                };
                // What a survey has pinned is checked file by file, with each task.
                match &context.frame {
                    None => self.check_patterns(patterns, &context.base_dir, "a source")?,
                    Some(_) => self.check_roots(patterns, &context.base_dir, "a source")?,
                }
            }
        }
        Ok(())
    }

    fn check_lookups(&self, step: &Step, context: &StepContext) -> Result<(), TaskError> {
        for lookup in step.lookups.values() {
            self.check_patterns(lookup.paths(), &context.base_dir, "a look-up")?;
        }
        Ok(())
    }

    fn check_sink(&self, step: &Step, context: &StepContext) -> Result<(), TaskError> {
        let Some(file) = step.sink.file() else { return Ok(()) };
        let no = context.step_no;
        let folders = StepFolders::new(&step.sink, &context.base_dir, &context.scratch, context.run, no)?;
        self.inside(&resolve(&context.base_dir, &file.path), "a sink")?;
        self.inside(folders.output(), "a sink")?;
        self.inside(folders.control(), "what a sink keeps beside it")
    }

    /// Patterns and what they match now.
    fn check_patterns(&self, patterns: &[String], base_dir: &Path, what: &str) -> Result<(), TaskError> {
        self.check_roots(patterns, base_dir, what)?;
        for pattern in patterns {
            for path in expand(base_dir, std::slice::from_ref(pattern))? {
                self.inside(&resolve(base_dir, &path), what)?;
            }
        }
        Ok(())
    }

    /// The folders that patterns begin in: nothing is even listed outside.
    fn check_roots(&self, patterns: &[String], base_dir: &Path, what: &str) -> Result<(), TaskError> {
        for pattern in patterns {
            if is_url(pattern) {
                let wild = pattern.find(WILDCARDS).map_or(pattern.as_str(), |at| {
                    pattern[..at].rsplit_once('/').map_or("", |(folder, _)| folder)
                });
                self.inside(Path::new(wild), what)?;
                continue;
            }
            let mut root = base_dir.to_path_buf();
            let mut wild = false;
            for component in Path::new(pattern).components() {
                wild |= component.as_os_str().to_string_lossy().contains(WILDCARDS);
                match component {
                    Component::ParentDir if wild => {
                        let full = base_dir.join(pattern);
                        return Err(refused(&full, what, "`..` after a wildcard may lead anywhere"));
                    }
                    // The root of an absolute pattern takes the place of the base.
                    component if !wild => root.push(component),
                    _ => {}
                }
            }
            self.inside(&root, what)?;
        }
        Ok(())
    }

    fn inside(&self, path: &Path, what: &str) -> Result<(), TaskError> {
        let resolved = match is_object(path) {
            true => address(path),
            false => follow(path),
        };
        let resolved = resolved.map_err(|error| refused(path, what, &format!("it cannot be resolved: {error}")))?;
        if self.folders.iter().any(|folder| resolved.starts_with(folder)) {
            return Ok(());
        }
        let allowed: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let allowed = allowed.join(", ");
        let leads = match resolved == path {
            true => String::new(),
            false => format!("it leads to {}, and ", resolved.display()),
        };
        Err(refused(path, what, &format!("{leads}allowed is {allowed}")))
    }
}

fn refused(path: &Path, what: &str, why: &str) -> TaskError {
    let message = format!(
        "{} ({what}) is not inside the folders that this worker may touch: {why}; change the job's path, or the \
         worker's setting allow_paths (--allow-path)",
        path.display()
    );
    TaskError::new(ErrorClass::Config, message)
}

/// An address of an object store as there is only one of: there are no links, and no `..`.
fn address(path: &Path) -> io::Result<PathBuf> {
    let parsed = path.to_string_lossy().parse::<ObjectUrl>();
    parsed
        .map(|url| PathBuf::from(url.to_string()))
        .map_err(|why| io::Error::other(format!("the address {why}")))
}

/// Where a path leads: links followed, `..` resolved. What is not there yet is where its nearest folder
/// leads.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let error = match fs::canonicalize(path) {
        Ok(resolved) => return Ok(resolved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        Err(error) => return Err(error),
    };
    // A link that leads nowhere yet would be followed by whoever creates it.
    if path.symlink_metadata().is_ok() {
        return Err(error);
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(follow(parent)?.join(name)),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::symlink, sync::Arc};

    use gapless_common::{
        attempt::Fence,
        ids::{AttemptId, RunId, TaskKey, Term},
        job,
        range::UnitRange,
    };
    use uuid::Uuid;

    use super::*;

    /// `in` is allowed and has data and links; `out` is not.
    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let world = World {
                folder: tempfile::tempdir().expect("a folder"),
            };
            for folder in ["in/data", "in/scratch", "outside"] {
                fs::create_dir_all(world.path(folder)).expect("made");
            }
            for file in ["in/data/a.csv", "in/data/b.csv", "outside/secret.csv", "in/ref.csv"] {
                fs::write(world.path(file), "k\n1\n").expect("written");
            }
            symlink(world.path("outside"), world.path("in/link")).expect("linked");
            symlink(world.path("outside/secret.csv"), world.path("in/data/link.csv")).expect("linked");
            symlink(world.path("outside/new"), world.path("in/dangling")).expect("linked");
            symlink(world.path("in/data"), world.path("in/here")).expect("linked");
            world
        }

        fn path(&self, relative: &str) -> PathBuf {
            self.folder.path().canonicalize().expect("there").join(relative)
        }

        /// Checks a survey of a step with this source, look-up and sink in the folder `in`.
        fn check(&self, source: &str, lookup: &str, sink: &str) -> Result<(), TaskError> {
            let text = format!(
                "job: j\nsteps:\n  - name: s\n    source: {{csv: {{path: {source:?}, columns: {{k: int64}}}}}}\n    \
                 lookups: {{r: {{csv: {{path: {lookup:?}, columns: {{k: int64}}}}}}}}\n    \
                 sink: {{csv: {{path: {sink:?}}}}}\n"
            );
            let (job, _) = job::parse(&text, "job.yaml")
                .and_then(|parsed| parsed.bind(&BTreeMap::new()))
                .unwrap_or_else(|errors| panic!("{text}\n{errors}"));
            let run = RunId(Uuid::nil());
            let assignment = Assignment {
                task: TaskKey {
                    run,
                    step: 0,
                    stage: Stage::Survey,
                    partition: 0,
                },
                fence: Fence {
                    number: 1,
                    id: AttemptId {
                        term: Term(1),
                        serial: 1,
                    },
                },
                units: UnitRange::new(0, 1),
                position: 0,
                seq: 0,
                context: Arc::new(StepContext {
                    job: Arc::new(job),
                    step_no: 0,
                    run,
                    edition: 0,
                    base_dir: self.path("in"),
                    started_micros: 0,
                    scratch: self.path("in/scratch"),
                    frame: None,
                    preparation: None,
                    seal: None,
                }),
            };
            AllowList::new(&[self.path("in/here"), self.path("in"), PathBuf::from("s3://b/open/")])
                .expect("folders")
                .check(&assignment)
        }
    }

    #[test]
    fn what_lies_inside_is_allowed_however_it_is_written() {
        let world = World::new();
        let absolute = world.path("in/data/a.csv").display().to_string();
        for source in [
            "data/a.csv",
            "data/[ab].csv",
            "./data/../data/a.csv",
            "here/a.csv",
            "link/../in/data/a.csv",
            &absolute,
        ] {
            let checked = world.check(source, "ref.csv", "results/new/x");
            assert!(checked.is_ok(), "{source}: {checked:?}");
        }
    }

    #[test]
    fn what_leads_outside_is_refused_before_it_is_opened() {
        let world = World::new();
        let outside = world.path("outside/secret.csv").display().to_string();
        let sink = world.path("outside/x").display().to_string();
        let beside = world.path("inside/x").display().to_string();
        let good = ("data/a.csv", "ref.csv", "results");
        for (source, lookup, sink, named) in [
            (outside.as_str(), good.1, good.2, "outside/secret.csv"),
            ("../outside/secret.csv", good.1, good.2, "outside/secret.csv"),
            ("link/secret.csv", good.1, good.2, "link/secret.csv"),
            ("link/*.csv", good.1, good.2, "in/link"),
            ("data/*.csv", good.1, good.2, "data/link.csv"),
            ("data/link.csv", good.1, good.2, "data/link.csv"),
            ("*/../../outside/*.csv", good.1, good.2, "after a wildcard"),
            ("/etc/passwd", good.1, good.2, "/etc/passwd"),
            (good.0, outside.as_str(), good.2, "outside/secret.csv"),
            (good.0, "link/*", good.2, "in/link"),
            (good.0, good.1, sink.as_str(), "outside/x"),
            (good.0, good.1, "../outside/x", "outside/x"),
            (good.0, good.1, "link/x", "link/x"),
            (good.0, good.1, "dangling", "dangling"),
            (good.0, good.1, "dangling/x", "dangling/x"),
            (good.0, good.1, beside.as_str(), "inside/x"),
            // What is kept beside it would be outside.
            (good.0, good.1, "../in", ".in.gapless"),
            ("s3://b/secret/a.csv", good.1, good.2, "s3://b/secret/a.csv"),
            ("s3://b/openly/a.csv", good.1, good.2, "s3://b/openly/a.csv"),
            ("s3://b/open*", good.1, good.2, "s3://b (a source)"),
            ("s3://other/open/a.csv", good.1, good.2, "s3://other/open/a.csv"),
            (good.0, "s3://b/x/*", good.2, "s3://b/x"),
        ] {
            let error = world.check(source, lookup, sink).expect_err(source);
            assert_eq!(error.class, ErrorClass::Config, "{error}");
            for words in [named, "allow_paths (--allow-path)"] {
                assert!(
                    error.message.contains(words),
                    "{source} {lookup} {sink}: {error}\nlacks {words}"
                );
            }
        }
    }

    #[test]
    fn an_allowed_folder_must_be_there() {
        let world = World::new();
        let error = AllowList::new(&[world.path("nowhere")])
            .expect_err("refused")
            .to_string();
        assert!(error.contains("nowhere") && error.contains("--allow-path"), "{error}");
        assert_eq!(AllowList::new(&[]).expect("none"), AllowList::default());
    }
}
