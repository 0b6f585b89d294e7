//! The decision core: what follows an event, chosen from the state alone.
//!
//! Pure: no IO, no clock, no randomness, no logging, no wire types. The shell feeds events, makes
//! the rows of each decision durable, and only then sends answers and effects. One file for each
//! verb of the flow: submit, survey, split, validate, lease, execute (worker), commit, consolidate.

pub mod commit;
pub mod consolidate;
pub mod decide;
pub mod event;
pub mod fail;
pub mod history;
pub mod invariants;
pub mod lease;
pub mod limits;
pub mod load;
mod look;
pub mod recut;
pub mod row;
pub mod schema;
pub mod seats;
pub mod session;
pub mod speed;
pub mod split;
pub mod state;
pub mod stop;
pub mod submit;
pub mod survey;
pub mod time;
pub mod validate;

pub use decide::decide;
pub use event::{Answer, Decision, Effect, Event, Refusal};
pub use row::{Change, Row, RowKey};
pub use state::State;
pub use time::Timestamp;
