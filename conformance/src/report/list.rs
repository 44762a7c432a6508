//! The catalogue for a person at a terminal: `--list`.

use std::io::{self, Write};

use super::terminal::wrap;
use crate::cases;
use crate::catalogue::{Item, Section};

const INDENT: &str = "                   ";

/// Writes the items that `only` picks (all, if it is empty), with what checks them, and a line of totals.
///
/// # Errors
/// What writing said.
pub fn write(sections: &[Section], only: &[String], width: usize, out: &mut dyn Write) -> io::Result<()> {
    let picked = |item: &&Item| only.is_empty() || only.iter().any(|pattern| picks(pattern, item));
    let (mut number, mut checked, mut cases) = (0, 0, 0);
    for section in sections {
        let items: Vec<&Item> = section.item.iter().filter(picked).collect();
        if !items.is_empty() {
            writeln!(out, "{}\n", section.title)?;
        }
        for item in items {
            let names: Vec<&str> = cases::of_item(&item.id).map(|case| case.name).collect();
            number += 1;
            checked += usize::from(!names.is_empty());
            cases += names.len();
            for (index, line) in wrap(&item.statement, width - INDENT.len()).iter().enumerate() {
                match index {
                    0 => writeln!(out, "{:8}{:11}{line}", item.id, item.level.word())?,
                    _ => writeln!(out, "{INDENT}{line}")?,
                }
            }
            let checks = match &item.unchecked {
                Some(why) => format!("not checked: {why}"),
                None if names.is_empty() => "no case yet".to_owned(),
                None => names.join(", "),
            };
            for line in wrap(&format!("[{}] {checks}", item.source), width - INDENT.len()) {
                writeln!(out, "{INDENT}{line}")?;
            }
            writeln!(out)?;
        }
    }
    writeln!(out, "{number} items, {checked} of them checked, by {cases} cases")
}

/// Whether a pattern of `--only` picks an item or one of its cases.
pub fn picks(pattern: &str, item: &Item) -> bool {
    crate::glob(pattern, &item.id)
        || cases::of_item(&item.id).any(|case| crate::glob(pattern, &format!("{}/{}", case.item, case.name)))
}
