//! What bad input gets: the matrix. Each case starts the real program in a room of its own and asserts the message,
//! the exit code, and that nothing was published. One room for each theme.
//!
//! Full disks under a cluster are in `tests/tests/faults_disk.rs`, look-ups that change under a run in
//! `tests/tests/end_to_end.rs`, the whole answer to each fault of the language in `common/src/job/tests/faults.rs`.

mod environment;
mod input_files;
mod job_file;
mod merge;
mod output;
mod plan;
mod room;
mod values;
