//! Validate: the proof that a plan covers its source, before any of it is leased.
//!
//! It trusts nothing of the split: it looks at the finished table alone, so it also judges a plan
//! that was read back from the store or cut anew for a restart.

use std::fmt;

use gapless_common::{
    coverage::{CoverageError, Fault, Held, Span, Universe, key_faults, refuse, unit_faults},
    ids::PartitionNo,
    job::Step,
    key::{Key, KeyType},
    plan::{BucketFn, ExchangePlan, Facts, Method, Partition, StepPlan, TransformMode, Unit},
    range::{KeyRange, UnitRange},
};

use crate::split::file_spans;

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub partitions: usize,
    /// What the partitions tile.
    pub universe: Universe,
    /// With an exchange: how many scatter partitions tile the source, and the source.
    pub scatter: Option<(usize, Universe)>,
}

impl Coverage {
    /// One line for people.
    pub fn verdict(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tile = |count: usize| {
            if count == 1 {
                "partition covers"
            } else {
                "partitions tile"
            }
        };
        write!(
            f,
            "complete: {} {} the {}",
            self.partitions,
            tile(self.partitions),
            self.universe
        )?;
        if let Some((count, source)) = &self.scatter {
            write!(f, "; {count} scatter {} the {source}", tile(*count))?;
        }
        f.write_str("; no gap, no overlap")
    }
}

/// Proves that each stage of the plan tiles what it reads, and that the SQL's groups stay whole.
///
/// The error holds every fault of the first stage that has one.
pub fn validate(_step: &Step, facts: &Facts, plan: &StepPlan) -> Result<Coverage, CoverageError> {
    let source = Universe::Units {
        of: source_units(facts),
        domain: facts.domain,
    };
    check_groups(facts, plan, &source)?;
    let Some(exchange) = &plan.exchange else {
        let mut faults = table_faults(facts.domain, &plan.execute);
        if plan.method == Method::Files {
            faults.extend(file_faults(facts, &plan.execute));
        }
        refuse(source.clone(), false, faults)?;
        return Ok(Coverage {
            partitions: plan.execute.len(),
            universe: source,
            scatter: None,
        });
    };
    refuse(source.clone(), false, table_faults(facts.domain, &plan.scatter))?;
    let universe = check_exchange(exchange, &plan.execute)?;
    Ok(Coverage {
        partitions: plan.execute.len(),
        universe,
        scatter: Some((plan.scatter.len(), source)),
    })
}

/// The units of a source in the plural, for messages.
fn source_units(facts: &Facts) -> String {
    let files = match facts.files.len() {
        0 => String::new(),
        1 => " of 1 file".to_string(),
        count => format!(" of {count} files"),
    };
    match facts.unit {
        Unit::Byte => format!("bytes{files}"),
        Unit::File => "files".to_string(),
        Unit::RowGroup => format!("row groups{files}"),
        Unit::Bucket => "buckets".to_string(),
        Unit::Number => "numbers of the sequence".to_string(),
        Unit::Mixed => format!("bytes, row groups and whole files{files}"),
    }
}

fn table_faults(domain: UnitRange, table: &[Partition]) -> Vec<Fault> {
    let parts: Vec<(PartitionNo, UnitRange)> = table.iter().map(|row| (row.number, row.units)).collect();
    let misnumbered = table
        .iter()
        .enumerate()
        .filter(|(position, row)| row.number as usize != *position)
        .map(|(position, row)| Fault::Misnumbered {
            position,
            found: row.number,
        });
    unit_faults(domain, &parts).into_iter().chain(misnumbered).collect()
}

fn held(row: &Partition) -> Held {
    Held {
        partition: row.number,
        span: Span::Units(row.units),
    }
}

fn file_faults(facts: &Facts, table: &[Partition]) -> Vec<Fault> {
    let spans = file_spans(facts);
    let crossed = |row: &&Partition| {
        // The file that holds the range's first unit has to hold its last too.
        let file = spans.partition_point(|span| span.high <= row.units.low);
        let span = spans.get(file)?;
        (!row.units.is_empty() && row.units.high > span.high).then_some(file)
    };
    table
        .iter()
        .filter_map(|row| {
            crossed(&row).map(|file| Fault::CrossesFile {
                held: held(row),
                file: facts.files[file].path.clone(),
            })
        })
        .collect()
}

fn check_exchange(exchange: &ExchangePlan, execute: &[Partition]) -> Result<Universe, CoverageError> {
    let domain = UnitRange::new(0, u64::from(exchange.buckets));
    let buckets = Universe::Units {
        of: "buckets of the exchange".to_string(),
        domain,
    };
    refuse(buckets.clone(), false, table_faults(domain, execute))?;
    match &exchange.function {
        BucketFn::Hash { .. } => Ok(buckets),
        BucketFn::KeyRange {
            column,
            key_type,
            bounds,
            ..
        } => {
            let keys = Universe::Keys {
                column: column.clone(),
                key_type: *key_type,
            };
            refuse(
                keys.clone(),
                false,
                key_table_faults(exchange, *key_type, bounds, execute),
            )?;
            Ok(keys)
        }
    }
}

fn key_table_faults(exchange: &ExchangePlan, key_type: KeyType, bounds: &[Key], execute: &[Partition]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (buckets, actual) = (exchange.buckets, bounds.len() as u32 + 2);
    if actual != buckets {
        faults.push(Fault::WrongBuckets {
            stated: buckets,
            actual,
        });
    }
    let falling = (1..bounds.len()).filter(|&at| bounds[at] <= bounds[at - 1]);
    faults.extend(falling.map(|at| Fault::UnorderedBounds { bucket: at as u32 }));
    let mut stated = Vec::with_capacity(execute.len());
    for row in execute {
        let actual = exchange.keys(row.units).unwrap_or_else(KeyRange::nothing);
        if row.keys.as_ref() != Some(&actual) {
            let said = row
                .keys
                .as_ref()
                .map_or("no keys".to_string(), |keys| keys.display(key_type));
            let actual = actual.display(key_type);
            faults.push(Fault::WrongKeys {
                held: held(row),
                stated: said,
                actual,
            });
        }
        stated.extend(row.keys.clone().map(|keys| (row.number, keys)));
    }
    faults.extend(key_faults(key_type, &stated));
    faults
}

/// SQL that needs rows together gets them together: in one partition, or under one bucket.
fn check_groups(facts: &Facts, plan: &StepPlan, source: &Universe) -> Result<(), CoverageError> {
    let TransformMode::Whole { keys } = &facts.transform.mode else {
        return Ok(());
    };
    let by: &[String] = match plan.exchange.as_ref().map(|exchange| &exchange.function) {
        Some(BucketFn::Hash { columns }) => columns,
        Some(BucketFn::KeyRange { column, .. }) => std::slice::from_ref(column),
        None => &[],
    };
    let together = plan.execute.len() <= 1 || (!by.is_empty() && by.iter().all(|column| keys.contains(column)));
    match together {
        true => Ok(()),
        false => {
            let fault = Fault::SplitsGroups {
                by: by.to_vec(),
                keys: keys.clone(),
            };
            refuse(source.clone(), false, vec![fault])
        }
    }
}
