//! The table of the language as tables for people: those of `docs/job-reference.md`.

use super::keys::{Choice, Key, Kind, SECTIONS, Section};

/// Between these two lines of a page stands what is made of the table; the name is that of a section.
const BEGIN: &str = "<!-- keys of ";
const BEGIN_END: &str = " (generated) -->";
const END: &str = "<!-- end of keys -->";

/// The place for the tables of all sections that have none of their own.
const OTHERS: &str = "sections without a chapter";

/// Fills the places for tables in a page, which stand between `<!-- keys of NAME (generated) -->` and
/// `<!-- end of keys -->`.
///
/// Errors: a place for a section that does not exist or without an end, or none for the sections without a chapter.
pub fn fill_reference(page: &str) -> Result<String, String> {
    let has_place = |section: &&Section| page.contains(&format!("{BEGIN}{}{BEGIN_END}", section.name));
    let mut text = String::new();
    let mut rest = page;
    let mut others_filled = false;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after
            .split_once(BEGIN_END)
            .ok_or_else(|| format!("`{BEGIN}` without `{BEGIN_END}`"))?;
        let (_, after) = after
            .split_once(END)
            .ok_or_else(|| format!("the keys of {name} without `{END}`"))?;
        let tables = match SECTIONS.iter().find(|section| section.name == name) {
            Some(section) => table(section),
            None if name == OTHERS => {
                others_filled = true;
                let others = SECTIONS.iter().copied().filter(|section| !has_place(section));
                others.map(chapter).collect()
            }
            None => return Err(format!("there is no section {name}")),
        };
        text += &format!("{before}{BEGIN}{name}{BEGIN_END}\n{tables}{END}");
        rest = after;
    }
    match others_filled {
        true => Ok(text + rest),
        false => Err(format!("`{BEGIN}{OTHERS}{BEGIN_END}` and `{END}` are missing")),
    }
}

fn chapter(section: &Section) -> String {
    format!("### {}\n\n{}\n\n{}", section.name, section.about, table(section))
}

/// All of the reference without the chapters around it.
pub fn reference() -> String {
    SECTIONS.iter().copied().map(chapter).collect()
}

/// Where links of other tables lead.
fn anchor(section: &Section) -> String {
    format!("keys-{}", section.name.replace([' ', '_'], "-"))
}

fn table(section: &Section) -> String {
    let mut text = format!("<a id=\"{}\"></a>\n\n", anchor(section));
    let names = |names: &[&str]| {
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(", ")
    };
    match section.choice {
        Choice::Free => {}
        Choice::ExactlyOne(keys) if keys.len() == section.keys.len() => text += "Exactly one of these keys.",
        Choice::ExactlyOne(keys) => text += &format!("Exactly one of {}.", names(keys)),
        Choice::AtMostOne(keys) => text += &format!("At most one of {}.", names(keys)),
    }
    if !section.words.is_empty() {
        let gap = if text.ends_with('.') { " " } else { "" };
        text += &format!("{gap}In place of the mapping a word: {}.", names(section.words));
    }
    if !text.ends_with("\n\n") {
        text += "\n\n";
    }
    text += "| key | type | default | meaning | example |\n|---|---|---|---|---|\n";
    for key in section.keys {
        text += &row(section, key);
    }
    text + "\n"
}

fn is_choice(section: &Section, key: &Key) -> bool {
    match section.choice {
        Choice::ExactlyOne(keys) | Choice::AtMostOne(keys) => keys.contains(&key.name),
        Choice::Free => false,
    }
}

fn row(section: &Section, key: &Key) -> String {
    let name = if key.required {
        format!("**`{}`**", key.name)
    } else {
        format!("`{}`", key.name)
    };
    let written = if key.name == "null" { "\"null\"" } else { key.name };
    let cells = [
        name,
        type_words(&key.kind),
        match key.default_word() {
            Some(word) => format!("`{word}`"),
            None if key.required || is_choice(section, key) => String::new(),
            None => key.default_words().unwrap_or("none").to_string(),
        },
        key.meaning(),
        format!("`{written}: {}`", key.example),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// A kind in the words of the page, with links to the tables of sections.
fn type_words(kind: &Kind) -> String {
    let link = |section: &Section| format!("[{}](#{})", section.name, anchor(section));
    let of_words = |words: &[&str]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        quoted.join(", ")
    };
    match kind {
        Kind::Name => "name".to_string(),
        Kind::Text => "text".to_string(),
        Kind::OutputPath => "path of a folder".to_string(),
        Kind::Sql => "SQL".to_string(),
        Kind::Literal => "text as it is".to_string(),
        Kind::Texts => "texts".to_string(),
        Kind::Paths => "paths".to_string(),
        Kind::Names => "name, or list of names".to_string(),
        Kind::Bool => "bool".to_string(),
        Kind::Word(words) => of_words(words),
        Kind::Character(words) => format!("character, or {}", of_words(words)),
        Kind::Delimiter => "text of a few characters, or `tab`".to_string(),
        Kind::Empty => "`{}`".to_string(),
        Kind::Columns => "mapping of column names to [types](#column-types)".to_string(),
        Kind::Section(section) => link(section),
        Kind::List(section) => format!("list of {}", link(section)),
        Kind::Map(section) => format!("mapping of identifiers to {}", link(section)),
        Kind::IntegerOr { word, .. } => {
            let allowed = kind.allowed();
            let number = allowed
                .split_once(", or ")
                .map_or(allowed.as_str(), |(_, number)| number);
            format!("`{word}`, or {number}")
        }
        other => other.allowed(),
    }
}
