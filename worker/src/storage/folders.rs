//! Where the files of a step lie. Every path below an output is made here, nowhere else.
//!
//! For a sink path `P = <parent>/<name>` the control folder is `C = <parent>/.<name>.gapless`, on
//! the same file system, so that publishing is links and one rename. A sink that keeps nothing has
//! its records below the scratch folder, in the same shape.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use gapless_common::{
    address::{ObjectUrl, is_url},
    error::{ErrorClass, TaskError},
    ids::{AttemptId, PartitionNo, RunId, Stage, StepNo},
    job::Sink,
};

use crate::attempt::StepContext;

/// What Gapless adds to a published output, out of the way of readers (names with `_` are hidden).
pub const CONTROL_SUBFOLDER: &str = "_gapless";

/// What the names of certificates begin with.
pub const CERTIFICATE_PREFIX: &str = "certificate-";

/// The name of one chunk's files: unique, since it carries the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkName {
    pub stage: Stage,
    pub partition: PartitionNo,
    pub attempt: AttemptId,
    pub seq: u32,
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.stage {
            Stage::Scatter => "scatter",
            Stage::Merge => "merged",
            _ => "part",
        };
        write!(f, "{kind}-{:05}-{}-{}", self.partition, self.attempt, self.seq)
    }
}

impl ChunkName {
    /// The name of a file of an output with an order: files in the order of their names hold rows in order. `low` is
    /// the first unit of the chunk; numbers of partitions say nothing of the order.
    pub fn in_order(&self, low: FirstUnit) -> String {
        let Self {
            partition,
            attempt,
            seq,
            ..
        } = self;
        match low {
            FirstUnit::Sorted(bucket) => format!("sorted-{bucket:05}-{partition:05}-{attempt}-{seq}"),
            FirstUnit::OfSource(unit) => format!("part-{unit:018}-{partition:05}-{attempt}-{seq}"),
        }
    }
}

/// Where a chunk of an output with an order begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstUnit {
    /// At this bucket of a sorted output.
    Sorted(u64),
    /// At this unit of a source whose order the output keeps; a byte, perhaps, so with all digits that a unit can have.
    OfSource(u64),
}

/// The folders of one step of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFolders {
    output: PathBuf,
    control: PathBuf,
    staged: PathBuf,
    scratch: PathBuf,
    run: RunId,
    step: StepNo,
}

impl StepFolders {
    /// Errors: `Config` where the sink's path has no last name (`/`, `..`).
    pub fn of(context: &StepContext) -> Result<Self, TaskError> {
        let folders = Self::new(
            &context.step().sink,
            &context.base_dir,
            &context.scratch,
            context.run,
            context.step_no,
        )?;
        Ok(folders.of_edition(context.edition))
    }

    /// Those of a step that was never planned anew.
    pub fn new(sink: &Sink, base_dir: &Path, scratch: &Path, run: RunId, step: StepNo) -> Result<Self, TaskError> {
        let own = run_folder(run, step, 0);
        let scratch_own = scratch.join(&own);
        let output = match sink.file() {
            Some(file) => placed(base_dir, &file.path)?,
            None => scratch.join("published").join(&own),
        };
        let (Some(parent), Some(name)) = (output.parent(), output.file_name()) else {
            return Err(TaskError::new(
                ErrorClass::Config,
                format!(
                    "the sink's path {} names no folder of its own; write out/<name>",
                    output.display()
                ),
            ));
        };
        let control = parent.join(format!(".{}.gapless", name.to_string_lossy()));
        let staged = match sink.file() {
            Some(_) => control.join("run").join(&own),
            None => scratch_own.clone(),
        };
        Ok(Self {
            output,
            control,
            staged,
            scratch: scratch_own,
            run,
            step,
        })
    }

    /// What an edition stages lies apart from what earlier ones did, which may be swept late.
    pub fn of_edition(self, edition: u32) -> Self {
        let own = run_folder(self.run, self.step, edition);
        Self {
            staged: self.staged.with_file_name(&own),
            scratch: self.scratch.with_file_name(&own),
            ..self
        }
    }

    /// `P`: what readers open.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// `C`: what belongs to Gapless beside it.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Everything this step has staged; gone once the step is settled.
    pub fn staged(&self) -> &Path {
        &self.staged
    }

    /// This step's exchange files and their manifests.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub fn data(&self) -> PathBuf {
        self.staged.join("data")
    }

    /// The staged file that is to be published as `rel`.
    pub fn data_file(&self, rel: &str) -> PathBuf {
        self.data().join(format!("{rel}.part"))
    }

    pub fn rejects(&self) -> PathBuf {
        self.staged.join("rejects")
    }

    /// Fingerprints of keys that are to be unique.
    pub fn keys(&self) -> PathBuf {
        self.staged.join("keys")
    }

    pub fn keys_file(&self, chunk: &str) -> PathBuf {
        self.keys().join(format!("{chunk}.keys"))
    }

    pub fn rejects_file(&self, chunk: ChunkName) -> PathBuf {
        self.rejects().join(format!("{chunk}.ndjson"))
    }

    /// The folder of manifests: scatter chunks have theirs in scratch, beside the exchange files.
    pub fn manifests(&self, stage: Stage) -> PathBuf {
        match stage {
            Stage::Scatter => self.scratch.join("manifest"),
            _ => self.staged.join("manifest"),
        }
    }

    pub fn manifest_file(&self, chunk: ChunkName) -> PathBuf {
        self.manifests(chunk.stage).join(format!("{chunk}.json"))
    }

    pub fn exchange(&self) -> PathBuf {
        self.scratch.join("exchange")
    }

    pub fn published(&self) -> PathBuf {
        self.control.join("published")
    }

    pub fn verdict_file(&self, generation: u64) -> PathBuf {
        self.published().join(format!("{generation:06}.json"))
    }

    /// What a redrive of this step reads: records that it had rejected, and where they stood.
    pub fn redrive(&self) -> PathBuf {
        self.control.join("redrive").join(format!("{}-{}", self.run, self.step))
    }

    /// What one publisher lays out before it exposes it.
    pub fn publication(&self, attempt: AttemptId) -> PathBuf {
        self.staged.join(format!("publish-{attempt}"))
    }

    /// The certificate, relative to the output.
    pub fn certificate_name(&self) -> String {
        certificate_name(self.run, self.step)
    }

    pub fn certificate(&self) -> PathBuf {
        self.certificate_of(self.run, self.step)
    }

    /// That of a run which has published to the same output.
    pub fn certificate_of(&self, run: RunId, step: StepNo) -> PathBuf {
        self.output.join(certificate_name(run, step))
    }

    /// Where what is staged goes in one rename before it is removed, and where remains of a sweep
    /// that was cut off are found: names that begin with this.
    pub fn swept_prefix(&self) -> String {
        format!(".swept-{}-{}-", self.run, self.step)
    }
}

fn certificate_name(run: RunId, step: StepNo) -> String {
    format!("{CONTROL_SUBFOLDER}/{CERTIFICATE_PREFIX}{step}-{run}.json")
}

/// The name of the folders of what a step stages.
fn run_folder(run: RunId, step: StepNo, edition: u32) -> String {
    match edition {
        0 => format!("{run}-{step}"),
        _ => format!("{run}-{step}-{edition}"),
    }
}

/// Where what is staged by a step lies below a control folder, or what it has in scratch.
pub fn staged_below(folder: &Path, run: RunId, step: StepNo, edition: u32) -> PathBuf {
    folder.join(run_folder(run, step, edition))
}

/// Errors: `Config` for an address that names a whole bucket or nothing.
fn placed(base_dir: &Path, path: &str) -> Result<PathBuf, TaskError> {
    if !is_url(path) {
        return Ok(lexically_clean(&base_dir.join(path)));
    }
    let config = |why: &str| TaskError::new(ErrorClass::Config, format!("the sink's path {path} {why}"));
    let url: ObjectUrl = path.parse().map_err(config)?;
    match url.key.is_empty() {
        true => Err(config("is a whole bucket; write s3://bucket/<name>")),
        false => Ok(PathBuf::from(url.to_string())),
    }
}

/// Takes `.` and trailing slashes out, and resolves `..` by name, so that one output has one control folder.
fn lexically_clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    clean.push("..");
                }
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_common::{
        ids::Term,
        job::{Compression, Delimiter, Exists, FileSink},
    };
    use uuid::Uuid;

    fn folders(path: &str) -> Result<StepFolders, TaskError> {
        let sink = Sink::Parquet(FileSink {
            path: path.into(),
            exists: Exists::Fail,
            compression: Compression::Auto,
            files: None,
            partition_by: vec![],
            split: None,
            partition_column: None,
            header: true,
            delimiter: Delimiter::COMMA,
            null: String::new(),
            encoding: Default::default(),
            crlf: false,
        });
        StepFolders::new(&sink, Path::new("/base"), Path::new("/scratch"), RunId(Uuid::nil()), 3)
    }

    #[test]
    fn paths_follow_the_layout() {
        let chunk = ChunkName {
            stage: Stage::Execute,
            partition: 7,
            attempt: AttemptId {
                term: Term(1),
                serial: 17,
            },
            seq: 2,
        };
        let folders = folders("./out/x/").unwrap();
        let run = "00000000-0000-0000-0000-000000000000";
        let expected = [
            (folders.output().to_path_buf(), "/base/out/x".to_string()),
            (
                folders.data_file("d=1/a.parquet"),
                format!("/base/out/.x.gapless/run/{run}-3/data/d=1/a.parquet.part"),
            ),
            (
                folders.manifest_file(chunk),
                format!("/base/out/.x.gapless/run/{run}-3/manifest/part-00007-1-17-2.json"),
            ),
            (
                folders.rejects_file(chunk),
                format!("/base/out/.x.gapless/run/{run}-3/rejects/part-00007-1-17-2.ndjson"),
            ),
            (
                folders.manifest_file(ChunkName {
                    stage: Stage::Scatter,
                    ..chunk
                }),
                format!("/scratch/{run}-3/manifest/scatter-00007-1-17-2.json"),
            ),
            (
                folders.verdict_file(12),
                "/base/out/.x.gapless/published/000012.json".to_string(),
            ),
            (
                folders.publication(chunk.attempt),
                format!("/base/out/.x.gapless/run/{run}-3/publish-1-17"),
            ),
            (
                folders.certificate(),
                format!("/base/out/x/_gapless/certificate-3-{run}.json"),
            ),
        ];
        for (path, expected) in expected {
            assert_eq!(path, Path::new(&expected));
        }
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert_eq!(folders("/").unwrap_err().class, ErrorClass::Config);
        assert_eq!(folders("/x/..").unwrap_err().class, ErrorClass::Config);
    }
}
