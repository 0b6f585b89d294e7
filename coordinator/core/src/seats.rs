//! Seats: which sessions can take another task, kept ready so that granting one costs no look at the
//! others.
//!
//! A session has a *free* seat while it holds fewer tasks than slots. Beyond its slots it is given
//! tasks *ahead* while those that it does are so short that it would wait for the next message.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
};

use gapless_common::{
    ids::{RunId, SessionId, Stage, StepNo, TaskKey},
    labels::Labels,
};

use crate::{
    limits::{LOOKS_AHEAD, MAX_PACES, MAX_PREFETCH, PREFETCH_WINDOW_MICROS},
    state::{Session, State},
};

/// What tasks have in common that take alike: the stage of one step of one run.
pub type StageKey = (RunId, StepNo, Stage);

pub fn stage_of(key: &TaskKey) -> StageKey {
    (key.run, key.step, key.stage)
}

/// How fast a session has worked off tasks lately, by their stage; the latest last.
#[derive(Clone, Debug, Default)]
pub struct Paces(Vec<(StageKey, u64)>);

impl Paces {
    /// Weights the newest task by a quarter: follows a change of pace within a few tasks.
    pub(crate) fn note(&mut self, stage: StageKey, took_micros: u64) {
        let known = self.0.iter().position(|(known, _)| *known == stage);
        let before = known.map(|at| self.0.remove(at).1);
        if self.0.len() == MAX_PACES {
            self.0.remove(0);
        }
        let micros = before.map_or(took_micros, |before| (before * 3 + took_micros) / 4);
        self.0.push((stage, micros));
    }

    fn of(&self, stage: StageKey) -> Option<u64> {
        self.0
            .iter()
            .rev()
            .find_map(|(known, micros)| (*known == stage).then_some(*micros))
    }

    fn best(&self) -> Option<u64> {
        self.0.iter().map(|(_, micros)| *micros).min()
    }
}

/// What a session holds, as far as seats go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    held: usize,
    /// Of these, tasks that are not known to be short: what is granted ahead would wait behind them.
    slow: usize,
}

/// Tasks that a session may hold while each takes `pace`.
fn room(slots: usize, load: Load, pace: Option<u64>) -> usize {
    let Some(pace) = pace else { return slots };
    let quick = slots.saturating_sub(load.slow);
    let ahead = PREFETCH_WINDOW_MICROS * quick as u64 / pace.max(1);
    slots + usize::try_from(ahead).unwrap_or(MAX_PREFETCH).min(MAX_PREFETCH)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Free,
    Ahead,
}

impl Session {
    fn load(&self) -> Load {
        Load {
            held: self.leases.len(),
            slow: self.leases.len() - self.short,
        }
    }

    fn slots(&self) -> usize {
        self.row.slots as usize
    }

    /// Whether tasks of this stage are so short here that some are granted ahead.
    pub(crate) fn is_short(&self, stage: StageKey) -> bool {
        let idle = Load::default();
        room(self.slots(), idle, self.paces.of(stage)) > self.slots()
    }

    fn seat(&self) -> Option<(Kind, usize)> {
        let load = self.load();
        if !self.takes_work() || self.away || self.alone > 0 {
            return None;
        }
        seat(self, load).map(|kind| (kind, load.held))
    }
}

fn seat(session: &Session, load: Load) -> Option<Kind> {
    let slots = session.slots();
    if load.held < slots {
        return Some(Kind::Free);
    }
    (load.slow < slots && load.held < room(slots, load, session.paces.best())).then_some(Kind::Ahead)
}

/// Sessions with the same labels, the least busy first.
#[derive(Debug, Default)]
struct Class {
    free: BTreeSet<(usize, SessionId)>,
    ahead: BTreeSet<(usize, SessionId)>,
}

/// Where each session that can take a task stands.
#[derive(Debug, Default)]
pub struct Seats {
    classes: BTreeMap<Labels, Class>,
    places: BTreeMap<SessionId, (Kind, usize)>,
}

impl Seats {
    /// Puts a session where it belongs after a change; `None`: it is gone.
    pub(crate) fn place(&mut self, id: SessionId, labels: &Labels, session: Option<&Session>) {
        let seat = session.and_then(Session::seat);
        let before = match seat {
            Some(seat) => self.places.insert(id, seat),
            None => self.places.remove(&id),
        };
        if before == seat {
            return;
        }
        if let Some((kind, held)) = before
            && let Some(class) = self.classes.get_mut(labels)
        {
            class.of(kind).remove(&(held, id));
            if class.free.is_empty() && class.ahead.is_empty() {
                self.classes.remove(labels);
            }
        }
        if let Some((kind, held)) = seat {
            if !self.classes.contains_key(labels) {
                self.classes.insert(labels.clone(), Class::default());
            }
            if let Some(class) = self.classes.get_mut(labels) {
                class.of(kind).insert((held, id));
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether it says of each session what the session itself says, for tests.
    pub(crate) fn fits(&self, state: &State) -> bool {
        let expected: BTreeMap<SessionId, (Kind, usize)> = state
            .sessions
            .iter()
            .filter_map(|(id, session)| Some((*id, session.seat()?)))
            .collect();
        let listed: usize = self
            .classes
            .values()
            .map(|class| class.free.len() + class.ahead.len())
            .sum();
        let placed = expected.iter().all(|(id, (kind, held))| {
            let class = state
                .sessions
                .get(id)
                .and_then(|session| self.classes.get(&session.row.labels));
            class.is_some_and(|class| class.get(*kind).contains(&(*held, *id)))
        });
        placed && expected == self.places && listed == expected.len()
    }
}

impl Class {
    fn of(&mut self, kind: Kind) -> &mut BTreeSet<(usize, SessionId)> {
        match kind {
            Kind::Free => &mut self.free,
            Kind::Ahead => &mut self.ahead,
        }
    }

    fn get(&self, kind: Kind) -> &BTreeSet<(usize, SessionId)> {
        match kind {
            Kind::Free => &self.free,
            Kind::Ahead => &self.ahead,
        }
    }
}

type Listed<'a> = Peekable<std::collections::btree_set::Iter<'a, (usize, SessionId)>>;

/// The seats as one decision leaves them so far.
pub(crate) struct Choice<'a> {
    state: &'a State,
    classes: Vec<OpenClass<'a>>,
    /// Sessions that this decision has given something to, or keeps free.
    touched: BTreeMap<SessionId, Load>,
    /// What is asked by tasks that found no seat: nothing is granted ahead in front of them.
    waiting: Vec<&'a Labels>,
}

struct OpenClass<'a> {
    labels: &'a Labels,
    free: Listed<'a>,
    ahead: Listed<'a>,
    /// Touched sessions that can take more.
    free_still: BTreeSet<(usize, SessionId)>,
    ahead_still: BTreeSet<(usize, SessionId)>,
}

impl<'a> Choice<'a> {
    pub fn new(state: &'a State, seats: &'a Seats) -> Choice<'a> {
        let open = |(labels, class): (&'a Labels, &'a Class)| OpenClass {
            labels,
            free: class.free.iter().peekable(),
            ahead: class.ahead.iter().peekable(),
            free_still: BTreeSet::new(),
            ahead_still: BTreeSet::new(),
        };
        Choice {
            state,
            classes: seats.classes.iter().map(open).collect(),
            touched: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(OpenClass::is_empty)
    }

    /// Takes the least busy session that may have a task of this stage. One that must be `alone` goes
    /// to an idle session, which takes nothing else then.
    pub fn take(&mut self, stage: StageKey, labels: &Labels, alone: bool) -> Option<SessionId> {
        let free = self.best(labels, |class, _| class.first_free());
        let free = free.filter(|(_, (held, _))| !alone || *held == 0);
        let (class, (_, id)) = match free {
            Some(found) => found,
            None if alone => return None,
            None => self.best(labels, |class, choice| choice.first_ahead(class, stage))?,
        };
        let session = self.state.sessions.get(&id)?;
        let mut load = self.load(id, session);
        load.held += 1;
        load.slow += usize::from(!session.is_short(stage));
        self.touch(class, id, Some(load).filter(|_| !alone));
        Some(id)
    }

    /// Keeps the least busy session free of new work until it is idle. Whether there was one.
    pub fn reserve(&mut self, labels: &Labels) -> bool {
        let any = |class: &OpenClass<'a>, _: &Choice<'a>| class.first_free().or_else(|| class.first_of_ahead());
        let Some((class, (_, id))) = self.best(labels, any) else {
            return false;
        };
        self.touch(class, id, None);
        true
    }

    /// Tasks that ask for these labels wait for a slot.
    pub fn wait(&mut self, labels: &'a Labels) {
        if !self.waiting.contains(&labels) {
            self.waiting.push(labels);
        }
    }

    /// The least busy seat over the classes that a task may go to, and its class.
    fn best(
        &self,
        labels: &Labels,
        first: impl Fn(&OpenClass<'a>, &Choice<'a>) -> Option<(usize, SessionId)>,
    ) -> Option<(usize, (usize, SessionId))> {
        let fitting = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, class)| labels.are_met_by(class.labels));
        let found = fitting.filter_map(|(at, class)| Some((at, first(class, self)?)));
        found.min_by_key(|(_, seat)| *seat)
    }

    fn first_ahead(&self, class: &OpenClass<'a>, stage: StageKey) -> Option<(usize, SessionId)> {
        if self.waiting.iter().any(|waiting| waiting.are_met_by(class.labels)) {
            return None;
        }
        let listed = class
            .ahead
            .clone()
            .copied()
            .filter(|(_, id)| !self.touched.contains_key(id));
        let still = class.ahead_still.iter().copied();
        let seats = listed.take(LOOKS_AHEAD).chain(still.take(LOOKS_AHEAD));
        let fits = |id: &SessionId| {
            let session = &self.state.sessions[id];
            let load = self.load(*id, session);
            session.is_short(stage) && load.held < room(session.slots(), load, session.paces.of(stage))
        };
        seats.filter(|(_, id)| fits(id)).min()
    }

    fn load(&self, id: SessionId, session: &Session) -> Load {
        self.touched.get(&id).copied().unwrap_or_else(|| session.load())
    }

    /// A session has this load now, or takes nothing more in this decision.
    fn touch(&mut self, class: usize, id: SessionId, load: Option<Load>) {
        let session = &self.state.sessions[&id];
        let before = self.load(id, session);
        self.touched.insert(id, load.unwrap_or(before));
        let class = &mut self.classes[class];
        class.free_still.remove(&(before.held, id));
        class.ahead_still.remove(&(before.held, id));
        if let Some(load) = load {
            match seat(session, load) {
                Some(Kind::Free) => class.free_still.insert((load.held, id)),
                Some(Kind::Ahead) => class.ahead_still.insert((load.held, id)),
                None => false,
            };
        }
        // What stands at the front and was touched is not looked at again.
        while class.free.next_if(|(_, id)| self.touched.contains_key(id)).is_some() {}
        while class.ahead.next_if(|(_, id)| self.touched.contains_key(id)).is_some() {}
    }
}

impl OpenClass<'_> {
    /// What is taken stands at the front, so the next in line was not touched.
    fn first_free(&self) -> Option<(usize, SessionId)> {
        let listed = self.free.clone().next().copied();
        listed.into_iter().chain(self.free_still.first().copied()).min()
    }

    fn first_of_ahead(&self) -> Option<(usize, SessionId)> {
        let listed = self.ahead.clone().next().copied();
        listed.into_iter().chain(self.ahead_still.first().copied()).min()
    }

    fn is_empty(&self) -> bool {
        self.first_free().is_none() && self.first_of_ahead().is_none()
    }
}
