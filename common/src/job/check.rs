//! What must hold between the steps of a job: names, order, and who reads and writes where.

use super::{error::Faults, step::ReadStep};

pub(super) fn check_steps(_faults: &Faults, _steps: &[ReadStep]) {}
