//! The namespace that a plugin works in is the one that was checked, and the way back leads to where it was.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::thread;

use cni::{AddResult, Attachment, Environment, Failure, Plugin, Request, Target, ValidAttachments};
use ferrule_core::netns::NetnsId;
use ferrule_core::{Error, Host};
use serde_json::json;

/// What the runtime names; a link, so that it can come to lead elsewhere.
const PATH: &str = "/run/link";

fn id_of(path: impl AsRef<Path>) -> NetnsId {
    let metadata = fs::metadata(path).unwrap();
    NetnsId { device: metadata.dev(), inode: metadata.ino() }
}

/// The namespace that a thread is in.
fn here() -> NetnsId {
    id_of("/proc/thread-self/ns/net")
}

/// Does its work between the check and the first change.
struct Meanwhile<F>(F);

impl<F: Fn(&Request, &Attachment)> Plugin for Meanwhile<F> {
    fn name(&self) -> &'static str {
        "meanwhile"
    }

    fn add(&self, request: &Request, target: &Target) -> Result<AddResult, Failure> {
        (self.0)(request, &target.attachment);
        Ok(AddResult::default())
    }

    fn del(&self, request: &Request, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Failure> {
        assert_eq!(netns, Some(Path::new(PATH)));
        (self.0)(request, attachment);
        Ok(())
    }

    fn check(&self, request: &Request, target: &Target) -> Result<(), Failure> {
        (self.0)(request, &target.attachment);
        Ok(())
    }

    fn gc(&self, _: &Request, _: &ValidAttachments) -> Result<(), Failure> {
        Ok(())
    }

    fn status(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }
}

fn meanwhile(verb: &str, work: impl Fn(&Request, &Attachment)) {
    let environment = Environment::from_pairs([
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", PATH),
        ("CNI_PATH", "/nowhere"),
    ]);
    let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "meanwhile" }).to_string();
    let response = cni::respond(&Meanwhile(work), &environment, std::io::Cursor::new(config));
    assert!(response.success, "{verb}: {response:?}");
}

fn lead_to(path: &Path) {
    _ = fs::remove_file(PATH);
    symlink(path, PATH).unwrap();
}

#[test]
fn the_namespace_that_was_checked_is_the_one_worked_in() {
    let host = testkit::Host::new();
    let [blue, red] = ["blue", "red"].map(|name| host.container(name));
    let own = here();
    for verb in ["ADD", "CHECK", "DEL"] {
        lead_to(blue.path());
        meanwhile(verb, |request, attachment| {
            lead_to(red.path());
            let hosts: [Result<Host<'_>, Error>; 2] = [
                Host::new(request, attachment, "meanwhile", Some(Path::new(PATH))),
                Ok(Host::for_removal(request, attachment, "meanwhile", Some(Path::new(PATH)))),
            ];
            for mut host in hosts.map(Result::unwrap) {
                assert_eq!(host.netns_id(), Some(id_of(blue.path())), "{verb}");
                let inside = host.container().unwrap().netns.run(here).unwrap();
                assert_eq!(inside, id_of(blue.path()), "{verb}");
                assert_eq!(here(), own, "{verb}: and back");
            }
            // What was not checked is looked up.
            let other = Host::new(request, attachment, "meanwhile", Some(red.path())).unwrap();
            assert_eq!(other.netns_id(), Some(id_of(red.path())), "{verb}");
        });
        assert_eq!(here(), own, "{verb}");
    }
}

#[test]
fn another_thread_comes_back_to_where_it_was() {
    let host = testkit::Host::new();
    let [blue, red] = ["blue", "red"].map(|name| host.container(name));
    lead_to(blue.path());
    meanwhile("ADD", |request, attachment| {
        red.enter(|| {
            let mut host = Host::new(request, attachment, "meanwhile", Some(Path::new(PATH))).unwrap();
            let netns = &host.container().unwrap().netns;
            assert_eq!(netns.run(here).unwrap(), id_of(blue.path()));
            assert_eq!(here(), id_of(red.path()));
            let third = thread::scope(|scope| scope.spawn(|| netns.run(here)).join()).unwrap();
            assert_eq!(third.unwrap(), id_of(blue.path()));
        });
    });
}

#[test]
fn a_namespace_of_another_kind_is_refused_once_it_is_open() {
    let _host = testkit::Host::new();
    lead_to(Path::new("/proc/self/ns/uts"));
    meanwhile("ADD", |request, attachment| {
        let refused = Host::new(request, attachment, "meanwhile", Some(Path::new(PATH))).unwrap_err();
        let failure = Failure::from(refused);
        assert_eq!(failure.code().number(), 4);
        assert_eq!(failure.message(), "/run/link is not a network namespace but a UTS namespace");
    });
}
