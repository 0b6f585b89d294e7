//! One partition from its first lease to visible output (protocol: "Attempts", "Prepare, seal,
//! verdict").
//!
//! Every attempt is a process of its own that no message can stop: a paused, cut off or voided one
//! goes on whenever it likes (a zombie), a dead one never does. Offers arrive late, never, or again.
//! A grant whose effect is lost is an attempt that never starts. Leader changes need no action here:
//! its rows are durable and atomic (see `store`), everything else of it is messages.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{breaks, holds};

/// The partition's units: enough for two chunks, or one.
const UNITS: u8 = 2;
const ATTEMPTS: usize = 3;
const PUBLISHERS: usize = 2;

/// The guards, each of which can be taken away.
#[derive(Clone)]
struct Run {
    /// A commit is accepted from the current attempt only.
    fence: bool,
    /// A commit must begin where the recorded one ended.
    chain: bool,
    /// A commit sent again is the same commit.
    seq: bool,
    /// Once the seal is written no commit or redo is accepted.
    seal: bool,
    /// The verdict is one create-once record; else: look whether there is one, then write over.
    create_once: bool,
    /// A cancel is confirmed by a verdict at the output; else by the leader alone.
    cancel_by_verdict: bool,
    /// A cancel that finds the output committed lets publishing go on.
    yield_to_verdict: bool,
}

const PROTOCOL: Run = Run {
    fence: true,
    chain: true,
    seq: true,
    seal: true,
    create_once: true,
    cancel_by_verdict: true,
    yield_to_verdict: true,
};

/// A chunk of output, durable under a name that carries its attempt and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Chunk {
    attempt: u8,
    seq: u8,
    previous: u8,
    next: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    position: u8,
    seq: u8,
    /// The chunk that waits for the leader's answer.
    offered: Option<Chunk>,
}

/// The state of the step in the leader's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Running,
    Sealed,
    Publishing,
    Cancelling,
    Published,
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Verdict {
    Committed(Vec<Chunk>),
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Progress {
    Started,
    /// Without create-once: has seen that there is no verdict.
    Looked,
    /// There is a verdict, made or adopted.
    Settled,
    Exposed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Publisher {
    /// The committed chunks, as they were when it was granted.
    files: Vec<Chunk>,
    progress: Progress,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    // The leader's rows.
    phase: Phase,
    leased: bool,
    committed: Vec<Chunk>,
    redone: bool,
    /// The user was told that the cancel came too late.
    too_late: bool,
    // Attempts; the index is the attempt number, the last one may hold the lease.
    attempts: Vec<Attempt>,
    offers: BTreeSet<Chunk>,
    publishers: Vec<Publisher>,
    aborter: Option<Progress>,
    // The output.
    verdict: Option<Verdict>,
    visible: Option<Vec<Chunk>>,
    // What the properties look at.
    foreign_commit: bool,
    verdict_replaced: bool,
    visible_replaced: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// The leader leases the partition: the attempt number rises.
    Grant,
    /// The worker fell silent, or so it seems: the lease is void, the worker is not told.
    Void,
    /// An attempt makes a chunk of so many units durable and offers it.
    Offer(usize, u8),
    /// An offer reaches the leader: for the first time, again, or much too late.
    Commit(Chunk),
    /// An attempt learns that its chunk is recorded.
    Acknowledge(usize),
    /// An operator has the partition done once more.
    Redo,
    /// All is committed: from here on the set stands.
    Seal,
    GrantPublish,
    /// A publisher goes one step on.
    Publish(usize),
    /// A publisher's report reaches the leader.
    Finish,
    Cancel,
    /// The abort task goes one step on.
    Abort,
}

impl Run {
    /// Whether the leader accepts changes to what is committed.
    fn is_open(&self, state: &State) -> bool {
        match state.phase {
            Phase::Running => true,
            Phase::Sealed | Phase::Publishing => !self.seal,
            Phase::Cancelling | Phase::Published | Phase::Cancelled => false,
        }
    }

    fn commit(&self, state: &mut State, chunk: Chunk) -> Option<()> {
        let current = state.leased && usize::from(chunk.attempt) + 1 == state.attempts.len();
        let position = state.committed.last().map_or(0, |last| last.next);
        let accepted = self.is_open(state)
            && (!self.fence || current)
            && (!self.chain || chunk.previous == position)
            && (!self.seq || usize::from(chunk.seq) == state.committed.len())
            && state.committed.len() < 4;
        if !accepted {
            return None;
        }
        state.foreign_commit |= !current;
        state.committed.push(chunk);
        Some(())
    }

    /// Creates the verdict, or adopts the one that is there. Without create-once the look and the
    /// write are two steps, and the write replaces what has come in between.
    fn settle(&self, state: &mut State, progress: Progress, verdict: Verdict) -> Progress {
        match (progress, &state.verdict) {
            (Progress::Looked, found) => {
                state.verdict_replaced |= found.is_some();
                state.verdict = Some(verdict);
                Progress::Settled
            }
            (_, Some(_)) => Progress::Settled,
            (_, None) if !self.create_once => Progress::Looked,
            (_, None) => {
                state.verdict = Some(verdict);
                Progress::Settled
            }
        }
    }

    fn publish(&self, state: &mut State, at: usize) -> Option<()> {
        let Publisher { files, progress } = state.publishers[at].clone();
        state.publishers[at].progress = match progress {
            Progress::Started | Progress::Looked => self.settle(state, progress, Verdict::Committed(files)),
            Progress::Settled => match state.verdict.clone() {
                // What the verdict lists becomes visible, whoever wrote it; again is the same again.
                Some(Verdict::Committed(files)) => {
                    state.visible_replaced |= state.visible.as_ref().is_some_and(|seen| *seen != files);
                    state.visible = Some(files);
                    Progress::Exposed
                }
                Some(Verdict::Aborted) | None => return None,
            },
            Progress::Exposed => return None,
        };
        Some(())
    }

    fn abort(&self, state: &mut State) -> Option<()> {
        if state.phase != Phase::Cancelling {
            return None;
        }
        if !self.cancel_by_verdict {
            state.phase = Phase::Cancelled;
            return Some(());
        }
        let progress = state.aborter.unwrap_or(Progress::Started);
        match progress {
            Progress::Started | Progress::Looked => {
                state.aborter = Some(self.settle(state, progress, Verdict::Aborted));
            }
            Progress::Settled | Progress::Exposed => match state.verdict {
                Some(Verdict::Committed(_)) if !self.yield_to_verdict => return None,
                Some(Verdict::Committed(_)) => {
                    // The output has spoken: publishing goes on to its end.
                    state.too_late = true;
                    state.phase = Phase::Publishing;
                }
                Some(Verdict::Aborted) => state.phase = Phase::Cancelled,
                None => return None,
            },
        }
        Some(())
    }
}

fn is_complete(committed: &[Chunk]) -> bool {
    committed.last().is_some_and(|last| last.next == UNITS)
}

/// Whether chunks hold each unit once.
fn hold_each_unit_once(chunks: &[Chunk]) -> bool {
    (0..UNITS).all(|unit| {
        chunks
            .iter()
            .filter(|chunk| chunk.previous <= unit && unit < chunk.next)
            .count()
            == 1
    })
}

impl Model for Run {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            phase: Phase::Running,
            leased: false,
            committed: vec![],
            redone: false,
            too_late: false,
            attempts: vec![],
            offers: BTreeSet::new(),
            publishers: vec![],
            aborter: None,
            verdict: None,
            visible: None,
            foreign_commit: false,
            verdict_replaced: false,
            visible_replaced: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([Grant, Void, Redo, Seal, GrantPublish, Finish, Cancel, Abort]);
        for at in 0..state.attempts.len() {
            actions.extend([Offer(at, 1), Offer(at, 2), Acknowledge(at)]);
        }
        actions.extend(state.offers.iter().copied().map(Commit));
        actions.extend((0..state.publishers.len()).map(Publish));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let position = state.committed.last().map_or(0, |last| last.next);
        let spare = state.attempts.len() + 1 < ATTEMPTS;
        match action {
            Action::Grant => {
                let wanted = self.is_open(&state) && !state.leased && !is_complete(&state.committed);
                if !wanted || state.attempts.len() == ATTEMPTS {
                    return None;
                }
                state.leased = true;
                state.attempts.push(Attempt {
                    position,
                    seq: state.committed.len() as u8,
                    offered: None,
                });
            }
            // The last attempt that the bounds allow is not lost, so that each run can end.
            Action::Void if state.leased && state.attempts.len() < ATTEMPTS => state.leased = false,
            Action::Void => return None,
            Action::Offer(at, units) => {
                let attempt = &mut state.attempts[at];
                if attempt.offered.is_some() || attempt.position + units > UNITS {
                    return None;
                }
                let (previous, next) = (attempt.position, attempt.position + units);
                let chunk = Chunk {
                    attempt: at as u8,
                    seq: attempt.seq,
                    previous,
                    next,
                };
                attempt.offered = Some(chunk);
                state.offers.insert(chunk);
            }
            Action::Commit(chunk) => self.commit(&mut state, chunk)?,
            Action::Acknowledge(at) => {
                let attempt = &mut state.attempts[at];
                let chunk = attempt.offered.filter(|chunk| state.committed.contains(chunk))?;
                *attempt = Attempt {
                    position: chunk.next,
                    seq: chunk.seq + 1,
                    offered: None,
                };
            }
            Action::Redo => {
                if state.redone || !self.is_open(&state) || !spare || state.committed.is_empty() {
                    return None;
                }
                state.redone = true;
                state.leased = false;
                state.committed.clear();
            }
            Action::Seal if state.phase == Phase::Running && is_complete(&state.committed) => {
                state.phase = Phase::Sealed;
            }
            Action::Seal => return None,
            Action::GrantPublish => {
                let due = matches!(state.phase, Phase::Sealed | Phase::Publishing) && is_complete(&state.committed);
                if !due || state.publishers.len() == PUBLISHERS {
                    return None;
                }
                state.phase = Phase::Publishing;
                state.publishers.push(Publisher {
                    files: state.committed.clone(),
                    progress: Progress::Started,
                });
            }
            Action::Publish(at) => self.publish(&mut state, at)?,
            Action::Finish => {
                let reported = state
                    .publishers
                    .iter()
                    .any(|publisher| publisher.progress == Progress::Exposed);
                if state.phase != Phase::Publishing || !reported {
                    return None;
                }
                state.phase = Phase::Published;
            }
            Action::Cancel => {
                if state.phase >= Phase::Cancelling || state.too_late {
                    return None;
                }
                state.phase = Phase::Cancelling;
            }
            Action::Abort => self.abort(&mut state)?,
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("only the current attempt commits", |_, state: &State| {
                !state.foreign_commit
            }),
            Property::always("committed chunks chain without a hole", |_, state: &State| {
                let mut position = 0;
                state.committed.iter().all(|chunk| {
                    let follows = chunk.previous == position;
                    position = chunk.next;
                    follows
                })
            }),
            Property::always("visible output holds each unit once", |_, state: &State| {
                state.visible.as_deref().is_none_or(hold_each_unit_once)
            }),
            Property::always("visible output is what the leader recorded", |_, state: &State| {
                state.visible.as_ref().is_none_or(|files| *files == state.committed)
            }),
            Property::always("a verdict never changes", |_, state: &State| !state.verdict_replaced),
            Property::always("output becomes visible once", |_, state: &State| {
                !state.visible_replaced
            }),
            Property::always("after a confirmed cancel nothing is visible", |_, state: &State| {
                state.phase != Phase::Cancelled || state.visible.is_none()
            }),
            // The model has no cycles, so this says that every run ends once messages arrive.
            Property::always("no run is stuck", |model: &Run, state: &State| {
                matches!(state.phase, Phase::Published | Phase::Cancelled) || !model.next_steps(state).is_empty()
            }),
            Property::sometimes(
                "a second attempt goes on where the first was lost",
                |_, state: &State| {
                    let attempts: BTreeSet<u8> = state.committed.iter().map(|chunk| chunk.attempt).collect();
                    state.phase == Phase::Published && attempts.len() == 2
                },
            ),
            Property::sometimes("a cancel comes too late", |_, state: &State| {
                state.too_late && state.phase == Phase::Published
            }),
            Property::sometimes("a cancel wins against a publisher", |_, state: &State| {
                state.phase == Phase::Cancelled
                    && state
                        .publishers
                        .iter()
                        .any(|publisher| publisher.progress == Progress::Settled)
            }),
            Property::sometimes(
                "a second publisher adopts the first one's verdict",
                |_, state: &State| {
                    state.publishers.len() == 2
                        && state.publishers[0].progress == Progress::Settled
                        && state.publishers[1].progress == Progress::Exposed
                },
            ),
        ]
    }
}

#[test]
fn each_unit_becomes_visible_once_or_not_at_all() {
    holds(PROTOCOL, 10_000);
}

#[test]
fn without_the_fence_a_zombie_commits() {
    breaks(
        Run {
            fence: false,
            ..PROTOCOL
        },
        "only the current attempt commits",
    );
}

#[test]
fn without_fence_and_chain_a_zombie_doubles_records() {
    let broken = Run {
        fence: false,
        chain: false,
        ..PROTOCOL
    };
    breaks(broken.clone(), "committed chunks chain without a hole");
    breaks(broken, "visible output holds each unit once");
}

#[test]
fn without_seq_and_chain_a_repeated_commit_doubles_records() {
    let broken = Run {
        seq: false,
        chain: false,
        ..PROTOCOL
    };
    breaks(broken.clone(), "committed chunks chain without a hole");
    breaks(broken, "visible output holds each unit once");
}

#[test]
fn without_the_seal_output_is_published_that_is_not_the_record() {
    breaks(
        Run {
            seal: false,
            ..PROTOCOL
        },
        "visible output is what the leader recorded",
    );
}

#[test]
fn check_then_rename_replaces_a_verdict() {
    let broken = Run {
        create_once: false,
        ..PROTOCOL
    };
    breaks(broken.clone(), "a verdict never changes");
    breaks(broken, "after a confirmed cancel nothing is visible");
}

#[test]
fn a_cancel_without_a_verdict_is_overtaken_by_a_paused_publisher() {
    breaks(
        Run {
            cancel_by_verdict: false,
            ..PROTOCOL
        },
        "after a confirmed cancel nothing is visible",
    );
}

#[test]
fn two_publishers_with_different_lists_replace_each_others_output() {
    let broken = Run {
        seal: false,
        create_once: false,
        ..PROTOCOL
    };
    breaks(broken, "output becomes visible once");
}

#[test]
fn a_cancel_that_ignores_the_verdict_never_ends() {
    breaks(
        Run {
            yield_to_verdict: false,
            ..PROTOCOL
        },
        "no run is stuck",
    );
}
