//! The protocol as small models, checked exhaustively with stateright: every order of every action,
//! within small bounds. The models stand alone: they share no code with the product, so they judge
//! the design, not an implementation of it.
//!
//! | model | what it shows |
//! |---|---|
//! | [`store`] | leaders write in turn: term and `seq` compare, unknown outcomes, delayed transactions |
//! | [`plan`] | what does not fit one transaction: intent, parts, seal; crashes in between |
//! | [`run`] | one partition from lease to visible output: fence, seal, verdict, cancel, zombies |
//!
//! `run` takes the leader's rows as one atomic state, which `store` proves it may. Each guard of the
//! protocol has a twin test in which it is missing and the checker *must* find the harm: that is what
//! shows that the properties can fail at all.

mod plan;
mod run;
mod store;

use std::{collections::BTreeSet, fmt::Debug, hash::Hash};

use stateright::{Checker, HasDiscoveries, Model};

/// Checks every reachable state. `states`: how many there are at least, so that a model that no
/// longer goes anywhere is noticed.
fn holds<M>(model: M, states: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let checker = model.checker().threads(2).spawn_dfs().join();
    checker.assert_properties();
    assert!(
        checker.unique_state_count() >= states,
        "only {} states",
        checker.unique_state_count()
    );
    println!("{} states", checker.unique_state_count());
}

/// Checks that `property` is violated, and prints a way there.
fn breaks<M>(model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    assert!(
        model.property(property).expectation.discovery_is_failure(),
        "'{property}' says what must be, not what may be"
    );
    let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(until).spawn_bfs().join();
    let path = checker
        .discovery(property)
        .unwrap_or_else(|| panic!("the missing guard did no harm to '{property}'"));
    for action in path.into_actions() {
        println!("{action:?}");
    }
}
