use gapless_common::{job::Step, plan::*};
pub struct Capacity {
    pub slots: u32,
}
pub fn split(_s: &Step, _f: &Facts, _c: Capacity) -> Result<StepPlan, String> {
    Err("".into())
}
