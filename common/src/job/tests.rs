//! What the job language says to good and bad files.

use std::collections::BTreeMap;

use super::*;

const REFERENCE: &str = r#"# yaml-language-server: $schema=./gapless.schema.json
job: nightly-revenue
parameters:
  date: {type: date}                      # identifying: one completed run for each date
steps:
  - name: load
    source:
      csv:
        path: data/lineitem-*.csv
        columns: {l_orderkey: int64, l_quantity: "decimal(12,2)", l_shipdate: date, l_comment: string}
    partition: {key_range: {column: l_orderkey}, count: auto}
    check:
      - {name: positive quantity, that: "l_quantity > 0"}
    transform:
      sql: SELECT *, l_extendedprice * (1 - l_discount) AS revenue FROM input
    sink:
      parquet: {path: "out/revenue/${param.date}", compression: zstd}
    on_error: {retry: {attempts: 5}, reject: {limit: 1000}, partition_failed: stop}
  - name: by-supplier
    after: [load]
    source: {step: load}
    transform: {sql: "SELECT l_suppkey, sum(revenue) AS revenue FROM input GROUP BY l_suppkey"}
    sink: {csv: {path: "out/by-supplier/${param.date}", files: 1}}
"#;

fn given(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn the_reference_job_is_read_whole() {
    let parsed = parse(REFERENCE, "job.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let (job, bound) = parsed
        .bind(&given(&[("date", "2026-11-20")]))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(job.name, "nightly-revenue");
    assert_eq!(bound.values, given(&[("date", "2026-11-20")]));
    let load = job.step("load").expect("it is there");
    let Source::Csv(csv) = &load.source else {
        panic!("{load:?}")
    };
    assert_eq!(
        csv.columns,
        [
            ("l_orderkey".to_string(), ColumnType::Int64),
            (
                "l_quantity".to_string(),
                ColumnType::Decimal {
                    precision: 12,
                    scale: 2
                }
            ),
            ("l_shipdate".to_string(), ColumnType::Date),
            ("l_comment".to_string(), ColumnType::String),
        ]
    );
    assert_eq!(load.on_error.reject_limit, Some(1000));
    let Sink::Csv(sink) = &job.steps[1].sink else {
        panic!("{job:?}")
    };
    assert_eq!(
        (sink.path.as_str(), sink.files),
        ("out/by-supplier/2026-11-20", Some(1))
    );
    assert_eq!(job.steps[1].after, ["load"]);
}
