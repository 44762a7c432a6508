//! The program as its users meet it: what it prints, what it writes, how it exits.

#![expect(clippy::unwrap_used, reason = "in the functions around the tests, too, nothing else can be done")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use conformance::run::Report;
use conformance::verdict::Verdict;

/// A directory with a plugin that fails ADD-03/second-add, and room for what is written.
struct Place {
    home: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(home.join("bin")).unwrap();
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/plugin");
        fs::copy(plugin, home.join("bin/careless")).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cni-conformance"));
        let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/profile.toml");
        command.arg("--bin").arg(format!("fake={}", self.path("bin"))).arg("--profile").arg(profile);
        command.args(["--plugin", "careless"]).args(arguments).env("COLUMNS", "100");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn report(&self, name: &str) -> Report {
        serde_json::from_slice(&fs::read(self.home.join(name)).unwrap()).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const CASE: &str = "ADD-03/second-add";

#[test]
fn a_failure_is_reported_everywhere_and_its_script_reproduces_it() {
    let place = Place::new("failure");
    let (json, junit, html) = (place.path("out/r.json"), place.path("out/r.xml"), place.path("out/r.html"));
    let scripts = place.path("scripts");
    let output = place
        .run(&["--only", CASE, "--json", &json, "--junit", &junit, "--html", &html, "--replay", &scripts]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let script = format!("{scripts}/fake-careless-ADD-03-second-add.sh");
    for part in ["✗ ADD-03/second-add careless", "expected an error, got status 0", &script, "1 deviations"]
    {
        assert!(shown.contains(part), "no `{part}` in:\n{shown}");
    }
    assert!(shown.lines().all(|line| line.starts_with("    $") || line.chars().count() <= 100), "{shown}");
    let report = place.report("out/r.json");
    let case = &report.suites[0].plugins[0].cases[0];
    assert_eq!((case.verdict, case.name().as_str()), (Verdict::Fail, CASE));
    assert!(fs::read_to_string(&junit).unwrap().contains("failures=\"1\""));
    assert!(fs::read_to_string(&html).unwrap().contains("expected an error, got status 0"));

    let replay = Command::new("sh").arg(&script).output().unwrap();
    let said = text(&replay.stdout);
    assert_eq!(said.matches("\"said\": \"<&>\"} [status 0]").count(), 2, "{said}{}", text(&replay.stderr));
    // Each line is shown, with what came of it then.
    assert!(text(&replay.stderr).contains("# step 3: status 0"), "{}", text(&replay.stderr));

    // The same script, pasted into a terminal by somebody who has the plugin elsewhere, and one that refuses.
    let elsewhere = place.home.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink("/bin/false", elsewhere.join("careless")).unwrap();
    let pasted = fs::read_to_string(&script).unwrap();
    let replay = Command::new("bash").args(["-c", &pasted]).env("CNI_BIN", &elsewhere).output().unwrap();
    assert_eq!(text(&replay.stdout).matches("[status 1]").count(), 2, "{}", text(&replay.stderr));
    assert!(!Path::new("/run/netns/c1").exists(), "the script left its namespaces' files here");
}

#[test]
fn expected_deviations_do_not_fail_and_others_do() {
    let place = Place::new("expect");
    let (file, json) = (place.path("known.toml"), place.path("r.json"));
    let only = ["--only", "ADD-03"];
    assert_eq!(place.run(&[&only[..], &["--write-expect", &file]].concat()).status.code(), Some(1));
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains("item = \"ADD-03/second-add\"\nverdict = \"fail\""), "{written}");

    let output = place.run(&[&only[..], &["--expect", &file, "--json", &json]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("known: not judged yet"), "{}", text(&output.stdout));
    assert!(place.report("r.json").cases().any(|(_, _, case)| case.known.is_some()));

    // What does not occur is named, and fails a strict run; a new one fails any.
    let stale =
        "[[deviation]]\nplugin = \"*\"\nitem = \"ADD-03/existing*\"\nverdict = \"fail\"\nwhy = \"gone\"\n";
    fs::write(&file, format!("{written}\n{stale}")).unwrap();
    let output = place.run(&[&only[..], &["--expect", &file]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("* ADD-03/existing*: fail (gone)"), "{}", text(&output.stdout));
    assert_eq!(place.run(&[&only[..], &["--strict", "--expect", &file]].concat()).status.code(), Some(1));
    fs::write(&file, stale).unwrap();
    assert_eq!(place.run(&[&only[..], &["--expect", &file]].concat()).status.code(), Some(1));
}

#[test]
fn what_cannot_be_done_is_said_in_time() {
    let place = Place::new("wrong");
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let known = place.path("known.toml");
    fs::write(&known, "[[deviation]]\nplugin = \"a\"\nitem = \"b\"\nverdict = \"pass\"\nwhy = \"c\"\n")
        .unwrap();
    let labelled = format!("fake={empty}");
    for (arguments, said) in [
        (vec!["--only", "ADD-99"], "the ids begin with"),
        (vec!["--only", "ADD-03/x"], "it has: existing-interface, second-add"),
        (vec!["--plugin", "nobody"], "no profile has this name; there are bandwidth, bridge, careless"),
        (vec!["--bin", &empty], "none of the plugins looked for is in"),
        (vec!["--bin", &labelled], "there is a suite `fake` already"),
        (vec!["--bin", "/nowhere"], "/nowhere is no directory"),
        (vec!["--expect", &known], "only fail, warn, info and skip can be expected"),
        (vec!["--only", "ADD-03", "--json", "/proc/nowhere/x"], "--json /proc/nowhere/x"),
    ] {
        let output = place.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn an_interrupt_ends_what_was_started_and_keeps_what_is_there() {
    let place = Place::new("interrupt");
    // Among the plugins, which the world shows wherever this repository is; it hides /tmp, for one.
    let (json, hung) = (place.path("r.json"), place.path("bin/hung"));
    assert!(Command::new("mkfifo").arg(&hung).status().unwrap().success());
    // An ADD where there is nothing yet, which is in the second case, holds a pipe open and stays.
    let stays = "ip netns exec c1 ip link show eth0 >&2 || { exec 9>\"${0%/*}/hung\"; echo here >&9; exec sleep 1000; }";
    let plugin = fs::read_to_string(place.path("bin/careless")).unwrap();
    let plugin = plugin.replace("ADD)\n", &format!("ADD)\n{stays}\n"));
    fs::write(place.path("bin/careless"), plugin).unwrap();
    let child = place
        .command(&["--only", "ADD-03", "--jobs", "1", "--json", &json])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = BufReader::new(fs::File::open(&hung).unwrap());
    pipe.read_line(&mut String::new()).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("interrupted, 1 cases were not run"), "{}", text(&output.stdout));
    let report = place.report("r.json");
    assert_eq!((report.not_run, report.cases().count()), (1, 1));
    // Ends only when nobody has the pipe any more: the plugin has gone too.
    pipe.read_to_end(&mut Vec::new()).unwrap();
}

/// Runs the harness where no more user namespaces can be made.
fn without_user_namespaces(place: &Place, wrapper: &str, arguments: &[&str]) -> Output {
    let command = place.command(arguments);
    let script = format!("echo 0 >/proc/sys/user/max_user_namespaces && exec {wrapper} \"$@\"");
    let mut outer = Command::new("unshare");
    outer.args(["-rm", "sh", "-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    outer.output().unwrap()
}

#[test]
fn where_user_namespaces_are_refused_root_does_without_and_others_are_told_how_to_allow_them() {
    let place = Place::new("refused");
    let json = place.path("r.json");
    let output = without_user_namespaces(&place, "", &["--only", "ADD-03", "--json", &json]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("not isolated: user namespaces are refused"));
    let report = place.report("r.json");
    assert_eq!(report.cases().map(|(_, _, case)| case.verdict).max(), Some(Verdict::Fail));
    assert!(report.exposed[0].contains("the plugins run as the host's root"), "{:?}", report.exposed);

    let powerless = "setpriv --bounding-set -all --inh-caps -all";
    let output = without_user_namespaces(&place, powerless, &["--only", "ADD-03"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    for part in ["cannot make a private world", "cannot create user, network and mount namespaces", "sysctl"]
    {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn where_overlays_are_refused_what_matters_most_is_private_all_the_same() {
    let place = Place::new("overlay");
    let json = place.path("r.json");
    let command = place.command(&["--only", "ADD-03", "--json", &json]);
    // The kernel stacks two overlays and no more.
    let script = "mount -t tmpfs tmpfs /mnt && for tree in etc var; do for level in 1 2; do \
        at=/mnt/$tree$level; mkdir -p $at/upper $at/work && \
        mount -t overlay -o lowerdir=/$tree,upperdir=$at/upper,workdir=$at/work,userxattr overlay /$tree || exit 77; \
        done; done; exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["-rm", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    let output = outer.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = place.report("r.json");
    assert_eq!(report.cases().map(|(_, _, case)| case.verdict).max(), Some(Verdict::Fail));
    let exposed = report.exposed.join("\n");
    assert!(exposed.contains("of /var only /var/lib is isolated"), "{exposed}");
    assert!(exposed.contains("cannot mount an overlay on /etc"), "{exposed}");
}
