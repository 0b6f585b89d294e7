//! The contract of the store, as the control loop relies on it. Each check takes any [`Place`] where a
//! store lies, and runs on each kind of them. What only etcd can do wrong is in `etcd.rs`.

mod support;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write as _},
    process::{Command, Stdio},
};

use gapless_common::ids::Term;
use gapless_coordinator::store::{Batch, EmbeddedStore, Store, StoreError, Write};
use support::{Embedded, OnEtcd, Place, place_of_child, set_child_place};
use tempfile::TempDir;

/// Makes tests of checks: each on the embedded store and on etcd with one and with three members,
/// and on one that asks for certificates and a user.
macro_rules! on_every_store {
    ($($check:ident)*) => {
        mod embedded {
            $(#[test] fn $check() { super::$check(&super::Embedded::new()); })*
        }
        mod etcd_of_one {
            $(#[test] fn $check() { super::$check(&super::OnEtcd::new(1)); })*
        }
        mod etcd_with_tls_and_users {
            $(#[test] fn $check() { super::$check(&super::OnEtcd::secured(1)); })*
        }
        mod etcd_of_three {
            $(#[test] fn $check() { super::$check(&super::OnEtcd::new(3)); })*
        }
    };
}

on_every_store! {
    terms_rise_also_when_the_store_is_opened_again
    a_batch_of_a_former_term_is_refused_and_changes_nothing
    batches_are_written_in_their_turn
    a_batch_sent_again_is_known_and_not_written_twice
    a_new_term_counts_from_one
    what_exists_is_not_created_and_nothing_of_that_batch_is_written
    within_a_batch_the_last_write_of_a_key_counts
    rows_are_there_when_the_store_is_opened_again
    leases_come_and_go_in_any_order_and_no_others_with_them
    values_of_any_size_are_kept
    a_batch_that_is_too_large_is_refused_and_changes_nothing
    what_was_acknowledged_survives_a_kill_and_nothing_is_there_by_half
}

/// A new store in its first term.
fn fresh(place: &dyn Place) -> (Box<dyn Store>, Term) {
    let mut store = place.open();
    let term = place.begin(&mut *store);
    (store, term)
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

fn terms_rise_also_when_the_store_is_opened_again(place: &dyn Place) {
    let (mut store, first) = fresh(place);
    let second = store.begin_term().unwrap();
    drop(store);
    let mut store = place.open();
    let third = place.begin(&mut *store);
    assert!(first < second && second < third, "{first} {second} {third}");
}

fn a_batch_of_a_former_term_is_refused_and_changes_nothing(place: &dyn Place) {
    let (mut store, former) = fresh(place);
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

fn batches_are_written_in_their_turn(place: &dyn Place) {
    let (mut store, term) = fresh(place);
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

fn a_batch_sent_again_is_known_and_not_written_twice(place: &dyn Place) {
    let (mut store, term) = fresh(place);
    let sent = batch(term, 1, vec![create("a", "1")]);
    store.write(&sent).unwrap();
    let known =
        |refused: Result<(), StoreError>| matches!(refused, Err(StoreError::OutOfSequence { offered: 1, stored: 1 }));
    assert!(known(store.write(&sent)));
    drop(store);
    // The same holds when the store was closed before the answer arrived.
    let mut store = place.open();
    assert!(known(store.write(&sent)));
    store.write(&batch(term, 2, vec![delete("a")])).unwrap();
    holds(&*store, &[]);
}

fn a_new_term_counts_from_one(place: &dyn Place) {
    let (mut store, term) = fresh(place);
    store.write(&batch(term, 1, vec![put("a", "1")])).unwrap();
    let next = store.begin_term().unwrap();
    assert!(matches!(
        store.write(&batch(next, 2, vec![])),
        Err(StoreError::OutOfSequence { offered: 2, stored: 0 })
    ));
    store.write(&batch(next, 1, vec![put("b", "2")])).unwrap();
    holds(&*store, &[("a", "1"), ("b", "2")]);
}

fn what_exists_is_not_created_and_nothing_of_that_batch_is_written(place: &dyn Place) {
    let (mut store, term) = fresh(place);
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

fn within_a_batch_the_last_write_of_a_key_counts(place: &dyn Place) {
    let (mut store, term) = fresh(place);
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
    holds(&*place.open(), &expected);
}

fn rows_are_there_when_the_store_is_opened_again(place: &dyn Place) {
    let (mut store, term) = fresh(place);
    let many: Vec<Write> = (0..2000)
        .map(|at| put(&format!("row/{at:05}"), &"x".repeat(300)))
        .collect();
    let mut seq = 0;
    for some in many.chunks(store.rows_per_batch()) {
        seq += 1;
        store.write(&batch(term, seq, some.to_vec())).unwrap();
    }
    store
        .write(&batch(term, seq + 1, vec![delete("row/00007"), put("odd/ключ \0", "")]))
        .unwrap();
    let before = rows(&*store);
    assert_eq!(before.len(), 2000);
    drop(store);
    let mut store = place.open();
    assert_eq!(rows(&*store), before);
    // The term goes on where it was, until a new one begins.
    store.write(&batch(term, seq + 2, vec![delete("odd/ключ \0")])).unwrap();
    assert_eq!(rows(&*store).len(), 1999);
}

/// Whatever a store makes of rows that come and go together.
fn leases_come_and_go_in_any_order_and_no_others_with_them(place: &dyn Place) {
    let (mut store, term) = fresh(place);
    let lease = |partition: u32| format!("lease/run/0/execute/{partition}");
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let (mut next, mut seq, mut held) = (0u32, 0, Vec::new());
    // Numbers of one to four digits, whose order by bytes is another one. Each batch deletes most of what was
    // created two batches before, so that some stay between those that go.
    for turn in 0..40 {
        let mut writes = Vec::new();
        let created: Vec<u32> = (0..48).map(|at| next + at).collect();
        next += 48;
        for &partition in &created {
            writes.push(create(&lease(partition), &turn.to_string()));
            expected.insert(lease(partition), turn.to_string());
        }
        held.push(created);
        if let Some(old) = held.len().checked_sub(3) {
            for &partition in held[old].iter().filter(|partition| *partition % 7 != turn % 7) {
                writes.push(put(&format!("progress/{partition}"), "done"));
                writes.push(delete(&lease(partition)));
                expected.insert(format!("progress/{partition}"), "done".into());
                expected.remove(&lease(partition));
            }
        }
        if turn == 20 {
            // Moves to another session.
            writes.push(put(&lease(next - 100), "moved"));
            expected.insert(lease(next - 100), "moved".into());
        }
        seq += 1;
        store.write(&batch(term, seq, writes)).unwrap();
        if turn % 13 == 0 {
            assert_eq!(rows(&*store), expected, "after batch {seq}");
        }
    }
    assert_eq!(rows(&*store), expected);
    // One that exists is in nobody's way but of itself, and of whoever would create it.
    let taken = (0..next)
        .find(|partition| expected.contains_key(&lease(*partition)))
        .unwrap();
    let around = [next + 1, taken, next + 2].map(|partition| create(&lease(partition), "again"));
    let refused = store.write(&batch(term, seq + 1, around.to_vec()));
    assert!(
        matches!(&refused, Err(StoreError::Exists { key }) if *key == lease(taken)),
        "{refused:?}"
    );
    assert_eq!(rows(&*store), expected);
    // As many at a time as a store takes where they are neighbours, and no more where they are not.
    let (first, many) = (10_000, store.creates_as_a_rule() as u32);
    let together: Vec<Write> = (first..first + many).map(|at| create(&lease(at), "1")).collect();
    assert!(store.takes(&together));
    store.write(&batch(term, seq + 1, together)).unwrap();
    let between = |at: u32| create(&lease((first + at) * 10), "1");
    let apart: Vec<Write> = (0..many).map(between).collect();
    let taken = store.takes(&apart);
    match store.write(&batch(term, seq + 2, apart)) {
        Ok(()) => assert!(taken),
        Err(StoreError::TooLarge { most, .. }) => assert!(!taken && most == store.creates_per_batch()),
        Err(error) => panic!("{error}"),
    }
    // A next term goes on with what there is.
    let next_term = store.begin_term().unwrap();
    let left = rows(&*store).into_keys().filter(|key| key.starts_with("lease/"));
    let all: Vec<Write> = left.map(|key| delete(&key)).collect();
    for (at, some) in all.chunks(store.rows_per_batch()).enumerate() {
        store.write(&batch(next_term, at as u64 + 1, some.to_vec())).unwrap();
    }
    assert!(rows(&*store).keys().all(|key| key.starts_with("progress/")));
}

fn values_of_any_size_are_kept(place: &dyn Place) {
    let (mut store, term) = fresh(place);
    let value = |size: usize, letter: &str| letter.repeat(size);
    // One that no request of etcd holds, and many that no request holds together.
    let mut writes = vec![put("huge", &value(5_000_000, "h")), create("none", "")];
    writes.extend((0..30).map(|at| create(&format!("large/{at:02}"), &value(100_000 + at, "l"))));
    store.write(&batch(term, 1, writes)).unwrap();
    store
        .write(&batch(term, 2, vec![put("huge", &value(2_000_000, "i"))]))
        .unwrap();
    drop(store);
    let mut store = place.open();
    let read = rows(&*store);
    assert_eq!(read.len(), 32);
    assert!(read["huge"] == value(2_000_000, "i"), "the huge value is whole");
    for at in 0..30 {
        assert!(
            read[&format!("large/{at:02}")] == value(100_000 + at, "l"),
            "value {at} is whole"
        );
    }
    store.write(&batch(term, 3, vec![delete("huge")])).unwrap();
    assert!(!rows(&*store).contains_key("huge"));
}

fn a_batch_that_is_too_large_is_refused_and_changes_nothing(place: &dyn Place) {
    let (mut store, term) = fresh(place);
    let most = store.rows_per_batch();
    let creates = store.creates_per_batch();
    // As many creates as there may be come first.
    let writes = |count: usize, creates: usize| -> Vec<Write> {
        let write = |at: usize| match at < creates {
            true => create(&at.to_string(), "1"),
            false => put(&at.to_string(), "1"),
        };
        (0..count).map(write).collect()
    };
    let mut refused = |writes: Vec<Write>, limit: usize| {
        let refused = store.write(&batch(term, 1, writes));
        assert!(
            matches!(refused, Err(StoreError::TooLarge { count, most, .. }) if (count, most) == (limit + 1, limit)),
            "{refused:?}"
        );
        holds(&*store, &[]);
    };
    refused(writes(most + 1, 0), most);
    if creates < most {
        refused(writes(creates + 1, creates + 1), creates);
    }
    store.write(&batch(term, 1, writes(most, creates))).unwrap();
    assert_eq!(rows(&*store).len(), most);
    // All of it or nothing, also where the store writes it in groups.
    let mut again: Vec<Write> = (0..most - 1).map(|at| put(&at.to_string(), "2")).collect();
    again.push(create(&(most - 1).to_string(), "2"));
    let exists = store.write(&batch(term, 2, again));
    assert!(
        matches!(&exists, Err(StoreError::Exists { key }) if *key == (most - 1).to_string()),
        "{exists:?}"
    );
    assert!(rows(&*store).values().all(|value| value == "1"), "nothing is changed");
}

#[test]
fn a_second_opener_is_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let Err(refused) = EmbeddedStore::open(folder.path()) else {
        panic!("two may write");
    };
    let words = refused.to_string();
    assert!(words.contains("another process has it open"), "{words}");
    assert!(words.contains(&folder.path().display().to_string()), "{words}");
    drop(store);
    EmbeddedStore::open(folder.path()).unwrap();
}

/// Rows that each batch of the child writes.
const PARTS: u64 = 20;
/// How many batches of the child's rows stay.
const KEPT: u64 = 3;

/// Not a test of its own: what the killed process does. Writes batch after batch and tells each
/// one that was acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(place) = place_of_child() else { return };
    let mut store = place.open();
    let last = rows(&*store).get("last").map_or(0, |last| last.parse::<u64>().unwrap());
    let term = place.begin(&mut *store);
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

fn what_was_acknowledged_survives_a_kill_and_nothing_is_there_by_half(place: &dyn Place) {
    let mut acknowledged = 0;
    // Each time it is killed after another number of batches, while it writes the next.
    for &until in place.kills() {
        let mut command = Command::new(env::current_exe().unwrap());
        set_child_place(&mut command, place);
        let mut child = command
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
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
        let last = whole_batches(&rows(&*place.open()));
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
