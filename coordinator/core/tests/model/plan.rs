//! A change too large for one transaction (protocol: "intent, idempotent parts, seal").
//!
//! A leader writes a plan of two partitions row by row and may be replaced at any moment. Its
//! successor sees other workers, so it cuts elsewhere. Recovery ignores whatever is not sealed.

use stateright::{Model, Property};

use crate::{breaks, holds};

const TERMS: u8 = 3;
/// The step's units.
const UNITS: u8 = 4;

struct Plan {
    /// Recovery takes a plan only when its seal is there.
    needs_seal: bool,
    /// The seal is written only after every part.
    seal_last: bool,
}

const PROTOCOL: Plan = Plan {
    needs_seal: true,
    seal_last: true,
};

/// Where a plan is cut: `[0, cut)` and `[cut, UNITS)`. It stands for the digest.
type Cut = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leader {
    cut: Cut,
    /// What the leader still does before it may lease: it has read, or itself written, a whole plan.
    ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    term: u8,
    leader: Option<Leader>,
    // Rows.
    intent: Option<Cut>,
    parts: [Option<(u8, u8)>; 2],
    sealed: Option<Cut>,
    /// Ranges that were leased, and so will be read.
    leased: [Option<(u8, u8)>; 2],
    /// All partitions that there are have been leased: the step is called complete.
    complete: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// A new leader, which recovers from the rows. The one before is cut off by the term compare.
    Elect,
    Intent,
    Part(usize),
    Seal,
    Lease(usize),
    Complete,
}

fn part(cut: Cut, at: usize) -> (u8, u8) {
    if at == 0 { (0, cut) } else { (cut, UNITS) }
}

impl Model for Plan {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            term: 0,
            leader: None,
            intent: None,
            parts: [None; 2],
            sealed: None,
            leased: [None; 2],
            complete: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.term < TERMS {
            actions.push(Action::Elect);
        }
        let Some(leader) = &state.leader else { return };
        if leader.ready {
            actions.extend([Action::Lease(0), Action::Lease(1), Action::Complete]);
        } else if state.intent != Some(leader.cut) {
            actions.push(Action::Intent);
        } else {
            actions.extend([Action::Part(0), Action::Part(1), Action::Seal]);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Elect => {
                state.term += 1;
                // The seal carries the digest of the plan; without it a plan is taken for what is there.
                let found = if self.needs_seal {
                    state.sealed
                } else {
                    state.sealed.or(state.intent)
                };
                state.leader = Some(match found {
                    Some(cut) => Leader { cut, ready: true },
                    None => Leader {
                        cut: state.term,
                        ready: false,
                    },
                });
            }
            Action::Intent => state.intent = state.leader.as_ref().map(|leader| leader.cut),
            Action::Part(at) => state.parts[at] = state.intent.map(|cut| part(cut, at)),
            Action::Seal => {
                let cut = state.intent?;
                let written = (0..2).all(|at| state.parts[at] == Some(part(cut, at)));
                if self.seal_last && !written {
                    return None;
                }
                state.sealed = Some(cut);
                state.leader = Some(Leader { cut, ready: true });
            }
            Action::Lease(at) => state.leased[at] = state.leased[at].or(state.parts[at]),
            Action::Complete => {
                let there = state.parts.iter().flatten().count();
                state.complete = there > 0 && state.leased.iter().flatten().count() == there;
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("leased ranges tile the source", |_, state: &State| match state.leased {
                [Some(low), Some(high)] => low.1 == high.0,
                _ => true,
            }),
            Property::always("a complete step has leased every unit", |_, state: &State| {
                let units: u8 = state.leased.iter().flatten().map(|(low, high)| high - low).sum();
                !state.complete || units == UNITS
            }),
            Property::always("a sealed plan has all its parts", |_, state: &State| {
                match state.sealed {
                    Some(cut) => (0..2).all(|at| state.parts[at] == Some(part(cut, at))),
                    None => true,
                }
            }),
            Property::sometimes("a half-written plan is written over", |_, state: &State| {
                state.term > 1 && state.sealed == Some(state.term) && state.leased.iter().all(Option::is_some)
            }),
            Property::sometimes("a sealed plan outlives its leader", |_, state: &State| {
                state.sealed.is_some_and(|cut| cut < state.term) && state.leased.iter().all(Option::is_some)
            }),
        ]
    }
}

#[test]
fn a_plan_is_used_whole_or_not_at_all() {
    holds(PROTOCOL, 50);
}

#[test]
fn an_unsealed_plan_that_is_accepted_leaves_a_gap() {
    let broken = Plan {
        needs_seal: false,
        ..PROTOCOL
    };
    breaks(broken, "a complete step has leased every unit");
}

#[test]
fn a_seal_before_the_parts_seals_nothing() {
    breaks(
        Plan {
            seal_last: false,
            ..PROTOCOL
        },
        "a sealed plan has all its parts",
    );
    breaks(
        Plan {
            seal_last: false,
            ..PROTOCOL
        },
        "leased ranges tile the source",
    );
}
