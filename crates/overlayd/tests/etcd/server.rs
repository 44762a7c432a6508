//! etcd servers on hosts of a fabric.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testkit::{FabricHost, eventually};

use crate::lab::Agent;

/// Ends the calling test aloud where there is no etcd.
macro_rules! need_etcd {
    () => {
        if !cfg!(feature = "etcd") {
            testkit::skip!("overlayd is built without etcd, which needs protoc (tools/install-peers)");
        }
        if testkit::have("etcd").is_none() || testkit::have("etcdctl").is_none() {
            testkit::skip!("etcd is not installed (tools/install-peers)");
        }
    };
}
pub(crate) use need_etcd;

/// A member of a cluster.
pub(crate) struct Member<'f> {
    pub(crate) host: &'f FabricHost,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// A cluster of members that run.
pub(crate) struct Etcd<'f> {
    pub(crate) members: Vec<Member<'f>>,
}

impl<'f> Etcd<'f> {
    /// Starts a member on each of these hosts.
    pub(crate) fn start(hosts: &[&'f FabricHost]) -> Self {
        let peers: Vec<String> =
            hosts.iter().map(|host| format!("{}=http://{}:2380", host.name(), host.ipv4())).collect();
        let members = hosts.iter().map(|host| Member::new(host, &peers.join(","))).collect();
        let etcd = Self { members };
        etcd.settled();
        etcd
    }

    /// The members' URLs, as the agent's option.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = self.members.iter().map(|member| member.url(2379)).collect();
        urls.join(",")
    }

    /// Waits until the cluster answers.
    pub(crate) fn settled(&self) {
        let member = self.members.iter().find(|member| member.child.is_some()).unwrap();
        eventually("etcd to answer", || member.try_ctl("get --limit 1 x", 2379).map(|_| ()));
    }

    /// Runs `etcdctl` against the first member that runs.
    #[track_caller]
    pub(crate) fn ctl(&self, words: &str) -> String {
        let member = self.members.iter().find(|member| member.child.is_some()).unwrap();
        member.try_ctl(words, 2379).unwrap_or_else(|| panic!("etcdctl {words} failed"))
    }

    /// Makes many changes (`put KEY VALUE`, `del KEY`), a hundred a transaction.
    pub(crate) fn transact(&self, changes: impl Iterator<Item = String>) {
        let changes: Vec<String> = changes.collect();
        let member = self.members.iter().find(|member| member.child.is_some()).unwrap();
        for part in changes.chunks(100) {
            let mut child = member.host.enter(|| {
                Command::new("etcdctl")
                    .env("ETCDCTL_API", "3")
                    .args(["--endpoints", &member.url(2379), "txn"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            });
            let text = format!("\n{}\n\n\n", part.join("\n"));
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "etcdctl txn");
        }
    }

    /// The keys below a directory of the network.
    pub(crate) fn keys(&self, directory: &str) -> Vec<String> {
        let text = self.ctl(&format!("get --prefix --keys-only /ferrule/blue/{directory}"));
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> usize {
        eventually("a leader", || {
            self.members.iter().position(|member| {
                let text =
                    member.child.as_ref().and_then(|_| member.try_ctl("endpoint status -w json", 2379));
                let status: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
                let status = &status[0]["Status"];
                !status["leader"].is_null() && status["leader"] == status["header"]["member_id"]
            })
        })
    }
}

impl<'f> Member<'f> {
    fn new(host: &'f FabricHost, cluster: &str) -> Self {
        let (name, address) = (host.name(), host.ipv4());
        let arguments = format!(
            "--name {name} --data-dir {} --initial-cluster {cluster} --initial-advertise-peer-urls http://{address}:2380 \
             --listen-peer-urls http://{address}:2380 --heartbeat-interval 50 --election-timeout 500 --logger zap --log-level error --unsafe-no-fsync",
            Self::data(host)
        );
        // The option came with 3.5; older servers are only slower.
        let arguments = arguments.replace(" --unsafe-no-fsync", "");
        let mut member =
            Self { host, arguments: arguments.split_whitespace().map(str::to_owned).collect(), child: None };
        member.run(2379);
        member
    }

    fn data(host: &FabricHost) -> String {
        format!("/run/etcd/{}", host.name())
    }

    fn url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.host.ipv4())
    }

    /// Starts it, answering clients on this port.
    pub(crate) fn run(&mut self, port: u16) {
        assert!(self.child.is_none());
        fs::create_dir_all("/run/etcd").unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(format!("/run/etcd/{}.log", self.host.name()))
            .unwrap();
        let url = self.url(port);
        let child = self.host.enter(|| {
            Command::new("etcd")
                .args(&self.arguments)
                .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap()
        });
        self.child = Some(child);
        if port != 2379 {
            eventually("etcd to answer on another port", || {
                self.try_ctl("get --limit 1 x", port).map(|_| ())
            });
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Forgets everything it knew.
    pub(crate) fn wipe(&self) {
        assert!(self.child.is_none());
        fs::remove_dir_all(Self::data(self.host)).unwrap();
    }

    pub(crate) fn try_ctl(&self, words: &str, port: u16) -> Option<String> {
        let url = self.url(port);
        let words =
            ["ETCDCTL_API=3", "etcdctl", "--dial-timeout=1s", "--command-timeout=2s", "--endpoints", &url]
                .into_iter()
                .chain(words.split_whitespace());
        let ran = self.host.run("env", &words.collect::<Vec<_>>());
        (ran.code == 0).then_some(ran.stdout)
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts an agent that follows this etcd, and takes its blocks from `10.40.0.0/16`.
pub(crate) fn follow<'f>(etcd: &Etcd<'_>, host: &'f FabricHost, options: &str) -> Agent<'f> {
    let name = host.name();
    Agent::start(
        host,
        &format!(
            "--etcd {} --node {name} --cluster-cidr 10.40.0.0/16 --underlay-interface eth0 {options}",
            etcd.urls()
        ),
    )
}

/// Starts one on each of these hosts, and waits until each has the others as its peers.
pub(crate) fn follow_all<'f>(etcd: &Etcd<'_>, hosts: &[&'f FabricHost], options: &str) -> Vec<Agent<'f>> {
    let agents: Vec<_> = hosts.iter().map(|host| follow(etcd, host, options)).collect();
    for agent in &agents {
        agent.settled(hosts.len() - 1);
    }
    agents
}
