//! Rejected records as somebody corrected them: told record by record, or in copies of their files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use gapless_common::error::TaskError;
use serde::Deserialize;

use super::{Kept, config};
use crate::{source::Place, storage::io_error};

/// A line of a corrected file.
const MAX_LINE: u64 = 16 << 20;

/// Puts corrected texts in place of those of the quarantine. `objects`: whether the source itself is of JSON.
pub(super) fn correct(kept: &mut [Kept], from: &Path, objects: bool) -> Result<(), TaskError> {
    if !from.is_dir() {
        let extension = from.extension().and_then(|extension| extension.to_str());
        // What is named so and is no copy of the source is told what it lacks.
        let named = !objects && matches!(extension, Some("ndjson" | "jsonl" | "json"));
        if named || is_told(kept, from)? {
            return correct_by_records(kept, from);
        }
    }
    if let Some(row) = kept.iter().find(|kept| kept.place.line.is_none()) {
        return Err(config(format!(
            "{} is not what `gapless rejects RUN -o json` tells, and the records of {} are rows without lines, which no \
             corrected copy is read for: keep what it tells in a file, correct `raw` in that, and give it with --from",
            from.display(),
            row.place.file
        )));
    }
    let files: BTreeSet<String> = kept.iter().map(|kept| kept.place.file.clone()).collect();
    if files.len() > 1 && !from.is_dir() {
        return Err(config(format!(
            "{} is one file, and the rejected records are of {}: give a folder with corrected copies of them, under \
             the same names",
            from.display(),
            files.len()
        )));
    }
    for file in files {
        let corrected = match from.is_dir() {
            true => from.join(Path::new(&file).file_name().unwrap_or_default()),
            false => from.to_path_buf(),
        };
        correct_by_lines(kept, &file, &corrected)?;
    }
    Ok(())
}

fn correct_by_lines(kept: &mut [Kept], file: &str, corrected: &Path) -> Result<(), TaskError> {
    let mut wanted: BTreeMap<u64, &mut Place> = kept
        .iter_mut()
        .map(|kept| &mut kept.place)
        .filter(|place| place.file == file)
        .filter_map(|place| Some((place.line?, place)))
        .collect();
    let opened = File::open(corrected).map_err(|error| io_error("open", corrected, &error))?;
    let mut lines = BufReader::new(opened);
    let mut line = Vec::new();
    // The record that goes on, and how many of its lines are left.
    let mut open: Option<(&mut Place, usize)> = None;
    for number in 1u64.. {
        if wanted.is_empty() && open.is_none() {
            break;
        }
        line.clear();
        let read = std::io::Read::take(&mut lines, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| io_error("read", corrected, &error))?;
        if read == 0 {
            let missing = match open {
                Some(_) => number,
                None => wanted.keys().next().copied().unwrap_or_default(),
            };
            return Err(config(format!(
                "{} ends before line {missing}, which {file} has; a corrected copy keeps the lines where they are",
                corrected.display()
            )));
        }
        if let Some((place, left)) = open.take() {
            place.raw.push('\n');
            place.raw += &text(&line, corrected, number)?;
            open = (left > 1).then_some((place, left - 1));
        } else if let Some(place) = wanted.remove(&number) {
            let further = place.raw.matches('\n').count();
            place.raw = text(&line, corrected, number)?;
            open = (further > 0).then_some((place, further));
        }
    }
    Ok(())
}

fn text(line: &[u8], path: &Path, number: u64) -> Result<String, TaskError> {
    let text = std::str::from_utf8(line)
        .map_err(|_| config(format!("{}, line {number}: no text in UTF-8", path.display())))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_string())
}

/// A record as `gapless rejects -o json` tells it; the other keys are not looked at.
#[derive(Deserialize)]
struct Corrected {
    file: String,
    line: Option<u64>,
    row: Option<u64>,
    block: Option<u64>,
    raw: String,
}

/// Where a record stands: file, line, or block and row.
type Key = (String, Option<u64>, Option<u64>, Option<u64>);

fn shown((file, line, block, row): Key) -> String {
    let raw = String::new();
    let place = Place {
        file,
        line,
        row,
        block,
        raw,
    };
    place.to_string()
}

/// Whether a file begins with what `gapless rejects -o json` tells of a record. A record of the source may have some of
/// those keys too, but hardly all of them, or the name of its own file.
fn is_told(kept: &[Kept], from: &Path) -> Result<bool, TaskError> {
    let opened = File::open(from).map_err(|error| io_error("open", from, &error))?;
    let mut lines = BufReader::new(opened);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut lines, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| io_error("read", from, &error))?;
        if read == 0 || !line.trim_ascii().is_empty() {
            break;
        }
    }
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line) else {
        return Ok(false);
    };
    let has = |keys: &[&str]| keys.iter().all(|key| object.contains_key(*key));
    let file = object.get("file").and_then(|file| file.as_str());
    let is_known = kept.iter().any(|kept| Some(kept.place.file.as_str()) == file);
    Ok(has(&["file", "line", "raw"]) && (is_known || has(&["rule", "reason"])))
}

/// What to do with a record that nobody can mend.
const AS_IT_IS: &str = "leave a record that cannot be mended as it is: it is rejected and counted again";

fn correct_by_records(kept: &mut [Kept], from: &Path) -> Result<(), TaskError> {
    let opened = File::open(from).map_err(|error| io_error("open", from, &error))?;
    let mut corrected: BTreeMap<Key, String> = BTreeMap::new();
    for (number, line) in BufReader::new(opened).lines().enumerate() {
        let line = line.map_err(|error| io_error("read", from, &error))?;
        if line.trim().is_empty() {
            continue;
        }
        let record: Corrected = serde_json::from_str(&line).map_err(|error| {
            config(format!(
                "{}, line {}: not a record as `gapless rejects -o json` tells it: {error}",
                from.display(),
                number + 1
            ))
        })?;
        corrected.insert((record.file, record.line, record.block, record.row), record.raw);
    }
    for Kept { place, .. } in kept {
        let key = (place.file.clone(), place.line, place.block, place.row);
        let Some(raw) = corrected.remove(&key) else {
            let message = format!("{} lacks the record of {}; {AS_IT_IS}", from.display(), shown(key));
            return Err(config(message));
        };
        if raw.trim().is_empty() {
            let message = format!(
                "{} has no text for the record of {}; {AS_IT_IS}",
                from.display(),
                shown(key)
            );
            return Err(config(message));
        }
        place.raw = raw;
    }
    match corrected.into_keys().next() {
        Some(key) => Err(config(format!(
            "{} has a record of {}, which was not rejected, or is redriven already",
            from.display(),
            shown(key)
        ))),
        None => Ok(()),
    }
}
