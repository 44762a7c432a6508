//! Runs CNI plugins, in any language, through the specification, item by item.
//!
//! The harness knows a plugin only as the specification does: an executable that gets an environment and a document on standard input, prints a
//! document on standard output and changes the kernel. It shares no code with any plugin.
//!
//! * [`catalogue`]: the 187 items, as data: what the specification asks, and how strongly.
//! * [`profile`]: what a plugin is and how to configure it, as data.
//! * [`cases`]: the checks, each bound to an item.
//! * [`lab`]: one case's private world: namespaces, executions, stub delegates, and the journal that makes a failure replayable.
//! * [`kernel`]: an independent reading of what is there.
//! * [`run`]: plans the cases and runs each in a process of its own, in parallel.
//! * [`mutant`], [`prove`]: plugins with faults put in, and whether the checks notice.
//! * [`replay`]: a case as a shell script.
//! * [`expect`]: deviations that are known, and whether a run met others.
//! * [`report`]: what came out, for a terminal, for machines, for a browser.

pub mod cases;
pub mod catalogue;
pub mod cli;
pub mod expect;
pub mod kernel;
pub mod lab;
pub mod mutant;
pub mod profile;
pub mod prove;
pub mod replay;
pub mod report;
pub mod run;
pub mod verdict;

/// Whether `text` matches `pattern`, in which `*` stands for any text, also none.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(earlier) = last.replace(part) {
            let Some(at) = rest.find(earlier) else { return false };
            rest = &rest[at + earlier.len()..];
        }
    }
    match last {
        None => rest.is_empty(),
        Some(end) => rest.ends_with(end),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [("a*", "a"), ("*", ""), ("a*c", "abc"), ("a*b*c", "a-b-b-c"), ("abc", "abc")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("a*b*c", "a-c"), ("*b", "a"), ("ab*ba", "aba")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
