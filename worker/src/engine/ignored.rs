//! Clauses of SQL that are read and that the engine passes over without a word: with them the query would say one thing
//! and do another.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{Query, Select, TableFactor, Value, ValueWithSpan, Visit, Visitor},
};

/// The first such clause, and what to do instead.
pub(super) fn find(statement: &Statement) -> Option<String> {
    let Statement::Statement(statement) = statement else {
        return None;
    };
    match statement.as_ref().visit(&mut Clauses) {
        ControlFlow::Break(words) => Some(words),
        ControlFlow::Continue(()) => None,
    }
}

struct Clauses;

fn refused(words: &str) -> ControlFlow<String> {
    ControlFlow::Break(words.to_string())
}

impl Visitor for Clauses {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        match query {
            Query {
                for_clause: Some(_), ..
            } => refused("FOR XML, JSON or BROWSE is not supported; the sink has the format"),
            Query {
                format_clause: Some(_), ..
            } => refused("FORMAT is not supported; the sink has the format"),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        match select {
            Select { into: Some(_), .. } => refused("SELECT INTO is not supported; the sink is where the rows go"),
            Select { prewhere: Some(_), .. } => refused("PREWHERE is not supported; write WHERE"),
            Select { connect_by, .. } if !connect_by.is_empty() => {
                refused("CONNECT BY is not supported; write a recursive query (WITH RECURSIVE)")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<String> {
        match table {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => refused(
                "TABLESAMPLE is not supported; choose records by their values, so that each run chooses the same",
            ),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<String> {
        match &value.value {
            Value::Placeholder(name) => ControlFlow::Break(format!(
                "«{name}» is a placeholder, and nothing is put in its place; a parameter of the job is written ${{param.NAME}}"
            )),
            _ => ControlFlow::Continue(()),
        }
    }
}
