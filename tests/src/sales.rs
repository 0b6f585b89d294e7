//! The sales job: its slow form, and everything that must hold of its output.

use std::{fs, path::PathBuf};

use crate::{Sales, World, expected};

/// Some 0.5 ms of computing for each record, which no file system and no coordinator takes part in.
pub const SLOW: &str = "levenshtein(repeat(note, 30), repeat(reverse(note), 30)) >= 0";

impl World {
    /// [`World::sales_job`] with a first step that computes for a while, so that a fault can meet it.
    pub fn slow_sales_job(&self, load: &str, by_shop: &str) -> PathBuf {
        let path = self.sales_job(load, by_shop);
        let text = fs::read_to_string(&path).expect("readable");
        let slow = format!("    transform: {{sql: \"SELECT * FROM input WHERE {SLOW}\"}}\n");
        let (first, second) = text.split_once("    sink:").expect("a sink");
        self.job(&format!("{first}{slow}    sink:{second}"))
    }

    /// Makes the job another one: for other outputs, which it leaves in the place of the former ones.
    pub fn again(&self) {
        let text = fs::read_to_string(self.path("job.yaml")).expect("readable");
        fs::rename(self.path("out"), self.path("former")).expect("moved");
        self.job(&text.replace("job: sales", "job: again"));
    }

    /// Every sale exactly once in `out/load`, the right sums in `out/by-shop`, each published once.
    pub fn check_sales(&self, rows: u64, sales: &Sales) {
        self.check_copy("load", rows);
        assert_eq!(self.rows("out/by-shop"), expected(sales));
        self.check_published("by-shop");
    }

    /// Every sale exactly once in the output of this step, published once.
    pub fn check_copy(&self, step: &str, rows: u64) {
        let found = self.rows(&format!("out/{step}"));
        let id = |row: &String| -> u64 { row.split(',').next().unwrap_or_default().parse().expect("an id") };
        let mut ids: Vec<u64> = found.iter().map(id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..rows).collect::<Vec<_>>(), "each sale is published once");
        self.check_published(step);
    }

    /// A step is settled: one verdict, one certificate, and nothing staged.
    fn check_published(&self, step: &str) {
        assert_eq!(self.verdicts(step), ["COMMITTED"], "{step}");
        let certificates = fs::read_dir(self.path(&format!("out/{step}/_gapless"))).expect("published");
        let certificates = certificates.flatten().filter(|entry| entry.path().is_file());
        assert_eq!(certificates.count(), 1, "{step}");
        assert_eq!(
            self.staged(step),
            Vec::<PathBuf>::new(),
            "nothing of {step} stays staged"
        );
    }

    /// Whether a fault came before the step `load` was published.
    pub fn assert_unpublished(&self) {
        let verdicts = self.verdicts("load");
        assert!(
            verdicts.is_empty(),
            "the fault came before the step was published: {verdicts:?}"
        );
    }

    /// What the verdicts at an output say, by their generation.
    pub fn verdicts(&self, step: &str) -> Vec<String> {
        let folder = fs::read_dir(self.path(&format!("out/.{step}.gapless/published")));
        let mut paths: Vec<PathBuf> = folder.into_iter().flatten().flatten().map(|it| it.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|it| it == "json"));
        paths.sort_unstable();
        let word = |path: &PathBuf| {
            let text = fs::read_to_string(path).expect("readable");
            let verdict: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            verdict["verdict"].as_str().expect("a word").to_uppercase()
        };
        paths.iter().map(word).collect()
    }

    /// What the runs have staged for a step, and remains of its removal.
    pub fn staged(&self, step: &str) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.path(&format!("out/.{step}.gapless/run")));
        let entries = folder.into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}
