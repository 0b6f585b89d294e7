//! Leaders and the store (protocol: "The decision core", term and seq).
//!
//! A leader decides upon the state it knows, writes a batch in one transaction, and answers only
//! when that is durable. The transaction compares *term = mine* and *seq = n-1* and puts seq = n.
//! The network delivers each transaction late, never, or several times; a deposed leader is not told.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{breaks, holds};

const TERMS: u8 = 3;
const BATCHES_PER_TERM: u8 = 3;

struct Store {
    /// The transaction compares the leader's term.
    compare_term: bool,
    /// The transaction compares and advances `seq`.
    compare_seq: bool,
    /// Answers leave only after the batch is durable.
    answer_after: bool,
    /// After an unknown outcome the same transaction is sent again, not a new one for the same events.
    resend_same: bool,
}

const PROTOCOL: Store = Store {
    compare_term: true,
    compare_seq: true,
    answer_after: true,
    resend_same: true,
};

/// One transaction. `event` is what the client asked for and will be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Batch {
    term: u8,
    seq: u8,
    event: u8,
    /// How long the log was that the decision was made upon.
    decided_upon: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leader {
    term: u8,
    seq: u8,
    /// Length of the log as the leader knows it.
    known: u8,
    decided: u8,
    in_flight: Option<Batch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    // The store.
    term: u8,
    seq: u8,
    /// Applied batches, with the store's term when they were applied.
    log: Vec<(Batch, u8)>,
    // Leaders, one for each term; those of lower terms are deposed and do not know.
    leaders: Vec<Leader>,
    /// Everything ever sent: each may arrive at any time, any number of times.
    network: BTreeSet<Batch>,
    /// Transactions whose success was reported, should anybody still listen.
    replies: BTreeSet<Batch>,
    answered: BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// The leader's lease in etcd runs out, or it crashed: another wins the next term and reads all.
    Elect,
    /// A leader takes an event, decides and sends its batch.
    Decide(usize),
    /// A transaction reaches the store.
    Deliver(Batch),
    /// The reply to a successful transaction reaches its leader.
    Reply(usize),
    /// A leader without a reply, or with a failed compare, reads the store to learn what happened.
    Read(usize),
}

impl Model for Store {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            term: 0,
            seq: 0,
            log: vec![],
            leaders: vec![],
            network: BTreeSet::new(),
            replies: BTreeSet::new(),
            answered: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.term < TERMS {
            actions.push(Action::Elect);
        }
        for (at, leader) in state.leaders.iter().enumerate() {
            match leader.in_flight {
                Some(_) => actions.extend([Action::Reply(at), Action::Read(at)]),
                None if leader.decided < BATCHES_PER_TERM => actions.push(Action::Decide(at)),
                None => {}
            }
        }
        actions.extend(state.network.iter().copied().map(Action::Deliver));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Elect => {
                state.term += 1;
                state.leaders.push(Leader {
                    term: state.term,
                    seq: state.seq,
                    known: state.log.len() as u8,
                    decided: 0,
                    in_flight: None,
                });
            }
            Action::Decide(at) => {
                let leader = &mut state.leaders[at];
                let event = leader.term * 10 + leader.decided;
                let batch = Batch {
                    term: leader.term,
                    seq: leader.seq + 1,
                    event,
                    decided_upon: leader.known,
                };
                leader.decided += 1;
                leader.in_flight = Some(batch);
                state.network.insert(batch);
                if !self.answer_after {
                    state.answered.insert(event);
                }
            }
            Action::Deliver(batch) => {
                let term = !self.compare_term || batch.term == state.term;
                let seq = !self.compare_seq || batch.seq == state.seq + 1;
                // Without the compare a repeated transaction would go on for ever: twice is enough.
                let twice = state.log.iter().filter(|(applied, _)| *applied == batch).count() >= 2;
                if !term || !seq || twice {
                    return None;
                }
                state.log.push((batch, state.term));
                state.seq = batch.seq;
                state.replies.insert(batch);
            }
            Action::Reply(at) => {
                let batch = state.leaders[at].in_flight?;
                if !state.replies.contains(&batch) {
                    return None;
                }
                self.settle(&mut state, at);
            }
            Action::Read(at) => {
                let batch = state.leaders[at].in_flight?;
                if self.compare_term && state.term != batch.term {
                    // Another leader rules: step down, answering nothing.
                    state.leaders[at].in_flight = None;
                    state.leaders[at].decided = BATCHES_PER_TERM;
                } else if state.seq == batch.seq {
                    self.settle(&mut state, at);
                } else if !self.resend_same && batch.seq < 4 {
                    // Sends the same event as a new transaction, though the first may yet arrive.
                    let again = Batch {
                        seq: batch.seq + 1,
                        ..batch
                    };
                    state.leaders[at].in_flight = Some(again);
                    state.network.insert(again);
                } else {
                    // Not applied so far: it is sent again, which the network does anyway.
                    return None;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was answered is durable", |_, state: &State| {
                state
                    .answered
                    .iter()
                    .all(|event| state.log.iter().any(|(batch, _)| batch.event == *event))
            }),
            Property::always("nothing is applied twice", |_, state: &State| {
                let events: BTreeSet<u8> = state.log.iter().map(|(batch, _)| batch.event).collect();
                events.len() == state.log.len()
            }),
            Property::always(
                "a decision is applied to the state it was made upon",
                |_, state: &State| {
                    state
                        .log
                        .iter()
                        .enumerate()
                        .all(|(at, (batch, _))| usize::from(batch.decided_upon) == at)
                },
            ),
            Property::always("a deposed leader changes nothing", |_, state: &State| {
                state.log.iter().all(|(batch, term)| batch.term == *term)
            }),
            Property::sometimes("two leaders write in turn", |_, state: &State| {
                state.log.windows(2).any(|pair| pair[0].0.term < pair[1].0.term)
            }),
            Property::sometimes(
                "a deposed leader does not know that its batch is durable",
                |_, state: &State| {
                    state.leaders.iter().any(|leader| {
                        leader.term < state.term && leader.in_flight.is_some_and(|batch| state.replies.contains(&batch))
                    })
                },
            ),
        ]
    }
}

impl Store {
    /// The batch in flight is known to be durable: answer, and go on from there.
    fn settle(&self, state: &mut State, at: usize) {
        let leader = &mut state.leaders[at];
        if let Some(batch) = leader.in_flight.take() {
            leader.seq = batch.seq;
            leader.known += 1;
            state.answered.insert(batch.event);
        }
    }
}

#[test]
fn the_store_is_written_by_one_leader_in_order() {
    holds(PROTOCOL, 1_000);
}

#[test]
fn without_the_term_compare_a_deposed_leader_writes() {
    breaks(
        Store {
            compare_term: false,
            ..PROTOCOL
        },
        "a deposed leader changes nothing",
    );
    breaks(
        Store {
            compare_term: false,
            ..PROTOCOL
        },
        "what was answered is durable",
    );
}

#[test]
fn without_the_seq_compare_a_repeated_transaction_counts_twice() {
    breaks(
        Store {
            compare_seq: false,
            ..PROTOCOL
        },
        "nothing is applied twice",
    );
    breaks(
        Store {
            compare_seq: false,
            ..PROTOCOL
        },
        "a decision is applied to the state it was made upon",
    );
}

#[test]
fn an_answer_before_the_batch_is_durable_may_be_a_lie() {
    breaks(
        Store {
            answer_after: false,
            ..PROTOCOL
        },
        "what was answered is durable",
    );
}

#[test]
fn a_new_transaction_after_an_unknown_outcome_applies_an_event_twice() {
    breaks(
        Store {
            compare_seq: false,
            resend_same: false,
            ..PROTOCOL
        },
        "nothing is applied twice",
    );
}
