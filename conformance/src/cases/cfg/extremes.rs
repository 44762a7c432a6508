//! Input that nobody writes by hand: huge, deep, badly encoded, and longer than a pipe holds.

use serde_json::{Value, json};

use crate::cases::protocol::{call, ready, verbs};
use crate::lab::Lab;
use crate::verdict::Outcome;

/// More than a pipe holds (64 KiB), so that a writer notices who does not read.
const LONG: usize = 256 << 10;

/// The document with one more key, as bytes.
fn with_key(whole: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = b"{\"x-test\":".to_vec();
    bytes.extend_from_slice(value);
    bytes.push(b',');
    bytes.extend_from_slice(&whole.as_bytes()[1..]);
    bytes
}

pub(super) fn extremes(lab: &mut Lab) -> Outcome {
    const DEPTH: usize = 10_000;
    let container = ready(lab, "c1")?;
    let whole = lab.call("ADD", &container).read_config().unwrap_or_default().to_string();
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH));
    let many = format!("[{}1]", "1,".repeat(200_000));
    let inputs: [(&str, Vec<u8>); 11] = [
        ("a string of a megabyte", with_key(&whole, long.as_bytes())),
        ("ten thousand lists in one another", with_key(&whole, deep.as_bytes())),
        ("ten thousand objects in one another", with_key(&whole, deep_objects.as_bytes())),
        ("ten thousand lists that are not closed", "[".repeat(DEPTH).into_bytes()),
        ("a list of 200000 numbers", with_key(&whole, many.as_bytes())),
        ("a number of 400 digits", with_key(&whole, "9".repeat(400).as_bytes())),
        ("a number beyond floating point", with_key(&whole, b"1e999")),
        (
            "a number below zero where none can be",
            whole.replacen('{', "{\"mtu\":-9223372036854775809,", 1).into_bytes(),
        ),
        ("bytes that are not UTF-8", with_key(&whole, b"\"\xff\xfe\xc3\x28\"")),
        ("half a surrogate pair", with_key(&whole, b"\"\\ud800\"")),
        ("a byte order mark", [b"\xef\xbb\xbf".as_slice(), whole.as_bytes()].concat()),
    ];
    for (what, bytes) in inputs {
        let call = lab.call("ADD", &container).bytes(bytes);
        let reply = lab.run(&call)?;
        let why = format!("ADD with {what}");
        if reply.ok() {
            if let Err(problem) = reply.document() {
                lab.violated(format!("{why}: {problem}"), Some(&reply));
            }
            lab.run(&call.verb("DEL"))?;
            continue;
        }
        if lab.refused(&reply, None, &why) {
            lab.check(matches!(reply.code(), Some(2 | 6 | 7)), Some(&reply), || {
                format!("{why}: code {} is none of 2, 6, 7", reply.code().unwrap_or_default())
            });
        }
        crate::cases::err::no_trace(lab, &reply, &why);
    }
    Ok(())
}

pub(super) fn long_input(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let mut result = Value::Null;
    for verb in verbs(lab) {
        let call = call(lab, verb, &container, &result)
            .edit(|config| config["org.example.filler"] = json!("x".repeat(LONG)));
        let reply = lab.run(&call)?;
        lab.check(!reply.broken_pipe, Some(&reply), || {
            format!("{verb}: ended before it had read the {} KiB on its standard input", LONG >> 10)
        });
        if verb == "ADD" {
            result = reply.document().unwrap_or_default();
        }
    }
    Ok(())
}

/// Also a call that is refused for its environment should let the runtime finish writing. Nothing says so, so it is only told.
pub(super) fn long_input_refused(lab: &mut Lab) -> Outcome {
    let container = ready(lab, "c1")?;
    let long =
        lab.call("ADD", &container).edit(|config| config["org.example.filler"] = json!("x".repeat(LONG)));
    for (what, call) in [
        ("an unknown verb", long.clone().verb("NOPE")),
        ("a missing variable", long.clone().without("CNI_CONTAINERID")),
        ("an invalid variable", long.env("CNI_IFNAME", "a/b")),
    ] {
        let reply = lab.run(&call)?;
        if reply.broken_pipe {
            lab.inform(format!("with {what} it ends without reading its standard input"), Some(&reply));
        }
    }
    Ok(())
}
