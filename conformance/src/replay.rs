//! A case as a shell script: the same world, then the same steps, for a person to paste.

use std::fmt::Write;
use std::path::Path;

use crate::catalogue::Item;
use crate::lab::{STARTED, Step, quote, world};
use crate::run::Suite;
use crate::verdict::CaseResult;

/// Where a script finds what it needs, unless its reader's environment says otherwise (`CNI_BIN`, `CNI_CONFORMANCE`).
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The plugins under test.
    pub suite: &'a Suite,
    /// Their name.
    pub plugin: &'a str,
    /// The case's item, if the catalogue has it.
    pub item: Option<&'a Item>,
}

/// The script of a case. It makes its own namespaces, so root may paste it, or a user where users may make namespaces, and nothing of the
/// machine is changed.
pub fn script(place: Place<'_>, case: &CaseResult) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line(&format!("# {} with {} of {}", case.name(), place.plugin, place.suite.label));
    if let Some(item) = place.item {
        comment(&mut line, &format!("{}: {}", item.level.word(), item.statement));
    }
    for finding in &case.findings {
        let step = finding.step.map_or(String::new(), |step| format!(" (step {})", step + 1));
        comment(&mut line, &format!("{}: {}{step}", finding.verdict.word(), finding.message));
    }
    // The script comes by descriptor 3, so that what it runs cannot eat it from standard input.
    line(
        "unshare $(unshare -rnm true 2>/dev/null && echo -rnm || echo -nm) --propagation private sh /dev/fd/3 3<<'REPLAY'",
    );
    line(&preamble(&place.suite.directory, needs_harness(&case.journal)));
    for line_of_step in steps(&case.journal) {
        line(&line_of_step);
    }
    line("REPLAY");
    out
}

/// The name of a file for the script.
pub fn file_name(place: Place<'_>, case: &CaseResult) -> String {
    let name = format!("{}-{}-{}-{}.sh", place.suite.label, place.plugin, case.item, case.case);
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect()
}

fn comment(line: &mut impl FnMut(&str), text: &str) {
    text.lines().for_each(|part| line(&format!("# {part}")));
}

fn needs_harness(journal: &[Step]) -> bool {
    let harness = format!("{}/cni-conformance", world::HOME);
    journal.iter().any(|step| step.shell.contains(&harness))
}

/// What [`world::enter`] does, for sh(1).
fn preamble(plugins: &Path, harness: bool) -> String {
    let home = world::HOME;
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line("exec 3<&-; set -e; cd /");
    line(&format!("exec 8<\"${{CNI_BIN:-{}}}\"   # the plugins", double_quoted(plugins)));
    if harness {
        let program = std::env::current_exe().unwrap_or_else(|_| "cni-conformance".into());
        line(&format!(
            "exec 9<\"${{CNI_CONFORMANCE:-{}}}\"   # the harness, which plays the stub delegates",
            double_quoted(&program)
        ));
    }
    line(&format!("mount -t tmpfs -o mode=755 tmpfs {home}; mkdir {home}/bin {home}/stubs"));
    line(&format!("mount --no-canonicalize --bind /proc/self/fd/8 {home}/bin; exec 8<&-"));
    if harness {
        line(&format!(
            ": >{home}/cni-conformance; mount --no-canonicalize --bind /proc/self/fd/9 {home}/cni-conformance; exec 9<&-"
        ));
    }
    line("mount -t tmpfs -o mode=755 tmpfs /run; mount -t tmpfs -o mode=755 tmpfs /tmp; mkdir /run/netns");
    line(&format!(
        "for tree in /etc /var; do changes={home}/changes$tree; mkdir -p $changes/upper $changes/work"
    ));
    line(
        "  mount -t overlay -o lowerdir=$tree,upperdir=$changes/upper,workdir=$changes/work,userxattr overlay $tree ||",
    );
    line("  echo \"$tree is the machine's own here\" >&2; done");
    line(
        "for hidden in /etc/cni /var/lib; do [ ! -d $hidden ] || mount -t tmpfs -o mode=755 tmpfs $hidden; done",
    );
    line("mkdir -p /var/lib/cni");
    line("mount -t sysfs sysfs /sys || true");
    line("ip link set lo up");
    out.push_str("set +e; set -v   # from here on each line is shown before it runs, with what came of it when the report was made");
    out
}

/// A path inside double quotes, within `${…:-}`.
fn double_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    text.chars().flat_map(|c| if "\"\\$`}".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

fn steps(journal: &[Step]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut processes: Vec<&str> = Vec::new();
    for (index, step) in journal.iter().enumerate() {
        let note = step.shell.starts_with("# ") && step.outcome.is_empty();
        if note {
            lines.extend(step.shell.lines().map(|text| format!("# {}", text.trim_start_matches("# "))));
            continue;
        }
        let outcome = step.outcome.replace('\n', " ");
        lines.push(format!("# step {}: {outcome}", index + 1));
        if let Some(process) = step.outcome.strip_prefix(STARTED) {
            processes.push(process);
            lines.push(format!("{} process{}=$!", step.shell, processes.len()));
            continue;
        }
        let first = lines.len();
        if step.together {
            lines.push(format!("{{ {}; }} &", step.shell));
            if journal.get(index + 1).is_none_or(|next| !next.together) {
                lines.push("wait".to_owned());
            }
        } else if is_execution(&step.shell) {
            lines.push(format!("{}; echo \" [status $?]\"", step.shell));
        } else {
            lines.push(in_own_shell(&step.shell));
        }
        for line in &mut lines[first..] {
            *line = with_processes(line, &processes);
        }
    }
    lines
}

/// A process that was started has another number in the replay: where one is named, the variable that holds the number there.
fn with_processes(line: &str, processes: &[&str]) -> String {
    let (mut out, mut quoted) = (String::new(), false);
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let named = ["/proc/", "/task/", "kill "].iter().any(|before| out.ends_with(before));
        let number = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        let known = processes.iter().position(|process| named && *process == number);
        if let Some(index) = known {
            let variable = format!("$process{}", index + 1);
            out += &if quoted { ["'\"", &variable, "\"'"].concat() } else { variable };
            rest = &rest[number.len()..];
            continue;
        }
        quoted ^= next == '\'' && !out.ends_with('\\');
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    out
}

/// Executions of a plugin, as [`crate::lab::Call::shell`] writes them.
fn is_execution(shell: &str) -> bool {
    shell.contains("env -i ")
}

/// A line in a shell of its own, if it could leave something behind (a directory, a variable, its end) that must not reach the next.
fn in_own_shell(shell: &str) -> String {
    let leaves = ["exit", "cd ", "set ", "exec ", "trap", "=", "\n", "'REPLAY'"];
    if leaves.iter().any(|word| shell.contains(word)) {
        format!("sh -c {}", quote(shell))
    } else {
        shell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::with_processes;

    #[test]
    fn a_process_has_the_number_that_it_has_in_the_replay() {
        for (line, expected) in [
            ("ls /proc/15/ns /proc/150 15 /proc/16", "ls /proc/$process1/ns /proc/150 15 /proc/$process2"),
            (
                "printf %s '{\"n\":\"/proc/15/task/15/ns\"}'",
                "printf %s '{\"n\":\"/proc/'\"$process1\"'/task/'\"$process1\"'/ns\"}'",
            ),
            (r"echo 'it'\''s /proc/15'; kill 15", r#"echo 'it'\''s /proc/'"$process1"''; kill $process1"#),
        ] {
            assert_eq!(with_processes(line, &["15", "16"]), expected);
        }
    }
}
