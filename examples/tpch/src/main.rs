//! `tpch-data`: the real TPC-H tables as CSV files, for the demonstration, the tests and the benchmarks.
//!
//! Each file is one part of the table, generated on its own by the `tpchgen` crate, so files are made
//! side by side and their rows are those of `dbgen` in the same order. Files that are there already
//! are left alone.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use tpchgen::{
    csv::{LineItemCsv, OrderCsv, SupplierCsv},
    generators::{LineItemGenerator, OrderGenerator, SupplierGenerator},
};

/// Generates a TPC-H table as CSV files with a header.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Scale factor: 1 makes about 6 million rows of lineitem (750 MB).
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How many files the table is cut into.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    files: u32,
    /// Folder of the files; made where missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The table to generate.
    #[arg(long, value_enum, default_value_t = Table::Lineitem)]
    table: Table,
}

#[derive(Clone, Copy, ValueEnum)]
enum Table {
    Lineitem,
    Orders,
    Supplier,
}

/// Large enough that a write costs nothing beside the formatting, small enough to stay in the cache.
const BUFFER_BYTES: usize = 256 * 1024;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.scale.is_finite() && arguments.scale > 0.0,
        "--scale must be a positive number, such as 1 or 0.01; it is {}",
        arguments.scale
    );
    let made = generate(arguments.table, arguments.scale, arguments.files, &arguments.out)?;
    match made {
        0 => eprintln!(
            "{}: all {} files are there already",
            arguments.out.display(),
            arguments.files
        ),
        _ => eprintln!(
            "{}: {made} of {} files generated",
            arguments.out.display(),
            arguments.files
        ),
    }
    Ok(())
}

/// Generates the missing files of a table and returns how many there were.
fn generate(table: Table, scale: f64, files: u32, out: &Path) -> Result<u32> {
    fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let name = table
        .to_possible_value()
        .expect("no table is hidden")
        .get_name()
        .to_owned();
    let marker = out.join(format!(".{name}-made"));
    let recipe = format!("{name} scale {scale} files {files}");
    forget_other_recipe(&marker, &recipe, &name, out)?;

    let paths: Vec<PathBuf> = (0..files)
        .map(|part| out.join(format!("{name}-{part:03}.csv")))
        .collect();
    let next = AtomicU32::new(0);
    let made = AtomicU32::new(0);
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(files as usize);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let part = next.fetch_add(1, Ordering::Relaxed);
                        let Some(path) = paths.get(part as usize) else {
                            return Ok(());
                        };
                        // A file has its final name only when it is whole.
                        if !path.exists() {
                            write_part(table, scale, part as i32 + 1, files as i32, path)?;
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        handles
            .into_iter()
            .try_for_each(|handle| handle.join().expect("a generator thread does not panic"))
    })?;
    Ok(made.into_inner())
}

/// Removes what another scale or number of files left, so that a glob finds one table only.
fn forget_other_recipe(marker: &Path, recipe: &str, name: &str, out: &Path) -> Result<()> {
    if fs::read_to_string(marker).is_ok_and(|found| found == recipe) {
        return Ok(());
    }
    for entry in fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))? {
        let path = entry?.path();
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let number = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        let number = number.and_then(|rest| rest.strip_suffix(".csv"));
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    fs::write(marker, recipe).with_context(|| format!("cannot write {}", marker.display()))
}

fn write_part(table: Table, scale: f64, part: i32, parts: i32, path: &Path) -> Result<()> {
    let unfinished = path.with_extension("csv.unfinished");
    let write = || -> io::Result<()> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&unfinished)?);
        match table {
            Table::Lineitem => write_rows(
                &mut file,
                LineItemCsv::header(),
                LineItemGenerator::new(scale, part, parts).iter().map(LineItemCsv::new),
            ),
            Table::Orders => write_rows(
                &mut file,
                OrderCsv::header(),
                OrderGenerator::new(scale, part, parts).iter().map(OrderCsv::new),
            ),
            Table::Supplier => write_rows(
                &mut file,
                SupplierCsv::header(),
                SupplierGenerator::new(scale, part, parts).iter().map(SupplierCsv::new),
            ),
        }?;
        file.flush()?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn write_rows(out: &mut impl Write, header: &str, rows: impl Iterator<Item = impl Display>) -> io::Result<()> {
    writeln!(out, "{header}")?;
    for row in rows {
        writeln!(out, "{row}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(out: &Path) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(out)
            .expect("the folder is there")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
            .collect();
        files.sort();
        files
            .iter()
            .flat_map(|file| {
                let text = fs::read_to_string(file).expect("a text file");
                assert!(text.starts_with("l_orderkey,l_partkey,"), "each file has a header");
                text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn the_number_of_files_does_not_change_the_table() {
        let (one, three) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        assert_eq!(generate(Table::Lineitem, 0.001, 1, one.path()).expect("made"), 1);
        assert_eq!(generate(Table::Lineitem, 0.001, 3, three.path()).expect("made"), 3);
        let rows_of_one = rows(one.path());
        assert_eq!(rows_of_one.len(), 6005);
        assert_eq!(rows_of_one, rows(three.path()));
    }

    #[test]
    fn files_that_are_there_are_kept_and_those_of_another_recipe_removed() {
        let out = tempfile::tempdir().expect("a folder");
        generate(Table::Lineitem, 0.001, 3, out.path()).expect("made");
        fs::remove_file(out.path().join("lineitem-001.csv")).expect("removed");
        assert_eq!(generate(Table::Lineitem, 0.001, 3, out.path()).expect("made"), 1);
        assert_eq!(generate(Table::Lineitem, 0.001, 3, out.path()).expect("made"), 0);
        fs::write(out.path().join("lineitem-notes.csv"), "mine").expect("written");
        generate(Table::Lineitem, 0.001, 2, out.path()).expect("made");
        assert!(!out.path().join("lineitem-002.csv").exists());
        assert!(
            out.path().join("lineitem-notes.csv").exists(),
            "only its own files are removed"
        );
    }
}
