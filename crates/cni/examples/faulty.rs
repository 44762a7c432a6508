//! A plugin that misbehaves on demand, for the tests of what the library makes of it. `log` names a file that gets a line per call,
//! `fault` says what goes wrong.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use cni::{AddResult, Attachment, Cidr, Code, Failure, Ip, Plugin, Request, Target, ValidAttachments};

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Config {
    log: PathBuf,
    fault: String,
}

struct Faulty;

fn note(request: &Request, verb: &str) -> Result<String, Failure> {
    let config: Config = request.config().decode()?;
    let opened = OpenOptions::new().create(true).append(true).open(&config.log);
    opened
        .and_then(|mut file| writeln!(file, "{verb}"))
        .map_err(|error| Failure::from_error(Code::Io, &error))?;
    assert!(config.fault != format!("panic in {verb}"), "asked to");
    Ok(config.fault)
}

impl Plugin for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn add(&self, request: &Request, _: &Target) -> Result<AddResult, Failure> {
        match note(request, "add")?.as_str() {
            "no address" => Ok(AddResult::default()),
            "error" => Err(Failure::new(Code::Conflict, "two\nlines\tof\u{1b}[31m text")),
            "large" => {
                let ip = Ip::new(Cidr::host([10, 0, 0, 1].into()));
                Ok(AddResult { ips: vec![ip; 20_000], ..AddResult::default() })
            }
            _ => {
                Ok(AddResult { ips: vec![Ip::new(Cidr::host([10, 0, 0, 1].into()))], ..AddResult::default() })
            }
        }
    }

    fn del(&self, request: &Request, _: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        let place = if netns.is_some() { "inside" } else { "outside" };
        request.note(format!("released what was {place}"));
        note(request, &format!("del {place}")).map(|_| ())
    }

    fn check(&self, request: &Request, _: &Target) -> Result<(), Failure> {
        note(request, "check").map(|_| ())
    }

    fn gc(&self, request: &Request, _: &ValidAttachments) -> Result<(), Failure> {
        note(request, "gc").map(|_| ())
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        note(request, "status").map(|_| ())
    }
}

cni::main!(Faulty);
