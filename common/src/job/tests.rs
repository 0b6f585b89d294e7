//! What the job language says to good and bad files.

mod faults;
mod language;
mod layouts;
mod reference;
mod values;
