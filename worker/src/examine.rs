//! What can be told wrong in a job before there is any data: its SQL, checks and key columns, planned by the
//! engine that the survey uses, over the columns that the job declares.
//!
//! What is not declared is not known: a CSV header may name further columns, which are text, and Parquet files
//! alone tell theirs. A job that may be right is never called wrong; what stays open is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use gapless_common::job::{
    ColumnType, Compression, CsvSource, Job, Lookup, MergeSource, MissingColumns, NdjsonSource, Partition, Sink,
    Source, Step,
};

use crate::{
    command,
    engine::{self, Cause, Checks, INPUT, PlanFault},
    sink::{check_sink, check_sink_alone, written_schema},
    sort::check_step_order,
    source::{
        csv::{Format, Layout, column_type},
        merge::{check_keys, columns_of_inputs, input_name},
        records::Shape,
        sequence,
        types::key_type,
    },
    type_names::type_name,
};

/// A column that no file has: where it comes out of a query, so would columns that are not declared.
const UNDECLARED: &str = "\u{1}undeclared";

/// Said of a place in a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub step: String,
    /// Path of keys and list indexes below the step, such as `check.0.that`.
    pub field: &'static str,
    /// The index that stands for `#` in `field`.
    pub index: usize,
    /// A name in that field which it is about.
    pub word: Option<String>,
    pub message: String,
}

impl Remark {
    /// `field` with its index.
    pub fn path(&self) -> String {
        self.field.replace('#', &self.index.to_string())
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// The job cannot work as written.
    pub faults: Vec<Remark>,
    /// Only data can tell.
    pub open: Vec<Remark>,
}

/// What is known of a table's columns.
#[derive(Clone, Debug)]
enum Known {
    All(SchemaRef),
    /// The files may have others, which are text.
    Some(SchemaRef),
    /// Why nothing is.
    Nothing(String),
}

/// Examines the steps of a job. `now_micros` is the value of `now()`.
pub fn examine_job(job: &Job, now_micros: i64) -> Examination {
    let mut examiner = Examiner {
        job,
        now_micros,
        outputs: BTreeMap::new(),
        found: Examination::default(),
    };
    for step in &job.steps {
        examiner.output(step);
    }
    examiner.found
}

struct Examiner<'a> {
    job: &'a Job,
    now_micros: i64,
    /// What each step that was examined gives to the steps that read it.
    outputs: BTreeMap<&'a str, Known>,
    found: Examination,
}

/// The tables of a step, with the columns that were taken for text on the way.
struct Tables {
    input: Table,
    lookups: Vec<(String, Table)>,
    /// Why the columns of a look-up are not known.
    unknown: Option<String>,
}

struct Table {
    declared: SchemaRef,
    /// With those that were assumed.
    columns: SchemaRef,
    open: bool,
    /// Named somewhere and not declared.
    assumed: BTreeSet<String>,
}

impl Table {
    fn of(known: &Known) -> Option<Table> {
        let (columns, open) = match known {
            Known::All(columns) => (columns, false),
            Known::Some(columns) => (columns, true),
            Known::Nothing(_) => return None,
        };
        Some(Table {
            declared: columns.clone(),
            columns: columns.clone(),
            open,
            assumed: BTreeSet::new(),
        })
    }

    /// Whether the files may have a column of this name that is not declared.
    fn lacks(&self, name: &str) -> bool {
        self.open && self.columns.field_with_name(name).is_err()
    }

    /// Takes a column for text of the files' headers. `false` where that cannot be, or changes nothing.
    fn assume(&mut self, name: &str) -> bool {
        if !self.lacks(name) || !self.assumed.insert(name.to_string()) {
            return false;
        }
        self.columns = with_text(&self.columns, name);
        true
    }
}

fn with_text(columns: &Schema, name: &str) -> SchemaRef {
    let added = Arc::new(Field::new(name, DataType::Utf8, true));
    let fields = columns.fields().iter().cloned().chain([added]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl<'a> Examiner<'a> {
    /// Examines a step once, after those that it reads. The job has no circles: that is checked where it is read.
    fn output(&mut self, step: &'a Step) -> Known {
        if let Some(known) = self.outputs.get(step.name.as_str()) {
            return known.clone();
        }
        let input = self.source(step);
        let known = self.step(step, &input);
        self.outputs.insert(&step.name, known.clone());
        known
    }

    fn source(&mut self, step: &'a Step) -> Known {
        let Source::Merge(merge) = &step.source else {
            return self.input(&step.source);
        };
        let (mut schemas, mut open) = (Vec::new(), false);
        for (number, input) in merge.inputs.iter().enumerate() {
            match self.input(input) {
                Known::All(columns) => schemas.push(columns),
                Known::Some(columns) => {
                    open = true;
                    schemas.push(columns);
                }
                Known::Nothing(why) => return Known::Nothing(format!("{}: {why}", input_name(number, input))),
            }
        }
        let lenient = MergeSource {
            missing_columns: MissingColumns::Fill,
            ..merge.as_ref().clone()
        };
        // A header may name what is not declared.
        let columns = columns_of_inputs(if open { &lenient } else { merge }, &schemas);
        let checked = columns.and_then(|columns| match open {
            true => Ok(columns),
            false => check_keys(merge, &columns).map(|()| columns),
        });
        match checked {
            Ok(columns) if open => Known::Some(Arc::new(columns)),
            Ok(columns) => Known::All(Arc::new(columns)),
            Err(error) => {
                self.fault(step, ("source", 0), None, error.message);
                Known::Nothing(format!("step {} has faults", step.name))
            }
        }
    }

    fn input(&mut self, source: &'a Source) -> Known {
        match source {
            Source::Merge(_) => Known::Nothing("a merge is no input of a merge".into()),
            Source::Csv(csv) => csv_columns(csv),
            Source::Ndjson(ndjson) => ndjson_columns(ndjson),
            Source::Parquet(_) => Known::Nothing("the columns of Parquet files are known from the files alone".into()),
            Source::Avro(_) => Known::Nothing("the columns of Avro files are known from the files alone".into()),
            Source::Records(records) => match Shape::new(&records.layout, None) {
                Ok(shape) => Known::All(shape.schema()),
                Err(error) => Known::Nothing(error.message),
            },
            Source::Sequence { .. } => Known::All(sequence::schema()),
            Source::Step(name) => match self.job.step(name) {
                Some(earlier) => read_back(&earlier.sink, self.output(earlier)),
                None => Known::Nothing(format!("there is no step {name}")),
            },
        }
    }

    fn step(&mut self, step: &'a Step, input: &Known) -> Known {
        let faults = self.found.faults.len();
        if let Err(error) = check_sink_alone(&step.sink) {
            self.fault(step, ("sink", 0), None, error.message);
        }
        if let Known::Nothing(why) = input {
            self.without_columns(step, why);
            return match step.command {
                Some(_) => self.program(step),
                None => input.clone(),
            };
        }
        // Those that look-ups read are examined first; the job has no circles.
        for lookup in step.lookups.values() {
            if let Lookup::Step(name) = lookup
                && let Some(earlier) = self.job.step(name)
            {
                self.output(earlier);
            }
        }
        let Some(mut tables) = tables(step, input, &self.outputs) else {
            return input.clone();
        };
        self.checks(step, &mut tables.input);
        self.key_columns(step, &mut tables.input);
        let output = match &step.sql {
            None if step.command.is_some() => self.program(step),
            None => match tables.input.open {
                true => Known::Some(tables.input.columns.clone()),
                false => Known::All(tables.input.columns.clone()),
            },
            Some(sql) => self.sql(step, sql, &mut tables),
        };
        if self.found.faults.len() > faults {
            return Known::Nothing(format!("step {} has faults", step.name));
        }
        if let Known::All(output) = &output
            && let Err(error) = check_sink(&step.sink, output)
        {
            self.fault(step, ("sink", 0), None, error.message);
        }
        self.order(step, &output);
        output
    }

    /// Columns that the output is sorted by: those of it that are known have to have an order.
    fn order(&mut self, step: &Step, output: &Known) {
        for by in &step.sort {
            let by = std::slice::from_ref(by);
            let error = match output {
                Known::All(columns) => check_step_order(step, by, columns).err(),
                Known::Some(columns) if columns.field_with_name(&by[0].column).is_ok() => {
                    check_step_order(step, by, columns).err()
                }
                Known::Some(_) | Known::Nothing(_) => None,
            };
            if let Some(error) = error {
                let place = if matches!(step.source, Source::Merge(_)) {
                    "source"
                } else {
                    "sort"
                };
                self.fault(step, (place, 0), Some(&by[0].column), error.message);
            }
        }
    }

    /// A step of whose columns nothing is known: its SQL has to be SQL all the same.
    fn without_columns(&mut self, step: &Step, why: &str) {
        if let Some(sql) = &step.sql
            && let Err(fault) = engine::check_syntax(sql)
        {
            self.fault(step, ("transform.sql", 0), None, fault.message);
        }
        let mut unchecked = Vec::new();
        if step.sql.is_some() {
            unchecked.push("SQL");
        }
        if !step.checks.is_empty() {
            unchecked.push("checks");
        }
        if !key_columns(step).is_empty() {
            unchecked.push("key columns");
        }
        if !unchecked.is_empty() {
            let message = format!("{} not checked without data: {why}", unchecked.join(", "));
            self.open(step, ("source", 0), None, message);
        }
    }

    fn checks(&mut self, step: &Step, input: &mut Table) {
        for (index, check) in step.checks.iter().enumerate() {
            let place = ("check.#.that", index);
            while let Err(fault) = Checks::examine(std::slice::from_ref(check), &input.columns, self.now_micros) {
                match &fault.cause {
                    Cause::Column { name, .. } if input.assume(name) => {
                        self.assumed(step, place, name, &input.declared)
                    }
                    _ => {
                        self.planning(step, place, fault);
                        break;
                    }
                }
            }
        }
    }

    fn key_columns(&mut self, step: &Step, input: &mut Table) {
        for (field, name) in key_columns(step) {
            let place = (field, 0);
            let columns = input.columns.clone();
            match columns.field_with_name(name) {
                Ok(field) if key_type(field.data_type()).is_some() => {}
                Ok(field) => {
                    let message = format!(
                        "partition: column {name} is {}, whose values have no key order; partition by another column",
                        type_name(field.data_type())
                    );
                    self.fault(step, place, Some(name), message);
                }
                Err(_) if input.assume(name) => self.assumed(step, place, name, &input.declared),
                Err(_) => {
                    let offer = engine::offer(name, &names(&columns), "columns");
                    let message = format!("partition: the source has no column «{name}»{offer}");
                    self.fault(step, place, Some(name), message);
                }
            }
        }
    }

    fn sql(&mut self, step: &Step, sql: &str, tables: &mut Tables) -> Known {
        let place = ("transform.sql", 0);
        if let Some(why) = &tables.unknown {
            match engine::check_syntax(sql) {
                Ok(()) => self.open(step, place, None, format!("SQL not checked without data: {why}")),
                Err(fault) => self.planning(step, place, fault),
            }
            return Known::Nothing(why.clone());
        }
        let analysis = loop {
            let fault = match plan(sql, tables, self.now_micros, None) {
                Ok(analysis) => break analysis,
                Err(fault) => fault,
            };
            let open = tables.any_open();
            match &fault.cause {
                Cause::Column { table, name } if open => match tables.assume(table.as_deref(), name) {
                    Some(columns) => self.assumed(step, place, name, &columns),
                    None => {
                        let message = format!("{}; or is it a column that is not declared?", fault.message);
                        self.open(step, place, Some(name), message);
                        return Known::Nothing(format!("the columns of step {} are not known", step.name));
                    }
                },
                // Columns that are not declared may make it right, or be why it seems wrong.
                Cause::Ambiguous { .. } | Cause::Other if open && may_depend(sql, tables, &fault) => {
                    let message = format!(
                        "{}, over the declared columns; the files may have others",
                        fault.message
                    );
                    self.open(step, place, None, message);
                    return Known::Nothing(format!("the columns of step {} are not known", step.name));
                }
                _ => {
                    self.planning(step, place, fault);
                    return Known::Nothing(format!("step {} has faults", step.name));
                }
            }
        };
        let passes_on = tables.any_open()
            && plan(sql, tables, self.now_micros, Some(UNDECLARED))
                .map_or(true, |with| with.field_with_name(UNDECLARED).is_ok());
        match passes_on {
            true => Known::Some(analysis),
            false => Known::All(analysis),
        }
    }

    /// What a program writes is known where the job declares it.
    fn program(&mut self, step: &Step) -> Known {
        let declared = step.command.as_ref().map(command::declared).transpose();
        match declared.map(Option::flatten) {
            Ok(Some(declared)) => Known::All(declared),
            Ok(None) => Known::Nothing(format!(
                "the columns of step {} are known when its program runs",
                step.name
            )),
            Err(error) => {
                self.fault(step, ("transform.command.columns", 0), None, error.message);
                Known::Nothing(format!("step {} has faults", step.name))
            }
        }
    }

    fn assumed(&mut self, step: &Step, place: (&'static str, usize), name: &str, declared: &Schema) {
        let near = engine::near(name, &names(declared));
        let near = if near.is_empty() { near } else { format!("; {near}") };
        let message = format!("column «{name}» is not declared: it is text if the header of the files has it{near}");
        self.open(step, place, Some(name), message);
    }

    fn planning(&mut self, step: &Step, place: (&'static str, usize), fault: PlanFault) {
        let word = match &fault.cause {
            Cause::Column { name, .. } | Cause::Ambiguous { name } => Some(name.as_str()),
            Cause::Table { name } | Cause::Function { name } => Some(name.as_str()),
            Cause::Syntax | Cause::Other => None,
        };
        self.fault(step, place, word, fault.message.clone());
    }

    fn fault(&mut self, step: &Step, place: (&'static str, usize), word: Option<&str>, message: String) {
        self.found.faults.push(remark(step, place, word, message));
    }

    fn open(&mut self, step: &Step, place: (&'static str, usize), word: Option<&str>, message: String) {
        self.found.open.push(remark(step, place, word, message));
    }
}

fn remark(step: &Step, (field, index): (&'static str, usize), word: Option<&str>, message: String) -> Remark {
    Remark {
        step: step.name.clone(),
        field,
        index,
        word: word.map(str::to_string),
        message: format!("step {}: {message}", step.name),
    }
}

impl Tables {
    fn any_open(&self) -> bool {
        self.input.open || self.lookups.iter().any(|(_, table)| table.open)
    }

    /// Takes a column for text of an open table: the one that is written before it, else (also where that is an alias) the
    /// first that has no such column. Gives that table's declared columns.
    fn assume(&mut self, table: Option<&str>, name: &str) -> Option<SchemaRef> {
        let mut all: Vec<(&str, &mut Table)> = self
            .lookups
            .iter_mut()
            .map(|(name, table)| (name.as_str(), table))
            .collect();
        all.insert(0, (INPUT, &mut self.input));
        let at = match all.iter().position(|(known, _)| Some(*known) == table) {
            Some(at) => at,
            None => all.iter().position(|(_, table)| table.lacks(name))?,
        };
        let table = &mut *all[at].1;
        table.assume(name).then(|| table.declared.clone())
    }
}

/// Whether a fault of a query may come from columns that are not declared.
fn may_depend(sql: &str, tables: &Tables, fault: &PlanFault) -> bool {
    match &fault.cause {
        Cause::Ambiguous { name } => {
            let lookups = tables.lookups.iter().map(|(_, table)| table);
            lookups.chain([&tables.input]).any(|table| table.assumed.contains(name))
        }
        _ => engine::takes_all_columns(sql),
    }
}

/// The columns that a query gives; `extra` is a column more in each open table.
fn plan(sql: &str, tables: &Tables, now_micros: i64, extra: Option<&str>) -> Result<SchemaRef, PlanFault> {
    let columns = |table: &Table| match extra.filter(|_| table.open) {
        Some(extra) => with_text(&table.columns, extra),
        None => table.columns.clone(),
    };
    let lookups: Vec<(String, SchemaRef)> = tables
        .lookups
        .iter()
        .map(|(name, table)| (name.clone(), columns(table)))
        .collect();
    engine::examine(Some(sql), columns(&tables.input), &lookups, &[], now_micros).map(|analysis| analysis.output)
}

/// The tables of a step; `None` where nothing is known of its input.
fn tables(step: &Step, input: &Known, outputs: &BTreeMap<&str, Known>) -> Option<Tables> {
    let mut tables = Tables {
        input: Table::of(input)?,
        lookups: Vec::new(),
        unknown: None,
    };
    for (name, lookup) in &step.lookups {
        let known = match lookup {
            Lookup::Csv(csv) => csv_columns(csv),
            Lookup::Ndjson(ndjson) => ndjson_columns(ndjson),
            Lookup::Records(records) => match Shape::new(&records.layout, None) {
                Ok(shape) => Known::All(shape.schema()),
                Err(error) => Known::Nothing(error.message),
            },
            Lookup::Avro(_) => Known::Nothing(format!(
                "look-up {name} is of Avro files, which alone tell their columns"
            )),
            Lookup::Parquet(_) => Known::Nothing(format!(
                "look-up {name} is of Parquet files, which alone tell their columns"
            )),
            Lookup::Step(earlier) => match outputs.get(earlier.as_str()) {
                Some(known) => known.clone(),
                None => Known::Nothing(format!("there is no step {earlier}")),
            },
        };
        match (Table::of(&known), known) {
            (Some(table), _) => tables.lookups.push((name.clone(), table)),
            (None, Known::Nothing(why)) => tables.unknown = Some(why),
            (None, _) => {}
        }
    }
    Some(tables)
}

fn csv_columns(csv: &CsvSource) -> Known {
    columns_of_csv(Format::from(csv), csv.columns.clone(), csv.header)
}

/// Without declared columns the first record will tell them.
fn ndjson_columns(ndjson: &NdjsonSource) -> Known {
    columns_of_csv(Format::from(ndjson), ndjson.columns.clone(), ndjson.columns.is_empty())
}

fn columns_of_csv(format: Format, columns: Vec<(String, ColumnType)>, open: bool) -> Known {
    if columns.is_empty() {
        // With a header they are all text.
        return Known::Some(Arc::new(Schema::empty()));
    }
    match Layout::new(format, columns, None) {
        Ok(layout) if open => Known::Some(layout.schema()),
        Ok(layout) => Known::All(layout.schema()),
        Err(error) => Known::Nothing(error.message),
    }
}

/// The columns of an output as the step that reads it sees them.
fn read_back(sink: &Sink, output: Known) -> Known {
    let (columns, open) = match output {
        Known::All(columns) => (columns, false),
        Known::Some(columns) => (columns, true),
        nothing => return nothing,
    };
    let written = match (open, sink) {
        // Which columns become folders is told by all of them.
        (true, Sink::Csv(file) | Sink::Ndjson(file) | Sink::Parquet(file) | Sink::Avro(file))
            if !file.partition_by.is_empty() =>
        {
            return Known::Nothing("the columns of its source are not all declared".into());
        }
        _ => written_schema(sink, &columns),
    };
    match (written, sink) {
        (Err(error), _) => Known::Nothing(error.message),
        (Ok(columns), Sink::Csv(_) | Sink::Ndjson(_)) => {
            let typed = columns.fields().iter().map(|field| {
                let ty = column_type(field.data_type()).unwrap_or(ColumnType::String);
                (field.name().clone(), ty)
            });
            let format = match sink {
                Sink::Csv(file) => Format::from(file),
                _ => Format::ndjson(Compression::Auto, Vec::new(), false),
            };
            columns_of_csv(format, typed.collect(), open)
        }
        (Ok(_), Sink::Records(records)) => match Shape::new(&records.layout, None) {
            Ok(shape) => Known::All(shape.schema()),
            Err(error) => Known::Nothing(error.message),
        },
        (Ok(columns), _) if open => Known::Some(columns),
        (Ok(columns), _) => Known::All(columns),
    }
}

/// The columns that a step is partitioned by, with the fields that name them.
fn key_columns(step: &Step) -> Vec<(&'static str, &str)> {
    match &step.partition.method {
        Partition::KeyRange { column, .. } => vec![("partition.key_range.column", column.as_str())],
        Partition::Hash { columns } => columns
            .iter()
            .map(|column| ("partition.hash.columns", column.as_str()))
            .collect(),
        Partition::Auto | Partition::Bytes | Partition::Files | Partition::RowGroups => Vec::new(),
    }
}

fn names(columns: &Schema) -> Vec<&str> {
    columns.fields().iter().map(|field| field.name().as_str()).collect()
}

#[cfg(test)]
mod tests {
    use gapless_common::job::parse;

    use super::*;

    /// Faults, then what stays open: `field|word|message`.
    fn check(steps: &str, faults: &[&str], open: &[&str]) {
        let text = format!("job: j\nsteps:\n{steps}");
        let parsed = parse(&text, "job.yaml").unwrap_or_else(|errors| panic!("{errors}"));
        let (job, _) = parsed
            .bind(&Default::default())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let found = examine_job(&job, 0);
        let said = |remarks: &[Remark]| -> Vec<String> {
            let word = |remark: &Remark| remark.word.clone().unwrap_or_default();
            remarks
                .iter()
                .map(|it| format!("{}|{}|{}", it.path(), word(it), it.message))
                .collect()
        };
        for (said, expected) in [(said(&found.faults), faults), (said(&found.open), open)] {
            assert_eq!(said.len(), expected.len(), "{steps}: {found:#?}");
            for (said, expected) in said.iter().zip(expected) {
                assert!(
                    expected.split('…').all(|part| said.contains(part)),
                    "{steps}: {said}\nlacks: {expected}"
                );
            }
        }
    }

    /// A step over a CSV source with the columns `id` and `amount`.
    fn step(name: &str, header: bool, rest: &str) -> String {
        format!(
            "  - name: {name}\n    source: {{csv: {{path: \"none-{name}.csv\", header: {header}, columns: {{id: int64, amount: \"decimal(9,2)\"}}}}}}\n    \
             sink: {{csv: {{path: out-{name}}}}}\n{rest}"
        )
    }

    #[test]
    fn what_all_declared_columns_tell_is_a_fault() {
        let closed = |rest: &str| step("a", false, rest);
        let cases = [
            (
                "    transform: {sql: \"SELECT id, sum(amount) AS s FROM input GROUP BY id\"}\n",
                None,
            ),
            (
                "    transform: {sql: \"SELECT amonut FROM input\"}\n",
                Some("transform.sql|amonut|step a: the SQL: there is no column «amonut»; did you mean «amount»?"),
            ),
            (
                "    transform: {sql: \"SELECT uper(id) FROM input\"}\n",
                Some("transform.sql|uper|step a: the SQL: there is no function «uper»…upper"),
            ),
            (
                "    transform: {sql: \"SELECT id FROM inptu\"}\n",
                Some("transform.sql|inptu|step a: the SQL: there is no table «inptu»"),
            ),
            (
                "    transform: {sql: \"SELEC id FROM input\"}\n",
                Some("transform.sql||step a: the SQL: "),
            ),
            (
                "    check: [{name: one, that: \"id > 0\"}, {name: two, that: \"amout > 0\"}]\n",
                Some("check.1.that|amout|step a: check «two»: there is no column «amout»; did you mean «amount»?"),
            ),
            (
                "    check: [{name: one, that: \"id + 1\"}]\n",
                Some("check.0.that||step a: check «one»: «id + 1» is int64"),
            ),
            (
                "    lookups: {l: {csv: {path: l.csv, header: false, columns: {id: int64, name: string}}}}\n    transform: {sql: \"SELECT l.nam FROM input JOIN l ON l.id = input.id\"}\n",
                Some("transform.sql|nam|step a: the SQL: there is no column «l.nam»…did you mean «name»?"),
            ),
            (
                "    transform: {sql: \"SELECT id AS k FROM input\"}\n    sort: [k, id]\n",
                Some("sort|id|step a: sort: the output has no column «id»…k"),
            ),
        ];
        for (rest, fault) in cases {
            check(&closed(rest), fault.as_slice(), &[]);
        }
    }

    #[test]
    fn faults_of_a_report_are_told_without_data() {
        let report = |header: bool, report: &str| {
            let step = step("a", header, "");
            let at = step.find("    sink:").expect("a sink");
            format!("{}    sink: {{report: {{path: out-a, {report}}}}}\n", &step[..at])
        };
        let faults = [
            ("row: \"{{ id | nope }}\"", "sink||step a: the template `row`: …nope"),
            ("row: \"{{ id is nope }}\"", "sink||step a: the template `row`: …nope"),
            ("row: \"{{ id \"", "sink||step a: the template `row`: …syntax error"),
            (
                "row: \"{{ id }}\", footer: \"{{ totals.amount }}\"",
                "the template `footer` names «totals.amount», and `totals` names no column: name amount there",
            ),
            (
                "row: \"{{ id }}\", totals: [id], end: \"{{ page_totals.amount }}\"",
                "the template `end` names «page_totals.amount», and `totals` names id alone: name amount there",
            ),
            (
                "row: \"{{ id }}\", header: \"{{ id }}\"",
                "the template `header` names «id», which it has not",
            ),
            (
                "row: \"{{ id }}\", totals: [id], end: \"{{ totals.id + 'x' }}\"",
                "the template `end`: …unsupported types",
            ),
        ];
        for (sink, fault) in faults {
            for header in [true, false] {
                check(&report(header, sink), &[fault], &[]);
            }
        }
        // What is known of the columns alone.
        for (row, fault) in [
            ("{{ amount + 'x' }}", "the template `row`: …unsupported types"),
            (
                "{{ amount < 'x' }}",
                "the template `row`: …cannot compare a decimal with text that is no number",
            ),
            (
                "{{ id == 'x' }}",
                "the template `row`: …cannot compare a number with text",
            ),
            (
                "{{ amonut }}",
                "the template `row` names «amonut», which it has not; it has id, amount, page",
            ),
        ] {
            check(&report(false, &format!("row: \"{row}\"")), &[fault], &[]);
            check(&report(true, &format!("row: \"{row}\"")), &[], &[]);
        }
        // Right, or to be told by the values alone.
        for row in [
            "{{ id + 1 }} {{ amount | grouped | right(9) }} {{ totals.id }}",
            "{{ 1 / (id - 1) }} {{ amount.split('.')[1] }} {{ amount | int }} {{ range(id) | length }}",
            "{% for n in range(3) %}{{ n }}{{ loop.index }}{% endfor %}{% set x = id %}{{ x }}",
        ] {
            check(&report(false, &format!("totals: [id], row: \"{row}\"")), &[], &[]);
        }
    }

    #[test]
    fn what_a_header_may_name_stays_open() {
        let open = |rest: &str| step("a", true, rest);
        check(
            &open("    transform: {sql: \"SELECT amonut, upper(shop) AS s FROM input WHERE id > 0\"}\n"),
            &[],
            &[
                "transform.sql|amonut|step a: column «amonut» is not declared: it is text if the header of the files has it; did you mean «amount»?",
                "transform.sql|shop|step a: column «shop» is not declared",
            ],
        );
        check(
            &open("    check: [{name: one, that: \"shop <> ''\"}]\n    partition: {hash: {columns: [shop]}}\n"),
            &[],
            &["check.0.that|shop|"],
        );
        // Told all the same: no header makes a function, or text of a number.
        check(
            &open("    transform: {sql: \"SELECT uper(shop) FROM input\"}\n"),
            &["there is no function «uper»"],
            &[],
        );
        check(
            &open("    check: [{name: one, that: \"id\"}]\n"),
            &["«id» is int64"],
            &[],
        );
        // How many columns `*` stands for is not known.
        check(
            &open("    transform: {sql: \"SELECT * FROM input UNION ALL SELECT 1, 2, 3\"}\n"),
            &[],
            &["the files may have others"],
        );
    }

    #[test]
    fn what_a_step_gives_is_known_to_the_steps_that_read_it() {
        let reads = |sql: &str| {
            format!(
                "  - name: b\n    source: {{step: a}}\n    transform: {{sql: \"{sql}\"}}\n    sink: {{parquet: {{path: out-b}}}}\n  \
                 - name: c\n    source: {{step: b}}\n    check: [{{name: one, that: \"s > 0\"}}]\n    sink: discard\n"
            )
        };
        // The select list says it all, whatever the header of the source has.
        let a = step(
            "a",
            true,
            "    transform: {sql: \"SELECT id AS k, amount FROM input\"}\n",
        );
        check(
            &(reads("SELECT k, sum(amount) AS s FROM input GROUP BY k") + &a),
            &[],
            &[],
        );
        check(
            &(a.clone() + &reads("SELECT id AS s FROM input")),
            &["step b: the SQL: there is no column «id»"],
            &["step c: checks not checked without data: step b has faults"],
        );
        check(
            &(a.clone() + &reads("SELECT k FROM input")),
            &["check.0.that|s|step c: check «one»: there is no column «s»"],
            &[],
        );
        let keyed = reads("SELECT k AS s FROM input")
            .replace("{step: a}", "{step: a}\n    partition: {hash: {columns: [k, shop]}}");
        check(
            &(a.clone() + &keyed),
            &[
                "partition.hash.columns|shop|step b: partition: the source has no column «shop»; the columns are k, amount",
            ],
            &["step c: checks not checked without data"],
        );
        // Here it passes them on.
        let a = step("a", true, "    transform: {sql: \"SELECT *, 1 AS one FROM input\"}\n");
        check(
            &(a + &reads("SELECT shop, id AS s FROM input")),
            &[],
            &["step b: column «shop» is not declared"],
        );
        let a = step("a", false, "    transform: {sql: \"SELECT *, 1 AS one FROM input\"}\n");
        check(
            &(a + &reads("SELECT shop, one AS s FROM input")),
            &["step b: the SQL: there is no column «shop»"],
            &["step c"],
        );
    }

    #[test]
    fn parquet_files_alone_tell_their_columns() {
        let parquet = |rest: &str| {
            format!("  - name: p\n    source: {{parquet: {{path: none.parquet}}}}\n    sink: discard\n{rest}")
        };
        check(&parquet(""), &[], &[]);
        check(
            &parquet(
                "    transform: {sql: \"SELECT uper(x) FROM input\"}\n    check: [{name: one, that: \"x > 0\"}]\n",
            ),
            &[],
            &["source||step p: SQL, checks not checked without data: the columns of Parquet files"],
        );
        check(
            &parquet("    transform: {sql: \"SELEC x FROM input\"}\n"),
            &["transform.sql||step p: the SQL: "],
            &["step p: SQL not checked"],
        );
        check(
            &step(
                "a",
                false,
                "    lookups: {l: {parquet: {path: l.parquet}}}\n    transform: {sql: \"SELECT nam FROM input JOIN l ON l.id = input.id\"}\n    check: [{name: one, that: \"amout > 0\"}]\n",
            ),
            &["check.0.that|amout|"],
            &["transform.sql||step a: SQL not checked without data: look-up l is of Parquet files"],
        );
        // A look-up by another name: its undeclared key is not taken for a second column of the input.
        check(
            &step(
                "a",
                false,
                "    lookups: {l: {csv: {path: l.csv, columns: {rate: int64}}}}\n    transform: {sql: \"SELECT i.amount, r.rate FROM input i JOIN l r ON r.amount = i.amount\"}\n",
            ),
            &[],
            &[
                "transform.sql|amount|step a: column «amount» is not declared: it is text if the header of the files has it",
            ],
        );
        let sequence = "  - name: s\n    source: {sequence: {from: 0, to: 9}}\n    sink: discard\n    transform: {sql: \"SELECT m FROM input\"}\n";
        check(sequence, &["there is no column «m»; the columns are n"], &[]);
    }
}
