//! System calls of one execution, as strace(1) tells them. Traced runs are slower, so they are never among the timed.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{BenchError, Doing as _, Result};
use crate::exec;
use crate::site::Step;

/// From here on a call is counted as a wait: the kernel let an RCU grace period, or several, go by.
const GRACE_PERIOD_MS: f64 = 3.0;

/// Calls in which the kernel may let a grace period go by. The rest only take long when they wait for another process, or when the
/// machine does something else.
const MAY_WAIT: [&str; 12] = [
    "bind",
    "close",
    "ioctl",
    "mount",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setns",
    "setsockopt",
    "umount2",
    "unshare",
    "write",
];

/// One system call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Call {
    /// The thread that made it.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// Its arguments, shortened.
    pub arguments: String,
    /// How long it took, in milliseconds, as the tracer saw it.
    pub milliseconds: f64,
    /// Whether it sent to a netlink socket.
    pub request: bool,
    /// Whether it started a program.
    pub exec: bool,
}

impl Call {
    /// What it was about, in few words: `sendto(RTM_DELLINK)`, `close(NETLINK:[NETFILTER])`.
    pub fn gist(&self) -> String {
        let of = |mark: &str| {
            let rest = &self.arguments[self.arguments.find(mark)?..];
            Some(rest.split([',', '<', '|', ' ', '>', ')']).next().unwrap_or_default().to_owned())
        };
        let socket = || self.arguments.split(['<', '>']).nth(1).map(ToOwned::to_owned);
        // A socket that has no address yet is one of netlink's to strace, and of no protocol.
        let number = || {
            let known = [("0x10 ", "RTM_NEWLINK"), ("0x11 ", "RTM_DELLINK"), ("0x14 ", "RTM_NEWADDR")];
            let (_, rest) = self.arguments.split_once("nlmsg_type=")?;
            known.iter().find(|(number, _)| rest.starts_with(number)).map(|(_, name)| (*name).to_owned())
        };
        let about =
            of("RTM_").or_else(number).or_else(|| of("IPCTNL_")).or_else(|| of("NFNL_")).or_else(socket);
        // The number of a socket says nothing.
        let about = about.unwrap_or_default();
        let words = about.split(|c: char| c.is_ascii_digit() || ":[]".contains(c));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        format!("{}({})", self.name, words.join(" "))
    }

    /// Whether the kernel made the caller wait in it, most likely for a grace period.
    pub fn waited(&self) -> bool {
        let socket = || ["<NETLINK:", "<AF_", "<socket:"].iter().any(|mark| self.arguments.contains(mark));
        self.milliseconds >= GRACE_PERIOD_MS
            && MAY_WAIT.contains(&self.name.as_str())
            && (self.name != "close" || socket())
    }
}

/// How much of it there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Programs started, the first included.
    pub execs: usize,
    /// System calls.
    pub calls: usize,
    /// Requests sent to netlink, each of which is answered: round trips.
    pub requests: usize,
    /// Calls in which the kernel made it wait.
    pub waits: usize,
    /// How long those took together, in milliseconds.
    pub waited_ms: f64,
}

impl Counts {
    /// Of these calls.
    pub fn of<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Self {
        let mut counts = Self::default();
        for call in calls {
            counts.calls += 1;
            counts.execs += usize::from(call.exec);
            counts.requests += usize::from(call.request);
            if call.waited() {
                counts.waits += 1;
                counts.waited_ms += call.milliseconds;
            }
        }
        counts
    }
}

/// The calls of one program, and of what it started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traced {
    /// The plugin's type, or `floor`.
    pub plugin: String,
    /// In the order they began in.
    pub calls: Vec<Call>,
}

/// Runs a program under strace; returns what it printed, and its calls.
///
/// # Errors
/// If strace is missing, or the program fails.
pub fn run(step: &Step) -> Result<(Vec<u8>, Traced)> {
    let strace = testkit::have("strace").ok_or(BenchError::NoTool { tool: "strace" })?;
    let log = Path::new("/run/trace");
    let words = [
        strace.as_os_str(),
        "-f".as_ref(),
        "-T".as_ref(),
        "-yy".as_ref(),
        "-o".as_ref(),
        log.as_ref(),
        "--".as_ref(),
    ];
    let (_, stdout) = exec::run(&mut step.command_under(&words), &step.stdin, &step.what)?;
    let text = std::fs::read(log).doing("read", log)?;
    Ok((stdout, Traced { plugin: step.plugin.clone(), calls: parse(&String::from_utf8_lossy(&text)) }))
}

/// The calls in a log of `strace -f -T -yy`. One that never returned counts, with no time.
pub fn parse(log: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<u32, usize> = HashMap::new();
    // What strace has no better name for than `socket:[1234]`, with its family.
    let mut sockets: HashMap<String, String> = HashMap::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            if let Some(index) = unfinished.remove(&thread) {
                calls[index].milliseconds = duration(rest);
            }
        } else if let Some((name, arguments)) = rest.split_once('(')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            if rest.ends_with("<unfinished ...>") {
                unfinished.insert(thread, calls.len());
            }
            if name == "socket"
                && let Some((family, made)) = arguments.split_once(", ")
                && let Some(socket) = socket_of(made)
            {
                sockets.insert(socket.to_owned(), family.to_owned());
            }
            let mut shown: String = arguments.chars().take(160).collect();
            if let Some((socket, family)) = socket_of(&shown).and_then(|socket| sockets.get_key_value(socket))
            {
                shown = shown.replacen(socket.as_str(), family, 1);
            }
            calls.push(Call {
                thread,
                name: name.to_owned(),
                arguments: shown,
                milliseconds: duration(rest),
                request: matches!(name, "sendto" | "sendmsg" | "sendmmsg" | "write")
                    && arguments.split([',', ')']).next().is_some_and(|first| first.contains("<NETLINK:")),
                // A search in PATH tries several.
                exec: name == "execve" && !rest.contains(") = -1 "),
            });
        }
    }
    calls
}

/// `socket:[1234]`, if there is one in these words.
fn socket_of(words: &str) -> Option<&str> {
    let start = words.find("<socket:[")? + 1;
    let length = words[start..].find('>')?;
    Some(&words[start..start + length])
}

/// The time at the end of a line, `<0.000029>`, in milliseconds.
fn duration(line: &str) -> f64 {
    let inner = line.trim_end().strip_suffix('>').and_then(|line| line.rsplit_once('<'));
    inner.and_then(|(_, seconds)| seconds.parse::<f64>().ok()).unwrap_or_default() * 1e3
}

#[cfg(test)]
mod tests {
    use super::{Counts, parse};

    const LOG: &str = r#"816   execve("/bin/portmap", ["portmap"], 0x7ff /* 5 vars */) = 0 <0.000210>
816   socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE) = 3<NETLINK:[52720418]> <0.000029>
816   sendto(3<NETLINK:[52720418]>, [{nlmsg_len=52}, "(x) = -1"], 52, 0, NULL, 0) = 52 <0.013500>
816   write(1<pipe:[1]>, "sent to <NETLINK:[52720418]>", 9) = 9 <0.000005>
816   clone3({flags=CLONE_VM|CLONE_VFORK}, 88 <unfinished ...>
817   execve("/usr/local/sbin/iptables", ["iptables"], 0x7ff) = -1 ENOENT (No such file or directory) <0.000010>
817   execve("/usr/sbin/iptables", ["iptables"], 0x7ff <unfinished ...>
816   <... clone3 resumed>)             = 817 <0.001500>
817   <... execve resumed>)             = 0 <0.000300>
816   wait4(817,  <unfinished ...>
817   close(4<NETLINK:[52720420]>)      = 0 <0.012000>
817   exit_group(0)                     = ?
817   +++ exited with 0 +++
816   <... wait4 resumed>[{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 817 <0.020000>
816   --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=817} ---
816   exit_group(0)                     = ?
"#;

    #[test]
    fn calls_programs_and_requests_are_counted() {
        let calls = parse(LOG);
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        let all = "execve socket sendto write clone3 execve execve wait4 close exit_group exit_group";
        assert_eq!(names.join(" "), all);
        let counts = Counts::of(&calls);
        assert_eq!((counts.execs, counts.calls, counts.requests), (2, 11, 1));
    }

    #[test]
    fn waiting_for_the_kernel_is_told_from_waiting_for_a_child() {
        let calls = parse(LOG);
        let waited: Vec<&str> =
            calls.iter().filter(|call| call.waited()).map(|call| call.name.as_str()).collect();
        assert_eq!(waited, ["sendto", "close"]);
        assert!((Counts::of(&calls).waited_ms - 25.5).abs() < 1e-9);
    }

    #[test]
    fn a_call_is_told_in_few_words() {
        let log = "1 sendto(6<NETLINK:[ROUTE:2568]>, [{nlmsg_len=32, nlmsg_type=RTM_DELLINK, nlmsg_flags=0}], 32) = 32 <0.019>\n\
                   1 socket(AF_PACKET, SOCK_DGRAM, htons(0)) = 7<socket:[56772106]> <0.001>\n\
                   1 sendto(3<NETLINK:[5679]>, [{nlmsg_len=48, nlmsg_type=0x11 /* NLMSG_??? */}], 48) = 48 <0.019>\n\
                   1 close(7<socket:[56772106]>) = 0 <0.013>\n1 close(5<NETLINK:[NETFILTER:2560]>) = 0 <0.011>\n";
        let gists: Vec<String> = parse(log).iter().map(super::Call::gist).collect();
        assert_eq!(
            gists,
            [
                "sendto(RTM_DELLINK)",
                "socket(AF_PACKET)",
                "sendto(RTM_DELLINK)",
                "close(AF_PACKET)",
                "close(NETLINK NETFILTER)"
            ]
        );
    }

    #[test]
    fn a_call_that_was_interrupted_in_the_log_has_its_time() {
        let calls = parse(LOG);
        let times: Vec<f64> = calls
            .iter()
            .filter(|call| ["clone3", "wait4"].contains(&call.name.as_str()))
            .map(|call| call.milliseconds)
            .collect();
        assert!((times[0] - 1.5).abs() < 1e-9 && (times[1] - 20.0).abs() < 1e-9, "{times:?}");
    }
}
