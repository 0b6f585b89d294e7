//! `gapless config show`: the settings in force and where each comes from.

use clap::{Args, Subcommand};
use gapless_platform::config::{Setting, Sourced};
use serde::Serialize;

use crate::{
    app::{App, Flags, flag},
    failure::Failure,
    output::{self, Format, Table},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the settings in force
    Show(Show),
}

#[derive(Debug, Args)]
struct Show {
    /// Show where each value comes from
    #[arg(long)]
    origin: bool,
    /// As if these endpoints were given
    #[arg(long, visible_alias = "endpoints", value_name = "URL")]
    endpoint: Option<String>,
    /// Form of the result; `wide` tells what each setting is for
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Format::Table)]
    output: Format,
}

#[derive(Serialize)]
struct SettingView<'a> {
    setting: &'static str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    variable: String,
    about: &'static str,
}

pub fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let Verb::Show(show) = arguments.verb;
    let mut flags = Flags::new();
    flag(&mut flags, Setting::Endpoints, show.endpoint.as_ref());
    let config = app.config(flags)?;
    output::print(&render(&config.sources, show.origin, show.output)?)
}

fn render(sources: &[Sourced], origin: bool, format: Format) -> Result<String, Failure> {
    let views: Vec<_> = sources
        .iter()
        .map(|source| SettingView {
            setting: source.setting.name(),
            value: &source.value,
            origin: origin.then(|| source.origin.to_string()),
            variable: source.setting.variable(),
            about: source.setting.about(),
        })
        .collect();
    let wide = match format {
        Format::Json => return output::json(&views),
        Format::Yaml => return output::yaml(&views),
        Format::Name => return Ok(views.iter().map(|view| format!("{}\n", view.setting)).collect()),
        Format::Table => false,
        Format::Wide => true,
    };
    let mut columns = vec!["SETTING", "VALUE"];
    columns.extend(origin.then_some("ORIGIN"));
    columns.extend(wide.then_some("VARIABLE"));
    columns.extend(wide.then_some("ABOUT"));
    let mut table = Table::new(&columns);
    for view in &views {
        let mut cells = vec![view.setting.to_string(), view.value.to_string()];
        cells.extend(view.origin.clone());
        if wide {
            cells.extend([view.variable.clone(), view.about.to_string()]);
        }
        table.row(cells);
    }
    Ok(table.text())
}
