//! Inputs of a merge that do not go together.

use crate::room::Room;

/// A merge of `a.csv` and of a second input.
fn merge(second: &str, options: &str) -> String {
    format!(
        "job: j\nsteps:\n  - name: a\n    source: {{merge: {{inputs: [{{csv: {{path: a.csv, columns: {{id: int64}}}}}}, {second}]{options}}}}}\n    \
         sink: {{csv: {{path: out/a}}}}\n"
    )
}

fn room(what: &str) -> Room {
    Room::new(what)
        .file("a.csv", "id,name\n1,x\n2,y\n")
        .file("b.csv", "name,id\nz,3\n")
        .file("c.csv", "id,more\n4,w\n")
}

#[test]
fn inputs_that_do_not_go_together_are_told_before_any_record_is_read() {
    let csv = |path: &str, ty: &str| format!("{{csv: {{path: {path}, columns: {{id: {ty}}}}}}}");
    for (what, second, says) in [
        (
            "types",
            csv("b.csv", "date"),
            "step a: merge: column «id» is int64 in input 1 (csv a.csv) and date in input 2 (csv b.csv): no type holds both",
        ),
        (
            "a column less",
            "{csv: {path: b.csv, header: false, columns: {name: string}}}".to_string(),
            "step a, survey: merge: input 2 (csv b.csv) has no column «id», which input 1 (csv a.csv) has; it has: name.",
        ),
        (
            "other columns",
            csv("c.csv", "int64"),
            "step a, survey: merge: input 2 (csv c.csv) has no column «name», which input 1 (csv a.csv) has; it has: id, more.",
        ),
        (
            "one file twice",
            csv("a.csv", "int64"),
            "step a, survey: merge: a.csv is a file of input 1 (csv a.csv) and of input 2 (csv a.csv); its records would be read twice",
        ),
        (
            "no such file",
            csv("d.csv", "int64"),
            "step a, survey: input 2 (csv d.csv): d.csv: no such file (while opening it)",
        ),
    ] {
        let room = room(what).job(&merge(&second, ""));
        match what {
            // What the job says of its columns is told before the run.
            "types" => room.refuses(&["validate", "job.yaml"], 3, says),
            _ => drop(room.fails(says)),
        }
    }
    let all_declared = |columns: &str| {
        format!(
            "job: j\nsteps:\n  - name: a\n    source: {{merge: {{inputs: [{{csv: {{path: a.csv, header: false, columns: {{id: int64}}}}}}, \
             {{csv: {{path: b.csv, header: false, columns: {columns}}}}}]}}}}\n    sink: {{csv: {{path: out/a}}}}\n"
        )
    };
    room("declared").job(&all_declared("{ID: int64}")).refuses(
        &["validate", "job.yaml"],
        3,
        "step a: merge: input 2 (csv b.csv) has no column «id», which input 1 (csv a.csv) has; it has: ID.",
    );
}

#[test]
fn orders_and_keys_that_do_not_hold_are_told() {
    let second = "{csv: {path: b.csv, columns: {id: int64}}}";
    for (what, options, says) in [
        (
            "no such column",
            ", by: [idd]",
            "step a, survey: merge: by: the inputs have no column «idd»; did you mean «id»?",
        ),
        (
            "no such key",
            ", unique: [id, nam]",
            "step a, survey: merge: unique: the inputs have no column «nam»; did you mean «name»?",
        ),
        (
            "not in order",
            ", by: [{column: name, order: desc}]",
            "merge: input 1 (csv a.csv) is not sorted by name desc: a.csv, line 3 has ('y'), behind ('x') of a.csv, line 2; nothing is published",
        ),
    ] {
        drop(room(what).job(&merge(second, options)).fails(says));
    }
    let room = room("twice")
        .file("b.csv", "id,name\n7,\n2,y\n8,\n")
        .job(&merge(second, ", unique: [id, name]"));
    room.fails(
        "merge: the key (id, name) = (2, 'y') stands twice: in input 1 (csv a.csv), a.csv, line 3, and in input 2 (csv b.csv), b.csv, line 3; nothing is published",
    );
    // NULL is equal to nothing.
    let room = room_of_nulls().job(&merge(second, ", unique: [name]"));
    room.makes(&["1,x", "2,y", "7,", "8,"]);
}

fn room_of_nulls() -> Room {
    room("NULL").file("b.csv", "id,name\n7,\n8,\n")
}

#[test]
fn columns_are_matched_by_name_and_filled_on_request() {
    room("by name")
        .job(&merge("{csv: {path: b.csv, columns: {id: int32}}}", ""))
        .makes(&["1,x", "2,y", "3,z"]);
    room("filled")
        .job(&merge(
            "{csv: {path: c.csv, columns: {id: int32}}}",
            ", missing_columns: fill",
        ))
        .makes(&["1,x,", "2,y,", "4,,w"]);
}
