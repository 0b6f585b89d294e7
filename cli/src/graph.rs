//! The steps of a job as a graph: boxes for a terminal, or text for Graphviz or Mermaid. Pure: plan in, text out.

use clap::ValueEnum;
use gapless_common::{
    job::{Source, Split, SplitBy, Step},
    order,
    plan::StepPlan,
};

use crate::{
    partition_table::{Cut, PlannedStep, sink_words},
    wording::{bytes, counted},
};

/// How the graph is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Boxes and lines for a terminal
    Text,
    /// For Graphviz
    Dot,
    /// For Markdown and the web
    Mermaid,
}

/// Draws the steps of a job in an order in which each comes after those it needs.
pub fn draw(job: &str, steps: &[PlannedStep], format: GraphFormat) -> String {
    let steps = in_order(steps);
    match format {
        GraphFormat::Text => text(job, &steps),
        GraphFormat::Dot => dot(job, &steps),
        GraphFormat::Mermaid => mermaid(&steps),
    }
}

/// One step, and the steps that it needs by their place in the order.
struct Node<'a> {
    step: &'a Step,
    lines: Vec<String>,
    needs: Vec<usize>,
}

fn in_order(steps: &[PlannedStep]) -> Vec<Node<'_>> {
    let mut order: Vec<&PlannedStep> = Vec::new();
    // The language has seen to it that there is no circle: each round takes at least one.
    while order.len() < steps.len() {
        let had = order.len();
        for planned in steps {
            let is_in = |name: &String| order.iter().any(|earlier| earlier.step.name == *name);
            if !is_in(&planned.step.name) && planned.step.after.iter().all(is_in) {
                order.push(planned);
            }
        }
        if order.len() == had {
            break;
        }
    }
    let place = |name: &String| order.iter().position(|earlier| earlier.step.name == *name);
    let node = |planned: &&'_ PlannedStep| {
        let mut needs: Vec<usize> = planned.step.after.iter().filter_map(place).collect();
        needs.sort_unstable();
        needs.dedup();
        (lines(planned), needs)
    };
    let nodes: Vec<_> = order.iter().map(node).collect();
    order
        .into_iter()
        .zip(nodes)
        .map(|(planned, (lines, needs))| Node {
            step: &planned.step,
            lines,
            needs,
        })
        .collect()
}

/// What stands in a step's box below its name.
fn lines(planned: &PlannedStep) -> Vec<String> {
    let step = &planned.step;
    let mut lines = vec![format!("from  {}", source(step, &planned.cut))];
    if !step.lookups.is_empty() {
        let names: Vec<&str> = step.lookups.keys().map(String::as_str).collect();
        lines.push(format!("with  {}", names.join(", ")));
    }
    lines.extend(
        step.command
            .as_ref()
            .map(|command| format!("run   {}", bounded(&command.run.join(" ")))),
    );
    if !step.sort.is_empty() {
        lines.push(format!("sort  {}", bounded(&order::display(&step.sort))));
    }
    match &planned.cut {
        Cut::Planned { plan, .. } => lines.push(format!("in    {}", cut_words(plan))),
        Cut::Later { .. } => lines.push("in    partitions that are planned later".to_string()),
        Cut::Impossible { .. } => lines.push("in    no partitions: it cannot be planned".to_string()),
    }
    let merge = match &planned.cut {
        Cut::Planned { plan, .. } => plan.merge,
        _ => None,
    };
    let sink = sink_words(&step.sink, merge);
    let sink = sink.split("; ").next().unwrap_or_default();
    lines.push(format!("to    {sink}"));
    let split = step.sink.file().and_then(|file| file.split.as_ref());
    lines.extend(split.map(|split| format!("split {}", bounded(&split_words(split)))));
    lines
}

/// Characters of a line that come from the job.
const SHOWN: usize = 60;

fn bounded(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_string(),
    }
}

fn split_words(split: &Split) -> String {
    let by = match &split.by {
        SplitBy::Value(column) => format!("by {column}"),
        SplitBy::When(outputs) => {
            let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            format!("into {}", names.join(", "))
        }
        SplitBy::Hash { columns, into } => format!("by the hash of {} into {into}", columns.join(", ")),
        SplitBy::Rows(rows) => format!("into files of {}", counted(*rows, "row")),
    };
    match &split.otherwise {
        Some(otherwise) => format!("{by}, else {otherwise}"),
        None => by,
    }
}

fn source(step: &Step, cut: &Cut) -> String {
    let shown = step.source.shown();
    if matches!(step.source, Source::Step(_) | Source::Sequence { .. }) {
        return shown;
    }
    let found = match cut {
        Cut::Planned { facts, .. } => format!(
            ": {}, {}",
            counted(facts.files.len() as u64, "file"),
            bytes(facts.bytes)
        ),
        Cut::Later { .. } | Cut::Impossible { .. } => String::new(),
    };
    format!("{shown}{found}")
}

fn cut_words(plan: &StepPlan) -> String {
    let partitions = counted(plan.execute.len() as u64, "partition");
    let by = plan.method.name();
    match &plan.exchange {
        None => format!("{partitions} by {by}"),
        Some(exchange) => format!(
            "{partitions} by {by}, through {} of an exchange",
            counted(exchange.buckets.into(), "bucket")
        ),
    }
}

/// Columns that one line of an edge takes.
const LANE: usize = 3;

/// Boxes below one another; the edges run down on their left, one lane for each step that others need.
fn text(job: &str, nodes: &[Node]) -> String {
    let last_use = |at: usize| nodes.iter().rposition(|node| node.needs.contains(&at));
    // Which step's edge runs in each lane at present.
    let mut lanes: Vec<Option<usize>> = Vec::new();
    // A lane for each step that another needs, given as it is drawn and free again after its last use.
    let mut given: Vec<Option<usize>> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        for lane in &mut lanes {
            if lane.is_some_and(|from| node.needs.contains(&from) && last_use(from) == Some(at)) {
                *lane = None;
            }
        }
        let lane = last_use(at).map(|_| {
            let free = lanes.iter().position(Option::is_none).unwrap_or(lanes.len());
            if free == lanes.len() {
                lanes.push(None);
            }
            lanes[free] = Some(at);
            free
        });
        given.push(lane);
    }
    let width = lanes.len();
    let mut running: Vec<Option<usize>> = vec![None; width];
    let mut drawn = format!("{job}\n");
    for (at, node) in nodes.iter().enumerate() {
        let inner = node
            .lines
            .iter()
            .chain([&node.step.name])
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0);
        let edge = "─".repeat(inner + 2);
        drawn += &format!("{}┌{edge}┐\n", rail(&running, |_| Turn::Pass));
        let ends = |from: usize| last_use(from) == Some(at);
        let enter = rail(&running, |from| match node.needs.contains(&from) {
            true if ends(from) => Turn::End,
            true => Turn::Branch,
            false => Turn::Pass,
        });
        let wall = if node.needs.is_empty() { '│' } else { '►' };
        drawn += &format!("{enter}{wall} {:<inner$} │\n", node.step.name);
        for lane in &mut running {
            if lane.is_some_and(|from| node.needs.contains(&from) && ends(from)) {
                *lane = None;
            }
        }
        for line in &node.lines {
            drawn += &format!("{}│ {line:<inner$} │\n", rail(&running, |_| Turn::Pass));
        }
        match given[at] {
            None => drawn += &format!("{}└{edge}┘\n", rail(&running, |_| Turn::Pass)),
            Some(lane) => {
                running[lane] = Some(at);
                let leave = rail(&running, |from| if from == at { Turn::Begin } else { Turn::Pass });
                drawn += &format!("{leave}┴{edge}┘\n");
            }
        }
    }
    drawn
}

/// What the edge of a lane does in a line.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Pass,
    Begin,
    Branch,
    End,
}

fn rail(lanes: &[Option<usize>], turn: impl Fn(usize) -> Turn) -> String {
    let mut line = String::new();
    let mut crossing = false;
    for lane in lanes {
        let turn = lane.map(&turn);
        line.push(match (turn, crossing) {
            (None, true) => '─',
            (None, false) => ' ',
            (Some(Turn::Pass), true) => '┼',
            (Some(Turn::Pass), false) => '│',
            (Some(Turn::Begin), false) => '┌',
            (Some(Turn::Begin), true) => '┬',
            (Some(Turn::Branch), false) => '├',
            (Some(Turn::Branch), true) => '┼',
            (Some(Turn::End), false) => '└',
            (Some(Turn::End), true) => '┴',
        });
        crossing |= turn.is_some_and(|turn| turn != Turn::Pass);
        let fill = if crossing { "─" } else { " " };
        line += &fill.repeat(LANE - 1);
    }
    line
}

fn dot(job: &str, nodes: &[Node]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut drawn = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, fontname=monospace];\n",
        quoted(job)
    );
    for node in nodes {
        let mut label = quoted(&format!("{}\n{}", node.step.name, node.lines.join("\n")));
        label = label.replace('\n', "\\l");
        label.insert_str(label.len() - 1, "\\l");
        drawn += &format!("  {} [label={label}];\n", quoted(&node.step.name));
    }
    for (from, to, reads) in edges(nodes) {
        let style = if reads { "" } else { " [style=dashed]" };
        drawn += &format!("  {} -> {}{style};\n", quoted(from), quoted(to));
    }
    drawn + "}\n"
}

fn mermaid(nodes: &[Node]) -> String {
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('"', "&quot;");
        text.replace('<', "&lt;").replace('>', "&gt;")
    };
    let mut drawn = "flowchart LR\n".to_string();
    for (at, node) in nodes.iter().enumerate() {
        let lines: Vec<String> = node.lines.iter().map(|line| escaped(line)).collect();
        drawn += &format!("  s{at}[\"<b>{}</b><br>{}\"]\n", node.step.name, lines.join("<br>"));
    }
    let place = |name: &str| nodes.iter().position(|node| node.step.name == name).unwrap_or_default();
    for (from, to, reads) in edges(nodes) {
        let arrow = if reads { "-->" } else { "-.->" };
        drawn += &format!("  s{} {arrow} s{}\n", place(from), place(to));
    }
    drawn
}

/// From, to, and whether the one reads what the other has written, or only waits for it.
fn edges<'a>(nodes: &'a [Node<'a>]) -> impl Iterator<Item = (&'a str, &'a str, bool)> {
    nodes.iter().flat_map(move |node| {
        node.needs.iter().map(move |from| {
            let from = nodes[*from].step.name.as_str();
            let reads = node.step.source.steps().any(|name| name == from);
            (from, node.step.name.as_str(), reads)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition_table::Target;
    use gapless_common::job;

    fn planned(after: &[(&str, &[&str])]) -> Vec<PlannedStep> {
        let steps: Vec<String> = after
            .iter()
            .map(|(name, after)| {
                format!(
                    "  - {{name: {name}, after: [{}], source: {{sequence: {{from: 0, to: 9}}}}, sink: {{csv: {{path: out/{name}}}}}}}\n",
                    after.join(", ")
                )
            })
            .collect();
        let text = format!("job: j\nsteps:\n{}", steps.join(""));
        let parsed = job::parse(&text, "job.yaml").and_then(|parsed| parsed.bind(&Default::default()));
        let (job, _) = parsed.unwrap_or_else(|errors| panic!("{errors}"));
        let cut = Cut::Later { step: "x".to_string() };
        job.steps
            .into_iter()
            .map(|step| PlannedStep {
                step,
                cut: cut.clone(),
                output: Target::Free,
            })
            .collect()
    }

    #[test]
    fn edges_run_in_lanes_beside_the_boxes() {
        let steps = planned(&[("d", &["b", "c"]), ("a", &[]), ("b", &["a"]), ("c", &["a"])]);
        let drawn = draw("j", &steps, GraphFormat::Text);
        let order: Vec<usize> = ["► b", "► c", "► d"]
            .iter()
            .map(|name| drawn.find(name).unwrap_or_else(|| panic!("{name}\n{drawn}")))
            .collect();
        assert!(order.is_sorted(), "{drawn}");
    }

    #[test]
    fn graphviz_and_mermaid_get_nodes_and_edges() {
        let steps = planned(&[("a", &[]), ("b", &["a"])]);
        let dot = draw("j", &steps, GraphFormat::Dot);
        assert!(dot.starts_with("digraph \"j\" {\n"), "{dot}");
        assert!(dot.contains("  \"a\" -> \"b\" [style=dashed];\n"), "{dot}");
        let mermaid = draw("j", &steps, GraphFormat::Mermaid);
        assert!(mermaid.contains("  s0 -.-> s1\n"), "{mermaid}");
    }
}
