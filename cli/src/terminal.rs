//! Progress on stderr: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;

use gapless_proto::v1::{Run, StepStatus};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    failure::talk,
    progress::{self, Meter, Plain},
    view,
};

/// A bar counts percent.
const BAR_LENGTH: u64 = 100;

/// Shows states of a run as they come.
pub enum Display {
    Plain(Box<Plain>),
    Bars(Box<Bars>),
    /// Says nothing: the result is for a program.
    Quiet,
}

impl Display {
    /// Bars where stderr is a terminal that can move its cursor, lines elsewhere.
    pub fn for_stderr() -> Display {
        let moves = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        match std::io::stderr().is_terminal() && moves {
            true => Display::Bars(Box::new(Bars::new())),
            false => Display::Plain(Box::default()),
        }
    }

    pub fn show(&mut self, run: &Run, now: i64) {
        match self {
            Display::Plain(plain) => plain.lines(run, now).into_iter().for_each(talk),
            Display::Bars(bars) => bars.show(run, now),
            Display::Quiet => {}
        }
    }

    /// Says something beside the progress.
    pub fn say(&self, line: &str) {
        match self {
            Display::Bars(bars) => bars.say(line),
            Display::Plain(_) | Display::Quiet => talk(line),
        }
    }

    /// Leaves the last state on the screen.
    pub fn end(&mut self) {
        if let Display::Bars(bars) = self {
            bars.steps.iter().for_each(ProgressBar::abandon);
        }
    }
}

/// One bar for each step; changes scroll by above them.
pub struct Bars {
    all: MultiProgress,
    steps: Vec<ProgressBar>,
    previous: Option<Run>,
    meter: Meter,
    working: ProgressStyle,
    resting: ProgressStyle,
}

impl Bars {
    fn new() -> Self {
        let style = |template| ProgressStyle::with_template(template).expect("the template is well-formed");
        Self {
            all: MultiProgress::new(),
            steps: Vec::new(),
            previous: None,
            meter: Meter::default(),
            working: style("{prefix:.bold} {bar:24.cyan/blue} {msg}").progress_chars("━╸─"),
            resting: style("{prefix:.bold} {msg}"),
        }
    }

    fn show(&mut self, run: &Run, now: i64) {
        self.meter.observe(run, now);
        let clock = progress::clock(run, now);
        for line in progress::changes(self.previous.as_ref(), run) {
            self.say(&format!("{clock}  {line}"));
        }
        let width = run.steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
        for (index, step) in run.steps.iter().enumerate() {
            if self.steps.len() <= index {
                // Whole before it is seen: a bar is drawn when it is added, and whenever something of it changes.
                let bar = ProgressBar::with_draw_target(Some(BAR_LENGTH), ProgressDrawTarget::hidden())
                    .with_style(self.style(step))
                    .with_prefix(format!("{:width$}", step.name))
                    .with_message(progress::status(step, None));
                self.steps.push(self.all.add(bar));
            }
            self.draw(&self.steps[index], step);
        }
        self.previous = Some(run.clone());
    }

    fn style(&self, step: &StepStatus) -> ProgressStyle {
        match progress::is_working(step) {
            true => self.working.clone(),
            false => self.resting.clone(),
        }
    }

    fn draw(&self, bar: &ProgressBar, step: &StepStatus) {
        bar.set_style(self.style(step));
        // Setting the message draws it, in the style set before.
        bar.set_message(progress::status(step, self.meter.speed(&step.name)));
        bar.set_position(view::percent(step).into());
    }

    fn say(&self, line: &str) {
        // A terminal that went away is noticed elsewhere.
        let _ = self.all.println(line);
    }
}
