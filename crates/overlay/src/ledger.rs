//! Nodes in a file that grows by what changes: a document a line.
//!
//! ```text
//! {"v":1,"node":"a","epoch":1,"underlay4":"192.0.2.1","port":4789,"vnis":[100],"blocks":["10.40.1.0/24"]}
//! {"v":1,"node":"b","epoch":1,"underlay4":"192.0.2.2","port":4789,"vnis":[100],"blocks":["10.40.2.0/24"]}
//! {"left":"a"}
//! ```
//!
//! The last line about a node counts. A line without its end was being written when somebody stopped, and does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ferrule_core::state;
use serde_json::{Value, json};

use crate::error::{Error, Invalid, Reason};
use crate::names::NodeId;
use crate::node::{Listed, NodeRecord};

/// Writes all of it anew, in one step. `head` is a line before the nodes, for what else there is to know.
pub fn write<'r>(
    path: &Path,
    head: Option<&Value>,
    nodes: impl Iterator<Item = &'r NodeRecord>,
) -> Result<(), Error> {
    let mut text = Vec::new();
    if let Some(head) = head {
        text.extend_from_slice(head.to_string().as_bytes());
        text.push(b'\n');
    }
    for node in nodes {
        text.extend(node.to_json());
        text.push(b'\n');
    }
    Ok(state::replace(path, &text)?)
}

/// Adds what has become of some nodes: a record, or nothing for one that has left. Only for a file that the same process has written.
pub fn append<'r>(
    path: &Path,
    changes: impl Iterator<Item = (&'r NodeId, Option<&'r NodeRecord>)>,
) -> Result<(), Error> {
    let mut text = Vec::new();
    for (node, record) in changes {
        match record {
            Some(record) => text.extend(record.to_json()),
            None => text.extend_from_slice(json!({ "left": node }).to_string().as_bytes()),
        }
        text.push(b'\n');
    }
    Ok(state::append(path, &text)?)
}

/// What is in a file: the line before the nodes, where `has_head` says that there is one, and the nodes by name.
pub fn read(path: &Path, has_head: bool) -> Result<(Value, Vec<Listed>), Error> {
    let bytes = fs::read(path).map_err(|source| Error::File {
        operation: "read the nodes in",
        path: path.to_owned(),
        source,
    })?;
    Ok(parse(&bytes, &path.display().to_string(), has_head)?)
}

fn parse(bytes: &[u8], path: &str, has_head: bool) -> Result<(Value, Vec<Listed>), Invalid> {
    let mut head = Value::Null;
    let mut nodes = BTreeMap::new();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or_default();
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let place = format!("{path}: line {}", number + 1);
        let value: Value = serde_json::from_slice(line).map_err(|error| {
            let start: String = String::from_utf8_lossy(line).chars().take(80).collect();
            Invalid::new(&place, start, Reason::Json { error })
        })?;
        if has_head && number == 0 {
            head = value;
        } else if let Some(left) = value.get("left") {
            nodes.remove(left.as_str().unwrap_or_default());
        } else {
            let record = NodeRecord::from_value(&value, &place)?;
            nodes.insert(record.node.as_str().to_owned(), Listed { path: place, record });
        }
    }
    Ok((head, nodes.into_values().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Port, Vni};

    fn record(name: &str, underlay: &str) -> NodeRecord {
        let node = NodeId::new(name).unwrap();
        NodeRecord::new(node, &[underlay.parse().unwrap()], Port::VXLAN, &[Vni::new(1).unwrap()], &[])
    }

    #[test]
    fn what_is_added_counts_and_what_is_half_written_does_not() {
        let path = std::env::temp_dir().join(format!("ferrule-ledger-{}", std::process::id()));
        let [a, b, c, moved] =
            [("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "192.0.2.3"), ("a", "192.0.2.9")]
                .map(|(name, underlay)| record(name, underlay));
        write(&path, Some(&json!({ "vni": 1 })), [&a, &b].into_iter()).unwrap();
        let gone = NodeId::new("b").unwrap();
        append(&path, [(&a.node, Some(&moved)), (&gone, None), (&c.node, Some(&c))].into_iter()).unwrap();
        let text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let nodes = |text: &[u8]| {
            let (head, nodes) = parse(text, "file", true).unwrap();
            assert_eq!(head["vni"], 1);
            nodes.into_iter().map(|listed| listed.record).collect::<Vec<_>>()
        };
        assert_eq!(nodes(&text), [moved.clone(), c]);
        assert_eq!(nodes(&text[..text.len() - 2]), [moved]);
        let damaged = parse(b"{}\n{\n", "file", true).unwrap_err().to_string();
        assert!(damaged.starts_with("file: line 2"), "{damaged}");
    }
}
