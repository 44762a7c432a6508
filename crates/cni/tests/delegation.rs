//! Delegates that behave, and all the ways of not behaving. Each is a small shell script.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a panic is how a test says what went wrong")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use cni::{AddResult, Code, Config, Environment, Failure, Request, SpecVersion, Verb};
use common::Scratch;
use serde_json::{Value, json};

/// A result that a script prints.
const RESULT: &str = r#"echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}'"#;

/// Prints the result on ADD, nothing otherwise.
const GOOD: &str =
    r#"[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}'"#;

fn request_with(scratch: &Scratch, configuration: &Value, changes: &[(&str, &str)]) -> Request {
    let config = Config::read(configuration.to_string().into_bytes(), SpecVersion::ALL).unwrap();
    let path = std::env::var("PATH").unwrap();
    let directory = scratch.path().to_str().unwrap();
    let base = [
        ("PATH", path.as_str()),
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/blue"),
        ("CNI_ARGS", "IgnoreUnknown=1;A=b"),
        ("CNI_PATH", directory),
    ];
    Request::new(config, Environment::from_pairs(base.iter().chain(changes).copied()))
}

fn request(scratch: &Scratch, changes: &[(&str, &str)]) -> Request {
    request_with(scratch, &json!({ "cniVersion": "1.1.0", "name": "n", "type": "main" }), changes)
}

fn add(scratch: &Scratch) -> Result<AddResult, Failure> {
    add_with(scratch, &[])
}

fn add_with(scratch: &Scratch, changes: &[(&str, &str)]) -> Result<AddResult, Failure> {
    request(scratch, changes).delegate("ipam")?.add()
}

/// The failure of an ADD, with code 105 and the delegate's name in its message.
fn add_fails(scratch: &Scratch, what: &str) -> Failure {
    let failure = add(scratch).unwrap_err();
    assert_eq!(failure.code(), Code::Delegate, "{failure}");
    assert!(failure.message().contains("\"ipam\"") && failure.message().contains(what), "{failure}");
    failure
}

#[test]
fn a_delegate_gets_configuration_and_environment_unchanged() {
    let scratch = Scratch::new();
    scratch.script("ipam", &format!("cat >\"$DIR/stdin\"; env >\"$DIR/env\"; {RESULT}"));
    let changes = [("TRACEPARENT", "00-1-2-01"), ("CNI_NETNS_OVERRIDE", "1")];
    let configuration =
        json!({ "cniVersion": "1.1.0", "name": "n", "ipam": { "type": "ipam" }, "x": [1, null] });
    let request = request_with(&scratch, &configuration, &changes);
    let result = request.delegate("ipam").unwrap().add().unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.1.2.3/24");
    assert_eq!(scratch.read("stdin"), configuration.to_string(), "the whole of it, to the byte");
    let environment = scratch.read("env");
    for line in [
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=c1",
        "CNI_IFNAME=eth0",
        "CNI_NETNS=/run/netns/blue",
        "CNI_ARGS=IgnoreUnknown=1;A=b",
        "CNI_NETNS_OVERRIDE=1",
        "TRACEPARENT=00-1-2-01",
    ] {
        assert!(environment.lines().any(|have| have == line), "{line} in {environment}");
    }
}

#[test]
fn each_verb_reaches_the_delegate() {
    let scratch = Scratch::new();
    scratch.script("ipam", GOOD);
    let request = request(&scratch, &[]);
    let delegate = request.delegate("ipam").unwrap();
    assert_eq!(delegate.kind(), "ipam");
    for verb in [Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
        delegate.call(verb).unwrap();
    }
    delegate.add().unwrap();
    assert_eq!(scratch.calls(), ["DEL", "CHECK", "GC", "STATUS", "ADD"], "and a DEL only after a failed ADD");
}

#[test]
fn the_first_directory_that_has_it_wins() {
    let (empty, first, second) = (Scratch::new(), Scratch::new(), Scratch::new());
    // A directory of that name is none.
    fs::create_dir(empty.path().join("ipam")).unwrap();
    first.script("real", GOOD);
    std::os::unix::fs::symlink(first.path().join("real"), first.path().join("ipam")).unwrap();
    second.script("ipam", GOOD);
    let path = [empty.path(), first.path(), second.path()].map(|path| path.to_str().unwrap()).join(":");
    add_with(&empty, &[("CNI_PATH", &path)]).unwrap();
    assert_eq!((first.calls().len(), second.calls().len()), (1, 0));
}

#[test]
fn a_type_with_a_path_in_it_is_never_executed() {
    let scratch = Scratch::new();
    scratch.script("evil", GOOD);
    fs::create_dir(scratch.path().join("sub")).unwrap();
    let absolute = scratch.path().join("evil").display().to_string();
    let long = "/".repeat(1 << 20);
    for kind in
        ["../evil", "./evil", "sub/../evil", "/bin/sh", "..\\evil", ".", "..", "", "a\0b", &absolute, &long]
    {
        let request = request(&scratch, &[("CNI_PATH", &format!("{0}:{0}/sub", scratch.path().display()))]);
        let failure = request.delegate(kind).unwrap_err();
        assert_eq!(failure.code(), Code::InvalidConfig, "{kind:?}");
        assert!(failure.message().len() < 400);
    }
    assert!(scratch.calls().is_empty());
}

#[test]
fn a_delegate_that_is_not_there() {
    let scratch = Scratch::new();
    let failure = add(&scratch).unwrap_err();
    assert_eq!(failure.code(), Code::Delegate);
    assert_eq!(failure.message(), "plugin \"ipam\" was not found in CNI_PATH");
    assert!(failure.details().contains(scratch.path().to_str().unwrap()), "{}", failure.details());
    let failure = add_with(&scratch, &[("CNI_PATH", "")]).unwrap_err();
    assert_eq!(failure.code(), Code::InvalidEnvironment);
    assert!(failure.message().contains("CNI_PATH"));
}

#[test]
fn a_delegate_that_is_not_executable() {
    let scratch = Scratch::new();
    let path = scratch.script("ipam", GOOD);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let failure = add_fails(&scratch, "can't be run");
    assert!(failure.details().contains("Permission denied"), "{}", failure.details());
    fs::write(&path, [0x7f, b'E', b'L', b'F', 0, 0, 0, 0]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let failure = add_fails(&scratch, "can't be run");
    assert!(failure.details().contains("architecture"), "{}", failure.details());
}

#[test]
fn a_delegate_that_is_being_installed_is_waited_for() {
    let scratch = Scratch::new();
    // Scripts are never busy, so this takes a program: a copy of one that prints what it is given.
    let path = scratch.path().join("ipam");
    fs::copy("/bin/cat", &path).unwrap();
    let writing = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let request = request_with(
        &scratch,
        &json!({ "cniVersion": "1.1.0", "name": "n", "ips": [{ "address": "10.1.2.3/24" }] }),
        &[],
    );
    let delegate = request.delegate("ipam").unwrap();
    let failure = delegate.add().unwrap_err();
    assert!(failure.details().contains("Text file busy"), "{}", failure.details());
    let installer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(writing);
    });
    // `cat` answers with the configuration, which happens to be a result.
    assert_eq!(delegate.add().unwrap().ips.len(), 1);
    installer.join().unwrap();
}

#[test]
fn its_error_is_passed_through_after_its_del() {
    let scratch = Scratch::new();
    scratch.script(
        "ipam",
        r#"[ "$CNI_COMMAND" != DEL ] || exit 0
echo '{"cniVersion":"1.1.0","code":123,"msg":"no address left","details":"range 10.1.0.0/30"}'; exit 1"#,
    );
    let failure = add(&scratch).unwrap_err();
    assert_eq!((failure.code().number(), failure.message()), (123, "no address left"));
    assert_eq!(failure.details(), "range 10.1.0.0/30\nreported by plugin \"ipam\" (ADD)");
    assert_eq!(scratch.calls(), ["ADD", "DEL"]);
    for verb in [Verb::Check, Verb::Status, Verb::Gc] {
        let request = request(&scratch, &[]);
        let failure = request.delegate("ipam").unwrap().call(verb).unwrap_err();
        assert_eq!((failure.code().number(), failure.message()), (123, "no address left"));
    }
    assert_eq!(scratch.calls().len(), 5, "no DEL after a verb that makes nothing");
}

#[test]
fn the_first_error_is_returned_when_its_del_fails_too() {
    let scratch = Scratch::new();
    scratch.script("ipam", r#"echo "{\"code\":11,\"msg\":\"$CNI_COMMAND is busy\"}"; exit 1"#);
    let failure = add(&scratch).unwrap_err();
    assert_eq!((failure.code(), failure.message()), (Code::TryAgainLater, "ADD is busy"));
    assert!(failure.details().contains("its DEL failed: DEL is busy"), "{}", failure.details());
}

#[test]
fn an_error_is_an_error_whatever_form_it_has() {
    let table = [
        // (what the delegate does, code, part of the message)
        (r#"echo '{"code":7,"msg":"bad"}'"#, 7, "bad"),
        (r#"echo '{"code":0,"msg":"unknown"}'; exit 1"#, 105, "unknown"),
        (r#"echo '{"Code":50,"Msg":"bad case"}'; exit 1"#, 50, "bad case"),
        (r#"echo '{"code":"x","msg":"no number"}'; exit 1"#, 105, "no number"),
        (r#"echo '{"code":-1,"msg":"negative"}'; exit 1"#, 105, "negative"),
        (r#"echo '{"code":99,"msg":""}'; exit 1"#, 99, "failed without a message"),
        // The Go library prints a result and then an error where the namespace turns out to be the host's.
        (
            r#"echo '{"ips":[{"address":"10.1.2.3/24"}]} {"code":8,"msg":"same netns"}'; exit 1"#,
            8,
            "same netns",
        ),
        (r#"echo '{"msg":"no code"}'; exit 1"#, 105, "failed without an error document"),
        ("exit 3", 105, "failed without an error document, exit status: 3"),
        ("echo oops; exit 1", 105, "failed without an error document"),
        ("kill -SEGV $$", 105, "signal: 11"),
        ("kill -KILL $$", 105, "signal: 9"),
    ];
    for (body, code, message) in table {
        let scratch = Scratch::new();
        scratch.script("ipam", &format!("[ \"$CNI_COMMAND\" != DEL ] || exit 0\n{body}"));
        let failure = add(&scratch).unwrap_err();
        assert_eq!(failure.code().number(), code, "{body}: {failure}");
        assert!(failure.message().contains(message), "{body}: {failure}");
        assert_eq!(scratch.calls(), ["ADD", "DEL"], "{body}");
    }
}

#[test]
fn an_add_has_to_answer_with_a_result() {
    for (body, said) in [
        ("", "did not answer with a JSON document"),
        ("echo '{'", "did not answer with a JSON document"),
        ("echo 'starting'; echo '{}'", "did not answer with a JSON document"),
        ("echo '{} {}'", "did not answer with a JSON document"),
        ("head -c 3000 /dev/urandom", "did not answer with a JSON document"),
        ("echo '[]'", "a result that can't be read"),
        (r#"echo '{"ips":[{"address":"10.1.2.3"}]}'"#, "a result that can't be read"),
        (r#"echo '{"cniVersion":"3.0.0"}'"#, "a result that can't be read"),
    ] {
        let scratch = Scratch::new();
        scratch.script("ipam", body);
        let failure = add_fails(&scratch, said);
        let document = failure.document(SpecVersion::NEWEST).to_string();
        assert!(document.len() < 4000, "{body}: an excerpt, not everything: {document}");
        assert_eq!(scratch.calls(), ["ADD", "DEL"], "{body}");
    }
    let scratch = Scratch::new();
    scratch.script("ipam", r#"echo '{"ips":[{"address":"10.1.2.3"}]}'"#);
    assert!(
        add(&scratch).unwrap_err().details().contains("ips[0].address: `10.1.2.3` is not in CIDR notation")
    );
}

#[test]
fn what_other_verbs_print_does_not_matter() {
    let scratch = Scratch::new();
    scratch.script("ipam", "echo done");
    let request = request(&scratch, &[]);
    request.delegate("ipam").unwrap().call(Verb::Del).unwrap();
}

#[test]
fn a_result_of_any_version_is_understood() {
    for (version, printed) in [
        ("1.1.0", r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24"}}"#),
        ("1.1.0", r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.2.3/24"}]}"#),
        ("0.4.0", r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}"#),
        ("1.0.0", r#"{"ips":[{"address":"10.1.2.3/24"}]}"#),
        ("0.4.0", r#"{"cniVersion":"","ips":[{"version":"4","address":"10.1.2.3/24"}]}"#),
        ("0.2.0", r#"{"ip4":{"ip":"10.1.2.3/24"}}"#),
    ] {
        let scratch = Scratch::new();
        scratch.script("ipam", &format!("echo '{printed}'"));
        let request = request_with(&scratch, &json!({ "cniVersion": version, "name": "n" }), &[]);
        let result = request.delegate("ipam").unwrap().add().unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.1.2.3/24", "{version}: {printed}");
    }
}

#[test]
fn a_delegate_that_hangs_is_ended() {
    let scratch = Scratch::new();
    scratch.script("ipam", "[ \"$CNI_COMMAND\" != DEL ] || exit 0\necho waiting for a lease >&2\necho $$ >\"$DIR/pid\"\nexec sleep 600");
    let failure = add_with(&scratch, &[("CNI_DELEGATE_TIMEOUT", "0.3")]).unwrap_err();
    assert_eq!(failure.code(), Code::TryAgainLater);
    assert!(failure.message().contains("did not answer in time"), "{failure}");
    assert!(
        failure.details().contains("waiting for a lease")
            && failure.details().contains("CNI_DELEGATE_TIMEOUT")
    );
    assert!(!is_running(scratch.read("pid").trim()), "and does not run any more");
    assert_eq!(scratch.calls(), ["ADD", "DEL"]);
}

#[test]
fn delegates_share_the_time_of_a_call_and_cleaning_up_has_some_left() {
    let scratch = Scratch::new();
    scratch.script("ipam", "[ \"$CNI_COMMAND\" != DEL ] || exec sleep 0.1\nexec sleep 600");
    let request = request(&scratch, &[("CNI_DELEGATE_TIMEOUT", "2")]);
    let delegate = request.delegate("ipam").unwrap();
    assert_eq!(delegate.add().unwrap_err().code(), Code::TryAgainLater);
    delegate.call(Verb::Del).unwrap();
    assert_eq!(scratch.calls(), ["ADD", "DEL", "DEL"], "both had the time they took");
}

#[test]
fn a_delegate_that_closes_its_output_and_hangs_is_ended() {
    let scratch = Scratch::new();
    scratch.script("ipam", &format!("{RESULT}\necho $$ >\"$DIR/pid\"\nexec sleep 600 >&- 2>&-"));
    let failure = add_with(&scratch, &[("CNI_DELEGATE_TIMEOUT", "0.3")]).unwrap_err();
    assert_eq!(failure.code(), Code::TryAgainLater);
    assert!(!is_running(scratch.read("pid").trim()));
}

#[test]
fn a_child_of_the_delegate_may_keep_the_pipe() {
    let scratch = Scratch::new();
    scratch.script("ipam", &format!("sleep 600 & echo $! >\"$DIR/pid\"\n{RESULT}"));
    // Waiting for the pipe would take until then.
    let result = add_with(&scratch, &[("CNI_DELEGATE_TIMEOUT", "100000")]);
    end(scratch.read("pid").trim());
    assert_eq!(result.unwrap().ips.len(), 1, "the answer counts, the daemon it started does not");
}

#[test]
fn a_child_of_a_hanging_delegate_may_keep_the_pipe() {
    let scratch = Scratch::new();
    scratch.script("ipam", "sleep 600 & echo $! >\"$DIR/pid\"; wait");
    let failure = add_with(&scratch, &[("CNI_DELEGATE_TIMEOUT", "0.3")]).unwrap_err();
    for pid in scratch.read("pid").lines() {
        end(pid);
    }
    assert_eq!(failure.code(), Code::TryAgainLater);
}

#[test]
fn output_is_bounded() {
    let scratch = Scratch::new();
    scratch.script("ipam", "[ \"$CNI_COMMAND\" != DEL ] || exit 0\nyes");
    let failure = add_fails(&scratch, "printed more than 4 MiB");
    assert!(failure.details().len() < 2000);
    let scratch = Scratch::new();
    let ten = "head -c 10485760 /dev/zero";
    scratch.script("ipam", &format!("{ten} >&2 || exit 9\n{RESULT}"));
    assert_eq!(add(&scratch).unwrap().ips.len(), 1, "chatter on standard error is no failure");
}

#[test]
fn a_configuration_larger_than_a_pipe_neither_hangs_nor_breaks() {
    let large = json!({ "cniVersion": "1.1.0", "name": "n", "pad": "x".repeat(1 << 20) });
    let scratch = Scratch::new();
    scratch.script("ipam", &format!("wc -c >\"$DIR/size\"; {RESULT}"));
    request_with(&scratch, &large, &[]).delegate("ipam").unwrap().add().unwrap();
    assert_eq!(scratch.read("size").trim(), large.to_string().len().to_string());
    // One that answers without reading.
    let scratch = Scratch::new();
    scratch.script("ipam", RESULT);
    request_with(&scratch, &large, &[]).delegate("ipam").unwrap().add().unwrap();
    // One that never reads and answers late.
    let scratch = Scratch::new();
    scratch.script("ipam", &format!("sleep 0.1; {RESULT}"));
    request_with(&scratch, &large, &[]).delegate("ipam").unwrap().add().unwrap();
    // One that never reads and never answers.
    let scratch = Scratch::new();
    scratch.script("ipam", "[ \"$CNI_COMMAND\" != DEL ] || exit 0\nexec sleep 600");
    let request = request_with(&scratch, &large, &[("CNI_DELEGATE_TIMEOUT", "0.3")]);
    let failure = request.delegate("ipam").unwrap().add().unwrap_err();
    assert_eq!(failure.code(), Code::TryAgainLater);
}

#[test]
fn standard_error_is_in_the_details_of_a_failure() {
    let scratch = Scratch::new();
    scratch.script("ipam", "echo 'panic: nil map' >&2; exit 2");
    assert!(add_fails(&scratch, "exit status: 2").details().contains("panic: nil map"));
}

#[test]
fn the_deadline_has_to_be_a_number_of_seconds() {
    let scratch = Scratch::new();
    scratch.script("ipam", GOOD);
    for wrong in ["x", "-1", "0", "nan", "inf", "1e300", "5s"] {
        let failure = add_with(&scratch, &[("CNI_DELEGATE_TIMEOUT", wrong)]).unwrap_err();
        assert_eq!(failure.code(), Code::InvalidEnvironment, "{wrong}");
        assert!(failure.message().contains("CNI_DELEGATE_TIMEOUT"));
    }
    assert!(scratch.calls().is_empty());
    for right in ["5", "2.5", "100000", ""] {
        add_with(&scratch, &[("CNI_DELEGATE_TIMEOUT", right)]).unwrap();
    }
}

#[test]
fn a_started_add_that_nobody_waits_for_is_taken_back() {
    let scratch = Scratch::new();
    scratch.script("ipam", &format!("sleep 0.1; echo end >>\"$DIR/calls\"; {GOOD}"));
    let request = request(&scratch, &[]);
    let delegate = request.delegate("ipam").unwrap();
    drop(delegate.start(Verb::Add).unwrap());
    assert_eq!(scratch.calls(), ["ADD", "end", "DEL", "end"], "its DEL comes after its ADD, not into it");
}

#[test]
fn any_other_started_verb_that_nobody_waits_for_is_ended() {
    let scratch = Scratch::new();
    scratch.script("ipam", "echo $$ >\"$DIR/pid\"; exec sleep 600");
    let request = request(&scratch, &[]);
    let delegate = request.delegate("ipam").unwrap();
    let running = delegate.start(Verb::Status).unwrap();
    testkit::eventually("the delegate has started", || (!scratch.read("pid").is_empty()).then_some(()));
    drop(running);
    assert!(!is_running(scratch.read("pid").trim()));
}

#[test]
fn several_may_run_side_by_side() {
    let scratch = Scratch::new();
    // Each waits for the other: run one after the other, both would time out.
    for (name, other) in [("one", "two"), ("two", "one")] {
        scratch.script(
            name,
            &format!(
                ": >\"$DIR/{name}.up\"; until [ -e \"$DIR/{other}.up\" ]; do sleep 0.01; done; {RESULT}"
            ),
        );
    }
    let request = request(&scratch, &[("CNI_DELEGATE_TIMEOUT", "60")]);
    let (one, two) = (request.delegate("one").unwrap(), request.delegate("two").unwrap());
    let (first, second) = (one.start(Verb::Add).unwrap(), two.start(Verb::Add).unwrap());
    assert!(first.add_result().is_ok() && second.add_result().is_ok());
}

fn is_running(pid: &str) -> bool {
    assert!(!pid.is_empty(), "the delegate wrote its process id");
    std::path::Path::new("/proc").join(pid).exists()
}

fn end(pid: &str) {
    Command::new("kill").args(["-KILL", pid]).status().unwrap();
}
