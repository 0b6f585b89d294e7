//! The contract of the store, as the control loop relies on it. Each check takes any [`Store`] that
//! can be closed and opened again; here it is the embedded one.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use gapless_common::ids::Term;
use gapless_coordinator::store::{Batch, EmbeddedStore, Store, StoreError, Write};
use tempfile::TempDir;

fn open(folder: &Path) -> Box<dyn Store> {
    Box::new(EmbeddedStore::open(folder).expect("the store opens"))
}

/// A new store in its first term.
fn fresh() -> (TempDir, Box<dyn Store>, Term) {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(folder.path());
    let term = store.begin_term().expect("a term");
    (folder, store, term)
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), value.into())
}

fn create(key: &str, value: &str) -> Write {
    Write::Create(key.into(), value.into())
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

fn batch(term: Term, seq: u64, writes: Vec<Write>) -> Batch {
    Batch { term, seq, writes }
}

fn rows(store: &dyn Store) -> BTreeMap<String, String> {
    let rows = store.rows().expect("the rows are read").into_iter();
    rows.map(|(key, value)| (key, String::from_utf8(value).expect("these tests write text")))
        .collect()
}

fn holds(store: &dyn Store, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    assert_eq!(rows(store), expected);
}

#[test]
fn terms_rise_also_when_the_store_is_opened_again() {
    let (folder, mut store, first) = fresh();
    let second = store.begin_term().unwrap();
    drop(store);
    let third = open(folder.path()).begin_term().unwrap();
    assert!(first < second && second < third, "{first} {second} {third}");
}

#[test]
fn a_batch_of_a_former_term_is_refused_and_changes_nothing() {
    let (_folder, mut store, former) = fresh();
    store.write(&batch(former, 1, vec![put("a", "1")])).unwrap();
    let present = store.begin_term().unwrap();
    // In its turn by its number: only the term tells that it is late.
    for seq in [1, 2] {
        let refused = store.write(&batch(former, seq, vec![put("a", "late")]));
        assert!(
            matches!(refused, Err(StoreError::LostTerm { offered, current }) if (offered, current) == (former, present))
        );
    }
    let future = Term(present.0 + 1);
    assert!(matches!(
        store.write(&batch(future, 1, vec![put("a", "early")])),
        Err(StoreError::LostTerm { .. })
    ));
    holds(&*store, &[("a", "1")]);
    store.write(&batch(present, 1, vec![put("a", "2")])).unwrap();
    holds(&*store, &[("a", "2")]);
}

#[test]
fn batches_are_written_in_their_turn() {
    let (_folder, mut store, term) = fresh();
    store.write(&batch(term, 1, vec![put("a", "1")])).unwrap();
    store.write(&batch(term, 2, vec![put("a", "2")])).unwrap();
    for (offered, stored) in [(4, 2), (1, 2), (0, 2)] {
        let refused = store.write(&batch(term, offered, vec![put("a", "out of turn")]));
        let as_said =
            matches!(refused, Err(StoreError::OutOfSequence { offered: o, stored: s }) if (o, s) == (offered, stored));
        assert!(as_said, "{refused:?}");
    }
    holds(&*store, &[("a", "2")]);
    store.write(&batch(term, 3, vec![put("a", "3")])).unwrap();
    holds(&*store, &[("a", "3")]);
}

#[test]
fn a_batch_sent_again_is_known_and_not_written_twice() {
    let (folder, mut store, term) = fresh();
    let sent = batch(term, 1, vec![create("a", "1")]);
    store.write(&sent).unwrap();
    let known =
        |refused: Result<(), StoreError>| matches!(refused, Err(StoreError::OutOfSequence { offered: 1, stored: 1 }));
    assert!(known(store.write(&sent)));
    drop(store);
    // The same holds when the store was closed before the answer arrived.
    let mut store = open(folder.path());
    assert!(known(store.write(&sent)));
    store.write(&batch(term, 2, vec![delete("a")])).unwrap();
    holds(&*store, &[]);
}

#[test]
fn a_new_term_counts_from_one() {
    let (_folder, mut store, term) = fresh();
    store.write(&batch(term, 1, vec![put("a", "1")])).unwrap();
    let next = store.begin_term().unwrap();
    assert!(matches!(
        store.write(&batch(next, 2, vec![])),
        Err(StoreError::OutOfSequence { offered: 2, stored: 0 })
    ));
    store.write(&batch(next, 1, vec![put("b", "2")])).unwrap();
    holds(&*store, &[("a", "1"), ("b", "2")]);
}

#[test]
fn what_exists_is_not_created_and_nothing_of_that_batch_is_written() {
    let (_folder, mut store, term) = fresh();
    store
        .write(&batch(term, 1, vec![create("a", "1"), put("b", "1")]))
        .unwrap();
    let refused = store.write(&batch(
        term,
        2,
        vec![
            put("b", "2"),
            create("c", "2"),
            delete("b"),
            create("a", "2"),
            put("d", "2"),
        ],
    ));
    assert!(matches!(refused, Err(StoreError::Exists { key }) if key == "a"));
    holds(&*store, &[("a", "1"), ("b", "1")]);
    // The number is still free.
    store.write(&batch(term, 2, vec![put("b", "3")])).unwrap();
    holds(&*store, &[("a", "1"), ("b", "3")]);
}

#[test]
fn within_a_batch_the_last_write_of_a_key_counts() {
    let (folder, mut store, term) = fresh();
    store
        .write(&batch(term, 1, vec![put("gone", "1"), put("back", "1")]))
        .unwrap();
    let writes = vec![
        put("a", "1"),
        put("a", "2"),
        put("gone", "2"),
        delete("gone"),
        delete("back"),
        create("back", "2"),
        create("brief", "1"),
        delete("brief"),
        create("again", "1"),
        delete("again"),
        create("again", "2"),
    ];
    store.write(&batch(term, 2, writes)).unwrap();
    let expected = [("a", "2"), ("back", "2"), ("again", "2")];
    holds(&*store, &expected);
    let twice = store.write(&batch(term, 3, vec![create("new", "1"), create("new", "2")]));
    assert!(matches!(twice, Err(StoreError::Exists { key }) if key == "new"));
    drop(store);
    holds(&*open(folder.path()), &expected);
}

#[test]
fn rows_are_there_when_the_store_is_opened_again() {
    let (folder, mut store, term) = fresh();
    let many: Vec<Write> = (0..2000)
        .map(|at| put(&format!("row/{at:05}"), &"x".repeat(300)))
        .collect();
    store.write(&batch(term, 1, many)).unwrap();
    store
        .write(&batch(term, 2, vec![delete("row/00007"), put("odd/ключ \0", "")]))
        .unwrap();
    let before = rows(&*store);
    assert_eq!(before.len(), 2000);
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(rows(&*store), before);
    // The term goes on where it was, until a new one begins.
    store.write(&batch(term, 3, vec![delete("odd/ключ \0")])).unwrap();
    assert_eq!(rows(&*store).len(), 1999);
}

#[test]
fn a_second_opener_is_refused_in_words() {
    let (folder, store, _) = fresh();
    let Err(refused) = EmbeddedStore::open(folder.path()) else {
        panic!("two may write");
    };
    let words = refused.to_string();
    assert!(words.contains("another process has it open"), "{words}");
    assert!(words.contains(&folder.path().display().to_string()), "{words}");
    drop(store);
    open(folder.path());
}

const CHILD_FOLDER: &str = "GAPLESS_TEST_STORE";
/// Rows that each batch of the child writes.
const PARTS: u64 = 20;
/// How many batches of the child's rows stay.
const KEPT: u64 = 3;

/// Not a test of its own: what the killed process does. Writes batch after batch and tells each
/// one that was acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(folder) = env::var(CHILD_FOLDER) else { return };
    let mut store = open(Path::new(&folder));
    let last = rows(&*store).get("last").map_or(0, |last| last.parse::<u64>().unwrap());
    let term = store.begin_term().unwrap();
    for seq in 1u64.. {
        let number = last + seq;
        let mut writes = vec![put("last", &number.to_string())];
        writes.extend((0..PARTS).map(|part| create(&format!("batch/{number}/{part}"), &"x".repeat(100))));
        if number > KEPT {
            writes.extend((0..PARTS).map(|part| delete(&format!("batch/{}/{part}", number - KEPT))));
        }
        store.write(&batch(term, seq, writes)).unwrap();
        println!("\nwritten {number}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_nothing_is_there_by_half() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = 0;
    // Each time it is killed after another number of batches, while it writes the next.
    for until in [1, 3, 8, 20, 47, 5] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let numbers = lines
            .by_ref()
            .filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
        let seen: Vec<u64> = numbers.take(until).collect();
        assert_eq!(seen.len(), until, "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last line we waited for and its end.
        let rest = lines.filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
        let told = seen.into_iter().chain(rest).max().unwrap();
        assert!(told > acknowledged, "{told} after {acknowledged}");
        acknowledged = told;
        let last = whole_batches(&rows(&*open(folder.path())));
        assert!(
            last >= acknowledged,
            "batch {acknowledged} was acknowledged, the last one is {last}"
        );
        assert!(
            last <= acknowledged + 1,
            "{last} batches of {acknowledged} and one under way"
        );
    }
}

/// The number of the last batch; of each batch that is kept, every row must be there.
fn whole_batches(rows: &BTreeMap<String, String>) -> u64 {
    let last: u64 = rows["last"].parse().unwrap();
    let kept = last.saturating_sub(KEPT - 1).max(1)..=last;
    let mut expected: Vec<String> = kept
        .flat_map(|number| (0..PARTS).map(move |part| format!("batch/{number}/{part}")))
        .collect();
    expected.sort();
    let found: Vec<String> = rows.keys().filter(|key| key.starts_with("batch/")).cloned().collect();
    assert_eq!(found, expected);
    last
}
